//! What holds of a replica's state after each input.

use io_backend::invariants;

use super::{Leadership, ReplicaState, Waiting};

impl<T> ReplicaState<T> {
    pub(super) fn check_invariants(&self) {
        if !invariants::are_checked() {
            return;
        }
        let ReplicaState { log_start, high_watermark, synced, log_end, .. } = self;
        assert!(
            log_start <= high_watermark && high_watermark <= synced && synced <= log_end,
            "{}: log start {log_start:?} <= high watermark {high_watermark:?} <= synced {synced:?} <= log end {log_end:?}",
            self.id
        );
        assert!(
            self.anew.is_none()
                || !matches!(self.leadership, Leadership::Starting(_) | Leadership::Leading(_)),
            "{}: nobody leads with a log that is to begin anew",
            self.id
        );
        let rise = self.in_flight.iter().is_sorted_by(|one, two| one.lsn < two.lsn);
        assert!(rise, "{}: LSNs in flight rise", self.id);
        assert!(
            self.in_flight.front().is_none_or(|first| first.lsn > self.durable),
            "{}: durable and in flight",
            self.id
        );
        for (waiting, reached) in [(&self.for_sync, synced), (&self.for_all, high_watermark)] {
            let sorted = waiting.iter().is_sorted_by_key(|one: &Waiting<T>| one.end);
            assert!(sorted, "{}: who waits stands in order of offsets", self.id);
            assert!(
                waiting.front().is_none_or(|first| first.end > *reached),
                "{}: who waits has to",
                self.id
            );
        }
        // What is staged has offsets and is in no chunk yet.
        let end = self.staged.as_ref().map_or(*log_end, |staged| staged.base);
        assert!(
            self.tail.end().is_none_or(|last| last == end),
            "{}: the tail reaches to the log's end",
            self.id
        );
    }
}
