//! Which process of each peer is known, and by which connections; who is taken in and who replaces whom. Pure.
//!
//! Of one data directory the later start counts: an earlier one is a process that was replaced or a copy of before, and is
//! refused. Starts of different directories do not compare: a disk that was replaced counts from one again. Of those the
//! one that is at work counts, which is the process that this node is linked to at the configured address, or that was
//! heard a moment ago; when it is gone, another is taken in, and its storage id says that it has nothing of before.

use std::collections::{BTreeMap, BTreeSet};

use io_backend::Moment;

use super::hello::{PeerIdentity, Refusal};
use crate::ids::BrokerId;
use crate::limits::PEER_SILENT_DEADLINE;

/// Number of a connection that a peer has made.
pub type ConnectionNumber = u64;

/// Which process of each peer is reached.
pub type Reachable = BTreeMap<BrokerId, PeerIdentity>;

/// The peers of a node as it knows them.
pub struct Roster {
    own: PeerIdentity,
    peers: BTreeMap<BrokerId, Peer>,
}

#[derive(Default)]
struct Peer {
    /// The latest that was taken in.
    known: Option<PeerIdentity>,
    /// Whom this node's own connection leads to.
    linked: Option<PeerIdentity>,
    /// The connection that it has made.
    incoming: Option<Incoming>,
    /// The last attempt at this node's own was refused, as by the machine of a process that has ended.
    refused: bool,
}

struct Incoming {
    number: ConnectionNumber,
    identity: PeerIdentity,
    heard: Moment,
}

/// What is to be done to this node's own connection to a peer, for what was learned elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nudge {
    /// It may lead to a process that is gone: something is sent, so that this shows.
    Probe,
    /// It leads to a process that was replaced: it is made anew.
    Reconnect,
}

/// What taking in a connection leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// The connection that it replaces, which is to end.
    pub replaced: Option<ConnectionNumber>,
    /// What is to be done to this node's own.
    pub nudge: Option<Nudge>,
}

impl Roster {
    /// Nobody is known yet, of these peers.
    pub fn new(own: PeerIdentity, peers: impl IntoIterator<Item = BrokerId>) -> Roster {
        let peers = peers.into_iter().filter(|peer| *peer != own.node);
        Roster { own, peers: peers.map(|peer| (peer, Peer::default())).collect() }
    }

    /// Whether somebody who has proved itself may be a peer.
    ///
    /// # Errors
    ///
    /// It may not, and why.
    pub fn judge(&self, now: Moment, candidate: &PeerIdentity) -> Result<(), Refusal> {
        let node = candidate.node;
        if node == self.own.node {
            return Err(Refusal::Duplicate(node));
        }
        let peer = self.peers.get(&node).ok_or(Refusal::UnknownNode(node))?;
        let Some(known) = &peer.known else { return Ok(()) };
        if known == candidate {
            return Ok(());
        }
        if known.storage != candidate.storage {
            return if peer.is_at_work(known, now) { Err(Refusal::Duplicate(node)) } else { Ok(()) };
        }
        if candidate.incarnation > known.incarnation { Ok(()) } else { Err(Refusal::Stale(node)) }
    }

    /// Takes in a connection of a peer, in the place of one it had.
    ///
    /// # Errors
    ///
    /// As of [`judge`](Self::judge).
    pub fn admit(
        &mut self,
        now: Moment,
        number: ConnectionNumber,
        identity: PeerIdentity,
    ) -> Result<Admitted, Refusal> {
        self.judge(now, &identity)?;
        let peer = self.peers.get_mut(&identity.node).ok_or(Refusal::UnknownNode(identity.node))?;
        peer.known = Some(identity);
        peer.refused = false;
        let before = peer.incoming.replace(Incoming { number, identity, heard: now });
        let is_to_another = peer.linked.is_some_and(|linked| linked != identity);
        Ok(Admitted {
            replaced: before.map(|before| before.number),
            nudge: is_to_another.then_some(Nudge::Reconnect),
        })
    }

    /// Something came on it.
    pub fn heard(&mut self, node: BrokerId, number: ConnectionNumber, now: Moment) {
        if let Some(incoming) = self.incoming(node, number) {
            incoming.heard = now;
        }
    }

