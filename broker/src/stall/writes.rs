//! Whether the node takes records, and if not, why: a state with a name, since when, and what ends it.
//!
//! [`WriteJudge`] decides, purely, from what a journal says of itself. Being refused for a moment is how a node
//! keeps within its bounds and is nobody's business; a refusal that lasts is logged once when it is found to last
//! and once when it is over, and shown on the admin port meanwhile. Every reason has an end of its own: an
//! operation that completes, a timer that tries again, or the end of the process.

use std::fmt;
use std::time::Duration;

use io_backend::{Moment, Published};

use crate::journal::{JournalStatus, NoFile};

/// A refusal that lasts this long is told.
pub const TOLD_AFTER: Duration = Duration::from_secs(1);

/// Records wait no longer than this for a journal without room: beyond it they, and those that come, are refused at once, so that
/// what they hold of the node's memory is there for clients who ask for something else.
pub const NO_ROOM_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a journal takes nothing, or makes those wait who come with something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It failed; the process ends.
    Failed,
    /// An operation of its commit loop is in flight for longer than a disk takes.
    Stalled { operation: &'static str, file: String },
    /// There was no room for a file, and there is none yet.
    DiskFull,
    /// The commit loop waits for a file to write to.
    NoFile(NoFile),
    /// It holds more than it may until checkpoints have brought that into segments.
    CheckpointsBehind { unreleased_bytes: u64, limit_bytes: u64, times_relieved: u64 },
}

impl Refusal {
    /// All names, as the metric has them.
    pub const NAMES: [&str; 5] =
        ["journal_failed", "storage_stalled", "disk_full", "no_journal_file", "checkpoints_behind"];

    /// Its name in metrics, one of [`Refusal::NAMES`].
    pub fn name(&self) -> &'static str {
        Refusal::NAMES[match self {
            Refusal::Failed => 0,
            Refusal::Stalled { .. } => 1,
            Refusal::DiskFull => 2,
            Refusal::NoFile(_) => 3,
            Refusal::CheckpointsBehind { .. } => 4,
        }]
    }

    /// What a journal's own account comes to. What hangs is said by whoever sees the operation.
    pub fn of(status: &JournalStatus, stalled: Option<(&'static str, String)>) -> Option<Refusal> {
        if status.failed {
            return Some(Refusal::Failed);
        }
        if let Some((operation, file)) = stalled {
            return Some(Refusal::Stalled { operation, file });
        }
        if status.disk_full {
            return Some(Refusal::DiskFull);
        }
        if let Some(why) = status.no_file {
            return Some(Refusal::NoFile(why));
        }
        status.holds_too_much.then_some(Refusal::CheckpointsBehind {
            unreleased_bytes: status.unreleased_bytes,
            limit_bytes: status.unreleased_bytes_max,
            times_relieved: status.times_relieved,
        })
    }

    /// Whether the journal had room in between.
    fn follows_relief(&self, before: &Refusal) -> bool {
        let count = |reason: &Refusal| match reason {
            Refusal::CheckpointsBehind { times_relieved, .. } => Some(*times_relieved),
            _ => None,
        };
        count(self).zip(count(before)).is_some_and(|(now, then)| now > then)
    }

    /// What ends it, and what a person can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Refusal::Failed => "check the disk, then start the node again",
            Refusal::Stalled { .. } => {
                "it goes on when the disk answers; /debug/stalls says what is in flight"
            }
            Refusal::DiskFull => "free space on the disk of the data directory; it goes on within seconds",
            Refusal::NoFile(NoFile::BeingPrepared) => {
                "it goes on when the file is prepared; /debug/stalls says what is in flight"
            }
            Refusal::NoFile(NoFile::Failed) => "it is tried again every second; the log says why it failed",
            Refusal::NoFile(NoFile::NoDescriptor) => {
                "raise the limit of open files (ulimit -n), or lower log.open_files or server.connections; it goes on when \
                 a descriptor is free"
            }
            Refusal::CheckpointsBehind { .. } => {
                "checkpoints go on by themselves; where one partition holds them up, the log says why"
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Failed => f.write_str("the journal failed"),
            Refusal::Stalled { operation, file } => {
                write!(f, "the disk stands still in {operation} of {file}")
            }
            Refusal::DiskFull => f.write_str("the disk is full"),
            Refusal::NoFile(NoFile::BeingPrepared) => {
                f.write_str("commits wait for a journal file that is being prepared")
            }
            Refusal::NoFile(NoFile::Failed) => {
                f.write_str("commits wait for a journal file, and preparing one failed")
            }
            Refusal::NoFile(NoFile::NoDescriptor) => f.write_str("commits wait for a descriptor"),
            Refusal::CheckpointsBehind { unreleased_bytes, limit_bytes, .. } => write!(
                f,
                "checkpoints are behind: {} MiB of the journal wait for them, {} MiB may",
                unreleased_bytes >> 20,
                limit_bytes >> 20
            ),
        }
    }
}

/// A refusal that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusing {
    /// Why.
    pub reason: Refusal,
    /// Since when it has been so, without an end in between.
    pub since: Moment,
}

/// What lasts now, of each journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteState {
    /// Of the journal of all partitions; `None`: records are taken.
    pub records: Option<Refusing>,
    /// Topics, configurations and registrations: what goes through Raft's journal.
    pub metadata: Option<Refusing>,
}

/// Shared by the watch that fills it and those who tell.
#[derive(Clone)]
pub struct Writes(Published<WriteState>);

