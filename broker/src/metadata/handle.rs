//! The handle of the metadata group.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use futures::future::{Either, select};
use io_backend::channel::ReplyError;
use io_backend::{Backend, Deadline, Published, Replier, Sender};

use super::decided::{Found, Latest};
use super::doubt::Doubts;
use super::members::Members;
use super::proposals::Proposals;
use super::snapshot::encode_command;
use super::{Effective, MetadataCommand, MetadataImage, Outcome, ProposeError};
use crate::budget::{Account, RequestClass};
use crate::config::Config;
use crate::ids::BrokerId;
use crate::metrics::Metrics;
use crate::peers::asks::{AskError, Asks, Subject};
use crate::raft::{GroupInput, Place, Proposal, Proposer, RaftInput, Refusal};

/// How long somebody who is not the leader is left alone before it is looked for again.
const LEADER_AGAIN: Duration = Duration::from_millis(50);

/// How long one node is waited for that is asked what came of a change.
const FOUND_WITHIN: Duration = Duration::from_millis(500);

/// Cloneable; reads cost a reference count, writes go through Raft.
pub struct MetadataHandle<B: Backend> {
    pub(crate) images: Published<MetadataImage>,
    pub(super) configs: Published<Effective>,
    pub(super) members: Published<Members>,
    /// Of another node, while this node's own stands still and until it has caught up.
    pub(super) borrowed: Published<Option<Arc<MetadataImage>>>,
    pub(super) doubts: Doubts,
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
enum Shown {
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

    /// Has a command decided, by whoever leads: `Ok` when it is committed, synced and in what clients are told of here
    /// ([`MetadataHandle::shown`]).
    pub async fn propose(
        &self,
        command: MetadataCommand,
        deadline: Deadline,
    ) -> Result<Outcome, ProposeError> {
        let began = self.backend.now();
        let data = encode_command(&command);
        let bytes = data.len();
        let result = match &self.others {
            None => self.decide_here(data, deadline).await,
            Some(others) => self.decide_somewhere(others, data, deadline).await,
        };
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

    /// The way to [`MetadataHandle::propose`], for those who need no more of the group than that.
    pub(crate) fn proposals(&self) -> Proposals<B> {
        let metadata = self.clone();
        Proposals {
            backend: self.backend.clone(),
            images: self.images.clone(),
            propose: Arc::new(move |command, deadline| {
                let metadata = metadata.clone();
                Box::pin(async move { metadata.propose(command, deadline).await })
            }),
        }
    }

    /// Has a command decided if this node leads, and not otherwise: what a controller decides is not for the next one to say.
    pub(crate) async fn propose_here(
        &self,
        command: &MetadataCommand,
        deadline: Deadline,
    ) -> Result<Outcome, ProposeError> {
        self.decide_here(encode_command(command), deadline).await
    }

    /// Has this node's own member of the group decide, if it leads.
    async fn decide_here(&self, data: Vec<u8>, deadline: Deadline) -> Result<Outcome, ProposeError> {
        self.propose_to_own(data, deadline, Proposer::ForOutcome).await
    }

    /// Has this node's own member of the group put it into the log, if it leads. What comes of it is not known yet.
    pub(super) async fn place_here(&self, data: Vec<u8>, deadline: Deadline) -> Result<Place, ProposeError> {
        self.propose_to_own(data, deadline, Proposer::ForPlace).await
    }

    async fn propose_to_own<T: Send>(
        &self,
        data: Vec<u8>,
        deadline: Deadline,
        proposer: impl FnOnce(Replier<Result<T, Refusal>>) -> Proposer<Outcome>,
    ) -> Result<T, ProposeError> {
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
        let proposal = Proposal { data, until, proposer: proposer(replier), share };
        self.mailbox.send(RaftInput::Propose(proposal), deadline).await.map_err(|error| match error {
            io_backend::channel::SendError::Closed(_) => closed(),
            _ => ProposeError::Overloaded,
        })?;
        match reply.wait(deadline).await {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(Refusal::NotLeader { .. } | Refusal::Members(_))) => Err(ProposeError::NoController),
            Ok(Err(Refusal::Closed)) => Err(closed()),
            Ok(Err(Refusal::DiskFull)) => Err(ProposeError::DiskFull),
            // Whoever dropped the reply may have got it into the log before.
            Err(ReplyError::TimedOut | ReplyError::Dropped) => Err(ProposeError::TimedOut),
        }
    }

