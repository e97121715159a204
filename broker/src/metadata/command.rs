//! The commands: one intent, one entry in the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::registration::BrokerRegistration;
use crate::config::dynamic::Overrides;
use crate::ids::{AssignmentId, BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionId, TopicId};

/// One intent, one entry in the log. Applying it is deterministic: all that is random or read from a
/// clock (ids, times) stands in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum MetadataCommand {
    /// A process start. Grants the process a broker epoch, and a broker that is alone a new leader epoch for every
    /// partition that it leads; beside others it is fenced until the controller has heard of it.
    RegisterBroker(BrokerRegistration),
    /// The controller does not hear of a broker: what it leads moves, and it leaves every ISR.
    FenceBroker(BrokerProcess),
    /// The controller hears of it again, and its metadata are current: it may lead, and come into ISRs.
    UnfenceBroker(BrokerProcess),
    /// The broker is about to stop: what it leads moves where somebody else can lead it.
    ControlledShutdown(BrokerProcess),
    /// The broker does not come back.
    UnregisterBroker {
        /// Which.
        broker: BrokerId,
    },
    /// The storage of a broker stands still: in one event, what it leads moves to whoever can lead it, and it leaves
    /// the ISR of everything that others are in sync with. What nobody else can lead stays as it is.
    MoveLeaders {
        /// Which broker.
        from: BrokerProcess,
        /// Brokers that are given nothing, whatever the image says of them.
        barred: Vec<BrokerId>,
        /// Brokers that are given only what nobody else can lead.
        avoided: Vec<BrokerId>,
    },
    /// Elections of single partitions; each for itself.
    ElectLeaders {
        /// In the order in which the outcome answers them.
        elections: Vec<PartitionElection>,
        /// Brokers that are given nothing, whatever the image says of them.
        barred: Vec<BrokerId>,
    },
    /// Changes of ISRs by a leader (KIP-497); each partition for itself.
    AlterPartition {
        /// Who leads them.
        leader: BrokerProcess,
        /// In the order in which the outcome answers them.
        partitions: Vec<AlteredPartition>,
    },
    /// A replica is rotten. It leaves ISR and ELR, and its seat is given anew, so that its broker drops what it has and
    /// fetches it again: only after this, and never if it is the last that has everything.
    ReplicaLost {
        /// Whose replica.
        broker: BrokerProcess,
        /// Of which partition.
        partition: PartitionId,
        /// Which one.
        assignment: AssignmentId,
    },
    /// Other replicas for partitions (KIP-455); each for itself.
    AlterPartitionReassignments {
        /// In the order in which the outcome answers them.
        reassignments: Vec<PartitionReassignment>,
    },
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
        /// Whether this command's own index is the assignment id of the new replicas. Before version 3 of commands it was
        /// the index that had created the topic, and so the replicas are called on disk.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        own_assignment: bool,
    },
}

/// A process of a broker. A command that names one that is no more changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerProcess {
    /// The broker.
    pub broker: BrokerId,
    /// What was granted to the process when it registered.
    pub epoch: BrokerEpoch,
}

/// An election of the leader of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionElection {
    /// Of which partition.
    pub partition: PartitionId,
    /// Who is to lead.
    pub kind: ElectionKind,
    /// The version that was looked at; `None` where any is right.
    pub partition_epoch: Option<PartitionEpoch>,
}

/// Who is to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ElectionKind {
    /// The first of the replicas, if it has everything that is committed.
    Preferred,
    /// Where there is no leader: whoever is left, though committed records may be lost.
    Unclean,
    /// This one, if it has everything that is committed.
    Designated(BrokerId),
}

/// A change of the ISR of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlteredPartition {
    /// Of which partition.
    pub partition: PartitionId,
    /// The epoch in which its leader asks.
    pub leader_epoch: LeaderEpoch,
    /// The version that the leader has seen.
    pub partition_epoch: PartitionEpoch,
    /// All members from now on, each as the process that has caught up (KIP-903).
    pub isr: Vec<BrokerProcess>,
}

/// Other replicas for one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReassignment {
    /// Of which partition.
    pub partition: PartitionId,
    /// Who is to have it, the preferred leader first; `None` ends the reassignment that goes on.
    pub replicas: Option<Vec<BrokerId>>,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigResource {
    /// A topic; its configurations are over those of brokers.
    Topic(TopicId),
    /// All brokers: Kafka's resource with the empty name.
    AllBrokers,
    /// One broker; its configurations are over those of all.
    Broker(BrokerId),
    /// A group of consumers, whether there is one or not; its configurations are over those of brokers.
    Group(Arc<str>),
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
