//! What the metadata image asks of this node's replicas: the difference to what is open. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{BrokerEpoch, BrokerId, Incarnation, LeaderEpoch, PartitionId};
use crate::metadata::{MetadataImage, PartitionImage, Replica, TopicImage};
use crate::partition::InSync;

/// A replica by identity: a partition, and which life of the replica on this node, by its assignment id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplicaId {
    pub partition: PartitionId,
    pub replica: Incarnation,
}

/// What is to be done, each list in order of identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Not wanted any more: their data goes.
    pub delete: Vec<ReplicaId>,
    pub open: Vec<Wanted>,
    /// Of those open now or after this plan: what they are from now on.
    pub roles: Vec<(ReplicaId, Role)>,
}

/// What a replica is in its partition, as the image has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads under this epoch, with these in sync.
    Leads(LeaderEpoch, InSync),
    /// Another broker leads under this epoch.
    Follows(LeaderEpoch),
    /// Nobody leads, since this epoch.
    Idle(LeaderEpoch),
}

impl Role {
    /// The epoch in which the replica leads, if it does.
    pub fn leads_in(&self) -> Option<LeaderEpoch> {
        match self {
            Role::Leads(epoch, _) => Some(*epoch),
            Role::Follows(_) | Role::Idle(_) => None,
        }
    }

    /// What the image has this node's replica be; `None` where it is to lead under an epoch that was granted to an earlier
    /// process, which is nothing to this one.
    fn of(
        partition: &PartitionImage,
        node: BrokerId,
        epoch: BrokerEpoch,
        min_insync: Option<usize>,
    ) -> Option<Role> {
        match partition.leader {
            Some(leader) if leader != node => Some(Role::Follows(partition.leader_epoch)),
            None => Some(Role::Idle(partition.leader_epoch)),
            Some(_) if partition.leader_broker_epoch != epoch => None,
            Some(_) if partition.replicas.len() == 1 => {
                Some(Role::Leads(partition.leader_epoch, InSync::alone()))
            }
            Some(_) => {
                let others = partition.replica_brokers().filter(|broker| *broker != node);
                let members = partition.isr.iter().copied().filter(|member| *member != node);
                let in_sync = InSync::new(others, members, partition.min_insync_replicas(min_insync));
                Some(Role::Leads(partition.leader_epoch, in_sync.at(partition.partition_epoch)))
            }
        }
    }
}

/// A replica that is to be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub id: ReplicaId,
    pub topic: Arc<TopicImage>,
}

/// Compares the image with what this node has: open replicas with what they were told to be. `min_insync` is what this node's
/// file says of that, for topics of which the image does not say it.
pub fn reconcile(
    image: &MetadataImage,
    open: &BTreeMap<ReplicaId, Option<&Role>>,
    node: BrokerId,
    epoch: BrokerEpoch,
    min_insync: Option<usize>,
) -> Plan {
    let mut plan = Plan::default();
    for topic in image.topics.values() {
        let min_insync = image.min_insync_replicas_set(topic).or(min_insync);
        for (index, partition) in (0..).zip(&topic.partitions) {
            let Some(replica) = partition.replica(node) else { continue };
            let id = ReplicaId::of(PartitionId { topic: topic.id, index }, replica);
            let told = open.get(&id);
            if told.is_none() {
                plan.open.push(Wanted { id, topic: topic.clone() });
            }
            if let Some(role) = Role::of(partition, node, epoch, min_insync)
                && told.copied().flatten() != Some(&role)
            {
                plan.roles.push((id, role));
            }
        }
    }
    plan.delete = open.keys().filter(|id| is_gone(image, **id, node)).copied().collect();
    plan.open.sort_by_key(|wanted| wanted.id);
    plan.roles.sort_by_key(|(id, _)| *id);
    plan
}

/// Whether the image has this replica on this node.
pub fn is_wanted(image: &MetadataImage, id: ReplicaId, node: BrokerId) -> bool {
    let partition = image.partition(id.partition);
    let replica = partition.and_then(|partition| partition.replica(node));
    replica.is_some_and(|replica| ReplicaId::of(id.partition, replica) == id)
}

/// Whether this replica was given to this node and taken away again, so that what is on its disk of it may go.
///
/// That an image does not have it is not enough: a node that comes back has an old image first, and would delete what it
/// was given since. The identity says when it was given. An image that is as new as that has applied it, for images are
/// of committed entries only and in order; if it does not have it all the same, a later entry took it away. It does not come
/// back: an index is the identity of one assignment only. (Partitions that were added to a topic before there were assignment ids
/// have the older index of their topic. Their node was the only voter: its image has all that it was ever given.)
pub fn is_gone(image: &MetadataImage, id: ReplicaId, node: BrokerId) -> bool {
    image.index >= id.replica.0 && !is_wanted(image, id, node)
}