    /// Proposes to whoever leads, and looks for the next one as long as nobody does.
    async fn decide_somewhere(
        &self,
        others: &Others<B>,
        data: Vec<u8>,
        deadline: Deadline,
    ) -> Result<Outcome, ProposeError> {
        let mut tried = None;
        loop {
            let leader = self.leader_other_than(tried, deadline).await;
            let placed = match leader {
                None => Err(ProposeError::NoController),
                Some(leader) if leader == self.node => self.place_here(data.clone(), deadline).await,
                Some(leader) => self.place_there(others, leader, &data, deadline).await,
            };
            let decided = match placed {
                Ok(place) => self.outcome(others, place, deadline).await,
                Err(error) => Err(error),
            };
            match decided {
                Err(ProposeError::NoController) if !deadline.has_passed(&self.backend) => tried = leader,
                decided => return decided,
            }
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

    /// Has another node's member put it into the log.
    async fn place_there(
        &self,
        others: &Others<B>,
        leader: BrokerId,
        data: &[u8],
        deadline: Deadline,
    ) -> Result<Place, ProposeError> {
        let left = match deadline {
            Deadline::At(at) => at.since(self.backend.now()),
            Deadline::Unbounded(_) => crate::limits::ASK_DEADLINE,
        };
        let mut question = BytesMut::with_capacity(4 + data.len());
        question.put_u32(u32::try_from(left.as_millis()).unwrap_or(u32::MAX));
        question.put_slice(data);
        match others.asks.ask(leader, Subject::Proposal, &question, deadline).await {
            Ok(answer) => read_answer(&answer),
            Err(AskError::Unreachable(_)) => Err(ProposeError::NoController),
            Err(AskError::Unanswered(_)) => Err(ProposeError::TimedOut),
        }
    }

    /// What came of what stands there, once clients are told of it.
    async fn outcome(
        &self,
        others: &Others<B>,
        place: Place,
        deadline: Deadline,
    ) -> Result<Outcome, ProposeError> {
        let is_decided = |image: &MetadataImage| {
            image.index >= place.index || others.latest.of(place) == Found::Overwritten
        };
        let found = match self.until_shown(is_decided, deadline).await {
            Some(Shown::Own) => others.latest.of(place),
            Some(Shown::Borrowed) => Found::NotYet,
            None => return Err(ProposeError::TimedOut),
        };
        let found = match found {
            Found::NotYet | Found::Gone => self.found_elsewhere(others, place, deadline).await,
            found => found,
        };
        match found {
            Found::Outcome(outcome) => Ok(outcome),
            Found::Overwritten => {
                tracing::debug!(
                    index = place.index,
                    term = place.term,
                    "a change came to nothing, and is proposed anew"
                );
                Err(ProposeError::NoController)
            }
            Found::NotYet | Found::Gone => Err(ProposeError::TimedOut),
        }
    }

    /// Waits until it is so in what clients are told of; `None`: not by the deadline.
    async fn until_shown(
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

    /// What another node has found there: the one that leads, and then each in turn until one knows.
    async fn found_elsewhere(&self, others: &Others<B>, place: Place, deadline: Deadline) -> Found {
        let question = serde_json::to_vec(&place).unwrap_or_default();
        let mut turn = 0;
        let mut all_gone = false;
        while !all_gone && !deadline.has_passed(&self.backend) {
            let leader = self.members.get().leader.filter(|leader| *leader != self.node);
            let reachable = others.asks.peers().reachable().get();
            let nodes: Vec<BrokerId> = leader.into_iter().chain(reachable.keys().copied()).collect();
            all_gone = !nodes.is_empty();
            for node in nodes {
                let soon = Deadline::after(&self.backend, FOUND_WITHIN).earlier(deadline);
                let answer = others.asks.ask(node, Subject::Outcome, &question, soon).await.ok();
                match answer.and_then(|answer| serde_json::from_slice::<Found>(&answer).ok()) {
                    Some(found @ (Found::Outcome(_) | Found::Overwritten)) => {
                        tracing::debug!(index = place.index, %node, "another node tells what came of a change");
                        return found.received(&self.shown());
                    }
                    Some(Found::Gone) => {}
                    Some(Found::NotYet) | None => all_gone = false,
                }
            }
            turn += 1;
            self.backend.sleep(LEADER_AGAIN * turn).await;
        }
        Found::Gone
    }

    /// What has come of what stands there, for another node, once it is applied here.
    pub(super) async fn found(&self, place: Place, deadline: Deadline) -> Found {
        let Some(Others { latest, .. }) = &self.others else { return Found::Gone };
        let is_found = |_: &MetadataImage| latest.of(place) != Found::NotYet;
        let _ = self.images.until(&self.backend, deadline, is_found).await;
        latest.of(place)
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

fn closed() -> ProposeError {
    ProposeError::Closed("this node is stopping".to_owned())
}

/// What a node answers that was asked to put a proposal into the log.
pub(super) fn write_answer(result: &Result<Place, ProposeError>) -> BytesMut {
    let mut answer = BytesMut::new();
    let code = match result {
        Ok(_) => 0,
        Err(ProposeError::NoController) => 1,
        Err(ProposeError::TimedOut) => 2,
        Err(ProposeError::Overloaded) => 3,
        Err(ProposeError::TooLarge { .. }) => 4,
        Err(ProposeError::DiskFull) => 5,
        Err(ProposeError::Closed(_)) => 6,
    };
    answer.put_u8(code);
    match result {
        Ok(place) => {
            answer.put_u64(place.index);
            answer.put_u64(place.term);
        }
        Err(ProposeError::TooLarge { bytes, limit }) => {
            answer.put_u64(*bytes as u64);
            answer.put_u64(*limit as u64);
        }
        Err(_) => {}
    }
    answer
}

/// An answer that is none of these says nothing.
fn read_answer(mut answer: &[u8]) -> Result<Place, ProposeError> {
    let code = answer.try_get_u8().map_err(|_| ProposeError::TimedOut)?;
    let mut number = || answer.try_get_u64().map_err(|_| ProposeError::TimedOut);
    Err(match code {
        0 => return Ok(Place { index: number()?, term: number()? }),
        // It stops: somebody else leads next.
        1 | 6 => ProposeError::NoController,
        3 => ProposeError::Overloaded,
        4 => ProposeError::TooLarge { bytes: number()? as usize, limit: number()? as usize },
        5 => ProposeError::DiskFull,
        _ => ProposeError::TimedOut,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_out_as_they_went_in_and_others_say_nothing() {
        let read = |result| read_answer(&write_answer(&result));
        assert_eq!(read(Ok(Place { index: 77, term: 5 })), Ok(Place { index: 77, term: 5 }));
        let large = ProposeError::TooLarge { bytes: 7, limit: 5 };
        for error in [
            ProposeError::NoController,
            ProposeError::TimedOut,
            ProposeError::Overloaded,
            ProposeError::DiskFull,
            large,
        ] {
            assert_eq!(read(Err(error.clone())), Err(error));
        }
        assert_eq!(read(Err(closed())), Err(ProposeError::NoController));
        for bytes in [&[][..], &[0, 1], &[0; 9], &[4, 0], &[9]] {
            assert_eq!(read_answer(bytes), Err(ProposeError::TimedOut));
        }
    }
}
