//! Changes of metadata that clients ask for: admitted, then proposed.

use std::sync::Arc;

use io_backend::{Backend, Deadline, Published, within};

use super::proposals::Propose;
use super::{Members, MetadataCommand, MetadataHandle, Outcome, ProposeError};
use crate::admission::{Admission, Admit};
use crate::ids::{BrokerId, PartitionId};
use crate::journal::SubmitError;
use crate::stall::capacities::Capacities;

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

/// The way for what clients ask for: refused at once while the storage stands still, unless other nodes can decide it.
pub struct Changes<B: Backend> {
    pub(super) backend: B,
    propose: Propose,
    admission: Arc<dyn Admission>,
    node: BrokerId,
    members: Published<Members>,
    capacities: Capacities,
}

impl<B: Backend> Clone for Changes<B> {
    fn clone(&self) -> Self {
        Changes {
            backend: self.backend.clone(),
            propose: self.propose.clone(),
            admission: self.admission.clone(),
            node: self.node,
            members: self.members.clone(),
            capacities: self.capacities.clone(),
        }
    }
}

impl<B: Backend> Changes<B> {
    /// Asks `admission` before each proposal.
    pub fn new(
        metadata: &MetadataHandle<B>,
        propose: Propose,
        admission: Arc<dyn Admission>,
        capacities: Capacities,
    ) -> Changes<B> {
        let (backend, members) = (metadata.backend.clone(), metadata.members.clone());
        Changes { backend, propose, admission, node: metadata.node, members, capacities }
    }

    /// Proposes, and waits until it is in what clients are told of here.
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
            Admit::Refused(_) if self.is_decided_by_others() => {}
            Admit::Refused(error) => return Err(error.into()),
            Admit::Wait(admitted) => match within(&self.backend, deadline, admitted).await {
                Ok(admitted) => admitted?,
                Err(_) => return Err(SubmitError::Stalled.into()),
            },
        }
        Ok((self.propose)(command, deadline).await?)
    }

    fn is_decided_by_others(&self) -> bool {
        is_decided_by_others(self.node, &self.members.get(), self.capacities.get().may_vote)
    }
}

/// The disks that a change needs are those of other nodes; `node` leads them only as long as its own Raft journal takes what it says.
fn is_decided_by_others(node: BrokerId, members: &Members, may_vote: bool) -> bool {
    match members.leader {
        Some(leader) if leader == node => members.voters.len() > 1 && may_vote,
        leader => leader.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_storage_stands_still_asks_others_and_decides_alone_only_with_them() {
        let table = [
            // Who leads, how many vote, whether our Raft journal takes what we say.
            (None, 3, true, false),
            (Some(2), 3, false, true),
            (Some(1), 3, true, true),
            (Some(1), 3, false, false),
            (Some(1), 1, true, false),
            (Some(1), 1, false, false),
        ];
        for (leader, voters, may_vote, expected) in table {
            let members = Members {
                leader: leader.map(BrokerId),
                voters: (1..=voters).map(BrokerId).collect(),
                ..Members::default()
            };
            let by_others = is_decided_by_others(BrokerId(1), &members, may_vote);
            assert_eq!(by_others, expected, "{leader:?} of {voters}, {may_vote}");
        }
    }
}
