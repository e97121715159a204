//! What the nodes of a cluster know, looked at from inside while they run: nobody is asked, so nothing is disturbed.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::{Arc, Mutex};

use broker::ids::BrokerId;
use broker::metadata::MetadataImage;
use broker::node::Node;
use io_backend::Clock;
use twox_hash::XxHash3_64;

use crate::checker::replicas::{NodeSeen, PartitionSeen, ReplicaSeen};
use crate::world::{SimBackend, lock};

type Look = Box<dyn Fn() -> Option<NodeSeen> + Send>;

/// The latest process of each node. It is kept by nobody for being looked at.
#[derive(Clone, Default)]
pub(super) struct Insides(Arc<Mutex<BTreeMap<String, Look>>>);

impl Insides {
    /// The process serves from now on.
    pub(super) fn are(&self, machine: &str, incarnation: u64, node: &Node<SimBackend>) {
        let context = Arc::downgrade(node.context());
        let look = move || {
            let context = context.upgrade()?;
            let image = context.metadata.image();
            let open = context.replicas.open().get();
            let replicas = open.iter().filter_map(|(id, handle)| {
                let topic = image.topic_names.get(&id.topic)?;
                let view = handle.views().get();
                let seen = ReplicaSeen {
                    directory: id.to_string(),
                    leading: view.leading,
                    epoch: view.leader_epoch.0,
                    high_watermark: view.high_watermark.0,
                    log_start: view.log_start.0,
                    log_end: view.log_end.0,
                    synced: context.replicas.log_state(*id).map_or(view.log_end.0, |state| state.synced.0),
                };
                Some((format!("{topic}-{}", id.index), seen))
            });
            let members = context.metadata.members().get();
            Some(NodeSeen {
                node: context.node.0,
                incarnation,
                image: (image.index, digest(&image)),
                term: (members.term, members.leader.is_some()),
                may_lead: !context.health.contact.is_lost(context.backend.now()),
                fenced: image
                    .brokers
                    .iter()
                    .filter(|(_, broker)| broker.fenced)
                    .map(|(id, _)| id.0)
                    .collect(),
                voters: members.voters.iter().map(|voter| voter.0).collect(),
                partitions: partitions(&image),
                replicas: replicas.collect(),
            })
        };
        lock(&self.0).insert(machine.to_owned(), Box::new(look));
    }

    /// It has ended, or is about to.
    pub(super) fn forget(&self, machine: &str) {
        lock(&self.0).remove(machine);
    }

    /// All that serve now.
    pub(super) fn look(&self) -> Vec<NodeSeen> {
        lock(&self.0).values().filter_map(|look| look()).collect()
    }
}

fn partitions(image: &MetadataImage) -> BTreeMap<String, PartitionSeen> {
    let numbers = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect::<Vec<i32>>();
    let of_topic = |topic: &broker::metadata::TopicImage, name: &str| {
        let policy = topic.configs.get("cleanup.policy");
        let compacted = policy.is_some_and(|policy| policy.contains("compact"));
        let seen = topic.partitions.iter().enumerate().map(|(index, partition)| {
            let replicas: Vec<BrokerId> = partition.replica_brokers().collect();
            let seen = PartitionSeen {
                leader: partition.leader.map(|leader| leader.0),
                replicas: numbers(&replicas),
                isr: numbers(&partition.isr),
                elr: numbers(&partition.elr),
                changes: partition.partition_epoch.0.max(0) as u64,
                compacted,
            };
            (format!("{name}-{index}"), seen)
        });
        seen.collect::<Vec<_>>()
    };
    image.topics.iter().flat_map(|(name, topic)| of_topic(topic, name)).collect()
}

/// Of all that stands in an image because of an entry; who leads the group is no part of that.
fn digest(image: &MetadataImage) -> u64 {
    let mut hasher = XxHash3_64::new();
    let all =
        (&image.cluster_id, &image.brokers, &image.topics, &image.next_producer_id, &image.broker_configs);
    hasher.write(format!("{all:?}").as_bytes());
    hasher.finish()
}
