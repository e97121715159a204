//! Parts: constructors for what stands behind a node's handles, so that one component can be replaced
//! inside a whole node, reached by real requests. [`Parts::production`] is what the binary uses.
//!
//! A `Parts` is made anew for each process start, so parts may share state with one another.

use std::sync::Arc;

use io_backend::Backend;

use crate::admission;
pub use crate::admission::{Admission, Admit, MakeAdmission};
pub use crate::coordinator::coordinators::Hear;
use crate::journal;
pub use crate::journal::OpenJournal;
use crate::log::cleaning::rewrite::Judge;
pub use crate::metadata::{MakeProposals, Proposals, Propose};
use crate::peers::Peers;
pub use crate::peers::StartPeers;

/// What followers and leaders of partitions say to one another, for a part that stands between them.
pub mod replication {
    pub use crate::partition::{Durable, Fetched};
    pub use crate::replication::protocol::{
        Answer, Answered, Fetch, FetchError, Message, Position, ProtocolError, Refused, SessionId, SyncedUpTo,
    };
}

/// What the coordinators of groups are asked, for a part that stands before them.
pub mod groups {
    pub use crate::coordinator::classic::{Join, Sync};
    pub use crate::coordinator::consumer::{Epoch, Heartbeat, Joining};
    pub use crate::coordinator::ids::{Generation, GroupId, MemberId};
    pub use crate::coordinator::messages::{Answered, CoordinatorError, CoordinatorInput, Waiting};
    pub use crate::coordinator::shard::Committer;
}

/// What cleaning decides of records, for a part that decides otherwise.
pub mod cleaning {
    pub use crate::log::cleaning::rewrite::{Fate, Judge, Judged};
}

/// What a node is made of, where it can be replaced; one for each process start.
pub struct Parts<B: Backend> {
    /// The journal of all partitions.
    pub journal: OpenJournal<B>,
    /// The journal of the metadata's Raft group.
    pub raft_journal: OpenJournal<B>,
    /// What carries everything that goes between this node and the others: Raft's messages, those of replication, questions
    /// and forwarded produces.
    pub peers: StartPeers<B>,
    /// Who has the changes of metadata decided that clients ask for, and leaders of partitions.
    pub proposals: MakeProposals<B>,
    /// Who decides whether a request that ends in the journal may begin.
    pub admission: MakeAdmission,
    /// What is asked of the coordinators of groups passes through here.
    pub groups: Hear,
    /// Has the last word about which records of compacted logs stay.
    pub cleaning: Judge,
    /// Whether the age of operations in flight is watched and acted upon.
    pub watch_stalls: bool,
    /// Whether a node that its controller may have replaced stops what it leads.
    pub heed_contact: bool,
}

impl<B: Backend> Parts<B> {
    /// What the binary runs with.
    pub fn production() -> Parts<B> {
        Parts {
            journal: Box::new(journal::open),
            raft_journal: Box::new(journal::open),
            peers: Box::new(Peers::start),
            proposals: Box::new(|proposals| proposals.propose),
            admission: Box::new(admission::while_healthy),
            groups: Arc::new(|input| input),
            cleaning: Arc::new(|_, fate| fate),
            watch_stalls: true,
            heed_contact: true,
        }
    }
}
