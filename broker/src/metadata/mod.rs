//! Metadata: who is in the cluster, which topics there are, who leads what.
//!
//! All of it is the immutable [`MetadataImage`] that the log of one Raft group adds up to. Images
//! share structure; changing one copies a path, never the whole. `apply` says what each command does to it, and
//! whatever is decided about the cluster is decided from an image, by pure functions, and becomes one command.

mod registration;
mod image;
mod command;
mod outcome;
pub(crate) mod placement;
pub(crate) mod configs;
pub(crate) mod group_configs;
mod document;
mod partition_change;
mod alter;
mod topics;
mod brokers;
mod invariants;
mod partitions;
pub(crate) mod apply;
mod effective;
mod snapshot;
mod decided;
mod members;
mod membership;
mod founding;
mod lately;
mod post;
mod proposals;
mod handle;
mod deciding;
mod borrowed;
mod voters;
mod quorum;
mod questions;
mod lateness;
mod joining;
mod changes;
mod producer_ids;
mod start;
pub mod elections;
pub mod controller;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use alter::altered;
pub(crate) use borrowed::borrow_when_needed;
pub(crate) use changes::{ChangeError, Changes};
pub use command::{
    AlteredConfigs, AlteredPartition, BrokerProcess, ConfigChange, ConfigOperation, ConfigResource,
    ElectionKind, MetadataCommand, NewPartitions, NewTopic, PartitionElection, PartitionReassignment,
};
pub use document::document;
pub(crate) use effective::Effective;
pub(crate) use handle::MetadataHandle;
pub use image::{BrokerConfigs, BrokerImage, MetadataImage, PartitionImage, Replica, TopicImage};
pub(crate) use image::{MIN_INSYNC_REPLICAS, default_min_insync_replicas};
pub use members::{Members, Quorum, QuorumMember};
pub use outcome::{BrokerError, Outcome, PartitionError, ProposeError, RegistrationError, TopicError};
pub(crate) use post::Post;
pub(crate) use producer_ids::{ProducerIdError, ProducerIds};
pub use proposals::{MakeProposals, Proposals, Propose};
pub use registration::{BrokerRegistration, CLIENT_LISTENER, CLUSTER_LISTENER, Endpoint};
pub use snapshot::GROUPS as GROUP_CONFIGS_SINCE;
pub(crate) use start::{MetadataContext, MetadataStartError, StartedMetadata, open};
pub(crate) use voters::{VoterChange, VoterError, VoterWish};
