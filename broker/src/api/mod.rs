//! What clients can ask for, a file for each.

use crate::budget::Share;
use crate::wire::Response;

pub mod create_topics;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod fetch;
pub mod find_coordinator;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod offset_for_leader_epoch;
pub mod produce;

/// What a connection does with a finished request.
#[expect(clippy::large_enum_variant, reason = "boxing it would cost an allocation per request")]
pub enum Finished {
    /// With the room that is taken for it.
    Answer(Response, Option<Share>),
    /// The client asked for no answer.
    Silent,
    /// Nothing can be said, and keeping silent would be a lie.
    Close(String),
}
