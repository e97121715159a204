//! How two nodes come to take one another for peers, on one connection. Pure.
//!
//! ```text
//! initiator                        acceptor
//!   hello        ─────────────▶
//!                ◀─────────────    challenge (its hello)
//!   proof        ─────────────▶    judges who that is
//!                ◀─────────────    welcome (its proof)
//!   judges who that is
//! ```
//!
//! Who connects proves itself first: a stranger who only connects is told nothing that the secret went into. Who somebody is
//! decides nothing before it is proved. A refusal is told to the other side, in either direction, and ends it.

use bytes::Bytes;

use super::frame::{self, FrameKind};
use super::hello::{Hello, Hellos, PeerIdentity, Refusal, Role};
use crate::config::Secret;

/// Judges a peer that has proved itself.
pub type Judge<'a> = &'a mut (dyn FnMut(&PeerIdentity) -> Result<(), Refusal> + Send);

/// One side of a handshake.
pub struct Handshake {
    own: Hello,
    secret: Option<Secret>,
    state: State,
}

enum State {
    /// Who connected waits for the other to say who it is.
    AwaitsChallenge,
    /// And then for its proof.
    AwaitsWelcome {
        theirs: Hello,
        sent: Bytes,
    },
    /// Who was connected to waits for the other to say who it is.
    AwaitsHello,
    /// And then for its proof.
    AwaitsProof {
        theirs: Hello,
        received: Bytes,
    },
    Over,
}

/// What a frame leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// This is to be sent, and another frame to be waited for.
    Answer(Bytes),
    /// The other is a peer; this is to be sent first.
    Peer(PeerIdentity, Option<Bytes>),
    /// The other is not taken for one, and is to be told by this.
    Refuse(Refusal, Bytes),
    /// The other does not take this node for one.
    Refused(Refusal),
}

impl Handshake {
    /// Of who connects; what is to be sent first comes with it.
    pub fn initiate(own: Hello, secret: Option<Secret>) -> (Handshake, Bytes) {
        let first = frame::encode(FrameKind::Hello, &own.encode());
        (Handshake { own, secret, state: State::AwaitsChallenge }, first)
    }

    /// Of who was connected to. `own` expects nobody yet.
    pub fn accept(own: Hello, secret: Option<Secret>) -> Handshake {
        Handshake { own, secret, state: State::AwaitsHello }
    }

    /// Takes a frame. What comes behind the end of a handshake is refused as well.
    pub fn received(&mut self, kind: FrameKind, payload: &[u8], judge: Judge<'_>) -> Step {
        if kind == FrameKind::Refused {
            self.state = State::Over;
            return Refusal::decode(payload).map_or_else(|_| refuse(Refusal::NotAPeer), Step::Refused);
        }
        match (std::mem::replace(&mut self.state, State::Over), kind) {
            (State::AwaitsHello, FrameKind::Hello) => self.hello(payload).unwrap_or_else(refuse),
            (State::AwaitsChallenge, FrameKind::Challenge) => self.challenge(payload).unwrap_or_else(refuse),
            (State::AwaitsProof { theirs, received }, FrameKind::Proof) => {
                self.proof(&theirs, &received, payload, judge).unwrap_or_else(refuse)
            }
            (State::AwaitsWelcome { theirs, sent }, FrameKind::Welcome) => {
                self.welcome(&theirs, &sent, payload, judge).unwrap_or_else(refuse)
            }
            _ => refuse(Refusal::NotAPeer),
        }
    }

    fn hello(&mut self, payload: &[u8]) -> Result<Step, Refusal> {
        let theirs = Hello::decode(payload)?;
        self.own.expects = theirs.identity.node;
        let answer = frame::encode(FrameKind::Challenge, &self.own.encode());
        self.state = State::AwaitsProof { theirs, received: Bytes::copy_from_slice(payload) };
        Ok(Step::Answer(answer))
    }

    fn challenge(&mut self, payload: &[u8]) -> Result<Step, Refusal> {
        let theirs = Hello::decode(payload)?;
        let initiator = self.own.encode();
        let hellos = Hellos { initiator: &initiator, acceptor: payload };
        let proof = hellos.proof(self.secret.as_ref(), Role::Initiator);
        self.state = State::AwaitsWelcome { theirs, sent: Bytes::copy_from_slice(payload) };
        Ok(Step::Answer(frame::encode(FrameKind::Proof, &proof)))
    }

    fn proof(&self, theirs: &Hello, sent: &[u8], proof: &[u8], judge: Judge<'_>) -> Result<Step, Refusal> {
        let acceptor = self.own.encode();
        let hellos = Hellos { initiator: sent, acceptor: &acceptor };
        let secret = self.secret.as_ref();
        if !hellos.is_proof(secret, Role::Initiator, proof) {
            return Err(Refusal::WrongSecret);
        }
        if theirs.expects != self.own.identity.node {
            return Err(Refusal::OtherNode(self.own.identity.node));
        }
        self.judge(theirs, judge)?;
        let proof = hellos.proof(secret, Role::Acceptor);
        Ok(Step::Peer(theirs.identity, Some(frame::encode(FrameKind::Welcome, &proof))))
    }

    fn welcome(&self, theirs: &Hello, sent: &[u8], proof: &[u8], judge: Judge<'_>) -> Result<Step, Refusal> {
        let initiator = self.own.encode();
        let hellos = Hellos { initiator: &initiator, acceptor: sent };
        if !hellos.is_proof(self.secret.as_ref(), Role::Acceptor, proof) {
            return Err(Refusal::WrongSecret);
        }
        if theirs.identity.node != self.own.expects {
            return Err(Refusal::OtherNode(theirs.identity.node));
        }
        self.judge(theirs, judge)?;
        Ok(Step::Peer(theirs.identity, None))
    }

    fn judge(&self, theirs: &Hello, judge: Judge<'_>) -> Result<(), Refusal> {
        let (ours, others) = (&self.own.cluster, &theirs.cluster);
        if !ours.is_empty() && !others.is_empty() && ours != others {
            return Err(Refusal::OtherCluster);
        }
        judge(&theirs.identity)
    }
}

fn refuse(why: Refusal) -> Step {
    Step::Refuse(why, frame::encode(FrameKind::Refused, &why.encode()))
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
