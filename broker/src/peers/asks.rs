//! Questions to another node, and their answers: what is asked is answered, or comes to nothing by its deadline or when
//! the link is lost.
//!
//! ```text
//! question: number u64 | subject u8 | body
//! answer:   number u64 | body
//! ```
//!
//! A question that came to nothing may have been heard: who asks says again only what may be done twice.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::{Either, select};
use io_backend::{Backend, Deadline, Replier, Reply, Sender, channel};

use super::{MessageKind, PeerIdentity, Peers};
use crate::ids::BrokerId;

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Whether the node has a metadata group, or would begin one.
    Founding,
    /// To be a member of its metadata group.
    Membership,
    /// A change of metadata, to whoever leads; answered with its place in the log.
    Proposal,
    /// How a broker is, to whoever leads the metadata.
    Heartbeat,
    /// A batch for a partition that the other node leads.
    Produce,
    /// The members of the metadata group, and changes of them, to whoever leads it.
    Quorum,
    /// The metadata image, for a node whose own stands still.
    Image,
    /// How far the metadata are, to whoever leads them.
    Index,
    /// What came of an entry of the metadata log, for a node whose own metadata stand still.
    Outcome,
}

impl Subject {
    const ALL: [Subject; 9] = [
        Subject::Founding,
        Subject::Membership,
        Subject::Proposal,
        Subject::Heartbeat,
        Subject::Produce,
        Subject::Quorum,
        Subject::Image,
        Subject::Index,
        Subject::Outcome,
    ];

    fn code(self) -> u8 {
        match self {
            Subject::Founding => 1,
            Subject::Membership => 2,
            // 3 was answered when it was decided.
            Subject::Proposal => 10,
            Subject::Heartbeat => 4,
            Subject::Produce => 5,
            Subject::Quorum => 6,
            Subject::Image => 7,
            Subject::Index => 8,
            Subject::Outcome => 9,
        }
    }

    /// What carries it: large questions do not stand before small ones.
    fn kind(self) -> MessageKind {
        match self {
            Subject::Produce => MessageKind::Produce,
            _ => MessageKind::Ask,
        }
    }

    fn of(code: u8) -> Option<Subject> {
        Subject::ALL.into_iter().find(|subject| subject.code() == code)
    }
}

/// A question of another node; whoever drops it leaves it unanswered.
#[derive(Debug)]
pub struct Question {
    /// Who asks.
    pub from: PeerIdentity,
    /// What about.
    pub subject: Subject,
    /// What is asked.
    pub body: Bytes,
    number: u64,
}

