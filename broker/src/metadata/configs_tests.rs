use super::*;

fn check(name: &str, value: &str) -> Result<(), TopicError> {
    validate(&BTreeMap::from([(name.to_owned(), value.to_owned())]), &Config::default())
}

#[test]
fn legal_values_pass_and_others_say_what_is_wrong() {
    let table = [
        ("retention.ms", "-1", None),
        (
            "retention.ms",
            "-2",
            Some("Invalid value -2 for configuration retention.ms: Value must be at least -1"),
        ),
        ("retention.ms", "soon", Some("Not a number of type LONG")),
        ("retention.bytes", "-5", None),
        ("segment.bytes", "1048576", None),
        ("segment.bytes", "10", Some("Value must be at least 1048576")),
        ("segment.bytes", "99999999999", Some("Not a number of type INT")),
        ("internal.segment.bytes", "100", Some("for Kafka's own tests")),
        ("cleanup.policy", "delete", None),
        ("cleanup.policy", "delete,delete", None),
        ("cleanup.policy", "", None),
        ("cleanup.policy", "compact", None),
        ("cleanup.policy", "compact,delete", None),
        ("cleanup.policy", "keep", Some("String must be one of: compact, delete")),
        ("compression.type", "producer", None),
        ("compression.type", "gzip", None),
        ("compression.type", "rot", Some("String must be one of: uncompressed, zstd")),
        ("compression.gzip.level", "-1", None),
        ("compression.gzip.level", "0", Some("Value must be between 1 and 9 or equal to -1")),
        ("compression.gzip.level", "5", None),
        ("compression.lz4.level", "9", None),
        ("compression.lz4.level", "1", Some("one level")),
        ("compression.zstd.level", "30", Some("Value must be no more than 22")),
        ("message.timestamp.type", "LogAppendTime", None),
        ("message.timestamp.type", "logappendtime", Some("one of: CreateTime, LogAppendTime")),
        ("min.insync.replicas", "0", Some("at least 1")),
        ("min.cleanable.dirty.ratio", "0.25", None),
        ("min.cleanable.dirty.ratio", "1.5", Some("Value must be no more than 1")),
        ("min.cleanable.dirty.ratio", "x", Some("Not a number of type DOUBLE")),
        ("min.cleanable.dirty.ratio", "NaN", Some("no more than 1")),
        ("unclean.leader.election.enable", "FALSE", None),
        ("unclean.leader.election.enable", "true", Some("ask for it with ElectLeaders")),
        ("unclean.leader.election.enable", "maybe", Some("Expected value to be either true or false")),
        ("remote.storage.enable", "true", Some("there is no tiered storage")),
        ("remote.storage.enable", "false", None),
        ("leader.replication.throttled.replicas", "", None),
        ("leader.replication.throttled.replicas", "0:1", Some("not throttled")),
        ("leader.replication.throttled.replicas", "x", Some("neither '*' nor a list")),
        ("max.message.bytes", "1000000", None),
        ("max.message.bytes", "100000000", Some("Value must be no more than 8384512: a batch has to fit")),
        ("max.message.bytes", "-1", Some("at least 0")),
        ("flush.ms", "5", None),
        ("retention.milliseconds", "1", Some("Unknown topic config name: retention.milliseconds")),
    ];
    for (name, value, refusal) in table {
        match (check(name, value), refusal) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) => {
                assert!(error.to_string().contains(part), "{name}={value}: {error}");
            }
            (got, wanted) => panic!("{name}={value}: {got:?}, wanted {wanted:?}"),
        }
    }
}

#[test]
fn a_record_that_has_to_be_compacted_may_be() {
    let mut config = Config::default();
    let check = |own: &[(&str, &str)], config: &Config| {
        let own = own.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        validate(&own, config).map_err(|error| error.to_string())
    };
    let (min, max) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
    let conflict =
        Err("conflict topic config setting min.compaction.lag.ms (6) > max.compaction.lag.ms (5)".to_owned());
    assert_eq!(check(&[(min, "5"), (max, "5")], &config), Ok(()));
    assert_eq!(check(&[(min, "6"), (max, "5")], &config), conflict);
    assert_eq!(check(&[(min, "9223372036854775807")], &config), Ok(()));
    config.cleaner.min_lag = Duration::from_millis(6);
    assert_eq!(check(&[(max, "5")], &config), conflict);
    assert_eq!(check(&[("retention.ms", "5")], &config), Ok(()));
    config.cleaner.max_lag = Some(Duration::from_millis(5));
    assert_eq!(check(&[(min, "6")], &config), conflict);
}