    /// It is over, replaced or not.
    pub fn left(&mut self, node: BrokerId, number: ConnectionNumber) {
        if self.incoming(node, number).is_some()
            && let Some(peer) = self.peers.get_mut(&node)
        {
            peer.incoming = None;
        }
    }

    fn incoming(&mut self, node: BrokerId, number: ConnectionNumber) -> Option<&mut Incoming> {
        self.peers.get_mut(&node)?.incoming.as_mut().filter(|incoming| incoming.number == number)
    }

    /// This node's own connection to a peer is made; a connection of a process before it is to end.
    ///
    /// # Errors
    ///
    /// As of [`judge`](Self::judge).
    pub fn link(&mut self, now: Moment, identity: PeerIdentity) -> Result<Option<ConnectionNumber>, Refusal> {
        self.judge(now, &identity)?;
        let peer = self.peers.get_mut(&identity.node).ok_or(Refusal::UnknownNode(identity.node))?;
        peer.known = Some(identity);
        peer.linked = Some(identity);
        peer.refused = false;
        let outlived = peer.incoming.as_ref().filter(|incoming| incoming.identity != identity);
        Ok(outlived.map(|incoming| incoming.number))
    }

    /// It is over.
    pub fn unlink(&mut self, node: BrokerId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.linked = None;
        }
    }

    /// It is over, or was not made, because nobody listens there; or for another reason.
    pub fn ended(&mut self, node: BrokerId, refused: bool) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.refused = refused;
        }
    }

    /// Whom messages reach.
    pub fn reachable(&self) -> Reachable {
        self.peers.iter().filter_map(|(node, peer)| Some((*node, peer.linked?))).collect()
    }

    /// Whose processes have ended: nobody listens at their addresses, and they have no connections. A peer of which nothing comes is
    /// none of them: it may be at work.
    pub fn gone(&self) -> BTreeSet<BrokerId> {
        let gone = |peer: &Peer| peer.refused && peer.linked.is_none() && peer.incoming.is_none();
        self.peers.iter().filter(|(_, peer)| gone(peer)).map(|(node, _)| *node).collect()
    }
}

