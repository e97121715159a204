//! Which segments are cleaned, and when. Pure.
//!
//! As in Kafka: a log is due when the part of it that was never cleaned is larger than `min.cleanable.dirty.ratio` of all
//! that may be, or when a record has waited for `max.compaction.lag.ms`. Records younger than `min.compaction.lag.ms`, and all
//! behind them, wait. Small segments that follow one another become one.

use std::ops::Range;

use io_backend::File;

use crate::log::Compaction;
use crate::log::segment::Segment;

/// A segment that is not written on any more, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Of its file.
    pub bytes: u64,
    /// Offsets from its base to its end.
    pub span: i64,
    /// It was made by cleaning.
    pub is_clean: bool,
    /// Largest timestamp, or when it was found where there is none.
    pub newest_ms: i64,
    /// Largest timestamp of its first batch; -1 where nobody knows.
    pub first_ms: i64,
}

impl Sealed {
    /// As it is.
    pub fn of(segment: &Segment<impl File>) -> Sealed {
        Sealed {
            bytes: segment.bytes,
            span: segment.end().0 - segment.base.0,
            is_clean: segment.name.cleaned.is_some(),
            newest_ms: segment.newest_ms(),
            first_ms: segment.state.first_timestamp,
        }
    }
}

/// When a log is to be cleaned next, by the clock that records go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once.
    Now,
    /// Not before.
    At(i64),
}

fn ms(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// How many of the segments, from the first on, may be cleaned now.
pub fn cleanable(segments: &[Sealed], rules: &Compaction, now_ms: i64) -> usize {
    let is_young = |segment: &Sealed| segment.newest_ms.saturating_add(ms(rules.min_lag)) > now_ms;
    let young = segments
        .iter()
        .position(|segment| !segment.is_clean && rules.min_lag.as_millis() > 0 && is_young(segment));
    young.unwrap_or(segments.len())
}

/// When; `None`: nothing of it can be cleaned, or not enough, until there is more.
pub fn next(segments: &[Sealed], rules: &Compaction, now_ms: i64) -> Option<Next> {
    let first_dirty = segments.iter().position(|segment| !segment.is_clean)?;
    let may = cleanable(segments, rules, now_ms);
    let bytes = |clean: bool| {
        let of_kind = segments[..may].iter().filter(|segment| segment.is_clean == clean);
        of_kind.map(|segment| u128::from(segment.bytes)).sum::<u128>()
    };
    let (clean, dirty) = (bytes(true), bytes(false));
    let oldest = segments[first_dirty];
    let oldest_ms = if oldest.first_ms >= 0 { oldest.first_ms } else { oldest.newest_ms };
    let lag_ends = rules.max_lag.map(|lag| oldest_ms.saturating_add(ms(lag)).saturating_add(1));
    if first_dirty < may {
        let is_large = dirty * 1_000_000 > u128::from(rules.min_dirty_ppm) * (clean + dirty);
        if is_large || lag_ends.is_some_and(|ends| ends <= now_ms) {
            return Some(Next::Now);
        }
    }
    let of_age = segments.get(may).map(|young| young.newest_ms.saturating_add(ms(rules.min_lag)));
    let lag_ends =
        lag_ends.map(|ends| of_age.filter(|_| first_dirty >= may).map_or(ends, |of_age| ends.max(of_age)));
    of_age.into_iter().chain(lag_ends).min().map(Next::At)
}

/// Those that become one segment each: as many as fit into one, by what they hold now.
pub fn groups(segments: &[Sealed], bytes_max: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut bytes, mut span) = (0, 0i64);
    for (nth, segment) in segments.iter().enumerate() {
        bytes += segment.bytes;
        span = span.saturating_add(segment.span);
        match groups.last_mut() {
            Some(open) if bytes <= bytes_max && span <= i64::from(i32::MAX) => open.end = nth + 1,
            _ => {
                (bytes, span) = (segment.bytes, segment.span);
                groups.push(nth..nth + 1);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RULES: Compaction = Compaction {
        min_dirty_ppm: 500_000,
        min_lag: Duration::ZERO,
        max_lag: None,
        delete_retention: Duration::ZERO,
    };

    fn sealed(bytes: u64, is_clean: bool, first_ms: i64, newest_ms: i64) -> Sealed {
        Sealed { bytes, span: 10, is_clean, newest_ms, first_ms }
    }

    #[test]
    fn a_log_is_due_when_more_of_it_than_the_ratio_was_never_cleaned() {
        let clean = sealed(100, true, 1, 2);
        let dirty = |bytes| sealed(bytes, false, 3, 4);
        assert_eq!(next(&[], &RULES, 10), None);
        assert_eq!(next(&[clean], &RULES, 10), None);
        assert_eq!(next(&[dirty(1)], &RULES, 10), Some(Next::Now));
        assert_eq!(next(&[clean, dirty(100)], &RULES, 10), None, "not more than the ratio");
        assert_eq!(next(&[clean, dirty(60), dirty(41)], &RULES, 10), Some(Next::Now));
        let never = Compaction { min_dirty_ppm: 1_000_000, ..RULES };
        assert_eq!(next(&[dirty(1)], &never, 10), None);
    }

    #[test]
    fn young_records_wait_and_old_ones_do_not_wait_for_more() {
        let lagging = Compaction { min_lag: Duration::from_millis(100), ..RULES };
        let log = [sealed(10, false, 3, 50), sealed(10, false, 51, 80), sealed(10, false, 81, 90)];
        assert_eq!(cleanable(&log, &lagging, 149), 0);
        assert_eq!(next(&log, &lagging, 149), Some(Next::At(150)));
        assert_eq!((cleanable(&log, &lagging, 150), next(&log, &lagging, 150)), (1, Some(Next::Now)));
        assert_eq!(cleanable(&log, &lagging, 190), 3);
        let bounded = Compaction { max_lag: Some(Duration::from_millis(200)), ..RULES };
        let log = [sealed(100, true, 0, 0), sealed(10, false, 3, 50)];
        assert_eq!(next(&log, &bounded, 203), Some(Next::At(204)));
        assert_eq!(next(&log, &bounded, 204), Some(Next::Now));
        let both = Compaction { min_lag: Duration::from_millis(500), ..bounded };
        assert_eq!(next(&log, &both, 204), Some(Next::At(550)), "the smaller bound does not win");
    }

    #[test]
    fn small_segments_become_one() {
        let of = |sizes: &[u64]| {
            let log: Vec<Sealed> = sizes.iter().map(|bytes| sealed(*bytes, true, 0, 0)).collect();
            groups(&log, 100)
        };
        assert!(of(&[]).is_empty());
        assert_eq!(of(&[60, 40, 1, 100, 200, 30, 30]), [0..2, 2..3, 3..4, 4..5, 5..7]);
        let wide = Sealed { span: i64::from(i32::MAX), ..sealed(1, true, 0, 0) };
        assert_eq!(groups(&[wide, wide], 100), [0..1, 1..2]);
    }
}