impl Question {
    /// As it came; `None` where it is none, of this release.
    pub fn decode(from: PeerIdentity, mut message: Bytes) -> Option<Question> {
        if message.len() < 9 {
            return None;
        }
        let number = message.get_u64();
        let subject = Subject::of(message.get_u8())?;
        Some(Question { from, subject, body: message, number })
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Nobody has heard the question.
    #[error("node {0} is not reached")]
    Unreachable(BrokerId),
    /// Whether it was heard is not known.
    #[error("node {0} has not answered")]
    Unanswered(BrokerId),
}

/// Questions that wait for answers; clones are of the same.
#[derive(Clone, Default)]
pub struct Answers {
    waiting: Arc<Mutex<Waiting>>,
}

/// By number: who is asked, and who is told.
type Waiting = BTreeMap<u64, (BrokerId, Replier<Bytes>)>;

impl Answers {
    /// An answer has come. One that nobody waits for, or not of this node, is late, and dropped.
    pub fn received(&self, from: BrokerId, mut message: Bytes) {
        if message.len() < 8 {
            return;
        }
        let number = message.get_u64();
        let mut waiting = self.lock();
        let is_its = waiting.get(&number).is_some_and(|(asked, _)| *asked == from);
        let waits = if is_its { waiting.remove(&number) } else { None };
        drop(waiting);
        if let Some((_, replier)) = waits {
            replier.answer(message);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to ask other nodes, and to answer them. Clones are of the same.
pub struct Asks<B: Backend> {
    backend: B,
    peers: Peers<B>,
    answers: Answers,
    /// To make replies of.
    own: Sender<B, ()>,
}

impl<B: Backend> Clone for Asks<B> {
    fn clone(&self) -> Self {
        Asks {
            backend: self.backend.clone(),
            peers: self.peers.clone(),
            answers: self.answers.clone(),
            own: self.own.clone(),
        }
    }
}

impl<B: Backend> Asks<B> {
    /// `answers` is told what comes of [`MessageKind::Answer`].
    pub fn new(backend: B, peers: Peers<B>, answers: Answers) -> Asks<B> {
        let (own, _) = channel(&backend, "answers of other nodes", 1);
        Asks { backend, peers, answers, own }
    }

    /// The nodes that can be asked.
    pub fn peers(&self) -> &Peers<B> {
        &self.peers
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    ///
    /// See [`AskError`].
    pub async fn ask(
        &self,
        node: BrokerId,
        subject: Subject,
        body: &[u8],
        deadline: Deadline,
    ) -> Result<Bytes, AskError> {
        self.begin(node, subject, &[body])?.wait(deadline).await
    }

    /// Asks; what is begun first is heard first. The question is `parts`, one after the other.
    ///
    /// # Errors
    ///
    /// Nobody hears it.
    pub fn begin(&self, node: BrokerId, subject: Subject, parts: &[&[u8]]) -> Result<Asked<B>, AskError> {
        let Some(process) = self.peers.reachable().get().get(&node).copied() else {
            return Err(AskError::Unreachable(node));
        };
        let number = self.backend.random_u64();
        let mut message = BytesMut::with_capacity(9 + parts.iter().map(|part| part.len()).sum::<usize>());
        message.put_u64(number);
        message.put_u8(subject.code());
        parts.iter().for_each(|part| message.put_slice(part));
        let (replier, reply) = self.own.reply("answer of another node");
        self.answers.lock().insert(number, (node, replier));
        let waits = Waits { answers: self.answers.clone(), number };
        self.peers.send(node, subject.kind(), message.freeze()).map_err(|_| AskError::Unreachable(node))?;
        Ok(Asked { asks: self.clone(), node, process, reply, _waits: waits })
    }

    /// Answers a question.
    pub fn answer(&self, question: &Question, body: &[u8]) {
        let mut message = BytesMut::with_capacity(8 + body.len());
        message.put_u64(question.number);
        message.put_slice(body);
        if let Err(why) = self.peers.send(question.from.node, MessageKind::Answer, message.freeze()) {
            tracing::debug!(to = %question.from, %why, "an answer was not sent");
        }
    }
}

/// A question that is on its way. Dropping it leaves it unanswered.
pub struct Asked<B: Backend> {
    asks: Asks<B>,
    node: BrokerId,
    /// Of the node: another one has not heard it.
    process: PeerIdentity,
    reply: Reply<B, Bytes>,
    _waits: Waits,
}

impl<B: Backend> Asked<B> {
    /// The answer.
    ///
    /// # Errors
    ///
    /// There is none by the deadline, or the link is lost.
    pub async fn wait(self, deadline: Deadline) -> Result<Bytes, AskError> {
        let Asked { asks, node, process, reply, _waits } = self;
        let reachable = asks.peers.reachable();
        let answered = pin!(reply.wait(deadline));
        let lost = pin!(reachable.until(&asks.backend, deadline, |now| now.get(&node) != Some(&process)));
        match select(answered, lost).await {
            Either::Left((Ok(answer), _)) => Ok(answer),
            _ => Err(AskError::Unanswered(node)),
        }
    }
}

/// Ends with the wait of who asks, however that ends.
struct Waits {
    answers: Answers,
    number: u64,
}

impl Drop for Waits {
    fn drop(&mut self) {
        let forgotten = self.answers.lock().remove(&self.number);
        drop(forgotten);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::{Incarnation, IncarnationId, StorageId};

    fn somebody() -> PeerIdentity {
        PeerIdentity {
            node: BrokerId(2),
            storage: StorageId(Uuid::from_u128(2)),
            incarnation: Incarnation(1),
            incarnation_id: IncarnationId(Uuid::from_u128(3)),
        }
    }

    #[test]
    fn what_is_no_question_is_told_from_one() {
        let decode = |bytes: &'static [u8]| {
            let question = Question::decode(somebody(), Bytes::from_static(bytes))?;
            Some((question.number, question.subject, question.body))
        };
        let body = Bytes::from_static(b"body");
        assert_eq!(decode(b"\0\0\0\0\0\0\0\x07\x04body"), Some((7, Subject::Heartbeat, body)));
        assert_eq!(decode(b"\0\0\0\0\0\0\0\x07"), None);
        assert_eq!(decode(b"\0\0\0\0\0\0\0\x07\x99"), None);
        for subject in Subject::ALL {
            assert_eq!(Subject::of(subject.code()), Some(subject));
        }
    }
}
