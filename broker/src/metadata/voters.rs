//! What an operator wants of the voters of the metadata group (KIP-853), and the next step towards it. Pure.
//!
//! Kafka's directory id of a voter is the storage id that its node has registered: a node on another disk is another
//! voter. A voter that is taken away goes on as an observer while its broker runs, for it lives by the metadata.

use serde::{Deserialize, Serialize};

use super::image::MetadataImage;
use super::members::Quorum;
use super::outcome::ProposeError;
use crate::ids::{BrokerId, StorageId};

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoterChange {
    /// To have it vote, or not.
    pub wish: VoterWish,
    /// Whose vote.
    pub node: BrokerId,
    /// On which data directory.
    pub directory: StorageId,
}

/// See [`VoterChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoterWish {
    /// It votes from now on.
    Add,
    /// It votes no more.
    Remove,
}

/// One change of the members of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberStep {
    /// It is given the log.
    AddObserver(BrokerId),
    /// An observer that follows the log votes.
    AddVoter(BrokerId),
    /// It is given nothing more.
    Remove(BrokerId),
}

/// Why the voters stay as they are, or are not known to have changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoterError {
    /// It votes already.
    #[error("Node {0} is a voter already.")]
    Duplicate(BrokerId),
    /// It does not vote, or on another data directory.
    #[error("Node {0} does not vote on data directory {id}.", id = .1.0)]
    NotFound(BrokerId, StorageId),
    /// Nobody of this number has registered.
    #[error(
        "Node {0} is not registered. Start it with the nodes of this cluster in cluster.peers: it becomes a voter by itself."
    )]
    Unregistered(BrokerId),
    /// It runs on another data directory.
    #[error("Node {0} runs on data directory {id}.", id = .1.0)]
    OtherDirectory(BrokerId, StorageId),
    /// A group needs a voter.
    #[error("Node {0} is the only voter.")]
    LastVoter(BrokerId),
    /// See [`ProposeError`].
    #[error("{0}")]
    Undecided(#[from] ProposeError),
}

impl VoterChange {
    /// What has to be done next; `None` when it is done. `begun`: a step of this change has been taken before.
    pub fn next(
        &self,
        quorum: &Quorum,
        image: &MetadataImage,
        begun: bool,
    ) -> Result<Option<MemberStep>, VoterError> {
        let node = self.node;
        let member = quorum.members.iter().find(|member| member.node == node);
        let votes = member.is_some_and(|member| member.votes);
        let registered = image.brokers.get(&node).map(|broker| broker.registration.storage);
        match self.wish {
            VoterWish::Add => match registered {
                None => Err(VoterError::Unregistered(node)),
                Some(storage) if storage != self.directory => Err(VoterError::OtherDirectory(node, storage)),
                Some(_) if votes && !begun => Err(VoterError::Duplicate(node)),
                Some(_) if votes => Ok(None),
                Some(_) if member.is_some() => Ok(Some(MemberStep::AddVoter(node))),
                Some(_) => Ok(Some(MemberStep::AddObserver(node))),
            },
            VoterWish::Remove if votes => {
                // One that was unregistered is gone for good, whichever its directory was.
                if registered.is_some_and(|storage| storage != self.directory) {
                    return Err(VoterError::NotFound(node, self.directory));
                }
                match quorum.members.iter().filter(|member| member.votes).count() {
                    1 => Err(VoterError::LastVoter(node)),
                    _ => Ok(Some(MemberStep::Remove(node))),
                }
            }
            VoterWish::Remove if !begun => Err(VoterError::NotFound(node, self.directory)),
            VoterWish::Remove if member.is_none() && image.is_alive(node) => {
                Ok(Some(MemberStep::AddObserver(node)))
            }
            VoterWish::Remove => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::metadata::QuorumMember;
    use crate::metadata::testing::cluster;

    #[test]
    fn each_change_goes_one_step_at_a_time() {
        use MemberStep::{AddObserver, AddVoter, Remove};
        // Voters 1 and 2, observer 3; node 4 runs and is no member, node 5 votes and was unregistered.
        let member = |(node, votes)| QuorumMember { node: BrokerId(node), votes, end: 9, heard_ms: None };
        let quorum = |members: &[(i32, bool)]| Quorum {
            leader: BrokerId(1),
            term: 7,
            high_watermark: 9,
            members: members.iter().copied().map(member).collect(),
        };
        let all = quorum(&[(1, true), (2, true), (3, false), (5, true)]);
        let one = quorum(&[(1, true), (3, false)]);
        let mut image = cluster(6);
        image.brokers.remove(&BrokerId(5));
        image.brokers[&BrokerId(6)].fenced = true;
        let storage = |node: i32| StorageId(Uuid::from_u128(node.unsigned_abs().into()));
        let (add, remove) = (VoterWish::Add, VoterWish::Remove);
        let id = BrokerId;
        let table = [
            (add, 3, 3, &all, false, Ok(Some(AddVoter(id(3))))),
            (add, 4, 4, &all, false, Ok(Some(AddObserver(id(4))))),
            (add, 2, 2, &all, false, Err(VoterError::Duplicate(id(2)))),
            (add, 2, 2, &all, true, Ok(None)),
            (add, 3, 9, &all, false, Err(VoterError::OtherDirectory(id(3), storage(3)))),
            (add, 5, 5, &all, false, Err(VoterError::Unregistered(id(5)))),
            (remove, 2, 2, &all, false, Ok(Some(Remove(id(2))))),
            (remove, 2, 9, &all, false, Err(VoterError::NotFound(id(2), storage(9)))),
            (remove, 3, 3, &all, false, Err(VoterError::NotFound(id(3), storage(3)))),
            (remove, 5, 9, &all, false, Ok(Some(Remove(id(5))))),
            (remove, 4, 4, &all, true, Ok(Some(AddObserver(id(4))))),
            (remove, 6, 6, &all, true, Ok(None)),
            (remove, 3, 3, &all, true, Ok(None)),
            (remove, 1, 1, &one, false, Err(VoterError::LastVoter(id(1)))),
        ];
        for (wish, node, directory, quorum, begun, expected) in table {
            let change = VoterChange { wish, node: BrokerId(node), directory: storage(directory) };
            assert_eq!(change.next(quorum, &image, begun), expected, "{change:?} begun {begun}");
        }
    }
}
