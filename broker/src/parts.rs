//! Parts: constructors for what stands behind a node's handles, so that one component can be replaced
//! inside a whole node, reached by real requests. [`Parts::production`] is what the binary uses.
//!
//! A `Parts` is made anew for each process start, so parts may share state with one another.

use std::sync::Arc;

use futures::future::BoxFuture;
use io_backend::Backend;

use crate::ids::PartitionId;
use crate::journal::{self, JournalContext, JournalOpenError, OpenedJournal, SubmitError};
use crate::stall::{Health, StorageHealth};

/// Opens a journal and reads back what it holds. [`journal::open`] is the one that ships.
pub type OpenJournal<B> =
    Box<dyn FnOnce(JournalContext<B>) -> BoxFuture<'static, Result<OpenedJournal, JournalOpenError>> + Send>;

/// Makes who admits, told of how the storage does.
pub type MakeAdmission = Box<dyn FnOnce(StorageHealth) -> Arc<dyn Admission> + Send>;

/// What a node is made of, where it can be replaced; one for each process start.
pub struct Parts<B: Backend> {
    /// The journal of all partitions.
    pub journal: OpenJournal<B>,
    /// The journal of the metadata's Raft group.
    pub raft_journal: OpenJournal<B>,
    /// Who decides whether a request that ends in the journal may begin.
    pub admission: MakeAdmission,
    /// Whether the age of operations in flight is watched and acted upon.
    pub watch_stalls: bool,
}

impl<B: Backend> Parts<B> {
    /// What the binary runs with.
    pub fn production() -> Parts<B> {
        Parts {
            journal: Box::new(journal::open),
            raft_journal: Box::new(journal::open),
            admission: Box::new(|health| Arc::new(AdmitWhileHealthy(health))),
            watch_stalls: true,
        }
    }
}

/// Whether work that ends in the journal may begin.
pub enum Admit {
    /// It may, at once.
    Now,
    /// Nothing was or will be written.
    Refused(SubmitError),
    /// Only a part that is not ours makes a request wait here.
    Wait(BoxFuture<'static, Result<(), SubmitError>>),
}

/// Asked once for each partition of a produce request, and with [`PartitionId::NODE`] for each change
/// of metadata, before anything of it is queued.
pub trait Admission: Send + Sync + 'static {
    /// Decides about `bytes` of records for `partition`; for a change of metadata `bytes` is 0. It is called
    /// on the tasks that serve requests and must not block.
    fn admit(&self, partition: PartitionId, bytes: usize) -> Admit;
}

/// Refuses at once while the storage stands still or has failed, so that clients hear the truth early and
/// never wait behind a disk.
struct AdmitWhileHealthy(StorageHealth);

impl Admission for AdmitWhileHealthy {
    fn admit(&self, _: PartitionId, _: usize) -> Admit {
        match self.0.get() {
            Health::Good => Admit::Now,
            Health::Stalled => Admit::Refused(SubmitError::Stalled),
            Health::Failed => Admit::Refused(SubmitError::Failed),
        }
    }
}
