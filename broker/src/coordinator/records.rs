//! What is written to `__consumer_offsets`, in Kafka's own forms, for tools that read the topic. Pure.
//!
//! ```text
//! key of an offset:    version i16 = 1 | group string | topic string | partition i32
//! its value, 3:        version i16 | offset i64 | leader epoch i32 | metadata string | committed at i64
//!        1:            version i16 | offset i64 | metadata string | committed at i64 | expires at i64
//! key of a group:      version i16 = 2 | group string
//! its value, 3:        version i16 | protocol type string | generation i32 | protocol string? | leader string? | since i64
//!                      | count i32, (member id string | instance string? | client id string | client host string
//!                                    | rebalance time-out i32 | session time-out i32 | metadata bytes | assignment bytes)*
//! ```
//!
//! Numbers are big endian; a string is a length i16 and UTF-8, or -1 for null where a `?` stands; bytes are a length i32 and these.
//! Times are milliseconds since 1970, time-outs milliseconds. A key without a value is a tombstone: what it names is no more.
//!
//! Value 1 is an offset that says itself how long it is to be kept, as clients of old asked for.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

mod forms;
mod consumer;

pub use forms::RecordError;

use forms::{Reader, put_bytes, put_count, put_ms, put_text, put_text_or_null};

use super::classic::{Client, StoredGroup, StoredMember};
use super::consumer::ConsumerRecord;
use super::ids::{Generation, GroupId, InstanceId, MemberId};
use super::offsets::Committed;
use crate::ids::{LeaderEpoch, Offset};

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
/// Of an offset that is kept as long as others are, and of a group.
const VALUE: i16 = 3;
const VALUE_THAT_EXPIRES: i16 = 1;
/// The least that a member takes.
const MEMBER_BYTES_MIN: usize = 4 * 2 + 4 * 4;

/// A record of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorRecord {
    /// How far a group is in a partition; none where that is forgotten.
    Offset {
        /// The group's name.
        group: GroupId,
        /// The topic's name.
        topic: Arc<str>,
        /// Kafka's partition number.
        partition: i32,
        /// Where it is.
        committed: Option<Committed>,
    },
    /// A classic group; none where it is deleted.
    Group {
        /// The group's name.
        group: GroupId,
        /// As it is now.
        stored: Option<StoredGroup>,
    },
    /// A part of a consumer group.
    Consumer(GroupId, ConsumerRecord),
}

impl CoordinatorRecord {
    /// Key and value, as a record of the topic carries them.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let mut key = BytesMut::new();
        match self {
            CoordinatorRecord::Offset { group, topic, partition, committed } => {
                key.put_i16(OFFSET_KEY);
                put_text(&mut key, &group.0);
                put_text(&mut key, topic);
                key.put_i32(*partition);
                (key.freeze(), committed.as_ref().map(encode_committed))
            }
            CoordinatorRecord::Group { group, stored } => {
                key.put_i16(GROUP_KEY);
                put_text(&mut key, &group.0);
                (key.freeze(), stored.as_ref().map(encode_group))
            }
            CoordinatorRecord::Consumer(group, record) => record.encode(group),
        }
    }

    /// None where the key is of a kind that is not read here.
    ///
    /// # Errors
    /// The record is damaged, or of a later version.
    pub fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Self>, RecordError> {
        let mut key = Reader(key);
        Ok(match key.i16()? {
            OFFSET_KEY => {
                let (group, topic, partition) = (GroupId(key.text()?), key.text()?, key.i32()?);
                let committed = value.map(decode_committed).transpose()?;
                Some(CoordinatorRecord::Offset { group, topic, partition, committed })
            }
            GROUP_KEY => {
                let group = GroupId(key.text()?);
                let stored = value.map(decode_group).transpose()?;
                Some(CoordinatorRecord::Group { group, stored })
            }
            kind => ConsumerRecord::decode(kind, key, value)?
                .map(|(group, record)| CoordinatorRecord::Consumer(group, record)),
        })
    }
}

fn encode_committed(committed: &Committed) -> Bytes {
    let mut value = BytesMut::new();
    value.put_i16(if committed.expires_ms.is_some() { VALUE_THAT_EXPIRES } else { VALUE });
    value.put_i64(committed.offset.0);
    if committed.expires_ms.is_none() {
        value.put_i32(committed.leader_epoch.0);
    }
    put_text(&mut value, &committed.metadata);
    value.put_i64(committed.committed_ms);
    if let Some(expires_ms) = committed.expires_ms {
        value.put_i64(expires_ms);
    }
    value.freeze()
}