#[test]
fn what_a_topic_keeps_is_compressed_as_it_says_or_as_the_broker_says() {
    let mut config = Config::default();
    let resolve = |own: &[(&str, &str)], config: &Config| {
        let own = own.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        TopicSettings::resolve(&own, config).compression
    };
    let kind = "compression.type";
    assert_eq!(resolve(&[], &config), None);
    assert_eq!(resolve(&[(kind, "uncompressed")], &config), Some(Method::of(0)));
    config.topics.gzip_level = Some(2);
    let gzip = |gzip_level| Some(Method { codec: 1, gzip_level });
    assert_eq!(resolve(&[(kind, "gzip")], &config), gzip(Some(2)));
    assert_eq!(resolve(&[(kind, "gzip"), ("compression.gzip.level", "9")], &config), gzip(Some(9)));
    assert_eq!(resolve(&[(kind, "gzip"), ("compression.gzip.level", "-1")], &config), gzip(None));
    config.topics.compression = crate::config::CompressionType::Zstd;
    assert_eq!(resolve(&[], &config).map(|method| method.codec), Some(4));
    assert_eq!(resolve(&[(kind, "producer")], &config), None);
}

#[test]
fn an_unknown_name_is_told_before_a_wrong_value() {
    let both = [("retention.ms", "x"), ("unknown", "1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let error = validate(&BTreeMap::from(both), &Config::default()).unwrap_err();
    assert_eq!(error.to_string(), "Unknown topic config name: unknown");
}

#[test]
fn a_smaller_journal_allows_only_smaller_batches() {
    let mut config = Config::default();
    config.journal.file_bytes = 2 << 20;
    let largest = setting("max.message.bytes").unwrap();
    assert!(largest.check("1048576", &config).is_ok());
    assert!(largest.check("1048577", &config).unwrap_err().to_string().contains("no more than 1048576"));
}

#[test]
fn each_default_is_itself_a_legal_value() {
    let config = Config::default();
    for setting in TOPIC_SETTINGS {
        if setting.name == "segment.bytes" {
            assert_eq!(setting.default_value(&config), "536870912");
        }
        setting.check(&setting.default_value(&config), &config).unwrap();
    }
    assert!(TOPIC_SETTINGS.windows(2).all(|pair| pair[0].name < pair[1].name));
}

#[test]
fn a_topic_overrides_only_what_it_sets() {
    let config = Config::default();
    let own = BTreeMap::from([
        ("retention.ms".to_owned(), "-1".to_owned()),
        ("segment.bytes".to_owned(), "65536".to_owned()),
        ("message.timestamp.type".to_owned(), "LogAppendTime".to_owned()),
        ("message.timestamp.after.max.ms".to_owned(), i64::MAX.to_string()),
    ]);
    let settings = TopicSettings::resolve(&own, &config);
    assert_eq!(settings.retention, None);
    assert_eq!(settings.segment_bytes, 65_536);
    assert_eq!(settings.timestamps, TimestampType::LogAppendTime);
    assert_eq!(settings.timestamp_after_max, None);
    assert_eq!(settings.segment_age, config.log.segment_age);
    assert_eq!(settings.retention_bytes, None);
    assert_eq!(settings.file_delete_delay, Duration::from_secs(60));
}

#[test]
fn a_compacted_topic_is_cleaned_by_what_it_says_and_deletes_only_where_it_says_so() {
    let config = Config::default();
    let of = |configs: &[(&str, &str)]| {
        let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        TopicSettings::resolve(&configs, &config)
    };
    let compacted = of(&[("cleanup.policy", "compact")]);
    assert_eq!((compacted.deletes, compacted.retention), (false, None));
    let rules = compacted.compaction.unwrap();
    assert_eq!((rules.min_dirty_ppm, rules.max_lag), (500_000, None));
    let both = of(&[
        ("cleanup.policy", "compact,delete"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "1000"),
        ("delete.retention.ms", "0"),
    ]);
    assert_eq!(both.retention, config.log.retention);
    assert_eq!(both.segment_age, Duration::from_secs(1), "what is written on is not cleaned");
    let rules = both.compaction.unwrap();
    assert_eq!((rules.min_dirty_ppm, rules.delete_retention), (10_000, Duration::ZERO));
    assert_eq!(of(&[]).compaction, None);
}

#[test]
fn what_a_topic_does_not_say_the_broker_says() {
    let mut config = Config::default();
    config.log.retention = Some(Duration::from_secs(5));
    config.log.retention_bytes = Some(77);
    config.log.timestamp_type = TimestampType::LogAppendTime;
    config.topics.min_insync_replicas = 2;
    let settings = TopicSettings::resolve(&BTreeMap::new(), &config);
    assert_eq!(settings.retention, Some(Duration::from_secs(5)));
    assert_eq!(settings.retention_bytes, Some(77));
    assert_eq!(settings.timestamps, TimestampType::LogAppendTime);
    assert_eq!(settings.min_insync_replicas, 2);
    let kept = BTreeMap::from([("cleanup.policy".to_owned(), String::new())]);
    let settings = TopicSettings::resolve(&kept, &config);
    assert_eq!(
        (settings.retention, settings.retention_bytes),
        (None, None),
        "without a policy nothing is deleted"
    );
}
