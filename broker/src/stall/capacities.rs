//! What a node is fit for among others, as far as its disks go: to vote on metadata, and to lead partitions. Each is lost and
//! won by itself.
//!
//! A journal of records that stands still takes leaderships away and no vote: the others need it to decide who leads
//! instead. A journal of Raft that stands still takes both, for the node does not hear what is decided.

use std::fmt;
use std::sync::Arc;

use io_backend::Published;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fitness {
    /// Its partitions may lead: records are taken, as far as the storage goes.
    pub may_lead: bool,
    /// Its member of the metadata group may vote and lead.
    pub may_vote: bool,
    /// The disk under one of the journals does not answer.
    pub stands_still: bool,
}

impl Default for Fitness {
    fn default() -> Fitness {
        Fitness { may_lead: true, may_vote: true, stands_still: false }
    }
}

impl Fitness {
    /// By whether each journal stands still, and whether that of records has refused them for long for another reason.
    pub fn of(records_stall: bool, metadata_stall: bool, records_refused: bool) -> Fitness {
        Fitness {
            may_lead: !records_stall && !metadata_stall && !records_refused,
            may_vote: !metadata_stall,
            stands_still: records_stall || metadata_stall,
        }
    }
}

/// Shared by the watch that judges and those who act on it.
#[derive(Clone)]
pub struct Capacities(Published<Fitness>);

impl Default for Capacities {
    fn default() -> Capacities {
        Capacities(Published::new("what the node is fit for", Fitness::default()))
    }
}

impl fmt::Debug for Capacities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Capacities {
    /// The latest judgement.
    pub fn get(&self) -> Arc<Fitness> {
        self.0.get()
    }

    /// The judgement, and a way to wait for its changes.
    pub fn published(&self) -> &Published<Fitness> {
        &self.0
    }

    /// To be called by the watchdog, which judges.
    pub fn set(&self, fitness: Fitness) {
        if *self.0.get() != fitness {
            self.0.publish(fitness);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_and_voting_are_lost_separately() {
        // Records stall, metadata stall, records are refused: may lead, may vote.
        let table = [
            ((false, false, false), (true, true)),
            ((true, false, false), (false, true)),
            ((false, false, true), (false, true)),
            ((false, true, false), (false, false)),
            ((true, true, true), (false, false)),
        ];
        for ((records, metadata, refused), (may_lead, may_vote)) in table {
            let fitness = Fitness::of(records, metadata, refused);
            let stands_still = records || metadata;
            let wanted = Fitness { may_lead, may_vote, stands_still };
            assert_eq!(fitness, wanted, "{records} {metadata} {refused}");
        }
    }
}