fn decode_committed(value: Bytes) -> Result<Committed, RecordError> {
    let mut value = Reader(value);
    let version = value.i16()?;
    if version != VALUE && version != VALUE_THAT_EXPIRES {
        return Err(RecordError::ValueVersion(version));
    }
    let offset = Offset(value.i64()?);
    let leader_epoch = if version == VALUE { LeaderEpoch(value.i32()?) } else { LeaderEpoch::NONE };
    let (metadata, committed_ms) = (value.text()?, value.i64()?);
    let expires_ms = if version == VALUE_THAT_EXPIRES { Some(value.i64()?) } else { None };
    Ok(Committed { offset, leader_epoch, metadata, committed_ms, expires_ms })
}

fn encode_group(stored: &StoredGroup) -> Bytes {
    let mut value = BytesMut::new();
    value.put_i16(VALUE);
    put_text(&mut value, stored.protocol_type.as_deref().unwrap_or_default());
    value.put_i32(stored.generation.0);
    put_text_or_null(&mut value, stored.protocol.as_deref());
    put_text_or_null(&mut value, stored.leader.as_ref().map(|leader| &*leader.0));
    value.put_i64(stored.since_ms);
    put_count(&mut value, stored.members.len());
    for member in &stored.members {
        put_text(&mut value, &member.id.0);
        put_text_or_null(&mut value, member.instance.as_ref().map(|instance| &*instance.0));
        put_text(&mut value, &member.client.id);
        put_text(&mut value, &member.client.host);
        put_ms(&mut value, member.rebalance_timeout);
        put_ms(&mut value, member.session_timeout);
        put_bytes(&mut value, &member.metadata);
        put_bytes(&mut value, &member.assignment);
    }
    value.freeze()
}

