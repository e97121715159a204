//! The records of a consumer group (KIP-848). All values are of version 0, which is flexible.
//!
//! ```text
//! key 3: group          value: epoch i32 | tag 0: hash of the topics that are read, i64
//! key 5: group, member  value: instance? | rack? | client id | client host | (topic name)* | pattern? | rebalance time-out i32 | assignor?
//!                              | tag 0: 0 where it speaks the consumer protocol, else 1 | session time-out i32 | (name | metadata bytes)*
//! key 6: group          value: epoch i32 in which the target was decided
//! key 7: group, member  value: partitions that it is to have
//! key 8: group, member  value: epoch i32 | previous epoch i32 | state i8 | partitions that it has | partitions that it is to give up
//!
//! partitions: (topic id 16 bytes | (partition i32)*)*
//! ```
//!
//! In a key the version i16, which says its kind, and plain texts; in a value compact texts and lists, and tagged fields at the end of each
//! structure. A static member that has said that it comes back has -2 as its epoch.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::super::assignor::{Assignment, Assignor};
use super::super::classic::Protocol;
use super::super::consumer::{
    ClassicMember, ConsumerRecord, Epoch, Held, HeldState, MemberClient, StoredMember, Subscription,
};
use super::super::ids::{GroupId, InstanceId, MemberId};
use super::forms::{
    Reader, RecordError, put_compact_bytes, put_compact_many, put_compact_text, put_ms, put_no_tags,
    put_text, put_unsigned,
};
use crate::ids::TopicId;

pub(super) const GROUP_KEY: i16 = 3;
pub(super) const MEMBER_KEY: i16 = 5;
pub(super) const TARGET_EPOCH_KEY: i16 = 6;
pub(super) const TARGET_KEY: i16 = 7;
pub(super) const HELD_KEY: i16 = 8;

const VALUE: i16 = 0;
const TOPICS_HASH_TAG: usize = 0;
const CLASSIC_TAG: usize = 0;
const AWAY: i32 = -2;

impl ConsumerRecord {
    pub(super) fn encode(&self, group: &GroupId) -> (Bytes, Option<Bytes>) {
        match self {
            ConsumerRecord::Group(group_epoch) => {
                let value = group_epoch.map(|(epoch, hash)| {
                    let mut value = begin();
                    value.put_i32(epoch.0);
                    put_unsigned(&mut value, 1);
                    put_unsigned(&mut value, TOPICS_HASH_TAG);
                    put_unsigned(&mut value, size_of::<i64>());
                    value.put_i64(hash);
                    value.freeze()
                });
                (key(GROUP_KEY, group, None), value)
            }
            ConsumerRecord::Member(member, stored) => {
                (key(MEMBER_KEY, group, Some(member)), stored.as_ref().map(encode_member))
            }
            ConsumerRecord::TargetEpoch(epoch) => {
                let value = epoch.map(|epoch| {
                    let mut value = begin();
                    value.put_i32(epoch.0);
                    put_no_tags(&mut value);
                    value.freeze()
                });
                (key(TARGET_EPOCH_KEY, group, None), value)
            }
            ConsumerRecord::Target(member, target) => {
                let value = target.as_ref().map(|target| {
                    let mut value = begin();
                    put_partitions(&mut value, target);
                    put_no_tags(&mut value);
                    value.freeze()
                });
                (key(TARGET_KEY, group, Some(member)), value)
            }
            ConsumerRecord::Held(member, held) => {
                let value = held.as_ref().map(|(held, is_away)| encode_held(held, *is_away));
                (key(HELD_KEY, group, Some(member)), value)
            }
        }
    }

    /// `kind` is the version that stood at the beginning of the key.
    pub(super) fn decode(
        kind: i16,
        mut key: Reader,
        value: Option<Bytes>,
    ) -> Result<Option<(GroupId, ConsumerRecord)>, RecordError> {
        if ![GROUP_KEY, MEMBER_KEY, TARGET_EPOCH_KEY, TARGET_KEY, HELD_KEY].contains(&kind) {
            return Ok(None);
        }
        let group = GroupId(key.text()?);
        let value = value.map(open).transpose()?;
        let record = match kind {
            GROUP_KEY => ConsumerRecord::Group(value.map(decode_group).transpose()?),
            TARGET_EPOCH_KEY => ConsumerRecord::TargetEpoch(value.map(decode_target_epoch).transpose()?),
            _ => {
                let member = MemberId(key.text()?);
                match kind {
                    MEMBER_KEY => ConsumerRecord::Member(member, value.map(decode_member).transpose()?),
                    TARGET_KEY => ConsumerRecord::Target(member, value.map(decode_target).transpose()?),
                    _ => ConsumerRecord::Held(member, value.map(decode_held).transpose()?),
                }
            }
        };
        Ok(Some((group, record)))
    }
}

fn key(kind: i16, group: &GroupId, member: Option<&MemberId>) -> Bytes {
    let mut key = BytesMut::new();
    key.put_i16(kind);
    put_text(&mut key, &group.0);
    if let Some(member) = member {
        put_text(&mut key, &member.0);
    }
    key.freeze()
}

fn begin() -> BytesMut {
    let mut value = BytesMut::new();
    value.put_i16(VALUE);
    value
}

fn open(value: Bytes) -> Result<Reader, RecordError> {
    let mut value = Reader(value);
    match value.i16()? {
        VALUE => Ok(value),
        later => Err(RecordError::ValueVersion(later)),
    }
}

