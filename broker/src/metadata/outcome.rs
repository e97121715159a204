//! What commands came to, and why they did not.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::image::{PartitionImage, TopicImage};
use crate::ids::{BrokerEpoch, BrokerId, Incarnation, ProducerId};

/// What applying a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The epoch of the process that has registered, also where it says so again.
    Registered(Result<BrokerEpoch, RegistrationError>),
    /// What was asked of one broker.
    Broker(Result<(), BrokerError>),
    /// Per partition of the command, in its order: as it is from now on.
    Partitions(Vec<Result<PartitionImage, PartitionError>>),
}

/// Why a process is not registered. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RegistrationError {
    /// A process with this count of starts, or a later one, has registered: the data directory is a copy of an earlier state
    /// of the one that it ran on, without what was acknowledged and voted since.
    #[error(
        "start {known} of this data directory is registered, and this is another process of start {found}: the directory \
         is a copy of an earlier state"
    )]
    Copy {
        /// The count of starts that the metadata has.
        known: Incarnation,
        /// The one of the registration.
        found: Incarnation,
    },
    /// A process of this storage has served in a later epoch than the directory knows of: the directory is a copy of an
    /// earlier state.
    #[error(
        "this data directory has served in broker epoch {served} of its node, and knows of none after {known}: the \
         directory is a copy of an earlier state"
    )]
    Behind {
        /// The one that the metadata has.
        served: BrokerEpoch,
        /// The one that the directory has; 0 where it has none.
        known: BrokerEpoch,
    },
    /// A broker of this number is there, on another data directory.
    #[error("Another broker is registered with broker id {0} on another data directory, and is not fenced.")]
    Duplicate(BrokerId),
}

/// Why nothing was changed that a process of a broker, or somebody on its behalf, asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum BrokerError {
    /// There is no such broker.
    #[error("Broker ID {0} is not currently registered.")]
    NotRegistered(BrokerId),
    /// Another process of it has registered since.
    #[error("Expected broker epoch {expected}, but got broker epoch {found}.")]
    StaleEpoch {
        /// The one that holds.
        expected: BrokerEpoch,
        /// The one that the command names.
        found: BrokerEpoch,
    },
}

/// Why one partition was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PartitionError {
    /// There is no topic of this id.
    #[error("there is no such topic")]
    UnknownTopic,
    /// The topic has no such partition.
    #[error("there is no such partition")]
    UnknownPartition,
    /// See [`BrokerError`].
    #[error("{0}")]
    Broker(#[from] BrokerError),
    /// Who asks is ahead of the image: whoever decides here does not lead the metadata any more.
    #[error("the partition is known in a later epoch than this one: this is not the controller")]
    NotController,
    /// Who asks led in an earlier epoch.
    #[error("the leader epoch has ended")]
    FencedLeaderEpoch,
    /// The partition has changed since who asks has seen it.
    #[error("the partition has changed since")]
    InvalidUpdateVersion,
    /// What is asked cannot be.
    #[error("{0}")]
    InvalidRequest(String),
    /// A member of the ISR is fenced, about to stop, or another process by now.
    #[error("broker {0} cannot be in sync now")]
    IneligibleReplica(BrokerId),
    /// The change was made, and another broker leads by it.
    #[error("the change was made, and another broker leads by it")]
    NewLeaderElected,
    /// The partition is led as it should be.
    #[error("Leader election not needed for topic partition.")]
    ElectionNotNeeded,
    /// The first replica cannot lead.
    #[error("The preferred leader was not available.")]
    PreferredLeaderNotAvailable,
    /// Nobody can lead.
    #[error("Eligible topic partition leaders are not available.")]
    EligibleLeadersNotAvailable,
    /// Nothing is there to be cancelled.
    #[error("No partition reassignment is in progress.")]
    NoReassignmentInProgress,
    /// Brokers do not exist, or are named twice, or would leave nobody in sync.
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// It is the last replica that has everything: it does not drop it.
    #[error("no other replica has everything that is committed: this one must not drop it")]
    LastReplica,
    /// The replica is not, or no more, the one that was meant.
    #[error("the broker has no such replica of it")]
    NoSuchReplica,
}

/// Why a change of one topic, or of one resource's configurations, was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
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
