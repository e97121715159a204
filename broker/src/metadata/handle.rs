//! The handle of the metadata group.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use io_backend::channel::ReplyError;
use io_backend::{Backend, Deadline, Published, Replier, Sender};

use super::decided::Latest;
use super::lately::Lately;
use super::members::Members;
use super::{Effective, MetadataImage, Outcome};
use crate::budget::Account;
use crate::config::Config;
use crate::ids::BrokerId;
use crate::metrics::Metrics;
use crate::peers::asks::Asks;
use crate::raft::{GroupInput, RaftInput};

/// How long somebody who is not the leader is left alone before it is looked for again.
pub(super) const LEADER_AGAIN: Duration = Duration::from_millis(50);

/// Cloneable; reads cost a reference count, writes go through Raft.
pub struct MetadataHandle<B: Backend> {
    pub(crate) images: Published<MetadataImage>,
    pub(super) configs: Published<Effective>,
    pub(super) members: Published<Members>,
    /// Of another node, while this node's own stands still and until it has caught up.
    pub(super) borrowed: Published<Option<Arc<MetadataImage>>>,
    pub(super) doubts: Lately,
    pub(super) fenced: Lately,
    pub(crate) backend: B,
    pub(super) node: BrokerId,
    pub(super) mailbox: Sender<B, RaftInput<Outcome>>,
    pub(super) metrics: Arc<Metrics>,
    /// Bytes of proposals that are not decided: they fit the Raft journal's queue.
    pub(super) proposals: Arc<Account>,
    /// Largest proposal that the Raft journal takes.
    pub(super) proposal_bytes_max: usize,
    /// Where there are other nodes.
    pub(super) others: Option<Others<B>>,
}

/// The way to have a proposal decided wherever the group is led.
pub(super) struct Others<B: Backend> {
    pub(super) asks: Asks<B>,
    pub(super) latest: Latest,
    /// Where is asked how far the controller's metadata are.
    pub(super) lateness: Sender<B, Replier<u64>>,
    /// What this node's own member is told beside what peers say.
    pub(super) group: Sender<B, GroupInput>,
}

/// Whose image it is that clients are told of.
pub(super) enum Shown {
    Own,
    Borrowed,
}

impl<B: Backend> Clone for Others<B> {
    fn clone(&self) -> Self {
        let Others { asks, latest, lateness, group } = self;
        let (lateness, group) = (lateness.clone(), group.clone());
        Others { asks: asks.clone(), latest: latest.clone(), lateness, group }
    }
}

impl<B: Backend> Clone for MetadataHandle<B> {
    fn clone(&self) -> Self {
        MetadataHandle {
            images: self.images.clone(),
            configs: self.configs.clone(),
            members: self.members.clone(),
            borrowed: self.borrowed.clone(),
            doubts: self.doubts.clone(),
            fenced: self.fenced.clone(),
            backend: self.backend.clone(),
            node: self.node,
            mailbox: self.mailbox.clone(),
            metrics: self.metrics.clone(),
            proposals: self.proposals.clone(),
            proposal_bytes_max: self.proposal_bytes_max,
            others: self.others.clone(),
        }
    }
}