fn decode_group(mut value: Reader) -> Result<(Epoch, i64), RecordError> {
    let epoch = Epoch(value.i32()?);
    let mut hash = 0;
    for (tag, mut field) in value.tags()? {
        if tag == TOPICS_HASH_TAG {
            hash = field.i64()?;
        }
    }
    Ok((epoch, hash))
}

fn decode_target_epoch(mut value: Reader) -> Result<Epoch, RecordError> {
    let epoch = Epoch(value.i32()?);
    value.tags()?;
    Ok(epoch)
}

fn decode_target(mut value: Reader) -> Result<Assignment, RecordError> {
    let target = partitions(&mut value)?;
    value.tags()?;
    Ok(target)
}

fn encode_member(member: &StoredMember) -> Bytes {
    let mut value = begin();
    put_compact_text(&mut value, member.instance.as_ref().map(|instance| &*instance.0));
    put_compact_text(&mut value, member.rack.as_deref());
    put_compact_text(&mut value, Some(&member.client.id));
    put_compact_text(&mut value, Some(&member.client.host));
    let names = &member.subscription.names;
    put_compact_many(&mut value, names.iter(), |value, name| put_compact_text(value, Some(name)));
    put_compact_text(&mut value, member.subscription.pattern.as_deref());
    put_ms(&mut value, member.rebalance_timeout);
    put_compact_text(&mut value, member.assignor.map(Assignor::name));
    let classic = encode_classic(member.classic.as_ref());
    put_unsigned(&mut value, 1);
    put_unsigned(&mut value, CLASSIC_TAG);
    put_unsigned(&mut value, classic.len());
    value.put_slice(&classic);
    value.freeze()
}

fn decode_member(mut value: Reader) -> Result<StoredMember, RecordError> {
    let instance = value.compact_text_or_null()?.map(InstanceId);
    let rack = value.compact_text_or_null()?;
    let client = MemberClient { id: value.compact_text()?, host: value.compact_text()? };
    let names = value.compact_many(Reader::compact_text)?.into_iter().collect();
    let pattern = value.compact_text_or_null()?;
    let rebalance_timeout: Duration = value.ms()?;
    let assignor = value.compact_text_or_null()?.and_then(|name: Arc<str>| Assignor::of_name(&name));
    let mut classic = None;
    for (tag, field) in value.tags()? {
        if tag == CLASSIC_TAG {
            classic = decode_classic(field)?;
        }
    }
    let subscription = Subscription { names, pattern };
    Ok(StoredMember { instance, rack, client, rebalance_timeout, subscription, assignor, classic })
}

fn encode_classic(classic: Option<&ClassicMember>) -> Bytes {
    let mut field = BytesMut::new();
    let Some(classic) = classic else {
        put_unsigned(&mut field, 0);
        return field.freeze();
    };
    put_unsigned(&mut field, 1);
    put_ms(&mut field, classic.session_timeout);
    put_compact_many(&mut field, classic.protocols.iter(), |field, protocol| {
        put_compact_text(field, Some(&protocol.name));
        put_compact_bytes(field, &protocol.metadata);
        put_no_tags(field);
    });
    put_no_tags(&mut field);
    field.freeze()
}

fn decode_classic(mut field: Reader) -> Result<Option<ClassicMember>, RecordError> {
    if field.unsigned()? == 0 {
        return Ok(None);
    }
    let session_timeout = field.ms()?;
    let protocols = field.compact_many(|field| {
        let protocol = Protocol { name: field.compact_text()?, metadata: field.compact_bytes()? };
        field.tags()?;
        Ok(protocol)
    })?;
    field.tags()?;
    Ok(Some(ClassicMember { session_timeout, protocols }))
}

fn encode_held(held: &Held, is_away: bool) -> Bytes {
    let (epoch, previous) = if is_away { (AWAY, held.epoch.0) } else { (held.epoch.0, held.previous.0) };
    let state = match held.state {
        HeldState::Stable => 0,
        HeldState::Unrevoked => 1,
        HeldState::Unreleased => 2,
    };
    let mut value = begin();
    value.put_i32(epoch);
    value.put_i32(previous);
    value.put_i8(state);
    put_partitions(&mut value, &held.assigned);
    put_partitions(&mut value, &held.revoking);
    put_no_tags(&mut value);
    value.freeze()
}

fn decode_held(mut value: Reader) -> Result<(Held, bool), RecordError> {
    let (epoch, previous) = (value.i32()?, value.i32()?);
    let is_away = epoch == AWAY;
    let state = match value.i8()? {
        1 => HeldState::Unrevoked,
        2 => HeldState::Unreleased,
        _ => HeldState::Stable,
    };
    let assigned = partitions(&mut value)?;
    let revoking = partitions(&mut value)?;
    value.tags()?;
    let epoch = Epoch(if is_away { previous } else { epoch });
    Ok((Held { epoch, previous: Epoch(previous), state, assigned, revoking }, is_away))
}

fn put_partitions(out: &mut BytesMut, assignment: &Assignment) {
    put_compact_many(out, assignment.iter(), |out, (topic, partitions)| {
        out.put_u128(topic.0.as_u128());
        put_compact_many(out, partitions.iter(), |out, partition| out.put_i32(*partition));
        put_no_tags(out);
    });
}

fn partitions(value: &mut Reader) -> Result<Assignment, RecordError> {
    let topics = value.compact_many(|value| {
        let topic = TopicId(value.uuid()?);
        let partitions = value.compact_many(Reader::i32)?;
        value.tags()?;
        Ok((topic, partitions.into_iter().collect()))
    })?;
    Ok(topics.into_iter().collect())
}
