//! How a change of metadata is had decided: put into the log by whoever leads, which tells at once where it stands, and found by
//! its place where that is applied.
//!
//! ```text
//! question: milliseconds left u32 | command
//! answer:   0 u8 | index u64 | term u64, or why not u8 and, where it is too large, its bytes u64 | limit u64
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use io_backend::channel::{ReplyError, SendError};
use io_backend::{Backend, Deadline, Replier};

use super::decided::Found;
use super::handle::{LEADER_AGAIN, MetadataHandle, Others, Shown};
use super::proposals::Proposals;
use super::snapshot::encode_command;
use super::{MetadataCommand, MetadataImage, Outcome, ProposeError};
use crate::budget::RequestClass;
use crate::ids::BrokerId;
use crate::limits;
use crate::peers::asks::{AskError, Subject};
use crate::raft::{Place, Proposal, Proposer, RaftInput, Refusal};

/// How long one node is waited for that is asked what came of a change.
const FOUND_WITHIN: Duration = Duration::from_millis(500);

impl<B: Backend> MetadataHandle<B> {
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
            SendError::Closed(_) => closed(),
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
            Deadline::Unbounded(_) => limits::ASK_DEADLINE,
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
                self.metrics.raft_proposals_repeated.inc();
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

    /// What another node has found there: the one that leads, and then each in turn until one knows.
    async fn found_elsewhere(&self, others: &Others<B>, place: Place, deadline: Deadline) -> Found {
        let question = serde_json::to_vec(&place).unwrap_or_default();
        let mut turn = 0;
        let mut all_gone = false;
        while !all_gone && !deadline.has_passed(&self.backend) {
            let leader = self.members.get().leader.filter(|leader| *leader != self.node);
            let reachable = others.asks.peers().reachable().get();
            let in_turn = reachable.keys().copied().filter(|node| Some(*node) != leader);
            let nodes: Vec<BrokerId> = leader.into_iter().chain(in_turn).collect();
            all_gone = !nodes.is_empty();
            for node in nodes {
                let soon = Deadline::after(&self.backend, FOUND_WITHIN).earlier(deadline);
                let answer = others.asks.ask(node, Subject::Outcome, &question, soon).await.ok();
                match answer.and_then(|answer| serde_json::from_slice::<Found>(&answer).ok()) {
                    Some(found @ (Found::Outcome(_) | Found::Overwritten)) => {
                        self.metrics.raft_proposals_found_elsewhere.inc();
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
        let is_there =
            |image: &MetadataImage| image.index >= place.index || latest.of(place) != Found::NotYet;
        let applied = self.images.until(&self.backend, deadline, is_there).await;
        match latest.of(place) {
            // A snapshot has brought it.
            Found::NotYet if applied.is_ok() => Found::Gone,
            found => found,
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