impl ReplicaId {
    fn of(partition: PartitionId, replica: &Replica) -> ReplicaId {
        ReplicaId { partition, replica: Incarnation(replica.assignment.0) }
    }

    /// The name of the directory that holds its segments.
    pub fn directory(&self) -> String {
        format!("{}.{}", self.partition, self.replica)
    }

    /// Reads a directory's name back.
    pub fn from_directory(name: &str) -> Option<ReplicaId> {
        let (partition, replica) = name.rsplit_once('.')?;
        let (topic, index) = partition.rsplit_once('-')?;
        let topic = crate::ids::TopicId(uuid::Uuid::try_parse(topic).ok()?);
        let id = ReplicaId {
            partition: PartitionId { topic, index: index.parse().ok()? },
            replica: Incarnation(replica.parse().ok()?),
        };
        (id.directory() == name).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::{AssignmentId, StorageId, TopicId};
    use crate::metadata::PartitionImage;

    /// Its replicas are given their assignments by [`image`].
    fn partition(leader: i32, broker_epoch: u64, epoch: i32, replicas: &[i32]) -> PartitionImage {
        let (storage, assignment) = (StorageId::default(), AssignmentId(0));
        let isr: Vec<BrokerId> = replicas.iter().copied().map(BrokerId).collect();
        PartitionImage {
            leader: Some(BrokerId(leader)),
            leader_broker_epoch: BrokerEpoch(broker_epoch),
            leader_epoch: LeaderEpoch(epoch),
            replicas: isr.iter().map(|broker| Replica { broker: *broker, storage, assignment }).collect(),
            isr,
            ..PartitionImage::default()
        }
    }

    fn image(topics: &[(u128, u64, Vec<PartitionImage>)]) -> MetadataImage {
        let mut image = MetadataImage { index: 10, ..MetadataImage::default() };
        for (id, created_at, partitions) in topics {
            let mut partitions = partitions.clone();
            for replica in partitions.iter_mut().flat_map(|partition| &mut partition.replicas) {
                replica.assignment = AssignmentId(*created_at);
            }
            image.insert_topic(Arc::new(TopicImage {
                id: TopicId(Uuid::from_u128(*id)),
                name: format!("topic-{id}").as_str().into(),
                partitions,
                configs: BTreeMap::new(),
                created_at: *created_at,
            }));
        }
        image
    }

    fn id(topic: u128, index: i32, replica: u64) -> ReplicaId {
        let partition = PartitionId { topic: TopicId(Uuid::from_u128(topic)), index };
        ReplicaId { partition, replica: Incarnation(replica) }
    }

    /// What node 1 does in the process of broker epoch 7 with what it has open, and leads alone under these epochs: names of
    /// what it opens, what is told its role, and what it deletes.
    fn plan(
        image: &MetadataImage,
        open: &[(ReplicaId, Option<i32>)],
    ) -> (Vec<ReplicaId>, Vec<(ReplicaId, Role)>, Vec<ReplicaId>) {
        let told: Vec<_> = open.iter().map(|(id, epoch)| (*id, epoch.map(alone))).collect();
        plan_of(image, &told)
    }

    fn plan_of(
        image: &MetadataImage,
        told: &[(ReplicaId, Option<Role>)],
    ) -> (Vec<ReplicaId>, Vec<(ReplicaId, Role)>, Vec<ReplicaId>) {
        let open = told.iter().map(|(id, role)| (*id, role.as_ref())).collect();
        let plan = reconcile(image, &open, BrokerId(1), BrokerEpoch(7), None);
        (plan.open.into_iter().map(|wanted| wanted.id).collect(), plan.roles, plan.delete)
    }

    fn alone(epoch: i32) -> Role {
        Role::Leads(LeaderEpoch(epoch), InSync::alone())
    }

    /// With these in sync, and no replicas but on 2 and `last`.
    fn with(epoch: i32, members: &[i32], min: usize, last: i32) -> Role {
        let others = [BrokerId(2), BrokerId(last)];
        Role::Leads(LeaderEpoch(epoch), InSync::new(others, members.iter().copied().map(BrokerId), min))
    }

    #[test]
    fn a_new_topic_is_opened_and_led_where_this_process_was_granted_it() {
        let image = image(&[(
            1,
            5,
            vec![partition(1, 7, 0, &[1, 2]), partition(2, 3, 0, &[2, 1]), partition(2, 3, 0, &[2])],
        )]);
        let roles = vec![(id(1, 0, 5), with(0, &[2], 1, 2)), (id(1, 1, 5), Role::Follows(LeaderEpoch(0)))];
        assert_eq!(plan(&image, &[]), (vec![id(1, 0, 5), id(1, 1, 5)], roles, vec![]));
    }

    #[test]
    fn who_is_in_sync_changes_within_an_epoch_and_who_leads_with_a_later_one() {
        let of = |leader: Option<i32>, epoch, isr: &[i32]| {
            let isr = isr.iter().copied().map(BrokerId).collect();
            let leader = leader.map(BrokerId);
            image(&[(1, 5, vec![PartitionImage { leader, isr, ..partition(1, 7, epoch, &[1, 2, 3]) }])])
        };
        let is = |image: &MetadataImage, before: Role| plan_of(image, &[(id(1, 0, 5), Some(before))]).1;
        let now = |role| vec![(id(1, 0, 5), role)];
        let all = of(Some(1), 4, &[1, 2, 3]);
        assert_eq!(is(&all, with(4, &[2, 3], 2, 3)), []);
        assert_eq!(is(&of(Some(1), 4, &[1, 3]), with(4, &[2, 3], 2, 3)), now(with(4, &[3], 2, 3)));
        assert_eq!(is(&of(Some(2), 5, &[2, 3]), with(4, &[2, 3], 2, 3)), now(Role::Follows(LeaderEpoch(5))));
        assert_eq!(is(&of(None, 5, &[1]), with(4, &[], 2, 3)), now(Role::Idle(LeaderEpoch(5))));
        assert_eq!(is(&all, Role::Follows(LeaderEpoch(3))), now(with(4, &[2, 3], 2, 3)));
    }

    #[test]
    fn what_is_open_and_led_needs_nothing() {
        let image = image(&[(1, 5, vec![partition(1, 7, 4, &[1])])]);
        assert_eq!(plan(&image, &[(id(1, 0, 5), Some(4))]), (vec![], vec![], vec![]));
    }

    #[test]
    fn an_epoch_granted_to_an_earlier_process_is_not_led_under() {
        let image = image(&[(1, 5, vec![partition(1, 6, 4, &[1])])]);
        assert_eq!(plan(&image, &[]), (vec![id(1, 0, 5)], vec![], vec![]));
    }

    #[test]
    fn a_later_epoch_is_led_anew_and_one_that_did_not_begin_is_tried_again() {
        let image = image(&[(1, 5, vec![partition(1, 7, 4, &[1]), partition(1, 7, 4, &[1])])]);
        let open = [(id(1, 0, 5), Some(3)), (id(1, 1, 5), None)];
        assert_eq!(plan(&image, &open), (vec![], [0, 1].map(|n| (id(1, n, 5), alone(4))).to_vec(), vec![]));
    }

    #[test]
    fn what_the_image_does_not_have_on_this_node_is_deleted() {
        let image = image(&[(1, 5, vec![partition(1, 7, 0, &[1]), partition(2, 3, 0, &[2])])]);
        let gone = [
            (id(1, 0, 4), Some(0)), // an earlier life
            (id(1, 1, 5), None),    // moved to another node
            (id(1, 2, 5), Some(0)), // beyond the topic's partitions
            (id(2, 0, 1), Some(0)), // its topic was deleted
        ];
        let (opened, _, deleted) = plan(&image, &gone);
        assert_eq!(opened, [id(1, 0, 5)]);
        assert_eq!(deleted, gone.map(|(id, _)| id));
    }

    #[test]
    fn an_image_that_lags_deletes_nothing_that_was_given_since() {
        let image = MetadataImage { index: 5, ..image(&[(1, 5, vec![partition(1, 7, 0, &[1])])]) };
        let table = [
            (id(1, 0, 5), false, "it is there"),
            (id(1, 0, 4), true, "an earlier life"),
            (id(1, 0, 6), false, "moved away and back since"),
            (id(1, 1, 6), false, "a partition that was added since"),
            (id(2, 0, 6), false, "a topic that was made since"),
            (id(2, 0, 5), true, "a topic that was deleted"),
        ];
        for (id, gone, what) in table {
            assert_eq!(is_gone(&image, id, BrokerId(1)), gone, "{what}");
            assert_eq!(plan(&image, &[(id, None)]).2.contains(&id), gone, "{what}");
        }
        let caught_up = MetadataImage { index: 6, ..image };
        assert!(is_gone(&caught_up, id(2, 0, 6), BrokerId(1)));
    }

    #[test]
    fn directory_names_are_read_back_and_no_other_name_is() {
        let replica = id(0xabc, 12, 34);
        assert_eq!(ReplicaId::from_directory(&replica.directory()), Some(replica));
        for name in [
            "",
            "lost+found",
            "00000000000000000000000000000abc-12",
            "00000000-0000-0000-0000-000000000abc-12.34",
            "x-1.2",
        ] {
            assert_eq!(ReplicaId::from_directory(name), None, "{name}");
        }
    }
}