fn decode_group(value: Bytes) -> Result<StoredGroup, RecordError> {
    let mut value = Reader(value);
    let version = value.i16()?;
    if version != VALUE {
        return Err(RecordError::ValueVersion(version));
    }
    let protocol_type = Some(value.text()?).filter(|text| !text.is_empty());
    let generation = Generation(value.i32()?);
    let protocol = value.text_or_null()?;
    let leader = value.text_or_null()?.map(MemberId);
    let since_ms = value.i64()?;
    let count = value.length()?;
    let mut members = Vec::with_capacity(count.min(value.0.len() / MEMBER_BYTES_MIN));
    for _ in 0..count {
        members.push(StoredMember {
            id: MemberId(value.text()?),
            instance: value.text_or_null()?.map(InstanceId),
            client: Client { id: value.text()?, host: value.text()? },
            rebalance_timeout: value.ms()?,
            session_timeout: value.ms()?,
            metadata: value.bytes()?,
            assignment: value.bytes()?,
        });
    }
    Ok(StoredGroup { protocol_type, generation, protocol, leader, since_ms, members })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::super::assignor::{Assignment, Assignor};
    use super::super::classic::Protocol;
    use super::super::consumer::{
        ClassicMember, Epoch, Held, HeldState, MemberClient, StoredMember as ConsumerMember, Subscription,
    };
    use super::*;
    use crate::ids::TopicId;

    fn text(text: &str) -> Arc<str> {
        Arc::from(text)
    }

    fn group(members: Vec<StoredMember>) -> StoredGroup {
        StoredGroup {
            protocol_type: Some(text("consumer")),
            generation: Generation(7),
            protocol: Some(text("range")),
            leader: members.first().map(|member| member.id.clone()),
            since_ms: 1_700_000_000_000,
            members,
        }
    }

    fn member(name: &str, instance: Option<&str>) -> StoredMember {
        StoredMember {
            id: MemberId(text(name)),
            instance: instance.map(|instance| InstanceId(text(instance))),
            client: Client { id: text("client"), host: text("/127.0.0.1") },
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(300),
            metadata: Bytes::from_static(b"subscription"),
            assignment: Bytes::from_static(b"assignment"),
        }
    }

    fn committed(expires_ms: Option<i64>) -> Committed {
        Committed {
            offset: Offset(42),
            leader_epoch: if expires_ms.is_some() { LeaderEpoch::NONE } else { LeaderEpoch(5) },
            metadata: text("here"),
            committed_ms: 1_700_000_000_001,
            expires_ms,
        }
    }

    fn member_id() -> MemberId {
        MemberId(text("member"))
    }

    fn partitions() -> Assignment {
        let topic = |number| TopicId(Uuid::from_u128(number));
        // Enough of them for a length of two bytes.
        [(topic(1), (0..200).collect()), (topic(2), [7].into())].into()
    }

    fn stored_member() -> ConsumerMember {
        ConsumerMember {
            instance: Some(InstanceId(text("static"))),
            rack: Some(text("rack")),
            client: MemberClient { id: text("client"), host: text("/127.0.0.1") },
            rebalance_timeout: Duration::from_secs(300),
            subscription: Subscription { names: [text("a"), text("b")].into(), pattern: Some(text("^c")) },
            assignor: Some(Assignor::Range),
            classic: None,
        }
    }

    fn held() -> Held {
        Held {
            epoch: Epoch(4),
            previous: Epoch(3),
            state: HeldState::Unrevoked,
            assigned: partitions(),
            revoking: Assignment::new(),
        }
    }

    fn consumer(record: ConsumerRecord) -> CoordinatorRecord {
        CoordinatorRecord::Consumer(GroupId(text("g")), record)
    }

    fn all() -> Vec<CoordinatorRecord> {
        let offset = |committed| CoordinatorRecord::Offset {
            group: GroupId(text("g")),
            topic: text("t"),
            partition: 3,
            committed,
        };
        let group_of = |stored| CoordinatorRecord::Group { group: GroupId(text("g")), stored };
        vec![
            offset(Some(committed(None))),
            offset(Some(committed(Some(1_700_000_100_000)))),
            offset(None),
            group_of(Some(group(vec![member("a", None), member("b", Some("static"))]))),
            group_of(Some(StoredGroup { protocol: None, ..group(Vec::new()) })),
            group_of(None),
            consumer(ConsumerRecord::Group(Some((Epoch(4), -7)))),
            consumer(ConsumerRecord::Group(None)),
            consumer(ConsumerRecord::Member(member_id(), Some(stored_member()))),
            consumer(ConsumerRecord::Member(member_id(), Some(ConsumerMember::default()))),
            consumer(ConsumerRecord::Member(
                member_id(),
                Some(ConsumerMember {
                    classic: Some(ClassicMember {
                        session_timeout: Duration::from_secs(45),
                        protocols: vec![Protocol {
                            name: text("range"),
                            metadata: Bytes::from_static(b"subscription"),
                        }],
                    }),
                    ..stored_member()
                }),
            )),
            consumer(ConsumerRecord::Member(member_id(), None)),
            consumer(ConsumerRecord::TargetEpoch(Some(Epoch(4)))),
            consumer(ConsumerRecord::Target(member_id(), Some(partitions()))),
            consumer(ConsumerRecord::Held(member_id(), Some((held(), false)))),
            consumer(ConsumerRecord::Held(member_id(), Some((Held { previous: Epoch(4), ..held() }, true)))),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for record in all() {
            let (key, value) = record.encode();
            assert_eq!(CoordinatorRecord::decode(key, value), Ok(Some(record)));
        }
    }

    #[test]
    fn an_offset_stands_as_kafka_writes_it() {
        let (key, value) = all()[0].encode();
        assert_eq!(&key[..], b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x03");
        let expected = [
            &b"\x00\x03"[..],
            &42i64.to_be_bytes(),
            &5i32.to_be_bytes(),
            b"\x00\x04here",
            &1_700_000_000_001i64.to_be_bytes(),
        ];
        assert_eq!(value.expect("a value"), expected.concat());
    }

    #[test]
    fn what_is_cut_short_is_said_to_be_and_nothing_is_allocated_for_it() {
        for record in all() {
            let (key, value) = record.encode();
            for length in 0..key.len() {
                let cut = CoordinatorRecord::decode(key.slice(..length), value.clone());
                assert_eq!(cut, Err(RecordError::CutShort), "{record:?} with a key of {length}");
            }
            for length in 0..value.as_ref().map_or(0, Bytes::len) {
                let cut =
                    CoordinatorRecord::decode(key.clone(), value.as_ref().map(|value| value.slice(..length)));
                assert_eq!(cut, Err(RecordError::CutShort), "{record:?} with a value of {length}");
            }
        }
        let (key, value) = all()[4].encode();
        let mut value = BytesMut::from(&value.expect("a value")[..]);
        let count = value.len() - 4;
        value[count..].copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(CoordinatorRecord::decode(key, Some(value.freeze())), Err(RecordError::CutShort));
    }

    #[test]
    fn other_kinds_are_passed_over_and_later_versions_are_not_guessed() {
        assert_eq!(CoordinatorRecord::decode(Bytes::from_static(b"\x00\x09whatever"), None), Ok(None));
        let (key, _) = all()[0].encode();
        let later = CoordinatorRecord::decode(key, Some(Bytes::from_static(b"\x00\x04whatever")));
        assert_eq!(later, Err(RecordError::ValueVersion(4)));
    }
}
