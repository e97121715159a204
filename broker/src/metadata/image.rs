//! The image: brokers, topics, partitions and what is set of them, as of one entry of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::registration::{BrokerRegistration, CLIENT_LISTENER, Endpoint};
use crate::config::dynamic::Overrides;
use crate::ids::{
    AssignmentId, BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionId, ProducerId, StorageId,
    TopicId,
};

/// The state of the cluster as of one entry of the metadata log. It never changes; a new one takes its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataImage {
    /// Raft index of the last entry in it.
    pub index: u64,
    /// Kafka's cluster id: drawn by the first node at its first start, the same for ever. Empty before that
    /// is applied.
    pub cluster_id: String,
    /// The Raft leader, as far as this node knows.
    pub controller: Option<BrokerId>,
    /// Nodes that have registered, whether they run or not.
    pub brokers: OrdMap<BrokerId, BrokerImage>,
    /// Topics by name.
    pub topics: OrdMap<Arc<str>, Arc<TopicImage>>,
    /// Names of the topics by id.
    pub topic_names: OrdMap<TopicId, Arc<str>>,
    /// Names with '.' and '_' made one, to refuse those that would collide.
    pub(crate) folded_names: OrdMap<String, Arc<str>>,
    /// The first id that no producer has been given.
    pub next_producer_id: ProducerId,
    /// Configurations of brokers that clients have changed.
    pub broker_configs: Arc<BrokerConfigs>,
    /// Configurations of groups of consumers, by the group's id. Groups that have none are not in it.
    pub group_configs: OrdMap<Arc<str>, Arc<Overrides>>,
}

/// What is set of brokers while they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerConfigs {
    /// Of every broker: Kafka's cluster-wide default, the resource with the empty name.
    pub of_all: Overrides,
    /// Over those of all. Brokers that have none are not in it.
    pub of_one: BTreeMap<BrokerId, Overrides>,
}

/// A node that has registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerImage {
    /// What its latest process has said.
    #[serde(flatten)]
    pub registration: BrokerRegistration,
    /// Granted to that process: the index of its registration. Leadership is granted to it, and ends with it.
    #[serde(default)]
    pub epoch: BrokerEpoch,
    /// The latest of this storage's epochs in which it was not fenced: only in such a one it can have led, or been in an
    /// ISR, and so have acknowledged what a copy of its directory lacks.
    #[serde(default)]
    pub served_epoch: BrokerEpoch,
    /// The controller does not count on it: it leads nothing and is in no ISR.
    #[serde(default)]
    pub fenced: bool,
    /// It is about to stop, and is given nothing more to lead.
    #[serde(default)]
    pub in_controlled_shutdown: bool,
}

impl BrokerImage {
    /// Its number.
    pub fn id(&self) -> BrokerId {
        self.registration.id
    }

    /// Where clients connect to; `None` where it has no listener for them.
    pub fn client_endpoint(&self) -> Option<&Endpoint> {
        self.registration.listener(CLIENT_LISTENER)
    }

    /// Kafka's active: it may be given leaderships and be taken into an ISR.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }
}

/// A topic with its partitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicImage {
    /// Its identity: KIP-516's topic id.
    pub id: TopicId,
    /// Its name, one for all who hold the image.
    pub name: Arc<str>,
    /// By partition number.
    pub partitions: Vec<PartitionImage>,
    /// Only what differs from the broker's defaults.
    pub configs: BTreeMap<String, String>,
    /// Raft index that created it: the assignment id of the replicas that it was created with.
    pub created_at: u64,
}

/// A replica: a broker's seat in a partition. The broker's number alone is no identity, for its disk can be replaced,
/// and a replica can be moved away and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Who has it.
    pub broker: BrokerId,
    /// The data directory that it was given to.
    pub storage: StorageId,
    /// When it was given: the replica's name on disk.
    pub assignment: AssignmentId,
}

/// Where the replicas of a partition are, and who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionImage {
    /// Who takes and serves its records; `None` while nobody does.
    pub leader: Option<BrokerId>,
    /// The process of the leader that `leader_epoch` was granted to: no other one leads in it.
    pub leader_broker_epoch: BrokerEpoch,
    /// The epoch in which it leads.
    pub leader_epoch: LeaderEpoch,
    /// The version of all of this.
    pub partition_epoch: PartitionEpoch,
    /// All replicas; the first is the preferred leader.
    pub replicas: Vec<Replica>,
    /// Those that have everything that is acknowledged: Kafka's in-sync replicas.
    pub isr: Vec<BrokerId>,
    /// Kafka's eligible leader replicas (KIP-966): they left an ISR that was too small to commit anything since,
    /// and so have everything that is committed. In the order of the replicas.
    pub elr: Vec<BrokerId>,
    /// Who led last, while nobody does.
    pub last_known_leader: Option<BrokerId>,
    /// Replicas that a reassignment adds; among the replicas.
    pub adding: Vec<BrokerId>,
    /// Replicas that go when the added ones are in sync; among the replicas.
    pub removing: Vec<BrokerId>,
}

