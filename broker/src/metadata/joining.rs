//! The task `metadata membership`: brings a node that does not vote into its group, by asking whoever leads it until it
//! does. It ends then.

use std::path::PathBuf;
use std::time::Duration;

use io_backend::{Backend, Deadline, ExitStatus};

use super::MetadataHandle;
use super::members::Members;
use super::membership::{self, Membership, Stage};
use super::questions::{MembershipAnswer, MembershipQuestion};
use crate::ids::BrokerId;
use crate::limits;
use crate::peers::asks::{Asks, Subject};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Joining<B: Backend> {
    pub(super) metadata: MetadataHandle<B>,
    pub(super) asks: Asks<B>,
    pub(super) directory: PathBuf,
    /// As the directory has it; a node that was alone has none.
    pub(super) membership: Option<Membership>,
}

impl<B: Backend> Joining<B> {
    pub(super) async fn run(mut self) {
        let backend = self.metadata.backend.clone();
        let mut turn = 0;
        loop {
            let members = self.metadata.members.get();
            let has_group = !members.voters.is_empty();
            if has_group {
                // Before it may be asked to vote.
                self.remember().await;
            }
            if members.voters.contains(&self.metadata.node) {
                tracing::info!("this node votes in the metadata group");
                return;
            }
            if let Some(node) = self.whom(&members, &mut turn) {
                self.ask(node, has_group).await;
            }
            backend.sleep(PAUSE).await;
        }
    }

    /// Whoever leads, or one after the other of those that are reached.
    fn whom(&self, members: &Members, turn: &mut usize) -> Option<BrokerId> {
        let reachable = self.asks.peers().reachable().get();
        *turn += 1;
        let in_turn = || reachable.keys().copied().nth(*turn % reachable.len().max(1));
        members.leader.filter(|leader| reachable.contains_key(leader)).or_else(in_turn)
    }

    async fn ask(&self, node: BrokerId, has_group: bool) {
        let deadline = Deadline::after(&self.metadata.backend, limits::ASK_DEADLINE);
        let question = serde_json::to_vec(&MembershipQuestion { has_group }).unwrap_or_default();
        let Ok(answer) = self.asks.ask(node, Subject::Membership, &question, deadline).await else { return };
        match serde_json::from_slice(&answer) {
            Ok(MembershipAnswer::NotLeader { .. } | MembershipAnswer::Later) => {}
            Ok(answer) => tracing::debug!(?answer, "member of the metadata group"),
            Err(error) => tracing::warn!(%node, %error, "what this node answers is not understood"),
        }
    }

    async fn remember(&mut self) {
        let Some(membership) = self.membership.as_mut().filter(|known| known.stage != Stage::Member) else {
            return;
        };
        membership.stage = Stage::Member;
        let backend = &self.metadata.backend;
        let deadline = Deadline::after(backend, limits::ASK_DEADLINE);
        if let Err(error) = membership::write(backend, &self.directory, membership, deadline).await {
            let why = format!("that this node is a member of its cluster cannot be written down: {error}");
            tracing::error!("{why}");
            backend.exit(ExitStatus::StorageNotTrusted, &why);
        }
    }
}
