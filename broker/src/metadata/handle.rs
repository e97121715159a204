//! The handle of the metadata group.

use std::sync::Arc;

use io_backend::channel::ReplyError;
use io_backend::{Backend, Deadline, Published, Sender};

use super::snapshot::encode_command;
use super::{Effective, MetadataCommand, MetadataImage, Outcome, ProposeError};
use crate::budget::{Account, RequestClass};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::raft::{Proposal, RaftInput, Refusal};

/// Cloneable; reads cost a reference count, writes go through Raft.
pub struct MetadataHandle<B: Backend> {
    pub(crate) images: Published<MetadataImage>,
    pub(super) configs: Published<Effective>,
    pub(crate) backend: B,
    pub(super) mailbox: Sender<B, RaftInput<Outcome>>,
    pub(super) metrics: Arc<Metrics>,
    /// Bytes of proposals that are not decided: they fit the Raft journal's queue.
    pub(super) proposals: Arc<Account>,
    /// Largest proposal that the Raft journal takes.
    pub(super) proposal_bytes_max: usize,
}

impl<B: Backend> Clone for MetadataHandle<B> {
    fn clone(&self) -> Self {
        MetadataHandle {
            images: self.images.clone(),
            configs: self.configs.clone(),
            backend: self.backend.clone(),
            mailbox: self.mailbox.clone(),
            metrics: self.metrics.clone(),
            proposals: self.proposals.clone(),
            proposal_bytes_max: self.proposal_bytes_max,
        }
    }
}

impl<B: Backend> MetadataHandle<B> {
    /// The latest applied image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.images.get()
    }

    /// The image, and a way to wait for its changes.
    pub fn images(&self) -> &Published<MetadataImage> {
        &self.images
    }

    /// This node's configuration in effect, and what is set of it while it runs.
    pub fn effective(&self) -> Arc<Effective> {
        self.configs.get()
    }

    /// This node's configuration in effect.
    pub fn config(&self) -> Arc<Config> {
        self.configs.get().config.clone()
    }

    /// Has a command decided: `Ok` when it is committed, synced and in this node's image.
    pub async fn propose(
        &self,
        command: MetadataCommand,
        deadline: Deadline,
    ) -> Result<Outcome, ProposeError> {
        let began = self.backend.now();
        let data = encode_command(&command);
        let bytes = data.len();
        let result = self.propose_bytes(data, deadline).await;
        let took = self.backend.now().since(began);
        self.metrics.raft_propose_duration_ms.observe(took.as_secs_f64() * 1e3);
        tracing::debug!(
            event = "RAFT_PROPOSE",
            bytes,
            duration_us = took.as_micros() as u64,
            error = result.as_ref().err().map(tracing::field::display),
        );
        result
    }

    async fn propose_bytes(&self, data: Vec<u8>, deadline: Deadline) -> Result<Outcome, ProposeError> {
        let bytes = data.len();
        if bytes > self.proposal_bytes_max {
            return Err(ProposeError::TooLarge { bytes, limit: self.proposal_bytes_max });
        }
        let share =
            self.proposals.try_take(RequestClass::Essential, bytes).ok_or(ProposeError::Overloaded)?;
        let (replier, reply) = self.mailbox.reply("decision of the metadata group");
        let until = match deadline {
            Deadline::At(at) => Some(at),
            Deadline::Unbounded(_) => None,
        };
        let proposal = Proposal { data, until, replier, share };
        self.mailbox.send(RaftInput::Propose(proposal), deadline).await.map_err(|error| match error {
            io_backend::channel::SendError::Closed(_) => closed(),
            _ => ProposeError::Overloaded,
        })?;
        match reply.wait(deadline).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(Refusal::NotLeader { .. } | Refusal::Members(_))) => Err(ProposeError::NoController),
            Ok(Err(Refusal::Closed)) => Err(closed()),
            Ok(Err(Refusal::DiskFull)) => Err(ProposeError::DiskFull),
            // Whoever dropped the reply may have got it into the log before.
            Err(ReplyError::TimedOut | ReplyError::Dropped) => Err(ProposeError::TimedOut),
        }
    }

    /// Decides what is in flight, and ends the group on this node. Proposals are refused from then on.
    pub async fn close(&self, deadline: Deadline) {
        let (replier, reply) = self.mailbox.reply("end of the Raft task");
        if self.mailbox.send(RaftInput::Close(replier), deadline).await.is_ok()
            && reply.wait(deadline).await == Err(ReplyError::TimedOut)
        {
            tracing::warn!("metadata did not close in time; what was not decided is found at the next start");
        }
    }
}

fn closed() -> ProposeError {
    ProposeError::Closed("this node is stopping".to_owned())
}
