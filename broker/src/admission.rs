//! Admission: whether a request that ends in a journal may begin.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::ids::PartitionId;
use crate::journal::SubmitError;
use crate::stall::{Health, StorageHealth};

/// Makes who admits, told of how the storage does.
pub type MakeAdmission = Box<dyn FnOnce(StorageHealth) -> Arc<dyn Admission> + Send>;

/// The admission that ships.
pub fn while_healthy(health: StorageHealth) -> Arc<dyn Admission> {
    Arc::new(AdmitWhileHealthy(health))
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
