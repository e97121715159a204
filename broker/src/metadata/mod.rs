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

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataImage {
    /// Raft index of the last entry in it.
    pub index: u64,
    pub cluster_id: String,
    pub controller: Option<BrokerId>,
    pub brokers: OrdMap<BrokerId, BrokerRegistration>,
    pub topics: OrdMap<Arc<str>, Arc<TopicImage>>,
    pub topic_names: OrdMap<TopicId, Arc<str>>,
    /// Names with '.' and '_' made one, to refuse those that would collide.
    pub(crate) folded_names: OrdMap<String, Arc<str>>,
    pub next_producer_id: ProducerId,
    pub broker_configs: Arc<BrokerConfigs>,
}

/// What is set of brokers while they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerConfigs {
    pub of_all: Overrides,
    /// Over those of all. Brokers that have none are not in it.
    pub of_one: BTreeMap<BrokerId, Overrides>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRegistration {
    pub id: BrokerId,
    pub incarnation: Incarnation,
    pub storage: StorageId,
    /// What clients connect to.
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicImage {
    pub id: TopicId,
    pub name: Arc<str>,
    pub partitions: Vec<PartitionImage>,
    /// Only what differs from the broker's defaults.
    pub configs: BTreeMap<String, String>,
    /// Raft index that created it: the replica incarnation of its partitions on their first assignment.
    pub created_at: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionImage {
    pub leader: Option<BrokerId>,
    /// A replica leads only as the incarnation the epoch was granted to.
    pub leader_incarnation: Incarnation,
    pub leader_epoch: LeaderEpoch,
    pub replicas: Vec<BrokerId>,
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

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_names.get(&id)?)
    }

    pub fn partition(&self, id: PartitionId) -> Option<&PartitionImage> {
        self.topic_by_id(id.topic)?.partitions.get(usize::try_from(id.index).ok()?)
    }
}

pub mod configs;
mod document;
mod alter;
pub mod apply;
mod effective;
mod snapshot;
mod handle;
mod changes;
mod producer_ids;
mod start;

pub use alter::altered;
pub use changes::{ChangeError, Changes};
pub use document::document;
pub use effective::Effective;
pub use handle::MetadataHandle;
pub use producer_ids::{ProducerIdError, ProducerIds};
pub use snapshot::SnapshotError;
pub use start::{MetadataContext, MetadataStartError, StartedMetadata, start};

/// One intent, one entry in the log. Applying it is deterministic: all that is random or read from a
/// clock (ids, times) stands in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum MetadataCommand {
    /// A process start. Grants a new epoch, to this incarnation, for every partition that the broker leads.
    RegisterBroker(BrokerRegistration),
    /// Topics, partitions, assignments and configs in one entry.
    CreateTopics {
        topics: Vec<NewTopic>,
        validate_only: bool,
    },
    DeleteTopics {
        topics: Vec<TopicId>,
    },
    /// A block of producer ids for one broker.
    AllocateProducerIds {
        broker: BrokerId,
        count: i64,
    },
    AlterConfigs {
        resources: Vec<AlteredConfigs>,
    },
    CreatePartitions {
        topics: Vec<NewPartitions>,
    },
}

/// A change of the configurations of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlteredConfigs {
    pub resource: ConfigResource,
    pub change: ConfigChange,
}

/// What has configurations that can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigResource {
    Topic(TopicId),
    AllBrokers,
    Broker(BrokerId),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigChange {
    /// These and no others.
    Replace(Overrides),
    Alter(Vec<(String, ConfigOperation)>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigOperation {
    Set(String),
    Delete,
    /// Elements that a list has from now on; `default` is what it has where none is set.
    Append {
        value: String,
        default: String,
    },
    Subtract {
        value: String,
        default: String,
    },
}

/// More partitions of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPartitions {
    pub topic: TopicId,
    /// As many it has then.
    pub total: usize,
    /// Replicas of each new one; the first is the preferred leader.
    pub assignments: Vec<Vec<BrokerId>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTopic {
    pub id: TopicId,
    pub name: String,
    /// Replicas of each partition; the first is the preferred leader.
    pub assignments: Vec<Vec<BrokerId>>,
    pub configs: BTreeMap<String, String>,
}

/// What applying a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Per topic of the command, in its order.
    Topics(Vec<Result<Arc<TopicImage>, TopicError>>),
    ProducerIds {
        first: ProducerId,
        count: i64,
    },
    /// Per resource of the command, in its order.
    Configs(Vec<Result<(), TopicError>>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("topic '{0}' already exists")]
    AlreadyExists(String),
    #[error("there is no such topic")]
    Unknown,
    #[error("{0}")]
    InvalidName(String),
    #[error("{0}")]
    InvalidPartitions(String),
    #[error("{0}")]
    InvalidAssignment(String),
    #[error("{0}")]
    InvalidConfig(String),
}

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
    TooLarge { bytes: usize, limit: usize },
    /// Nothing was proposed.
    #[error("the disk under the metadata is full: free space on the disk of the data directory")]
    DiskFull,
    #[error("metadata is closed: {0}")]
    Closed(String),
}
