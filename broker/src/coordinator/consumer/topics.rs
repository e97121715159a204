//! What a group is told of topics.

use std::sync::Arc;

use crate::ids::TopicId;

/// Topics as they are now.
pub trait Topics {
    /// Another one whenever any topic has changed.
    fn version(&self) -> u64;
    /// Identity and number of partitions of the topic of this name.
    fn of_name(&self, name: &str) -> Option<(TopicId, i32)>;
    /// Name of the topic, unless it is no more.
    fn name_of(&self, topic: TopicId) -> Option<Arc<str>>;
    /// The topics whose names are matched, in their order.
    fn matching(&self, pattern: &regex::Regex) -> Vec<(TopicId, i32)>;
}
