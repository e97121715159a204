//! Which change of the members may be proposed, decided from the group as it is.

use raft::eraftpb::{ConfChange, ConfChangeType};
use raft::{ProgressState, ProgressTracker};

use super::{MemberChange, MembersRefusal};

/// The change to propose; `None` when the members are so already.
///
/// A learner becomes a voter only after it has acknowledged something of this leader: before, its journal may
/// be empty, and a member with an empty journal takes only a snapshot that has it as a learner.
pub(super) fn change(
    wanted: MemberChange,
    group: &ProgressTracker,
) -> Result<Option<ConfChange>, MembersRefusal> {
    let voters = group.conf().voters().ids();
    let learners = group.conf().learners();
    let kind = match wanted {
        MemberChange::AddLearner(id) if voters.contains(id) => return Err(MembersRefusal::IsVoter),
        MemberChange::AddLearner(id) if learners.contains(&id) => return Ok(None),
        MemberChange::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
        MemberChange::AddVoter(id) if voters.contains(id) => return Ok(None),
        MemberChange::AddVoter(id) if !learners.contains(&id) => return Err(MembersRefusal::NoLearner),
        MemberChange::AddVoter(id) => {
            let replicates = |id| group.get(id).is_some_and(|it| it.state == ProgressState::Replicate);
            if !replicates(id) {
                return Err(MembersRefusal::HasNothing);
            }
            (ConfChangeType::AddNode, id)
        }
        MemberChange::Remove(id) if voters.contains(id) && voters.len() == 1 => {
            return Err(MembersRefusal::LastVoter);
        }
        MemberChange::Remove(id) if !voters.contains(id) && !learners.contains(&id) => return Ok(None),
        MemberChange::Remove(id) => (ConfChangeType::RemoveNode, id),
    };
    let (kind, node_id) = kind;
    let mut change = ConfChange { node_id, ..ConfChange::default() };
    change.set_change_type(kind);
    Ok(Some(change))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Voters 1 and 2; learner 3 follows the log, learner 4 has nothing.
    fn group() -> ProgressTracker {
        let mut group = ProgressTracker::new(4);
        let conf = raft::eraftpb::ConfState {
            voters: vec![1, 2],
            learners: vec![3, 4],
            ..raft::eraftpb::ConfState::default()
        };
        for (id, learner) in [(1, false), (2, false), (3, true), (4, true)] {
            let mut change = raft::eraftpb::ConfChangeSingle { node_id: id, ..Default::default() };
            if learner {
                change.set_change_type(ConfChangeType::AddLearnerNode);
            }
            let (conf, changes) = raft::Changer::new(&group).simple(&[change]).unwrap();
            group.apply_conf(conf, changes, 1);
        }
        assert_eq!(group.conf().to_conf_state().voters.len(), conf.voters.len());
        group.get_mut(3).unwrap().become_replicate();
        group
    }

    #[test]
    fn a_change_is_proposed_where_it_makes_sense() {
        use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        use MemberChange::{AddLearner, AddVoter, Remove};
        let table = [
            (AddLearner(5), Ok(Some((AddLearnerNode, 5)))),
            (AddLearner(3), Ok(None)),
            (AddLearner(2), Err(MembersRefusal::IsVoter)),
            (AddVoter(3), Ok(Some((AddNode, 3)))),
            (AddVoter(4), Err(MembersRefusal::HasNothing)),
            (AddVoter(1), Ok(None)),
            (AddVoter(5), Err(MembersRefusal::NoLearner)),
            (Remove(1), Ok(Some((RemoveNode, 1)))),
            (Remove(3), Ok(Some((RemoveNode, 3)))),
            (Remove(5), Ok(None)),
        ];
        let group = group();
        for (wanted, expected) in table {
            let found = change(wanted, &group);
            let found = found.map(|change| change.map(|change| (change.get_change_type(), change.node_id)));
            assert_eq!(found, expected, "{wanted:?}");
        }
    }

    #[test]
    fn the_last_voter_stays() {
        let mut group = ProgressTracker::new(4);
        let change_to_one = raft::eraftpb::ConfChangeSingle { node_id: 1, ..Default::default() };
        let (conf, changes) = raft::Changer::new(&group).simple(&[change_to_one]).unwrap();
        group.apply_conf(conf, changes, 1);
        assert_eq!(change(MemberChange::Remove(1), &group), Err(MembersRefusal::LastVoter));
    }
}
