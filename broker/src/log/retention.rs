//! What may go: by age, by size. Pure.
//!
//! As in Kafka, what goes is a beginning of the log, unit by unit: a segment when all its records are older than
//! `retention.ms`, by their own times, or when the rest is still as large as `retention.bytes`. The active segment is a
//! unit like the others, and so is each chunk of the tail: what was never brought into a segment ages as well. Nothing at
//! or behind the high watermark goes.

use super::Retention;
use crate::ids::Offset;

/// Records that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The offset after its last record.
    pub end: Offset,
    /// What it takes on the disk, or in the tail.
    pub bytes: u64,
    /// Largest timestamp; negative where nobody knows how old the records are.
    pub newest_ms: i64,
}

/// When `newest_ms` has been kept for long enough; `None`: never.
pub fn expires_at(retention: &Retention, newest_ms: i64) -> Option<i64> {
    let kept_ms = i64::try_from(retention.time?.as_millis()).unwrap_or(i64::MAX);
    // Kept for longer than that, not for as long.
    (newest_ms >= 0).then(|| newest_ms.saturating_add(kept_ms).saturating_add(1))
}

/// Where the log has to start, which is `log_start` where nothing may go. `units` are in order, all of them; `total` is
/// what they hold.
pub fn new_start(
    units: impl Iterator<Item = Unit> + Clone,
    total: u64,
    retention: &Retention,
    log_start: Offset,
    high_watermark: Offset,
    now_ms: i64,
) -> Offset {
    let mut start = log_start;
    let mut left = total;
    let mut by_age = true;
    for unit in units {
        if unit.end > high_watermark {
            break;
        }
        by_age &= unit.end <= log_start
            || expires_at(retention, unit.newest_ms).is_some_and(|expires_ms| expires_ms <= now_ms);
        let by_size = retention.bytes.is_some_and(|most| left.saturating_sub(unit.bytes) >= most);
        if !by_age && !by_size {
            break;
        }
        left = left.saturating_sub(unit.bytes);
        start = start.max(unit.end);
    }
    start
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Units of ten records and 100 bytes each, with these largest timestamps; where the log starts then.
    fn start(newest_ms: &[i64], time_ms: Option<u64>, bytes: Option<u64>, high_watermark: i64) -> i64 {
        start_from(0, newest_ms, time_ms, bytes, high_watermark)
    }

    fn start_from(
        log_start: i64,
        newest_ms: &[i64],
        time_ms: Option<u64>,
        bytes: Option<u64>,
        high_watermark: i64,
    ) -> i64 {
        let retention = Retention { time: time_ms.map(Duration::from_millis), bytes, ..Retention::FOREVER };
        let units = newest_ms.iter().zip(1..).map(|(newest_ms, nth)| Unit {
            end: Offset(nth * 10),
            bytes: 100,
            newest_ms: *newest_ms,
        });
        let total = 100 * newest_ms.len() as u64;
        new_start(units, total, &retention, Offset(log_start), Offset(high_watermark), 1_000).0
    }

    #[test]
    fn a_unit_goes_when_all_its_records_are_older_and_those_before_it_have_gone() {
        assert_eq!(start(&[100, 200, 300], None, None, 30), 0);
        assert_eq!(start(&[100, 200, 300], Some(899), None, 30), 10);
        assert_eq!(start(&[100, 200, 300], Some(900), None, 30), 0, "not before it is over");
        assert_eq!(start(&[100, 200, 300], Some(0), None, 30), 30, "a log can be emptied");
        assert_eq!(start(&[900, 200, 300], Some(500), None, 30), 0, "the first one holds the others");
        assert_eq!(start(&[-1, 200, 300], Some(1), None, 30), 0, "of unknown age");
        assert_eq!(start(&[i64::MAX, 200], Some(1), None, 30), 0);
        assert_eq!(start(&[0], Some(u64::MAX), None, 30), 0);
    }

    #[test]
    fn by_size_what_is_left_is_no_less_than_what_is_to_be_kept() {
        let new = [1_000; 5];
        for (bytes, expected) in
            [(500, 0), (450, 0), (401, 0), (400, 10), (399, 10), (301, 10), (300, 20), (1, 40), (0, 50)]
        {
            assert_eq!(start(&new, None, Some(bytes), 50), expected, "{bytes}");
        }
        assert_eq!(start(&[100, 1_000, 1_000], Some(500), Some(250), 30), 10, "whichever is first");
        assert_eq!(start(&[100, 100, 1_000], Some(500), Some(200), 30), 20);
    }

    #[test]
    fn nothing_goes_behind_the_high_watermark_and_the_start_never_falls() {
        assert_eq!(start(&[1, 1, 1], Some(1), Some(0), 29), 20);
        assert_eq!(start(&[1, 1, 1], Some(1), Some(0), 0), 0);
        assert_eq!(start_from(25, &[1, 999, 999], Some(500), None, 30), 25);
        assert_eq!(start_from(20, &[1, 999, 1], Some(500), None, 30), 30, "what is gone holds nothing up");
    }
}
