//! Topics, as a group sees them: those of the latest metadata image.

use std::sync::Arc;

use imbl::ordmap::DiffItem;
use io_backend::Published;
use regex::Regex;

use super::OFFSETS_TOPIC;
use super::consumer::Topics;
use crate::ids::TopicId;
use crate::metadata::{MetadataImage, TopicImage};

/// Counts how often the topics have changed.
pub(super) struct ImageTopics {
    image: Arc<MetadataImage>,
    version: u64,
}

impl ImageTopics {
    pub(super) fn of(images: &Published<MetadataImage>) -> ImageTopics {
        ImageTopics { image: images.get(), version: 0 }
    }

    /// Sees what there is now.
    pub(super) fn follow(&mut self, image: &Arc<MetadataImage>) {
        let differs = |change: DiffItem<'_, '_, Arc<str>, Arc<TopicImage>>| match change {
            DiffItem::Add(..) | DiffItem::Remove(..) => true,
            DiffItem::Update { old: (_, old), new: (_, new) } => seen(old) != seen(new),
        };
        // Who leads what, and who is in sync, is nothing to groups.
        if !image.topics.ptr_eq(&self.image.topics) && self.image.topics.diff(&image.topics).any(differs) {
            self.version += 1;
        }
        self.image = image.clone();
    }
}

fn seen(topic: &TopicImage) -> (TopicId, i32) {
    (topic.id, i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX))
}

impl Topics for ImageTopics {
    fn version(&self) -> u64 {
        self.version
    }

    fn of_name(&self, name: &str) -> Option<(TopicId, i32)> {
        self.image.topics.get(name).map(|topic| seen(topic))
    }

    fn name_of(&self, topic: TopicId) -> Option<Arc<str>> {
        self.image.topic_names.get(&topic).cloned()
    }

    /// What the brokers keep for themselves is read by its name only.
    fn matching(&self, pattern: &Regex) -> Vec<(TopicId, i32)> {
        let is_meant = |name: &str| name != OFFSETS_TOPIC && pattern.is_match(name);
        let topics = self.image.topics.iter().filter(|(name, _)| is_meant(name));
        topics.map(|(_, topic)| seen(topic)).collect()
    }
}
