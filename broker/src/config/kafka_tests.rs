use std::collections::{BTreeMap, BTreeSet};

use super::super::keys::environment_of;
use super::*;

#[test]
fn every_name_stands_once_and_in_order() {
    assert!(KAFKA_NAMES.windows(2).all(|pair| pair[0].name < pair[1].name));
    let names: Vec<&str> = all_names().collect();
    assert_eq!(names.len(), 360, "as many as Kafka 4.3 has");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

#[test]
fn every_name_of_a_key_leads_to_one_and_says_its_default_or_stands_beside_one_that_does() {
    let config = Config::default();
    for known in KAFKA_NAMES {
        let Meaning::Key { path, .. } = known.meaning else { continue };
        assert!(known.key().is_some(), "{}: no key {path}", known.name);
        match known.show(&config) {
            Some(value) => {
                let (key, text) = known.read(&value).unwrap().unwrap();
                let mut again = Config::default();
                assert_eq!((key.set)(&mut again, &text), Ok(()), "{} = {value}", known.name);
                assert_eq!((key.show)(&again), (key.show)(&config), "{} = {value}", known.name);
            }
            None => {
                let beside = known.alternatives().iter().filter_map(|name| find(name));
                let said = beside.filter_map(|known| known.show(&config)).count();
                assert!(said > 0 || known.name == "advertised.listeners", "{}", known.name);
            }
        }
    }
}

#[test]
fn values_are_read_in_kafkas_units() {
    let table = [
        ("log.retention.ms", "604800000", Ok("168h")),
        ("log.retention.ms", "-1", Ok("forever")),
        ("log.retention.ms", "0", Err("outside")),
        ("log.retention.minutes", "90", Ok("90m")),
        ("log.retention.hours", "168", Ok("168h")),
        ("log.retention.hours", "9000000000", Err("Not a number of type INT")),
        ("log.retention.bytes", "-1", Ok("unlimited")),
        ("log.retention.bytes", "1 GiB", Err("Not a number of type LONG")),
        ("log.roll.hours", "2", Ok("2h")),
        ("log.message.timestamp.before.max.ms", "9223372036854775807", Ok("unlimited")),
        ("log.message.timestamp.after.max.ms", "3600000", Ok("1h")),
        ("log.message.timestamp.type", "LogAppendTime", Ok("LogAppendTime")),
        ("log.message.timestamp.type", "Whenever", Err("neither CreateTime nor LogAppendTime")),
        ("auto.create.topics.enable", "FALSE", Ok("false")),
        ("auto.create.topics.enable", "no", Err("Expected value to be either true or false")),
        ("listeners", "PLAINTEXT://:9092", Ok("0.0.0.0:9092")),
        ("listeners", "PLAINTEXT://a:1,PLAINTEXT://b:2", Err("there is one listener")),
        ("listeners", "SSL://a:1", Err("SSL is not served, only PLAINTEXT is")),
        ("listeners", "a:1", Err("not PLAINTEXT://HOST:PORT")),
        ("advertised.listeners", "PLAINTEXT://broker.example:9092", Ok("broker.example:9092")),
        ("log.dirs", "/data", Ok("/data")),
        ("log.dirs", "/data,/more", Err("there is one data directory")),
        ("log.cleanup.policy", "delete, compact", Ok("compact,delete")),
        ("log.cleanup.policy", "keep", Err("one of: compact, delete")),
        ("log.cleaner.min.cleanable.ratio", "0.01", Ok("0.01")),
        ("log.cleaner.min.cleanable.ratio", "2", Err("not a number between 0 and 1")),
        ("log.cleaner.max.compaction.lag.ms", "9223372036854775807", Ok("unlimited")),
        ("node.id", "7", Ok("7")),
        ("compression.type", "uncompressed", Ok("uncompressed")),
        (
            "compression.type",
            "zip",
            Err("String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer"),
        ),
        ("compression.gzip.level", "9", Ok("9")),
        ("compression.gzip.level", "-1", Ok("-1")),
        ("compression.gzip.level", "0", Err("between 1 and 9 or equal to -1")),
    ];
    for (name, value, wanted) in table {
        let mut config = Config::default();
        let set = config.set(name, value);
        let shown = (find(name).unwrap().key().unwrap().show)(&config);
        match (set, wanted) {
            (Ok(()), Ok(wanted)) => assert_eq!(shown, wanted, "{name} = {value}"),
            (Err(error), Err(wanted)) => {
                assert!(error.to_string().contains(wanted), "{name} = {value}: {error}")
            }
            (set, wanted) => panic!("{name} = {value}: {set:?}, wanted {wanted:?}"),
        }
    }
}

#[test]
fn what_holds_anyway_may_be_said_and_anything_else_says_why_not() {
    let mut config = Config::default();
    assert_eq!(config.set("compression.zstd.level", "3"), Ok(()));
    assert_eq!(config, Config::default());
    let why = |name: &str, value: &str| Config::default().set(name, value).unwrap_err().to_string();
    assert_eq!(
        why("compression.zstd.level", "19"),
        "compression.zstd.level cannot be set: only 3 is possible: the broker compresses with lz4 and zstd at one level, their fastest"
    );
    assert_eq!(
        why("group.coordinator.rebalance.protocols", "classic"),
        "group.coordinator.rebalance.protocols cannot be set: both protocols are served"
    );
}

#[test]
fn a_mistyped_name_of_kafkas_gets_its_suggestion() {
    for (mistyped, meant) in [
        ("log.retention.mss", "log.retention.ms"),
        ("min.insync.replica", "min.insync.replicas"),
        ("num.partition", "num.partitions"),
        ("auto.create.topic.enable", "auto.create.topics.enable"),
        ("log.dirss", "log.dirs"),
    ] {
        let error = Config::default().set(mistyped, "1").unwrap_err().to_string();
        assert_eq!(error, format!("unknown key '{mistyped}': did you mean '{meant}'?"));
    }
}

#[test]
fn a_variable_stands_for_one_key_only_and_reads_the_same_under_both_names() {
    let mut keys: BTreeMap<String, &str> = BTreeMap::new();
    for key in KEYS {
        assert_eq!(keys.insert(key.environment(), key.path), None, "{}", key.path);
    }
    for name in all_names() {
        let Some(path) = keys.get(&environment_of(name)) else { continue };
        let Some(known) = find(name) else { panic!("{name} is refused, and {path} has its variable") };
        let Meaning::Key { path: of, unit } = known.meaning else { panic!("{name} and {path}") };
        assert_eq!(of, *path);
        assert!(matches!(unit, Unit::Same | Unit::Bytes | Unit::BytesOrUnlimited), "{name}");
    }
}
