//! What of the journal is not released: how many bytes have been written, and behind how many of them an entry lies.

use std::collections::VecDeque;

use crate::ids::Lsn;

/// How far apart the notes of where in the stream an LSN lies are: the grain of `unreleased_bytes`.
const MARK_BYTES: u64 = crate::limits::JOURNAL_RELEASE_STEP_BYTES;

/// How many bytes have been written, and since when they are not released.
#[derive(Default)]
pub(super) struct Stream {
    written: u64,
    released: u64,
    /// Entries from this LSN on lie behind so many bytes.
    marks: VecDeque<(Lsn, u64)>,
}

impl Stream {
    /// Of files that were recovered: the first LSN and the bytes of each, in order.
    pub(super) fn of_files(files: Vec<(Lsn, u64)>) -> Stream {
        let mut stream = Stream::default();
        for (first_lsn, bytes) in files {
            stream.marks.push_back((first_lsn, stream.written));
            stream.written += bytes;
        }
        stream
    }

    pub(super) fn unreleased(&self) -> u64 {
        self.written - self.released
    }

    pub(super) fn write(&mut self, first_lsn: Lsn, bytes: u64) {
        if self.marks.back().is_none_or(|(_, at)| self.written - at >= MARK_BYTES) {
            self.marks.push_back((first_lsn, self.written));
        }
        self.written += bytes;
    }

    pub(super) fn release_before(&mut self, lsn: Lsn, everything: bool) {
        if everything {
            self.marks.clear();
            self.released = self.written;
            return;
        }
        while self.marks.get(1).is_some_and(|(first, _)| *first <= lsn) {
            self.marks.pop_front();
        }
        if let Some((first, at)) = self.marks.front()
            && *first <= lsn
        {
            self.released = self.released.max(*at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_before_an_entry_is_released_by_whole_steps() {
        let mut stream = Stream::default();
        for first in [1, 10, 20] {
            stream.write(Lsn(first), MARK_BYTES);
        }
        assert_eq!(stream.unreleased(), 3 * MARK_BYTES);
        stream.release_before(Lsn(9), false);
        assert_eq!(stream.unreleased(), 3 * MARK_BYTES, "entries 9 and on lie in the first step");
        stream.release_before(Lsn(10), false);
        assert_eq!(stream.unreleased(), 2 * MARK_BYTES);
        stream.release_before(Lsn(5), false);
        assert_eq!(stream.unreleased(), 2 * MARK_BYTES, "nothing is taken back");
        stream.release_before(Lsn(30), false);
        assert_eq!(stream.unreleased(), MARK_BYTES, "the last step may hold more than these");
        stream.release_before(Lsn(30), true);
        assert_eq!(stream.unreleased(), 0);
        stream.write(Lsn(31), 7);
        assert_eq!(stream.unreleased(), 7);
    }
}
