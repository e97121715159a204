use std::time::Duration;

use super::super::Config;
use super::super::values::{bytes, duration};
use super::key::DAY;
use super::*;

#[test]
fn every_default_is_legal_and_reads_back_as_itself() {
    let config = Config::default();
    let mut again = Config::default();
    for key in KEYS {
        let shown = (key.show)(&config);
        assert_eq!(again.set(key.path, &shown), Ok(()), "{}", key.path);
    }
    assert_eq!(again, config);
    assert_eq!(config.check(), Ok(()));
}

#[test]
fn every_profile_is_consistent() {
    for profile in [Profile::LowLatency, Profile::Balanced, Profile::Throughput] {
        let mut config = Config::default();
        config.apply_profile(profile);
        assert_eq!(config.check(), Ok(()), "{profile:?}");
    }
}

#[test]
fn a_bound_of_memory_sets_its_parts_and_they_add_up_to_it() {
    for mib in [64usize, 100, 512, 4096] {
        let mut config = Config::default();
        assert_eq!(config.set("memory.bytes", &format!("{mib} MiB")), Ok(()));
        assert_eq!(config.check(), Ok(()), "{mib} MiB");
        let server = &config.server;
        let waiting = server.waiting_bytes + server.fetch_session_bytes;
        let parts = server.request_bytes_in_flight + waiting + server.answer_bytes + config.opening_bytes();
        assert!(parts + config.tail_bytes_max() <= mib << 20, "{mib} MiB");
        assert!(parts + config.tail_bytes_max() > (mib << 20) - 32, "{mib} MiB");
        let journal = config.journal_settings();
        assert!(journal.unreleased_bytes_max as usize <= config.tail_bytes_max(), "{mib} MiB");
        assert!(journal.file_bytes <= config.tail_bytes_max() / 4, "{mib} MiB");
    }
}

#[test]
fn a_mistyped_key_gets_a_suggestion() {
    let error = Config::default().set("journal.max_batch_byte", "1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown key 'journal.max_batch_byte': did you mean 'journal.max_batch_bytes'?"
    );
}

#[test]
fn a_value_out_of_range_says_what_is_legal() {
    let error = Config::default().set("topics.partitions", "0").unwrap_err();
    assert_eq!(error.to_string(), "topics.partitions = 0: outside 1..=10000 (legal: 1..=10000)");
}

#[test]
fn sizes_and_durations_have_units() {
    assert_eq!(bytes("64 KiB", 0, u64::MAX), Ok(65_536));
    assert!(bytes("64 kb", 0, u64::MAX).is_err());
    assert_eq!(duration("250ms", Duration::ZERO, DAY), Ok(Duration::from_millis(250)));
    assert!(duration("5", Duration::ZERO, DAY).is_err());
}
