//! The limits and profiles fit one another.

#[cfg(test)]
use super::format::{GROUP_HEADER_BYTES, HEADER_BYTES, entry_bytes, padded};
use super::open::Bounds;
use super::recovery::LSN_GAP;
use super::tests::settings;
use super::*;
use crate::config::{Config, Profile};
use crate::limits;

fn relations_hold(settings: &JournalSettings, largest_payload: usize) {
    let bounds = Bounds::of(settings);
    let fits_a_file = |bytes: usize| HEADER_BYTES + padded(GROUP_HEADER_BYTES + bytes) <= settings.file_bytes;
    assert!(bounds.payload_bytes >= largest_payload, "{} are taken", bounds.payload_bytes);
    assert!(fits_a_file(entry_bytes(bounds.payload_bytes)), "the largest entry fits a file");
    assert!(fits_a_file(bounds.group.bytes), "the largest group fits a file");
    assert!(
        entry_bytes(bounds.payload_bytes) <= bounds.submissions.bytes,
        "the largest entry fits the queue"
    );
    let given_out = bounds.submissions.entries + bounds.group.entries;
    assert!(2 * (given_out as u64) < LSN_GAP, "a start skips more LSNs than can be lost without a trace");
}

#[test]
fn every_profile_takes_the_largest_batch_and_its_groups_fit_its_files() {
    for profile in [Profile::LowLatency, Profile::Balanced, Profile::Throughput] {
        let mut config = Config::default();
        config.apply_profile(profile);
        relations_hold(&config.journal_settings(), limits::BATCH_BYTES_MAX + 4096);
        relations_hold(&config.raft_journal_settings(), limits::BATCH_BYTES_MAX + 4096);
    }
}

#[test]
fn unreasonable_settings_are_made_to_fit() {
    for file_bytes in [8192, 12_288, 100_000, 1 << 20] {
        for other in [1, 100, 1 << 30] {
            let settings = JournalSettings {
                file_bytes,
                group_entries: other,
                group_bytes: other,
                queue_entries: other,
                queue_bytes: other.max(100),
                ..settings()
            };
            relations_hold(&settings, 0);
        }
    }
}
