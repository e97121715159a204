//! Finding topics and their partitions: by name or by id, in the latest metadata image and among the
//! replicas that this node has open.

use std::pin::pin;
use std::sync::Arc;

use futures::future::{Either, select};
use imbl::OrdMap;
use io_backend::{Backend, Deadline, Moment};
use kafka_protocol::ResponseError;

use crate::context::Context;
use crate::ids::{BrokerId, LeaderEpoch, PartitionId, TopicId};
use crate::limits;
use crate::metadata::{MetadataImage, TopicImage};
use crate::partition::PartitionHandle;

/// How a request names a topic.
#[derive(Clone, Copy, Debug)]
pub enum TopicKey<'a> {
    /// As all requests did before topics had ids.
    Name(&'a str),
    /// By identity (KIP-516), which a topic of the same name made later does not have.
    Id(TopicId),
}

/// One moment's view of topics and replicas, for the time of a request.
pub struct RoutingView<B: Backend> {
    /// The metadata of that moment.
    pub image: Arc<MetadataImage>,
    replicas: Arc<OrdMap<PartitionId, PartitionHandle<B>>>,
    node: BrokerId,
    /// Others may lead by now what this node leads in the image: it takes and serves nothing.
    without_contact: bool,
}

/// Who leads instead of us, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The broker.
    pub id: BrokerId,
    /// The epoch that it leads in.
    pub epoch: LeaderEpoch,
}

/// Clients that do not know the epoch say -1.
pub fn epoch(from_wire: i32) -> Option<LeaderEpoch> {
    (from_wire >= 0).then_some(LeaderEpoch(from_wire))
}

/// Why a partition cannot be served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingError {
    /// What the client is told.
    pub code: ResponseError,
    /// Whom to ask instead (KIP-951).
    pub leader: Option<Leader>,
}

impl From<ResponseError> for RoutingError {
    fn from(code: ResponseError) -> RoutingError {
        RoutingError { code, leader: None }
    }
}

impl TopicKey<'_> {
    /// The topic in an image.
    pub fn of(self, image: &MetadataImage) -> Option<&Arc<TopicImage>> {
        match self {
            TopicKey::Name(name) => image.topics.get(name),
            TopicKey::Id(id) => image.topic_by_id(id),
        }
    }
}

impl<B: Backend> RoutingView<B> {
    /// What is there now; takes no time.
    pub fn now(context: &Context<B>) -> RoutingView<B> {
        // Before the image: contact that comes back with a later image vouches for that one.
        let without_contact = context.health.contact.is_lost(context.backend.now());
        RoutingView {
            image: context.metadata.shown(),
            replicas: context.replicas.open().get(),
            node: context.node,
            without_contact,
        }
    }

    /// The topic.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION` for a name, `UNKNOWN_TOPIC_ID` for an id that does not exist.
    pub fn topic(&self, key: TopicKey<'_>) -> Result<&Arc<TopicImage>, ResponseError> {
        key.of(&self.image).ok_or(match key {
            TopicKey::Name(_) => ResponseError::UnknownTopicOrPartition,
            TopicKey::Id(_) => ResponseError::UnknownTopicId,
        })
    }

    /// The replica that serves this partition. It may have just ceased to lead; its owner knows.
    pub fn partition(&self, topic: &TopicImage, index: i32) -> Result<&PartitionHandle<B>, RoutingError> {
        let known = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index));
        let Some(known) = known else {
            return Err(ResponseError::UnknownTopicOrPartition.into());
        };
        let unroutable =
            || RoutingError { code: ResponseError::NotLeaderOrFollower, leader: self.leader(topic, index) };
        if known.leader != Some(self.node) {
            return Err(unroutable());
        }
        if self.without_contact {
            // Who leads instead is not known here.
            return Err(ResponseError::NotLeaderOrFollower.into());
        }
        self.replicas.get(&PartitionId { topic: topic.id, index }).ok_or_else(unroutable)
    }

    /// The partition, if this node is to lead it and does not yet.
    pub fn not_yet_led(&self, topic: &TopicImage, index: i32) -> Option<PartitionId> {
        let known = topic.partitions.get(usize::try_from(index).ok()?)?;
        if known.leader != Some(self.node) || self.without_contact {
            return None;
        }
        let id = PartitionId { topic: topic.id, index };
        let leads = self.replicas.get(&id).is_some_and(|replica| replica.views().get().leading);
        (!leads).then_some(id)
    }

    /// The replica that consumers may read here: one that leads, or that follows whoever does (KIP-392).
    pub fn readable(&self, topic: &TopicImage, index: i32) -> Result<&PartitionHandle<B>, RoutingError> {
        self.partition(topic, index).or_else(|unroutable| {
            let replica = self.replicas.get(&PartitionId { topic: topic.id, index });
            replica.filter(|replica| replica.views().get().following).ok_or(unroutable)
        })
    }

    /// Who leads this partition; `None` where nobody does, or there is no such partition.
    pub fn leader(&self, topic: &TopicImage, index: i32) -> Option<Leader> {
        let partition = topic.partitions.get(usize::try_from(index).ok()?)?;
        Some(Leader { id: partition.leader?, epoch: partition.leader_epoch })
    }
}

