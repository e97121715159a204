//! Changes of metadata that clients ask for: admitted, then proposed.

use io_backend::{Backend, Deadline, within};
use kafka_protocol::ResponseError;

use crate::ids::PartitionId;
use crate::journal::SubmitError;
use crate::metadata::{MetadataCommand, Outcome, ProposeError};
use crate::node::Context;
use crate::parts::Admit;
use crate::wire::errors;

/// Why a change did not happen, or is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("{0}")]
    Refused(#[from] SubmitError),
    #[error("{0}")]
    Proposal(#[from] ProposeError),
}

impl ChangeError {
    pub fn code(&self) -> ResponseError {
        match self {
            ChangeError::Refused(error) => errors::submit(*error),
            ChangeError::Proposal(error) => errors::propose(error),
        }
    }
}

pub async fn propose<B: Backend>(
    context: &Context<B>,
    command: MetadataCommand,
    deadline: Deadline,
) -> Result<Outcome, ChangeError> {
    match context.admission.admit(PartitionId::NODE, 0) {
        Admit::Now => {}
        Admit::Refused(error) => return Err(error.into()),
        Admit::Wait(admitted) => match within(&context.backend, deadline, admitted).await {
            Ok(admitted) => admitted?,
            Err(_) => return Err(SubmitError::Stalled.into()),
        },
    }
    Ok(context.metadata.propose(command, deadline).await?)
}
