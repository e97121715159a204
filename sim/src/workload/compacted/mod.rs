//! A compacted topic: keepers write records under keys, readers read all of it again and again.
//!
//! What they see is judged by offsets and keys, and not as what goes to other topics: records go while they are read.

mod records;
mod keeper;
mod reading;

use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::messages::create_topics_request::CreatableTopicConfig;
use kafka_protocol::protocol::StrBytes;

pub(super) use reading::{Reading, whole};
pub use records::open_batches;

use super::client::{Client, numbers};
use super::field::Field;
use super::{creator, deleter};
use crate::scenario::Compacted;
use crate::streams::Stream;

/// Starts who creates the topic, its keepers and its readers, each as one of `client`'s.
pub(super) fn start<B: Backend>(
    load: &Compacted,
    within: Duration,
    seed: u64,
    mut client: impl FnMut() -> Client<B>,
) {
    let first = client();
    let partitions = i32::try_from(first.field.compacted.len()).unwrap_or(i32::MAX);
    {
        let mut notes = first.field.notes.write();
        notes.compaction.delete_retention = super::connection::ns(load.delete_retention.0);
        notes.compaction.left_max = load.left_max;
        notes.compaction.retention = load.retention.map(|span| super::connection::ns(span.0));
    }
    let mut topic = first.field.creatable(Field::COMPACTED, partitions);
    topic.configs.extend(configs(load).into_iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string(value)))
    }));
    creator::start_of(first, topic, within);
    for nth in 0..load.keepers {
        let stream = Stream::new(seed, &format!("workload keeper {nth}"));
        keeper::start(client(), load, numbers::KEEPERS + nth, nth, stream);
    }
    for nth in 0..load.readers {
        let stream = Stream::new(seed, &format!("workload reader {nth}"));
        reading::start(client(), load, nth + 1, stream);
    }
    if let Some(every) = load.delete_records_every {
        let client = client();
        let places = client.field.compacted.clone();
        deleter::start(client, places, every.0, Stream::new(seed, "workload deleter of compacted records"));
    }
}

fn configs(load: &Compacted) -> Vec<(&'static str, String)> {
    let ms = |span: crate::fault::Span| span.0.as_millis().to_string();
    let mut all = vec![
        ("cleanup.policy", if load.retention.is_some() { "compact,delete" } else { "compact" }.to_owned()),
        ("min.cleanable.dirty.ratio", load.min_cleanable_dirty_ratio.to_string()),
        ("delete.retention.ms", ms(load.delete_retention)),
        ("min.compaction.lag.ms", ms(load.min_compaction_lag)),
    ];
    all.extend(load.retention.map(|age| ("retention.ms", ms(age))));
    all.extend(load.max_compaction_lag.map(|lag| ("max.compaction.lag.ms", ms(lag))));
    all
}