impl PartitionImage {
    /// The replica of this broker.
    pub fn replica(&self, broker: BrokerId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.broker == broker)
    }

    /// Who has a replica, in order.
    pub fn replica_brokers(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.replicas.iter().map(|replica| replica.broker)
    }

    /// Whether a reassignment goes on.
    pub fn is_reassigned(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// How large the ISR has to be for anything to be committed: what is set, of as many as there are replicas. Where
    /// nothing is set it is two of three and more, and one of fewer. Replicas that are to go do not count.
    pub fn min_insync_replicas(&self, set: Option<usize>) -> usize {
        let replicas = self.replicas.len() - self.removing.len();
        set.unwrap_or(default_min_insync_replicas(replicas)).min(replicas).max(1)
    }

    /// Whether this broker has everything that is committed.
    pub fn is_in_sync_or_eligible(&self, broker: BrokerId) -> bool {
        self.isr.contains(&broker) || self.elr.contains(&broker)
    }
}

impl TopicImage {
    /// Replicas of its partitions, as far as no reassignment has changed that for some of them.
    pub fn replication(&self) -> usize {
        self.partitions.first().map_or(0, |partition| partition.replicas.len() - partition.removing.len())
    }
}

/// How large the ISR of so many replicas has to be where nobody has said it.
pub fn default_min_insync_replicas(replicas: usize) -> usize {
    if replicas < 3 { 1 } else { 2 }
}

/// Names that differ only in '.' and '_' would be one name in metrics: Kafka does not let both exist.
pub(super) fn folded(name: &str) -> String {
    name.replace('.', "_")
}

/// Kafka's name of it, of topics and of brokers.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const UNCLEAN_ELECTION: &str = "unclean.leader.election.enable";

impl MetadataImage {
    /// A node, running or not, whose binary does not read metadata of this version: it would stop where it met some.
    pub fn who_does_not_read(&self, version: u8) -> Option<BrokerId> {
        let behind = self.brokers.values().find(|broker| broker.registration.reads < version);
        behind.map(|broker| broker.id())
    }

    /// What a group of consumers has of its own, where it has.
    pub fn group_configs(&self, group: &str) -> Option<&Overrides> {
        self.group_configs.get(group).map(|own| &**own)
    }

    /// Puts a topic in, with all that leads to it.
    pub(crate) fn insert_topic(&mut self, topic: Arc<TopicImage>) {
        self.topic_names.insert(topic.id, topic.name.clone());
        self.folded_names.insert(folded(&topic.name), topic.name.clone());
        self.topics.insert(topic.name.clone(), topic);
    }

    /// The topic with this id; `None` where it does not exist, or no more.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_names.get(&id)?)
    }

    /// The partition with this id; `None` where the topic does not exist or has fewer.
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionImage> {
        self.topic_by_id(id.topic)?.partitions.get(usize::try_from(id.index).ok()?)
    }

    /// The brokers that are not fenced.
    pub fn alive_brokers(&self) -> impl Iterator<Item = &BrokerImage> + '_ {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    /// Whether this broker may lead.
    pub fn is_alive(&self, broker: BrokerId) -> bool {
        self.brokers.get(&broker).is_some_and(|broker| !broker.fenced)
    }

    /// What is set of `min.insync.replicas` for a topic. What a node's own file says of it has no say: all nodes must come
    /// to the same image.
    pub fn min_insync_replicas_set(&self, topic: &TopicImage) -> Option<usize> {
        let set = topic.configs.get(MIN_INSYNC_REPLICAS);
        let set = set.or_else(|| self.broker_configs.of_all.get(MIN_INSYNC_REPLICAS));
        set.and_then(|value| value.trim().parse::<usize>().ok())
    }

    /// Whether a replica that may lack committed records may lead where no other one is left.
    pub fn elects_uncleanly(&self, topic: &TopicImage) -> bool {
        let set = topic.configs.get(UNCLEAN_ELECTION);
        let set = set.or_else(|| self.broker_configs.of_all.get(UNCLEAN_ELECTION));
        set.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }
}