/// A replica in sync that stands where a consumer does, of a partition whose leader stands elsewhere (KIP-392): what is
/// committed, all in sync have. Consumers of different partitions are spread over several.
pub fn nearest(image: &MetadataImage, topic: &TopicImage, index: i32, rack: &str) -> Option<BrokerId> {
    let partition = topic.partitions.get(usize::try_from(index).ok()?)?;
    let is_near = |broker: &BrokerId| {
        image.brokers.get(broker).is_some_and(|known| known.registration.rack.as_deref() == Some(rack))
    };
    if is_near(&partition.leader?) {
        return None;
    }
    let near: Vec<BrokerId> =
        partition.isr.iter().copied().filter(|broker| image.is_alive(*broker) && is_near(broker)).collect();
    near.get(usize::try_from(index).ok()?.checked_rem(near.len())?).copied()
}

/// Waits a moment where this node's metadata do not say so yet: the client may have heard of a topic from another node, which was
/// told of it earlier.
pub async fn until_known<B: Backend>(
    context: &Context<B>,
    are_known: impl Fn(&MetadataImage) -> bool + Sync,
) {
    if !are_known(&context.metadata.shown()) {
        context.metrics.waits_for_metadata.inc();
        let deadline = Deadline::after(&context.backend, limits::CATCH_UP_DEADLINE);
        context.metadata.catch_up(are_known, deadline).await;
    }
}

/// Waits until this node leads all partitions of these topics that it is to lead. While its disks stand still it begins nothing, and
/// others are about to lead what they can: that is not waited for.
pub async fn until_led<B: Backend>(context: &Context<B>, topics: &[Arc<TopicImage>], until: Moment) -> bool {
    let ours: Vec<PartitionId> = topics
        .iter()
        .flat_map(|topic| {
            let ours = topic.partitions.iter().zip(0..).filter(|(p, _)| p.leader == Some(context.node));
            ours.map(|(_, index)| PartitionId { topic: topic.id, index })
        })
        .collect();
    let deadline = Deadline::At(until);
    let led = pin!(until_these_are_led(context, &ours, deadline));
    let fitness = context.health.capacities.published();
    let stands_still = pin!(fitness.until(&context.backend, deadline, |fitness| fitness.stands_still));
    matches!(select(led, stands_still).await, Either::Left((true, _)))
}

/// Waits until this node leads these partitions.
pub async fn until_these_are_led<B: Backend>(
    context: &Context<B>,
    ours: &[PartitionId],
    deadline: Deadline,
) -> bool {
    let open = context.replicas.open();
    let Ok(replicas) =
        open.until(&context.backend, deadline, |open| ours.iter().all(|id| open.contains_key(id))).await
    else {
        return false;
    };
    for id in ours {
        if let Some(replica) = replicas.get(id)
            && replica.views().until(&context.backend, deadline, |view| view.leading).await.is_err()
        {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::{after, create, image_with_racks, new_topic};

    #[test]
    fn a_consumer_is_sent_to_whoever_is_in_sync_in_its_rack_unless_the_leader_is() {
        let image = image_with_racks(&["a", "b", "b", "c"]);
        let topics =
            vec![new_topic(1, "t", &[&[1, 2, 3], &[1, 2, 3], &[2, 1, 3]]), new_topic(2, "u", &[&[1, 4]])];
        let image = after(&image, &create(topics)).0;
        let near_in = |topic: &str, image: &MetadataImage, index, rack| {
            nearest(image, &image.topics[topic], index, rack).map(|broker| broker.0)
        };
        let near = |image: &MetadataImage, index, rack| near_in("t", image, index, rack);
        assert_eq!(near_in("u", &image, 0, "c"), Some(4));
        let table = [
            (0, "b", Some(2)),
            (1, "b", Some(3)),
            (0, "a", None),
            (0, "c", None),
            (2, "b", None),
            (2, "a", Some(1)),
            (9, "a", None),
            (-1, "a", None),
        ];
        for (index, rack, expected) in table {
            assert_eq!(near(&image, index, rack), expected, "{index} from {rack}");
        }
        let mut away = image;
        away.brokers[&BrokerId(2)].fenced = true;
        assert_eq!(near(&away, 0, "b"), Some(3));
    }
}
