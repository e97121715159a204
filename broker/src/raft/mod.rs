//! Raft: how the nodes agree on the order of changes to metadata.
//!
//! One group from the first day; a single node is its only voter. The `driver` owns the state machine
//! of the `raft` crate in the task `raft`, whose inputs are `RaftInput`; the log stands in a journal of
//! its own, held in memory by `store`. What is agreed upon is the business of a `StateMachine`.
//!
//! **No ticks while a voter leads alone.** Ticks exist to send heartbeats, to notice a silent leader
//! and to step down without a quorum. A sole voter has nobody to beat for, is its own quorum and campaigns
//! by itself at the start, so it waits for proposals and syncs only, and an idle node does not wake up.

use io_backend::{Moment, Replier};

use crate::budget::Share;

mod logging;
mod store;
mod driver;

pub(crate) use driver::{Driver, RaftContext};
pub use driver::{RaftError, RaftStartError};

/// What committed entries are applied to.
pub(crate) trait StateMachine: Send + 'static {
    type Answer: Send + 'static;
    /// Applies the entry at `index`. Empty data is the entry with which a leader begins its term.
    /// An error is final: the node knows less than the group and must not go on.
    fn apply(&mut self, index: u64, data: &[u8]) -> Result<Option<Self::Answer>, String>;
    /// Shows the world what has been applied, and who leads.
    fn publish(&mut self, leader: Option<u64>);
    /// Everything applied so far.
    fn snapshot(&self) -> Vec<u8>;
    /// Begins from a snapshot.
    fn restore(&mut self, data: &[u8]) -> Result<(), String>;
}

/// What can be asked of the owner of the group.
pub(crate) enum RaftInput<A> {
    Propose(Proposal<A>),
    /// Decides what is in flight, then ends. Answered when nothing more will be written.
    Close(Replier<()>),
}

pub(crate) struct Proposal<A> {
    pub(crate) data: Vec<u8>,
    /// Nobody waits for it after that: it is not proposed then.
    pub(crate) until: Option<Moment>,
    pub(crate) replier: Replier<Result<A, Refusal>>,
    /// Keeps its bytes counted until it is decided.
    pub(crate) share: Share,
}

/// A proposal that came to nothing, for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotLeader,
    Closed,
    /// There is no room for it in the journal.
    DiskFull,
}

#[cfg(test)]
pub(crate) mod memory_journal;