impl<B: Backend> MetadataHandle<B> {
    /// The latest applied image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.images.get()
    }

    /// What clients are told of: this image, or a later one that was borrowed of another node.
    pub fn shown(&self) -> Arc<MetadataImage> {
        let own = self.images.get();
        match &*self.borrowed.get() {
            Some(borrowed) if borrowed.index > own.index => borrowed.clone(),
            _ => own,
        }
    }

    /// Brokers that clients are not told of as leaders now, for the link to them broke a moment ago.
    pub fn doubted(&self) -> BTreeSet<BrokerId> {
        self.doubts.now(self.backend.now())
    }

    /// Brokers that clients are still told of, for they were fenced a moment ago.
    pub fn lately_fenced(&self) -> BTreeSet<BrokerId> {
        self.fenced.now(self.backend.now())
    }

    /// Another node's image, while this node's own stands still and until it has caught up, and a way to wait for it.
    pub fn borrowed(&self) -> &Published<Option<Arc<MetadataImage>>> {
        &self.borrowed
    }

    /// The image, and a way to wait for its changes.
    pub fn images(&self) -> &Published<MetadataImage> {
        &self.images
    }

    /// The members of the group as this node sees them, and a way to wait for their changes.
    pub fn members(&self) -> &Published<Members> {
        &self.members
    }

    /// This node's configuration, and what is set of it while it runs, as clients are told of it: in effect, or about to be
    /// ([`MetadataHandle::shown`]).
    pub fn shown_config(&self) -> Effective {
        self.configs.get().under(self.node, &self.shown().broker_configs)
    }

    /// This node's configuration in effect.
    pub fn config(&self) -> Arc<Config> {
        self.configs.get().config.clone()
    }

    /// Waits until it is so in what clients are told of; `None`: not by the deadline.
    pub(super) async fn until_shown(
        &self,
        is_so: impl Fn(&MetadataImage) -> bool + Sync,
        deadline: Deadline,
    ) -> Option<Shown> {
        let own = pin!(self.images.until(&self.backend, deadline, &is_so));
        let lent = |borrowed: &Option<Arc<MetadataImage>>| borrowed.as_deref().is_some_and(&is_so);
        let borrowed = pin!(self.borrowed.until(&self.backend, deadline, lent));
        match select(own, borrowed).await {
            Either::Left((Ok(_), _)) => Some(Shown::Own),
            Either::Right((Ok(_), _)) => Some(Shown::Borrowed),
            Either::Left((Err(_), _)) | Either::Right((Err(_), _)) => None,
        }
    }

    /// Who leads; the same one as before only after a pause.
    pub(super) async fn leader_other_than(
        &self,
        tried: Option<BrokerId>,
        deadline: Deadline,
    ) -> Option<BrokerId> {
        let again = Deadline::after(&self.backend, LEADER_AGAIN).earlier(deadline);
        let is_other = move |members: &Members| members.leader.is_some() && members.leader != tried;
        let found = self.members.until(&self.backend, again, is_other).await;
        found.map_or_else(|_| self.members.get().leader, |members| members.leader)
    }

    /// Waits until `done` says so of what clients are told of, or until that is as late as the controller's image is now. Where no
    /// controller answers there is nothing to wait for.
    pub async fn catch_up(&self, done: impl Fn(&MetadataImage) -> bool + Sync, deadline: Deadline) {
        let Some(others) = self.others.as_ref().filter(|_| self.members.get().leader != Some(self.node))
        else {
            return;
        };
        let (replier, reply) = others.lateness.reply("index of the controller's metadata");
        if others.lateness.try_send(replier).is_err() {
            return;
        }
        let Ok(index) = reply.wait(deadline).await else { return };
        let late = |image: &MetadataImage| image.index >= index || done(image);
        self.until_shown(late, deadline).await;
    }

    /// Whether this node led the group at some moment after this was asked: most of the voters say so, at once or with the next
    /// heartbeat that is due. A leader that was paused or is cut off does not know that it has been replaced.
    pub(crate) async fn confirm_lead(&self, at_once: bool, deadline: Deadline) -> bool {
        let Some(others) = &self.others else { return true };
        let (replier, reply) = others.group.reply("voters to confirm that this node leads the metadata");
        let confirm = GroupInput::Confirm { at_once, replier };
        others.group.try_send(confirm).is_ok() && reply.wait(deadline).await.is_ok()
    }

    /// If this node leads the group, has another one lead it. False: it did, and none has taken over by the deadline.
    pub async fn hand_over(&self, deadline: Deadline) -> bool {
        let (replier, reply) = self.mailbox.reply("hand-over of the metadata group");
        if self.mailbox.send(RaftInput::HandOver(replier), deadline).await.is_err() {
            return false;
        }
        let Ok(Some(_)) = reply.wait(deadline).await else { return true };
        let node = self.node;
        let is_other = |members: &Members| members.leader.is_some_and(|leader| leader != node);
        self.members.until(&self.backend, deadline, is_other).await.is_ok()
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
