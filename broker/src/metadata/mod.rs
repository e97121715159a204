//! Metadata: who is in the cluster, which topics there are, who leads what.
//!
//! All of it is the immutable [`MetadataImage`] that the log of one Raft group adds up to. Images
//! share structure; changing one copies a path, never the whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::config::dynamic::Overrides;
use crate::ids::{BrokerId, Incarnation, LeaderEpoch, PartitionId, ProducerId, StorageId, TopicId};

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
    pub brokers: OrdMap<BrokerId, BrokerRegistration>,
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
}

/// What is set of brokers while they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerConfigs {
    /// Of every broker: Kafka's cluster-wide default, the resource with the empty name.
    pub of_all: Overrides,
    /// Over those of all. Brokers that have none are not in it.
    pub of_one: BTreeMap<BrokerId, Overrides>,
}

/// What a node says of itself when its process has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRegistration {
    /// Its number.
    pub id: BrokerId,
    /// The process start; a later one has a larger number.
    pub incarnation: Incarnation,
    /// The data directory that it runs on.
    pub storage: StorageId,
    /// What clients connect to.
    pub host: String,
    /// With `host`: the advertised listener's port.
    pub port: u16,
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
    /// Raft index that created it: the replica incarnation of its partitions on their first assignment.
    pub created_at: u64,
}

/// Where the replicas of a partition are, and who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionImage {
    /// Who takes and serves its records; `None` while nobody does.
    pub leader: Option<BrokerId>,
    /// A replica leads only as the incarnation the epoch was granted to.
    pub leader_incarnation: Incarnation,
    /// The epoch in which it leads, granted to `leader_incarnation`.
    pub leader_epoch: LeaderEpoch,
    /// All replicas; the first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    /// Those that have everything that is acknowledged: Kafka's in-sync replicas.
    pub isr: Vec<BrokerId>,
}

/// Names that differ only in '.' and '_' would be one name in metrics: Kafka does not let both exist.
fn folded(name: &str) -> String {
    name.replace('.', "_")
}

impl MetadataImage {
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
}

pub(crate) mod configs;
mod document;
mod alter;
pub(crate) mod apply;
mod effective;
mod snapshot;
mod handle;
mod changes;
mod producer_ids;
mod start;

pub(crate) use alter::altered;
pub(crate) use changes::{ChangeError, Changes};
pub use document::document;
pub(crate) use effective::Effective;
pub(crate) use handle::MetadataHandle;
pub(crate) use producer_ids::{ProducerIdError, ProducerIds};
pub(crate) use start::{MetadataContext, MetadataStartError, start};

/// One intent, one entry in the log. Applying it is deterministic: all that is random or read from a
/// clock (ids, times) stands in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum MetadataCommand {
    /// A process start. Grants a new epoch, to this incarnation, for every partition that the broker leads.
    RegisterBroker(BrokerRegistration),
    /// Topics, partitions, assignments and configs in one entry.
    CreateTopics {
        /// In the order in which the outcome answers them.
        topics: Vec<NewTopic>,
        /// Only whether they could be created is found out; the image stays as it is.
        validate_only: bool,
    },
    /// Deletes topics, with their partitions and configurations; each for itself.
    DeleteTopics {
        /// In the order in which the outcome answers them.
        topics: Vec<TopicId>,
    },
    /// A block of producer ids for one broker.
    AllocateProducerIds {
        /// Who gives them out.
        broker: BrokerId,
        /// How many.
        count: i64,
    },
    /// Changes configurations (KIP-339, KIP-226); each resource for itself, wholly or not at all.
    AlterConfigs {
        /// In the order in which the outcome answers them.
        resources: Vec<AlteredConfigs>,
    },
    /// Gives topics more partitions (KIP-195); each topic for itself.
    CreatePartitions {
        /// In the order in which the outcome answers them.
        topics: Vec<NewPartitions>,
    },
}

/// A change of the configurations of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlteredConfigs {
    /// Whose.
    pub resource: ConfigResource,
    /// What becomes of them.
    pub change: ConfigChange,
}

/// What has configurations that can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigResource {
    /// A topic; its configurations are over those of brokers.
    Topic(TopicId),
    /// All brokers: Kafka's resource with the empty name.
    AllBrokers,
    /// One broker; its configurations are over those of all.
    Broker(BrokerId),
}

/// What a client asks of the configurations of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigChange {
    /// These and no others.
    Replace(Overrides),
    /// Operations on single configurations, by name, in their order.
    Alter(Vec<(String, ConfigOperation)>),
}

/// IncrementalAlterConfigs' operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigOperation {
    /// The configuration has this text from now on.
    Set(String),
    /// What is set is taken away: the default holds.
    Delete,
    /// Elements that a list has from now on; `default` is what it has where none is set.
    Append {
        /// Elements, with commas between them.
        value: String,
        /// The list to begin with where none is set, in the same form.
        default: String,
    },
    /// Elements that a list has no more.
    Subtract {
        /// Elements, with commas between them.
        value: String,
        /// The list to begin with where none is set, in the same form.
        default: String,
    },
}

/// More partitions of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPartitions {
    /// Which topic.
    pub topic: TopicId,
    /// As many it has then.
    pub total: usize,
    /// Replicas of each new one; the first is the preferred leader.
    pub assignments: Vec<Vec<BrokerId>>,
}

/// A topic that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTopic {
    /// Its identity, drawn by who proposes it.
    pub id: TopicId,
    /// Its name, which nobody has yet.
    pub name: String,
    /// Replicas of each partition; the first is the preferred leader.
    pub assignments: Vec<Vec<BrokerId>>,
    /// Configurations that it is made with, by Kafka's name.
    pub configs: BTreeMap<String, String>,
}

/// What applying a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has been applied, and there is nothing to tell.
    Done,
    /// Per topic of the command, in its order.
    Topics(Vec<Result<Arc<TopicImage>, TopicError>>),
    /// A block of producer ids: `count` of them from `first` on.
    ProducerIds {
        /// The first of the block.
        first: ProducerId,
        /// Ids in the block.
        count: i64,
    },
    /// Per resource of the command, in its order.
    Configs(Vec<Result<(), TopicError>>),
}

/// Why a change of one topic, or of one resource's configurations, was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The name is taken.
    #[error("Topic '{0}' already exists.")]
    AlreadyExists(String),
    /// The topic does not exist, or no more.
    #[error("there is no such topic")]
    Unknown,
    /// The name is none that Kafka allows, or differs from another only in '.' and '_'.
    #[error("{0}")]
    InvalidName(String),
    /// There would be no partitions, fewer than there are, or more than the bounds allow.
    #[error("{0}")]
    InvalidPartitions(String),
    /// Replicas are on brokers that do not exist, or twice on one, or not as many as they should be.
    #[error("{0}")]
    InvalidAssignment(String),
    /// A configuration does not exist or cannot have this value, or its broker is not registered.
    #[error("{0}")]
    InvalidConfig(String),
}

/// Why a change of metadata has not been decided, or not yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed.
    #[error("the controller is not known or not reachable now")]
    NoController,
    /// It may or may not take effect.
    #[error("not decided within the deadline")]
    TimedOut,
    /// Nothing was proposed.
    #[error("too many proposals wait")]
    Overloaded,
    /// Nothing was proposed.
    #[error(
        "a metadata change of {bytes} bytes is above the limit of {limit}: split it into several requests"
    )]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Nothing was proposed.
    #[error("the disk under the metadata is full: free space on the disk of the data directory")]
    DiskFull,
    /// This node's metadata takes nothing any more; the text says why. Nothing was proposed.
    #[error("metadata is closed: {0}")]
    Closed(String),
}
