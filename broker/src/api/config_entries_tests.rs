use std::sync::Arc;

use super::*;

fn known(file: &str, of_all: &[(&str, &str)], of_this: &[(&str, &str)]) -> Known {
    let set = |pairs: &[(&str, &str)]| -> Overrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let base = Config::assemble(Some(("f".into(), file)), std::iter::empty(), Vec::new()).unwrap();
    let dynamic = Dynamic { of_all: set(of_all), of_this: set(of_this) };
    let config = Arc::new(base.with(&dynamic));
    let effective = Effective { own: Arc::new(base), config, dynamic: Arc::new(dynamic) };
    Known { effective, defaults: Config::default() }
}

fn shown(entries: Vec<Entry>, name: &str) -> String {
    let entry = entries.into_iter().find(|entry| entry.name == name).unwrap();
    let synonyms = entry.synonyms.iter().map(|one| format!(" ({}={} {:?})", one.name, one.value, one.source));
    format!(
        "{} {:?}:{}",
        entry.value.as_deref().unwrap_or("null"),
        entry.source(),
        synonyms.collect::<String>()
    )
}

#[test]
fn a_topics_configuration_has_the_brokers_behind_it() {
    let own: Overrides = [("retention.ms".to_owned(), "7000000".to_owned())].into();
    let none = Overrides::new();
    let all = [("log.retention.ms", "5000000")];
    let table = [
        (known("", &[], &[]), &none, "retention.ms", "604800000 Default:"),
        (known("", &[], &[]), &own, "retention.ms", "7000000 Topic: (retention.ms=7000000 Topic)"),
        (
            known("", &all, &[]),
            &none,
            "retention.ms",
            "5000000 DynamicDefaultBroker: (log.retention.ms=5000000 DynamicDefaultBroker) (log.retention.hours=168 Default)",
        ),
        (
            known("", &all, &[("log.retention.ms", "6000000")]),
            &own,
            "retention.ms",
            "7000000 Topic: (retention.ms=7000000 Topic) (log.retention.ms=6000000 DynamicBroker) (log.retention.ms=5000000 DynamicDefaultBroker) (log.retention.hours=168 Default)",
        ),
        (known("log.retention.hours = 2", &[], &[]), &none, "retention.ms", "7200000 Default:"),
        (
            known("log.retention = \"2h\"", &[], &[]),
            &none,
            "retention.ms",
            "7200000 StaticBroker: (log.retention.ms=7200000 StaticBroker) (log.retention.hours=168 Default)",
        ),
        (
            known("message.max.bytes = 2000", &[], &[]),
            &none,
            "max.message.bytes",
            "2000 StaticBroker: (message.max.bytes=2000 StaticBroker) (message.max.bytes=1048588 Default)",
        ),
        (known("", &[], &[]), &none, "cleanup.policy", "delete Default: (log.cleanup.policy=delete Default)"),
        (known("", &[], &[]), &none, "flush.ms", "9223372036854775807 Default:"),
        (known("", &[], &[]), &none, "segment.ms", "1800000 Default: (log.roll.ms=1800000 Default)"),
        (
            known("", &[], &[]),
            &none,
            "message.timestamp.after.max.ms",
            "3600000 Default: (log.message.timestamp.after.max.ms=3600000 Default)",
        ),
    ];
    for (known, own, name, wanted) in table {
        assert_eq!(shown(known.of_topic(own, 1), name), wanted);
    }
}

#[test]
fn the_minimum_in_sync_that_nobody_has_set_follows_from_the_number_of_replicas() {
    let none = Overrides::new();
    let own: Overrides = [("min.insync.replicas".to_owned(), "1".to_owned())].into();
    let table = [
        (known("", &[], &[]), &none, 1, "1 Default: (min.insync.replicas=1 Default)"),
        (known("", &[], &[]), &none, 3, "2 Default: (min.insync.replicas=2 Default)"),
        (
            known("", &[], &[]),
            &own,
            3,
            "1 Topic: (min.insync.replicas=1 Topic) (min.insync.replicas=1 Default)",
        ),
        (
            known("min.insync.replicas = 3", &[], &[]),
            &none,
            3,
            "3 StaticBroker: (min.insync.replicas=3 StaticBroker) (min.insync.replicas=1 Default)",
        ),
    ];
    for (known, own, replicas, wanted) in table {
        assert_eq!(shown(known.of_topic(own, replicas), "min.insync.replicas"), wanted);
    }
}

#[test]
fn a_brokers_configuration_is_told_in_the_unit_that_it_was_set_in() {
    let known = known("log.retention.hours = 2\nnode_id = 3", &[("log.roll.ms", "5000")], &[]);
    for (name, wanted) in [
        ("log.retention.ms", "null Default:"),
        ("log.retention.minutes", "null Default:"),
        (
            "log.retention.hours",
            "2 StaticBroker: (log.retention.hours=2 StaticBroker) (log.retention.hours=168 Default)",
        ),
        ("log.retention", "2h StaticBroker: (log.retention=2h StaticBroker)"),
        (
            "log.roll.ms",
            "5000 DynamicDefaultBroker: (log.roll.ms=5000 DynamicDefaultBroker) (log.roll.ms=1800000 Default)",
        ),
        ("log.roll.hours", "null Default:"),
        ("log.segment_age", "5s DynamicDefaultBroker: (log.segment_age=5s DynamicDefaultBroker)"),
        ("node.id", "3 StaticBroker: (node.id=3 StaticBroker) (node.id=1 Default)"),
        ("broker.id", "3 StaticBroker: (broker.id=3 StaticBroker) (broker.id=1 Default)"),
        ("num.partitions", "3 Default: (num.partitions=3 Default)"),
        ("advertised.listeners", "null Default:"),
        ("listeners", "PLAINTEXT://127.0.0.1:9092 Default: (listeners=PLAINTEXT://127.0.0.1:9092 Default)"),
    ] {
        assert_eq!(format!("{name} {}", shown(known.of_broker(), name)), format!("{name} {wanted}"));
    }
    let all = known.of_all_brokers();
    assert_eq!(all.len(), 1);
    assert_eq!(
        shown(all, "log.roll.ms"),
        "5000 DynamicDefaultBroker: (log.roll.ms=5000 DynamicDefaultBroker)"
    );
}

#[test]
fn only_what_takes_effect_at_once_is_not_read_only() {
    let entries = known("", &[], &[]).of_broker();
    let read_only = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap().read_only;
    assert!(!read_only("log.retention.ms") && !read_only("message.max.bytes"));
    assert!(read_only("num.partitions") && read_only("max.connections") && read_only("log.retention"));
}
