//! Whether what a node does still counts: what the controller of its cluster last said, and how long ago.
//!
//! A leader that the controller does not hear may have been replaced and not know it. Records that all in-sync replicas have
//! to have are safe from it by epochs; what it would acknowledge alone, and what it would serve to readers, is not, and would
//! go on for as long as it is cut off. So it stops both until the next answer. A node that is alone never loses contact.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use io_backend::{Moment, Published};

/// Why a node may not lead what it believes to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// None of its heartbeats was answered for as long as a session lasts.
    CutOff,
    /// The controller does not count on it.
    Fenced,
    /// Something that it led was taken from it, by an entry that its image does not have yet; or may have been, since it said that its
    /// storage takes no records.
    Behind,
}

impl Lost {
    /// All names, as the metric has them.
    pub const NAMES: [&str; 3] = ["cut_off", "fenced", "behind"];

    /// Its name in metrics, one of [`Lost::NAMES`].
    pub fn name(self) -> &'static str {
        Lost::NAMES[self as usize]
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::CutOff => {
                "no controller answers this node's heartbeats, and others may lead its partitions by now; it goes on with the next \
                 answer. See whether the other nodes run and are reached (cluster.peers)"
            }
            Lost::Fenced => {
                "the controller has fenced this node, for it did not hear it; it goes on when the controller counts on it again"
            }
            Lost::Behind => {
                "some partitions of this node are led by others, or are to be while its storage takes no records, and it has not heard \
                 which; it goes on when its metadata are current"
            }
        })
    }
}

/// Contact that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostContact {
    /// How.
    pub why: Lost,
    /// Since when there has been none, for whatever reason.
    pub since: Moment,
}

/// Shared by the task that speaks to the controller and those who act on what it hears.
#[derive(Clone)]
pub struct Contact {
    is_heeded: bool,
    /// When it ends by itself, in nanoseconds; it has ended where that has passed.
    until: Arc<AtomicU64>,
    state: Published<Option<LostContact>>,
}

impl Default for Contact {
    fn default() -> Contact {
        let state = Published::new("contact to the controller", None);
        Contact { is_heeded: true, until: Arc::new(AtomicU64::new(u64::MAX)), state }
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lost().fmt(f)
    }
}

impl Contact {
    /// One that is told and keeps nobody from leading.
    pub fn unheeded() -> Contact {
        Contact { is_heeded: false, ..Contact::default() }
    }

    /// Whether this node may no longer act as the leader that it believes to be. It goes by the clock: a process that was not scheduled for a
    /// while reads what came meanwhile before the task that speaks to the controller has its turn.
    pub fn is_lost(&self, now: Moment) -> bool {
        now.0 >= self.until.load(Ordering::Acquire)
    }

    /// How and since when it is lost.
    pub fn lost(&self) -> Option<LostContact> {
        *self.state.get()
    }

    /// The same, and a way to wait for its changes.
    pub fn published(&self) -> &Published<Option<LostContact>> {
        &self.state
    }

    /// To be called by the task that speaks to the controller: how it is lost, or when it will be unless this is called again. Returns
    /// what it was before, if that is another.
    pub fn set(&self, now: Moment, held: Result<Moment, Lost>) -> Option<Option<LostContact>> {
        if self.is_heeded {
            self.until.store(held.map_or(0, |until| until.0), Ordering::Release);
        }
        let (before, lost) = (self.lost(), held.err());
        if before.map(|before| before.why) == lost {
            return None;
        }
        let since = before.map_or(now, |before| before.since);
        self.state.publish(lost.map(|why| LostContact { why, since }));
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_after_another_is_one_loss_that_began_with_the_first() {
        let contact = Contact::default();
        assert!(!contact.is_lost(Moment(1)));
        assert_eq!(contact.set(Moment(1), Ok(Moment(9))), None);
        assert_eq!(contact.set(Moment(1), Err(Lost::CutOff)), Some(None));
        assert_eq!(contact.set(Moment(2), Err(Lost::CutOff)), None);
        let began = LostContact { why: Lost::CutOff, since: Moment(1) };
        assert_eq!(contact.set(Moment(3), Err(Lost::Behind)), Some(Some(began)));
        let behind = LostContact { why: Lost::Behind, since: Moment(1) };
        assert_eq!((contact.is_lost(Moment(3)), contact.lost()), (true, Some(behind)));
        assert_eq!(contact.set(Moment(4), Ok(Moment(9))), Some(Some(behind)));
        assert_eq!((contact.is_lost(Moment(4)), contact.lost()), (false, None));
    }

    #[test]
    fn it_ends_by_the_clock_before_anybody_says_so() {
        let contact = Contact::default();
        contact.set(Moment(1), Ok(Moment(9)));
        assert_eq!([8, 9].map(|at| contact.is_lost(Moment(at))), [false, true]);
        contact.set(Moment(9), Ok(Moment(12)));
        assert_eq!([9, 12].map(|at| contact.is_lost(Moment(at))), [false, true]);
        let unheeded = Contact::unheeded();
        unheeded.set(Moment(1), Err(Lost::CutOff));
        assert!(!unheeded.is_lost(Moment(99)));
    }

    #[test]
    fn each_way_has_a_name() {
        let names = [Lost::CutOff, Lost::Fenced, Lost::Behind].map(Lost::name);
        assert_eq!(names, Lost::NAMES);
    }
}
