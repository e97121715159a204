//! The shapes of the requests that are served, as the codec reads them: fields in order, each with the
//! versions that have it. A test encodes every version of every request and walks it.

use kafka_protocol::messages::ApiKey;

use super::shape::{Bounds, Field, Kind, Shape, Tag};

const I8: Kind = Kind::Fixed(1);
const I16: Kind = Kind::Fixed(2);
const I32: Kind = Kind::Fixed(4);
const I64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);
const TEXTS: Kind = Kind::Many(&Kind::Text);
const I32S: Kind = Kind::Many(&I32);

const fn always(kind: Kind) -> Field {
    Field { since: 0, until: i16::MAX, kind }
}

const fn since(since: i16, kind: Kind) -> Field {
    Field { since, until: i16::MAX, kind }
}

const fn until(until: i16, kind: Kind) -> Field {
    Field { since: 0, until, kind }
}

const fn between(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, kind }
}

const fn plain(fields: &'static [Field]) -> Shape {
    Shape { fields, tags: &[] }
}

/// Enough for all partitions that a node has, and then some.
const OF_PARTITIONS: usize = 50_000;
const _: () = assert!(OF_PARTITIONS >= 2 * crate::limits::PARTITIONS_MAX);
/// Where each element costs the broker far more than the client.
const OF_TOPICS: usize = 20_000;
const OF_RESOURCES: usize = 2_000;

/// The shape of a request and how much of it there may be; `None` where the API is not served.
pub fn of(key: ApiKey) -> Option<Bounds> {
    let (shape, elements_max) = match key {
        ApiKey::Produce => (&PRODUCE, OF_PARTITIONS),
        ApiKey::Fetch => (&FETCH, OF_PARTITIONS),
        ApiKey::ListOffsets => (&LIST_OFFSETS, OF_PARTITIONS),
        ApiKey::Metadata => (&METADATA, OF_PARTITIONS),
        ApiKey::FindCoordinator => (&FIND_COORDINATOR, OF_TOPICS),
        ApiKey::ApiVersions => (&API_VERSIONS, OF_RESOURCES),
        ApiKey::CreateTopics => (&CREATE_TOPICS, OF_TOPICS),
        ApiKey::DeleteTopics => (&DELETE_TOPICS, OF_TOPICS),
        ApiKey::InitProducerId => (&INIT_PRODUCER_ID, OF_RESOURCES),
        ApiKey::OffsetForLeaderEpoch => (&OFFSET_FOR_LEADER_EPOCH, OF_PARTITIONS),
        ApiKey::DescribeConfigs => (&DESCRIBE_CONFIGS, OF_RESOURCES),
        ApiKey::DescribeCluster => (&DESCRIBE_CLUSTER, OF_RESOURCES),
        _ => return None,
    };
    Some(Bounds { shape, elements_max })
}

static PRODUCE: Shape =
    plain(&[always(Kind::Text), always(I16), always(I32), always(Kind::Many(&Kind::Struct(&PRODUCE_TOPIC)))]);
static PRODUCE_TOPIC: Shape =
    plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Many(&Kind::Struct(&PRODUCE_PARTITION)))]);
static PRODUCE_PARTITION: Shape = plain(&[always(I32), always(Kind::Blob)]);

static FETCH: Shape = Shape {
    fields: &[
        until(14, I32),
        always(I32),
        always(I32),
        always(I32),
        always(I8),
        since(7, I32),
        since(7, I32),
        always(Kind::Many(&Kind::Struct(&FETCH_TOPIC))),
        since(7, Kind::Many(&Kind::Struct(&FORGOTTEN_TOPIC))),
        since(11, Kind::Text),
    ],
    tags: &[Tag { tag: 0, kind: Kind::Text }, Tag { tag: 1, kind: Kind::Struct(&REPLICA_STATE) }],
};
static FETCH_TOPIC: Shape =
    plain(&[until(12, Kind::Text), since(13, UUID), always(Kind::Many(&Kind::Struct(&FETCH_PARTITION)))]);
static FETCH_PARTITION: Shape = Shape {
    fields: &[always(I32), since(9, I32), always(I64), since(12, I32), since(5, I64), always(I32)],
    tags: &[Tag { tag: 0, kind: UUID }, Tag { tag: 1, kind: I64 }],
};
static FORGOTTEN_TOPIC: Shape = plain(&[between(7, 12, Kind::Text), since(13, UUID), always(I32S)]);
static REPLICA_STATE: Shape = plain(&[always(I32), always(I64)]);

static LIST_OFFSETS: Shape = plain(&[
    always(I32),
    since(2, I8),
    always(Kind::Many(&Kind::Struct(&LIST_OFFSETS_TOPIC))),
    since(10, I32),
]);
static LIST_OFFSETS_TOPIC: Shape =
    plain(&[always(Kind::Text), always(Kind::Many(&Kind::Struct(&LIST_OFFSETS_PARTITION)))]);
static LIST_OFFSETS_PARTITION: Shape = plain(&[always(I32), since(4, I32), always(I64)]);

static METADATA: Shape = plain(&[
    always(Kind::Many(&Kind::Struct(&METADATA_TOPIC))),
    since(4, I8),
    between(8, 10, I8),
    since(8, I8),
]);
static METADATA_TOPIC: Shape = plain(&[since(10, UUID), always(Kind::Text)]);

static FIND_COORDINATOR: Shape = plain(&[until(3, Kind::Text), since(1, I8), since(4, TEXTS)]);

static API_VERSIONS: Shape = plain(&[since(3, Kind::Text), since(3, Kind::Text)]);

static CREATE_TOPICS: Shape =
    plain(&[always(Kind::Many(&Kind::Struct(&NEW_TOPIC))), always(I32), always(I8)]);
static NEW_TOPIC: Shape = plain(&[
    always(Kind::Text),
    always(I32),
    always(I16),
    always(Kind::Many(&Kind::Struct(&NEW_ASSIGNMENT))),
    always(Kind::Many(&Kind::Struct(&NEW_CONFIG))),
]);
static NEW_ASSIGNMENT: Shape = plain(&[always(I32), always(I32S)]);
static NEW_CONFIG: Shape = plain(&[always(Kind::Text), always(Kind::Text)]);

static DELETE_TOPICS: Shape =
    plain(&[since(6, Kind::Many(&Kind::Struct(&DELETED_TOPIC))), until(5, TEXTS), always(I32)]);
static DELETED_TOPIC: Shape = plain(&[always(Kind::Text), always(UUID)]);

static INIT_PRODUCER_ID: Shape = plain(&[always(Kind::Text), always(I32), since(3, I64), since(3, I16)]);

static OFFSET_FOR_LEADER_EPOCH: Shape =
    plain(&[since(3, I32), always(Kind::Many(&Kind::Struct(&EPOCH_TOPIC)))]);
static EPOCH_TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Many(&Kind::Struct(&EPOCH_PARTITION)))]);
static EPOCH_PARTITION: Shape = plain(&[always(I32), always(I32), always(I32)]);

static DESCRIBE_CONFIGS: Shape =
    plain(&[always(Kind::Many(&Kind::Struct(&CONFIG_RESOURCE))), always(I8), since(3, I8)]);
static CONFIG_RESOURCE: Shape = plain(&[always(I8), always(Kind::Text), always(TEXTS)]);

static DESCRIBE_CLUSTER: Shape = plain(&[always(I8), since(1, I8), since(2, I8)]);

#[cfg(test)]
#[path = "shapes_tests.rs"]
pub(crate) mod tests;
