use super::super::{Config, ConfigError, KEYS};
use super::*;

#[test]
fn peers_are_named_as_kafka_names_voters() {
    let named = |text| voters(text).map(|peers| peers.iter().map(ToString::to_string).collect::<Vec<_>>());
    let table = [
        ("", Ok(vec![])),
        ("1@a:9093", Ok(vec!["1@a:9093"])),
        ("1@a:9093, 2@[::1]:9093", Ok(vec!["1@a:9093", "2@[::1]:9093"])),
        ("a:9093", Err("'a:9093' is not ID@HOST:PORT")),
        ("1@a:9093,", Err("'' is not ID@HOST:PORT")),
        ("x@a:9093", Err("does not begin with the number of a node")),
        ("-1@a:9093", Err("does not begin with the number of a node")),
        ("1@a", Err("'1@a': not HOST:PORT")),
        ("1@:9093", Err("the host is missing")),
        ("1@a:0", Err("nobody can be reached at port 0")),
        ("1@a:9093,1@b:9093", Err("one node, or one address")),
        ("1@a:9093,2@a:9093", Err("one node, or one address")),
    ];
    for (text, expected) in table {
        match (named(text), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{text}: {why}"),
            (found, expected) => panic!("{text}: {found:?} is not {expected:?}"),
        }
    }
}

fn assembled(text: &str) -> Result<Config, ConfigError> {
    Config::assemble(Some(("chronik.toml".into(), text)), std::iter::empty(), Vec::new())
}

#[test]
fn what_a_node_is_told_of_its_peers_holds_together_or_it_does_not_start() {
    let secret = "cluster.secret = \"correct horse battery\"\n";
    let with_secret = |text: &str| format!("{secret}{text}");
    let three = "1@node1:9093,2@node2:9093,3@node3:9093";
    let table = [
        // Alone.
        ("cluster = \"0.0.0.0:9093\"".to_owned(), None),
        ("cluster = \"node1:9093\"\ncluster.peers = \"1@node1:9093\"".to_owned(), None),
        // On one machine.
        ("cluster.peers = \"1@127.0.0.1:9093,2@127.0.0.1:9193\"".to_owned(), None),
        ("cluster = \"localhost:1\"\ncluster.peers = \"2@localhost:2\"".to_owned(), None),
        // On several.
        (with_secret(&format!("cluster = \"node1:9093\"\ncluster.peers = \"{three}\"")), None),
        (with_secret(&format!("cluster = \"0.0.0.0:9093\"\ncluster.peers = \"{three}\"")), None),
        (
            format!(
                "cluster.secret_file = \"/s\"\ncluster = \"node1:9093\"\ncontroller.quorum.voters = \"{three}\""
            ),
            None,
        ),
        (
            format!("cluster = \"node1:9093\"\ncluster.peers = \"{three}\""),
            Some("without a secret anybody who reaches node1:9093"),
        ),
        (format!("cluster = \"0.0.0.0:9093\"\ncluster.peers = \"{three}\""), Some("without a secret")),
        (
            with_secret(&format!("node_id = 2\ncluster = \"node1:9093\"\ncluster.peers = \"{three}\"")),
            Some("cluster.peers has 2@node2:9093, and this is node 2, which other nodes reach at node1:9093"),
        ),
        (
            with_secret(&format!("cluster = \"0.0.0.0:9094\"\ncluster.peers = \"{three}\"")),
            Some("which other nodes reach at 0.0.0.0:9094"),
        ),
        (
            with_secret("cluster = \"0.0.0.0:9093\"\ncluster.peers = \"2@node2:9093\""),
            Some("set cluster.advertise"),
        ),
        (
            with_secret(
                "cluster = \"0.0.0.0:9093\"\ncluster.advertise = \"node1:9093\"\ncluster.peers = \"2@node2:9093\"",
            ),
            None,
        ),
        (with_secret("cluster.secret_file = \"/s\""), Some("are both set")),
        ("cluster.peers = \"node2:9093\"".to_owned(), Some("is not ID@HOST:PORT, as in 1@node1:9093")),
        (
            "controller.quorum.voters = \"node2:9093\"".to_owned(),
            Some("is not ID@HOST:PORT, as in 1@node1:9093"),
        ),
    ];
    for (text, expected) in table {
        match (assembled(&text), expected) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => {
                let error = error.to_string();
                assert!(error.contains(expected) && !error.contains("horse"), "{text}: {error}");
            }
            (found, _) => panic!("{text}: {found:?}"),
        }
    }
}

#[test]
fn the_others_are_told_the_best_address_there_is() {
    let mut config = Config::default();
    assert_eq!(config.peers.advertised(BrokerId(1), &config.cluster), "127.0.0.1:9093");
    config.set("cluster.peers", "1@node1:9093,2@node2:9093").unwrap();
    assert_eq!(config.peers.advertised(BrokerId(1), "0.0.0.0:9093"), "node1:9093");
    assert_eq!(config.peers.advertised(BrokerId(3), "node3:9093"), "node3:9093");
    config.set("cluster.advertise", "outside:1").unwrap();
    assert_eq!(config.peers.advertised(BrokerId(1), "0.0.0.0:9093"), "outside:1");
    let others: Vec<i32> = config.peers.others(BrokerId(1)).map(|peer| peer.id.0).collect();
    assert_eq!(others, [2]);
}

#[test]
fn a_secret_is_nowhere_shown() {
    let secret = "correct horse battery";
    let config = assembled(&format!("cluster.secret = \"{secret}\"")).unwrap();
    assert_eq!(config.peers.secret.as_ref().map(Secret::as_bytes), Some(secret.as_bytes()));
    assert!(config.effective().contains("cluster.secret = \"(hidden)\""), "{}", config.effective());
    assert!(!format!("{config:?}").contains("horse"));
    for key in KEYS {
        assert!(!(key.show)(&config).contains("horse"), "{}", key.path);
    }
    for (text, expected) in [
        ("cluster.secret = \"horse\"", "cluster.secret = (hidden): shorter than 16 characters"),
        ("cluster.secret = horse battery", "chronik.toml: line 1: "),
    ] {
        let error = assembled(text).unwrap_err();
        assert!(error.to_string().contains(expected) && !error.to_string().contains("horse"), "{error}");
        assert!(!format!("{error:?}").contains("horse"), "{error:?}");
    }
}