impl Default for Writes {
    fn default() -> Writes {
        Writes(Published::new("whether records are taken", WriteState::default()))
    }
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Writes {
    /// What lasts now.
    pub fn get(&self) -> WriteState {
        (*self.0.get()).clone()
    }

    pub(super) fn set(&self, state: WriteState) {
        if *self.0.get() != state {
            self.0.publish(state);
        }
    }
}

/// What a sample changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteChange {
    /// A refusal has lasted long enough to be told.
    Refuses(Refusing),
    /// The refusal that had been told is over.
    TakesAgain { reason: Refusal, after: Duration },
}

/// The judgement on one journal.
#[derive(Clone, Debug, Default)]
pub struct WriteJudge {
    current: Option<Refusing>,
    told: bool,
}

impl WriteJudge {
    /// What lasts, if anything does.
    pub fn lasting(&self) -> Option<&Refusing> {
        self.current.as_ref().filter(|_| self.told)
    }

    /// Whether records have waited for as long as they may.
    pub fn is_beyond_patience(&self, now: Moment) -> bool {
        self.current.as_ref().is_some_and(|current| now.since(current.since) >= NO_ROOM_TIMEOUT)
    }

    /// One reason may follow another: as long as nothing is taken in between it is one refusal. Checkpoints that make room, and
    /// producers that fill it before the next sample, are an overload and none.
    pub fn handle_sample(&mut self, now: Moment, refusal: Option<Refusal>) -> Option<WriteChange> {
        let lasts =
            |reason: &Refusal| self.current.as_ref().is_none_or(|c| !reason.follows_relief(&c.reason));
        let Some(reason) = refusal.filter(lasts) else {
            let over = self.current.take()?;
            let told = std::mem::replace(&mut self.told, false);
            return told
                .then(|| WriteChange::TakesAgain { reason: over.reason, after: now.since(over.since) });
        };
        let since = self.current.as_ref().map_or(now, |current| current.since);
        let refusing = self.current.insert(Refusing { reason, since }).clone();
        if self.told || now.since(since) < TOLD_AFTER {
            return None;
        }
        self.told = true;
        Some(WriteChange::Refuses(refusing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn a_refusal_is_told_once_when_it_lasts_and_once_when_it_is_over() {
        let mut judge = WriteJudge::default();
        assert_eq!(judge.handle_sample(at(0), Some(Refusal::DiskFull)), None);
        assert_eq!(judge.handle_sample(at(900), Some(Refusal::DiskFull)), None);
        assert_eq!(judge.lasting(), None);
        let refusing = Refusing { reason: Refusal::DiskFull, since: at(0) };
        let told = judge.handle_sample(at(1_000), Some(Refusal::DiskFull));
        assert_eq!(told, Some(WriteChange::Refuses(refusing.clone())));
        assert_eq!(judge.handle_sample(at(9_000), Some(Refusal::DiskFull)), None);
        assert_eq!(judge.lasting(), Some(&refusing));
        let over = WriteChange::TakesAgain { reason: Refusal::DiskFull, after: Duration::from_secs(10) };
        assert_eq!(judge.handle_sample(at(10_000), None), Some(over));
        assert_eq!(judge.handle_sample(at(11_000), None), None);
        assert_eq!(judge.lasting(), None);
    }

    #[test]
    fn moments_of_backpressure_are_not_told_however_many() {
        let mut judge = WriteJudge::default();
        let behind = |times_relieved| {
            Some(Refusal::CheckpointsBehind { unreleased_bytes: 2, limit_bytes: 1, times_relieved })
        };
        for n in 0..100 {
            assert_eq!(judge.handle_sample(at(n * 1_000), behind(0)), None);
            assert_eq!(judge.handle_sample(at(n * 1_000 + 900), None), None);
        }
        // An overload: no sample meets the moments in which there was room.
        for n in 0..100 {
            assert_eq!(judge.handle_sample(at((100 + n) * 1_000), behind(n)), None);
        }
    }

    #[test]
    fn patience_ends_after_some_seconds_without_room() {
        let mut judge = WriteJudge::default();
        judge.handle_sample(at(0), Some(Refusal::NoFile(NoFile::Failed)));
        assert!(!judge.is_beyond_patience(at(2_900)));
        assert!(judge.is_beyond_patience(at(3_000)));
        judge.handle_sample(at(3_100), None);
        assert!(!judge.is_beyond_patience(at(3_100)));
    }

    #[test]
    fn one_reason_after_another_is_one_refusal_with_the_later_reason() {
        let mut judge = WriteJudge::default();
        judge.handle_sample(at(0), Some(Refusal::NoFile(NoFile::BeingPrepared)));
        judge.handle_sample(at(2_000), Some(Refusal::NoFile(NoFile::BeingPrepared)));
        assert_eq!(judge.handle_sample(at(3_000), Some(Refusal::DiskFull)), None);
        assert_eq!(judge.lasting(), Some(&Refusing { reason: Refusal::DiskFull, since: at(0) }));
    }

    #[test]
    fn each_account_of_a_journal_has_its_reason_and_the_worst_comes_first() {
        let sound = JournalStatus::default();
        let hangs = || Some(("fdatasync", "/data/journal/000001.journal".to_owned()));
        assert_eq!(Refusal::of(&sound, None), None);
        let behind = JournalStatus { holds_too_much: true, ..sound };
        let no_file = JournalStatus { no_file: Some(NoFile::Failed), ..behind };
        let full = JournalStatus { disk_full: true, ..no_file };
        let failed = JournalStatus { failed: true, ..full };
        for (status, stalled, name) in [
            (behind, None, "checkpoints_behind"),
            (no_file, None, "no_journal_file"),
            (full, None, "disk_full"),
            (full, hangs(), "storage_stalled"),
            (failed, hangs(), "journal_failed"),
        ] {
            assert_eq!(Refusal::of(&status, stalled).unwrap().name(), name);
        }
    }
}