impl Peer {
    fn is_at_work(&self, process: &PeerIdentity, now: Moment) -> bool {
        let heard = self.incoming.as_ref().filter(|incoming| incoming.identity == *process);
        self.linked == Some(*process)
            || heard.is_some_and(|incoming| now.since(incoming.heard) < PEER_SILENT_DEADLINE)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::{Incarnation, IncarnationId, StorageId};

    fn process(node: i32, storage: u128, incarnation: u64, id: u128) -> PeerIdentity {
        PeerIdentity {
            node: BrokerId(node),
            storage: StorageId(Uuid::from_u128(storage)),
            incarnation: Incarnation(incarnation),
            incarnation_id: IncarnationId(Uuid::from_u128(id)),
        }
    }

    fn roster() -> Roster {
        Roster::new(process(1, 1, 1, 1), [1, 2, 3].map(BrokerId))
    }

    fn at(ms: u64) -> Moment {
        Moment::ZERO + std::time::Duration::from_millis(ms)
    }

    #[test]
    fn who_may_be_a_peer_is_told_by_what_is_known_of_it() {
        let known = process(2, 20, 5, 50);
        // Who comes; the verdict while the known process is linked to, and when it is gone.
        let table = [
            (known, Ok(()), Ok(())),
            (process(2, 20, 6, 60), Ok(()), Ok(())),
            (process(2, 20, 5, 51), Err(Refusal::Stale(BrokerId(2))), Err(Refusal::Stale(BrokerId(2)))),
            (process(2, 20, 4, 40), Err(Refusal::Stale(BrokerId(2))), Err(Refusal::Stale(BrokerId(2)))),
            (process(2, 21, 1, 10), Err(Refusal::Duplicate(BrokerId(2))), Ok(())),
            (process(2, 21, 5, 50), Err(Refusal::Duplicate(BrokerId(2))), Ok(())),
            (process(2, 21, 9, 90), Err(Refusal::Duplicate(BrokerId(2))), Ok(())),
            (process(3, 30, 1, 1), Ok(()), Ok(())),
            (
                process(1, 99, 9, 9),
                Err(Refusal::Duplicate(BrokerId(1))),
                Err(Refusal::Duplicate(BrokerId(1))),
            ),
            (
                process(4, 40, 1, 1),
                Err(Refusal::UnknownNode(BrokerId(4))),
                Err(Refusal::UnknownNode(BrokerId(4))),
            ),
        ];
        for (candidate, while_linked, when_gone) in table {
            let mut roster = roster();
            assert_eq!(roster.link(at(0), known), Ok(None));
            assert_eq!(roster.judge(at(60_000), &candidate), while_linked, "{candidate}");
            roster.unlink(BrokerId(2));
            assert_eq!(roster.judge(at(60_000), &candidate), when_gone, "{candidate}");
        }
    }

    #[test]
    fn a_process_that_was_heard_a_moment_ago_is_at_work() {
        let mut roster = roster();
        let (known, other) = (process(2, 20, 5, 50), process(2, 21, 1, 10));
        assert!(roster.admit(at(0), 1, known).is_ok());
        roster.heard(BrokerId(2), 1, at(10_000));
        assert_eq!(roster.judge(at(11_999), &other), Err(Refusal::Duplicate(BrokerId(2))));
        assert_eq!(roster.judge(at(12_000), &other), Ok(()));
        roster.left(BrokerId(2), 1);
        assert_eq!(roster.judge(at(10_001), &other), Ok(()), "its connection is gone");
    }

    #[test]
    fn a_newer_connection_takes_the_place_of_the_older_and_outlives_its_end() {
        let mut roster = roster();
        let (first, later) = (process(2, 20, 5, 50), process(2, 20, 6, 60));
        assert_eq!(roster.admit(at(0), 1, first), Ok(Admitted::default()));
        let again = Admitted { replaced: Some(1), nudge: None };
        assert_eq!(roster.admit(at(0), 2, first), Ok(again), "of the same process");
        roster.left(BrokerId(2), 1);
        assert_eq!(roster.link(at(0), first), Ok(None));
        let restarted = Admitted { replaced: Some(2), nudge: Some(Nudge::Reconnect) };
        assert_eq!(roster.admit(at(0), 3, later), Ok(restarted), "of a later start");
        assert_eq!(roster.admit(at(0), 4, first), Err(Refusal::Stale(BrokerId(2))));
        roster.unlink(BrokerId(2));
        assert_eq!(roster.admit(at(0), 4, later), Ok(Admitted { replaced: Some(3), nudge: None }));
    }

    #[test]
    fn a_process_has_ended_when_nobody_listens_and_it_has_no_connection() {
        let mut roster = roster();
        let peer = process(2, 20, 5, 50);
        let gone = |roster: &Roster| roster.gone().into_iter().collect::<Vec<_>>();
        assert_eq!(gone(&roster), [], "nothing was tried");
        roster.admit(at(0), 1, peer).unwrap();
        roster.link(at(0), peer).unwrap();
        roster.unlink(BrokerId(2));
        roster.ended(BrokerId(2), true);
        assert_eq!(gone(&roster), [], "it has a connection of its own");
        roster.left(BrokerId(2), 1);
        assert_eq!(gone(&roster), [BrokerId(2)]);
        // Nothing comes of the next attempt, not even a refusal: its machine or the network is gone.
        roster.ended(BrokerId(2), false);
        assert_eq!(gone(&roster), []);
        roster.ended(BrokerId(2), true);
        roster.admit(at(1), 2, peer).unwrap();
        roster.left(BrokerId(2), 2);
        assert_eq!(gone(&roster), [], "it was at work a moment ago");
        roster.ended(BrokerId(2), true);
        roster.link(at(1), peer).unwrap();
        roster.unlink(BrokerId(2));
        assert_eq!(gone(&roster), []);
    }

    #[test]
    fn a_link_to_a_later_start_ends_what_is_left_of_the_one_before() {
        let mut roster = roster();
        assert!(roster.admit(at(0), 1, process(2, 20, 5, 50)).is_ok());
        assert_eq!(roster.link(at(0), process(2, 20, 6, 60)), Ok(Some(1)));
        assert_eq!(roster.reachable().keys().collect::<Vec<_>>(), [&BrokerId(2)]);
        roster.unlink(BrokerId(2));
        assert!(roster.reachable().is_empty());
    }
}
