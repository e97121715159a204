use super::*;

fn from_file(text: &str) -> Result<Config, ConfigError> {
    Config::assemble(Some((PathBuf::from("chronik.toml"), text)), std::iter::empty(), Vec::new())
}

#[test]
fn an_unknown_key_names_its_line_and_a_likely_one() {
    let error = from_file("node_id = 3\n[journal]\nmax_batch_byte = 5\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "chronik.toml:3: unknown key 'journal.max_batch_byte': did you mean 'journal.max_batch_bytes'?"
    );
}

#[test]
fn the_profile_gives_way_to_single_keys_wherever_it_stands() {
    let config = from_file("[journal]\nqueue_records = 77\nprofile = \"throughput\"\n").unwrap();
    assert_eq!(config.journal.queue_records, 77);
    assert_eq!(config.journal.max_batch_records, 20_000);
}

#[test]
fn command_line_beats_environment_beats_file() {
    let config = Config::assemble(
        Some((PathBuf::from("f"), "node_id = 1\nlisten = \"a:1\"\nadmin = \"a:1\"")),
        [("CHRONIK_LISTEN".to_string(), "b:2".to_string()), ("CHRONIK_NODE_ID".into(), "2".into())]
            .into_iter(),
        vec![("node_id".into(), "3".into())],
    )
    .unwrap();
    assert_eq!((config.node_id.0, config.listen.as_str(), config.admin.as_str()), (3, "b:2", "a:1"));
}

#[test]
fn what_is_said_again_elsewhere_sets_nothing() {
    let small = "memory.bytes = \"64 MiB\"";
    let over = |file: &str, value: &str| {
        let said = vec![("memory.bytes".to_owned(), value.to_owned())];
        Config::assemble(Some((PathBuf::from("f"), file)), std::iter::empty(), said)
    };
    assert_eq!(over(small, "1 GiB").unwrap(), over("", "1 GiB").unwrap());
    assert!(over("memory.bytes = \"much\"", "1 GiB").is_err(), "still wrong where it is overruled");
}

#[test]
fn an_unknown_variable_is_an_error() {
    let set = [("CHRONIK_LISTN".to_string(), "b:2".to_string())].into_iter();
    let error = Config::assemble(None, set, Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment CHRONIK_LISTN: unknown key 'CHRONIK_LISTN': did you mean 'CHRONIK_LISTEN'?"
    );
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    let error = from_file("journal.file_bytes = \"1 MiB\"").unwrap_err();
    assert!(error.to_string().starts_with("journal.file_bytes (1048576) must be at least twice"), "{error}");
    let small = "journal.file_bytes = \"1 MiB\"\njournal.max_batch_bytes = \"256 KiB\"\n";
    let error = from_file(small).unwrap_err().to_string();
    assert!(error.contains("twice topics.max_batch_bytes (1048588): a batch has to fit"), "{error}");
    assert!(from_file(&format!("{small}topics.max_batch_bytes = \"512 KiB\"\n")).is_ok());
}

#[test]
fn no_address_has_all_connections_unless_it_is_said() {
    let of = |text: &str| from_file(text).unwrap().server.connections_per_address;
    assert_eq!(of("server.connections = 40\n"), 30);
    let said = "server.connections_per_address = 40\nserver.connections = 40\n";
    assert_eq!(of(said), 40, "wherever it stands");
}

#[test]
fn connections_and_segments_leave_descriptors_to_the_others() {
    let after = |limit: u64| {
        let mut config = Config::default();
        config.share_descriptors(limit);
        (config.server.connections, config.server.connections_per_address, config.log.open_files)
    };
    assert_eq!(after(u64::MAX), (10_000, 7_500, 1_024), "what is set is enough");
    assert_eq!(after(1_024), (512, 384, 256));
    assert_eq!(after(2), (1, 1, 1));
}

#[test]
fn kafkas_names_stand_in_the_file_beside_ours() {
    let config = from_file(
        "num.partitions = 7\nmax.connections = 50\nmax.connections.per.ip = 20\nlog.segment_bytes = \"1 MiB\"\n\
         [log]\nretention.ms = 1000\nretention.bytes = 5\ndirs = \"/data\"\n[message.max]\nbytes = 2000\n",
    )
    .unwrap();
    assert_eq!((config.topics.partitions, config.topics.max_batch_bytes), (7, 2_000));
    assert_eq!((config.server.connections, config.server.connections_per_address), (50, 20));
    assert_eq!((config.log.segment_bytes, config.log.retention_bytes), (1 << 20, Some(5)));
    assert_eq!(config.log.retention, Some(std::time::Duration::from_secs(1)));
    assert_eq!(config.data_dir, PathBuf::from("/data"));
    let stated: Vec<_> = config.stated.into_iter().filter(|(key, _)| key.starts_with("log.")).collect();
    let wanted = [
        ("log.retention", "log.retention.ms"),
        ("log.retention_bytes", "log.retention.bytes"),
        ("log.segment_bytes", "log.segment_bytes"),
    ];
    assert_eq!(stated, wanted);
}

#[test]
fn two_names_of_one_key_agree_or_both_places_are_named() {
    assert!(from_file("log.retention.hours = 2\nlog.retention.ms = 7200000\n").is_ok());
    let error = from_file("topics.partitions = 3\n\nnum.partitions = 4\n").unwrap_err().to_string();
    // The table gives its keys in an order of its own.
    assert!(error.contains("chronik.toml:1: topics.partitions = 3"), "{error}");
    assert!(error.contains("chronik.toml:3: num.partitions = 4"), "{error}");
    assert!(error.ends_with("two names of one key, and different values"), "{error}");
    let of_a_variable = [("CHRONIK_NUM_PARTITIONS".to_string(), "9".to_string())];
    let file = Some((PathBuf::from("f"), "topics.partitions = 3"));
    let config = Config::assemble(file, of_a_variable.into_iter(), Vec::new()).unwrap();
    assert_eq!(config.topics.partitions, 9, "a later source is over an earlier one, whatever the name");
}

#[test]
fn a_name_of_kafkas_that_means_nothing_here_says_why_wherever_it_stands() {
    let error = from_file("\nssl.keystore.location = \"/k\"\n").unwrap_err().to_string();
    let wanted =
        "ssl.keystore.location cannot be set: connections are neither encrypted nor authenticated yet";
    assert_eq!(error, format!("chronik.toml:2: {wanted}"));
    let set = [("CHRONIK_SSL_KEYSTORE_LOCATION".to_string(), "/k".to_string())].into_iter();
    let error = Config::assemble(None, set, Vec::new()).unwrap_err().to_string();
    assert_eq!(error, format!("environment CHRONIK_SSL_KEYSTORE_LOCATION: {wanted}"));
}
