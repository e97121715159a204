//! How topics are made, and what bounds them.

use super::super::compression::gzip_level;
use super::super::values::{bytes, number};
use super::key::Key;

/// In the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key!(
        "topics.auto_create",
        "whether asking for an unknown topic creates it",
        "true, false",
        |c, v| {
            c.topics.auto_create = v.parse().map_err(|_| "neither true nor false".to_string())?;
            Ok(())
        },
        |c| c.topics.auto_create.to_string()
    ),
    key!(
        "topics.partitions",
        "partitions of a topic that does not say",
        "1..=10000",
        |c, v| {
            c.topics.partitions = number(v, 1, 10_000)?;
            Ok(())
        },
        |c| c.topics.partitions.to_string()
    ),
    key!(
        "topics.partitions_max",
        "partitions of all topics at most; above it none is created",
        "1..=1000000",
        |c, v| {
            c.topics.partitions_max = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.topics.partitions_max.to_string()
    ),
    key!(
        "topics.replication_factor",
        "replicas of a topic that does not say; where there are fewer brokers, as many as there are",
        "1..=32",
        |c, v| {
            c.topics.replication_factor = number(v, 1, 32)?;
            Ok(())
        },
        |c| c.topics.replication_factor.to_string()
    ),
    key!(
        "topics.min_insync_replicas",
        "replicas in sync without which acks=all is refused, where a topic does not say; counts as at most the replication factor, and at 1 as two where there are three replicas or more",
        "1..=32",
        |c, v| {
            c.topics.min_insync_replicas = number(v, 1, 32)?;
            Ok(())
        },
        |c| c.topics.min_insync_replicas.to_string()
    ),
    key!(
        "topics.max_batch_bytes",
        "largest record batch (max.message.bytes), where a topic does not say",
        "1 KiB..=7 MiB",
        |c, v| {
            c.topics.max_batch_bytes = bytes(v, 1 << 10, 7 << 20)? as usize;
            Ok(())
        },
        |c| c.topics.max_batch_bytes.to_string()
    ),
    key!(
        "topics.compression",
        "how record batches are kept (compression.type), where a topic does not say: as their producers compressed them, or compressed anew where that is otherwise",
        "producer, uncompressed, gzip, snappy, lz4, zstd",
        |c, v| {
            c.topics.compression = v.parse()?;
            Ok(())
        },
        |c| c.topics.compression.to_string()
    ),
    key!(
        "topics.gzip_level",
        "how hard gzip tries where the broker compresses (compression.gzip.level); -1: as it does by itself",
        "-1, 1..=9",
        |c, v| {
            c.topics.gzip_level = gzip_level(v)?;
            Ok(())
        },
        |c| c.topics.gzip_level.map_or_else(|| "-1".to_owned(), |level| level.to_string())
    ),
];
