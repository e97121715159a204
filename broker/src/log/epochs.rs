//! Which leader epoch began at which offset (KIP-101).
//!
//! Both numbers rise strictly from entry to entry. An epoch ends where the next one begins.

use io_backend::invariants;

use crate::ids::{LeaderEpoch, Offset};

/// The leader epochs of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochHistory {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl EpochHistory {
    /// From what a snapshot holds; entries out of order are left out.
    pub fn restored(entries: impl IntoIterator<Item = (LeaderEpoch, Offset)>) -> EpochHistory {
        let mut history = EpochHistory::default();
        for (epoch, start) in entries {
            history.begin(epoch, start);
        }
        history
    }

    /// Each epoch and the offset of its first record, both rising.
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The latest epoch, or none yet.
    pub fn latest(&self) -> LeaderEpoch {
        self.entries.last().map_or(LeaderEpoch::NONE, |(epoch, _)| *epoch)
    }

    fn check_invariants(&self) {
        if invariants::are_checked() {
            let rise =
                |one: &(LeaderEpoch, Offset), two: &(LeaderEpoch, Offset)| one.0 < two.0 && one.1 < two.1;
            assert!(self.entries.is_sorted_by(rise), "epochs and their beginnings rise: {:?}", self.entries);
        }
    }

    /// `epoch` begins at `start`. Entries it contradicts, and epochs without a record, give way.
    pub fn begin(&mut self, epoch: LeaderEpoch, start: Offset) {
        while let Some((last, from)) = self.entries.last()
            && (*last >= epoch || *from >= start)
        {
            self.entries.pop();
        }
        self.entries.push((epoch, start));
        self.check_invariants();
    }

    /// The log ends at `end` now.
    pub fn truncate(&mut self, end: Offset) {
        while let Some((_, from)) = self.entries.last()
            && *from > end
        {
            self.entries.pop();
        }
    }

    /// The log ends at `end` now, and no record of an epoch that begins there is to come.
    pub fn truncate_without_empty(&mut self, end: Offset) {
        while let Some((_, from)) = self.entries.last()
            && *from >= end
        {
            self.entries.pop();
        }
    }

    /// The log starts at `start` now: of what was before only the epoch of the record before that is kept. By it one whose log
    /// ends there is told from one that has left this log before.
    pub fn forget_before(&mut self, start: Offset) {
        let keep_from = self.entries.partition_point(|(_, from)| *from < start).saturating_sub(1);
        self.entries.drain(..keep_from);
        if let Some(first) = self.entries.first_mut() {
            first.1 = first.1.max(Offset(start.0 - 1));
        }
        self.check_invariants();
    }

    /// The epoch of the record at `offset`.
    pub fn of(&self, offset: Offset) -> LeaderEpoch {
        let after = self.entries.partition_point(|(_, from)| *from <= offset);
        after.checked_sub(1).map_or(LeaderEpoch::NONE, |i| self.entries[i].0)
    }

    /// The largest epoch that is not above `asked`, and where it ends; `None` where this log knows nothing
    /// of it. For an epoch older than all it is that epoch itself, ending where the first known one begins.
    pub fn end_of(&self, asked: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        if asked == LeaderEpoch::NONE {
            return None;
        }
        if asked == self.latest() {
            return Some((asked, log_end));
        }
        let after = self.entries.partition_point(|(epoch, _)| *epoch <= asked);
        let (_, end) = *self.entries.get(after)?;
        let epoch = after.checked_sub(1).map_or(asked, |i| self.entries[i].0);
        Some((epoch, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[(i32, i64)]) -> EpochHistory {
        EpochHistory::restored(entries.iter().map(|(e, o)| (LeaderEpoch(*e), Offset(*o))))
    }

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next() {
        let history = history(&[(2, 10), (4, 20), (5, 30)]);
        for (asked, expected) in [
            (-1, None),
            (1, Some((1, 10))),
            (2, Some((2, 20))),
            (3, Some((2, 20))),
            (4, Some((4, 30))),
            (5, Some((5, 99))),
            (6, None),
        ] {
            let expected = expected.map(|(e, o)| (LeaderEpoch(e), Offset(o)));
            assert_eq!(history.end_of(LeaderEpoch(asked), Offset(99)), expected, "epoch {asked}");
        }
    }

    #[test]
    fn an_epoch_without_records_gives_way_to_the_next() {
        assert_eq!(history(&[(1, 10), (2, 10), (3, 10)]), history(&[(3, 10)]));
        assert_eq!(history(&[(1, 10), (5, 20), (3, 30)]), history(&[(1, 10), (3, 30)]));
    }

    #[test]
    fn truncation_keeps_an_epoch_that_begins_at_the_new_end() {
        let mut history = history(&[(1, 0), (2, 10), (3, 20)]);
        history.truncate(Offset(10));
        assert_eq!(history.latest(), LeaderEpoch(2));
    }

    #[test]
    fn forgetting_the_start_keeps_the_epoch_of_the_record_before() {
        let mut forgetful = history(&[(1, 0), (2, 10), (3, 20)]);
        forgetful.forget_before(Offset(0));
        assert_eq!(forgetful, history(&[(1, 0), (2, 10), (3, 20)]));
        forgetful.forget_before(Offset(15));
        assert_eq!(forgetful, history(&[(2, 14), (3, 20)]));
        assert_eq!([13, 14].map(|offset| forgetful.of(Offset(offset)).0), [-1, 2]);
        forgetful.forget_before(Offset(20));
        assert_eq!(forgetful, history(&[(2, 19), (3, 20)]));
        forgetful.forget_before(Offset(21));
        assert_eq!(forgetful, history(&[(3, 20)]));
    }
}
