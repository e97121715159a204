//! Creating a topic checked its partition assignments, answered, and dropped them. Every client was told that its topic was there,
//! every produce that its partition was not assigned: not one of them succeeded.
//!
//! A topic is one entry of the metadata with its assignments here, so that who loses these loses it.

use std::sync::Arc;

use broker::metadata::MetadataCommand;
use broker::parts::{Proposals, Propose};

use crate::world::SimBackend;

pub(super) fn proposals(production: Proposals<SimBackend>) -> Propose {
    let propose = production.propose;
    Arc::new(move |command, deadline| match command {
        MetadataCommand::CreateTopics { topics, .. } => {
            propose(MetadataCommand::CreateTopics { topics, validate_only: true }, deadline)
        }
        other => propose(other, deadline),
    })
}
