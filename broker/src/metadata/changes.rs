//! Changes of metadata that clients ask for: admitted, then proposed.

use std::sync::Arc;

use io_backend::{Backend, Deadline, within};

use super::proposals::Propose;
use super::{MetadataCommand, Outcome, ProposeError};
use crate::admission::{Admission, Admit};
use crate::ids::PartitionId;
use crate::journal::SubmitError;

/// Why a change did not happen, or is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It was not admitted: nothing was proposed.
    #[error("{0}")]
    Refused(#[from] SubmitError),
    /// It was proposed, and not decided, or refused.
    #[error("{0}")]
    Proposal(#[from] ProposeError),
}

/// The way for what clients ask for: refused at once while the storage stands still.
pub struct Changes<B: Backend> {
    pub(super) backend: B,
    propose: Propose,
    admission: Arc<dyn Admission>,
}

impl<B: Backend> Clone for Changes<B> {
    fn clone(&self) -> Self {
        Changes {
            backend: self.backend.clone(),
            propose: self.propose.clone(),
            admission: self.admission.clone(),
        }
    }
}

impl<B: Backend> Changes<B> {
    /// Asks `admission` before each proposal.
    pub fn new(backend: B, propose: Propose, admission: Arc<dyn Admission>) -> Changes<B> {
        Changes { backend, propose, admission }
    }

    /// Proposes, and waits until it is applied here.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`]; only a [`ProposeError::TimedOut`] may still take effect.
    pub async fn propose(
        &self,
        command: MetadataCommand,
        deadline: Deadline,
    ) -> Result<Outcome, ChangeError> {
        match self.admission.admit(PartitionId::NODE, 0) {
            Admit::Now => {}
            Admit::Refused(error) => return Err(error.into()),
            Admit::Wait(admitted) => match within(&self.backend, deadline, admitted).await {
                Ok(admitted) => admitted?,
                Err(_) => return Err(SubmitError::Stalled.into()),
            },
        }
        Ok((self.propose)(command, deadline).await?)
    }
}
