//! Who has changes of metadata decided, as those see it who ask for them.

use std::sync::Arc;

use futures::future::BoxFuture;
use io_backend::{Backend, Deadline, Published};

use super::{MetadataCommand, MetadataImage, Outcome, ProposeError};

/// How a change of metadata is had decided.
pub type Propose =
    Arc<dyn Fn(MetadataCommand, Deadline) -> BoxFuture<'static, Result<Outcome, ProposeError>> + Send + Sync>;

/// What there is to have changes decided with.
pub struct Proposals<B: Backend> {
    /// The outside.
    pub backend: B,
    /// What has been decided, as this node knows it.
    pub images: Published<MetadataImage>,
    /// Has the group decide.
    pub propose: Propose,
}

/// Makes who has changes decided.
pub type MakeProposals<B> = Box<dyn FnOnce(Proposals<B>) -> Propose + Send>;
