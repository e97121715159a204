//! What the follower and the leader of partitions say to one another. Pure.
//!
//! ```text
//! message:  version u8 | kind u8 | session u64 | ...
//! fetch:    sequence u64 | takes records u8 | broker epoch u64
//!           | count u32, (partition | leader epoch i32 | last fetched epoch i32 | offset i64 | durable
//!                         | marks)*
//!           | count u32, (partition)*                                      of which no more is to be told
//! synced:   sequence u64 | takes records u8 | count u32, (partition | leader epoch i32 | durable)*
//! answer:   sequence u64 | number u64 | count u32, (partition | leader epoch i32 | code u8 | what the code says)*
//! refused:  why u8
//!
//! partition: topic id 16 bytes | index i32
//! durable:   synced i64 | log start i64
//! marks:     high watermark i64 | log start i64 | held by all i64
//! ```
//!
//! Numbers are big endian. A follower numbers what it says in a session, so that the leader notices what was lost on its way.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

use crate::ids::{BrokerEpoch, LeaderEpoch, Offset, PartitionId, TopicId};
use crate::partition::{Durable, Fetched, LeaderMarks};

/// Of all messages. A node says what it cannot read, and does not guess.
const VERSION: u8 = 4;

const FETCH: u8 = 1;
const SYNCED: u8 = 2;
const ANSWER: u8 = 3;
const REFUSED: u8 = 4;

const PARTITION_BYTES: usize = 16 + 4;
const DURABLE_BYTES: usize = 8 + 8;
const MARKS_BYTES: usize = 8 + 8 + 8;
const ASKED_BYTES: usize = PARTITION_BYTES + 4 + 4 + 8 + DURABLE_BYTES + MARKS_BYTES;
const REPORT_BYTES: usize = PARTITION_BYTES + 4 + DURABLE_BYTES;
/// The least that an answer says of one partition.
const ANSWERED_BYTES_MIN: usize = PARTITION_BYTES + 4 + 1;
/// The most that it says beside records.
pub const ANSWERED_BYTES_MAX: usize = ANSWERED_BYTES_MIN + MARKS_BYTES + 4;

/// Drawn by a follower for all that it says to one leader until something is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(pub u64);

/// Where a follower stands in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epoch of the leader that it follows.
    pub epoch: LeaderEpoch,
    /// The epoch of its last record; none where it has no record.
    pub last_fetched_epoch: LeaderEpoch,
    /// Where its log ends.
    pub offset: Offset,
    /// What is on its disk.
    pub durable: Durable,
    /// What the leader has told last in this epoch.
    pub told: LeaderMarks,
}

/// What a follower asks for. What was asked for before in the session, and not answered, is still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Of which session it is.
    pub session: SessionId,
    /// One more than that of what was said before; a session begins with 0.
    pub sequence: u64,
    /// The follower's storage takes records: otherwise it joins no ISR, also where it lacks nothing.
    pub takes_records: bool,
    /// Granted to the follower's process (KIP-903).
    pub broker_epoch: BrokerEpoch,
    /// What is asked for, and from where on.
    pub asked: Vec<(PartitionId, Position)>,
    /// Of these nothing more is to be told.
    pub forgotten: Vec<PartitionId>,
}

/// What is on a follower's disk, told as soon as it is; and whether it takes records, as soon as that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncedUpTo {
    /// Of which session it is.
    pub session: SessionId,
    /// In a row with those of fetches.
    pub sequence: u64,
    /// As in a fetch.
    pub takes_records: bool,
    /// Each in the epoch of the leader that is followed.
    pub reports: Vec<(PartitionId, LeaderEpoch, Durable)>,
}

/// What a leader answers; of other partitions there is nothing new. What is answered is to be asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of which session it is.
    pub session: SessionId,
    /// Of the latest fetch that had come.
    pub sequence: u64,
    /// How many answers of the session went before: a follower that misses one begins anew.
    pub number: u64,
    /// Those of which there is something new.
    pub partitions: Vec<Answered>,
}

/// What is answered of one partition, and in which epoch it was asked for.
pub type Answered = (PartitionId, LeaderEpoch, Result<Fetched, FetchError>);

/// Why a leader gives nothing of a partition. That it does not lead is no reason: whoever asks under another epoch, or of a
/// partition that is not open there, waits until that changes; who leads it hears from its own image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It ends before what was asked for.
    #[error("the leader has records from offset {log_start} to {log_end}")]
    OutOfRange {
        /// Where its log starts.
        log_start: Offset,
        /// Where it ends.
        log_end: Offset,
    },
    /// It cannot be read, or not in time.
    #[error("the leader cannot read it")]
    Storage,
}

/// Why a leader does not answer a follower at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Something of the session was lost, or this process of the leader has not seen its beginning: another is to be begun.
    UnknownSession,
    /// The follower's process is not the one that is registered, as far as the leader knows (KIP-903).
    OtherProcess,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Of a follower.
    Fetch(Fetch),
    /// Of a follower.
    Synced(SyncedUpTo),
    /// Of a leader.
    Answer(Answer),
    /// Of a leader, that does not go on with this session.
    Refused(SessionId, Refused),
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// It is of another version.
    #[error(
        "version {0} of the replication protocol, and this node speaks {VERSION}: update the older one of the two"
    )]
    Version(u8),
    /// In this part of it.
    #[error("a message of replication that is not what it says it is ({0})")]
    Damaged(&'static str),
}

impl Message {
    /// As it goes over a connection.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_hint());
        out.put_u8(VERSION);
        match self {
            Message::Fetch(fetch) => {
                out.put_u8(FETCH);
                out.put_u64(fetch.session.0);
                out.put_u64(fetch.sequence);
                out.put_u8(u8::from(fetch.takes_records));
                out.put_u64(fetch.broker_epoch.0);
                out.put_u32(fetch.asked.len() as u32);
                for (partition, position) in &fetch.asked {
                    put_partition(&mut out, *partition);
                    out.put_i32(position.epoch.0);
                    out.put_i32(position.last_fetched_epoch.0);
                    out.put_i64(position.offset.0);
                    put_durable(&mut out, position.durable);
                    put_marks(&mut out, position.told);
                }
                out.put_u32(fetch.forgotten.len() as u32);
                for partition in &fetch.forgotten {
                    put_partition(&mut out, *partition);
                }
            }
            Message::Synced(synced) => {
                out.put_u8(SYNCED);
                out.put_u64(synced.session.0);
                out.put_u64(synced.sequence);
                out.put_u8(u8::from(synced.takes_records));
                out.put_u32(synced.reports.len() as u32);
                for (partition, epoch, durable) in &synced.reports {
                    put_partition(&mut out, *partition);
                    out.put_i32(epoch.0);
                    put_durable(&mut out, *durable);
                }
            }
            Message::Answer(answer) => {
                out.put_u8(ANSWER);
                out.put_u64(answer.session.0);
                out.put_u64(answer.sequence);
                out.put_u64(answer.number);
                out.put_u32(answer.partitions.len() as u32);
                for (partition, epoch, outcome) in &answer.partitions {
                    put_partition(&mut out, *partition);
                    out.put_i32(epoch.0);
                    put_outcome(&mut out, outcome);
                }
            }
            Message::Refused(session, why) => {
                out.put_u8(REFUSED);
                out.put_u64(session.0);
                out.put_u8(match why {
                    Refused::UnknownSession => 1,
                    Refused::OtherProcess => 2,
                });
            }
        }
        out.freeze()
    }

    fn size_hint(&self) -> usize {
        let records = |outcome: &Result<Fetched, FetchError>| match outcome {
            Ok(Fetched::Records { batches, .. }) => batches.iter().map(Bytes::len).sum(),
            _ => 0,
        };
        32 + match self {
            Message::Fetch(fetch) => {
                8 + fetch.asked.len() * ASKED_BYTES + fetch.forgotten.len() * PARTITION_BYTES
            }
            Message::Synced(synced) => synced.reports.len() * REPORT_BYTES,
            Message::Answer(answer) => {
                answer.partitions.iter().map(|(.., outcome)| ANSWERED_BYTES_MAX + records(outcome)).sum()
            }
            Message::Refused(..) => 0,
        }
    }

    /// Reads a whole message; records in it stay where they are.
    ///
    /// # Errors
    ///
    /// It is of another version, or none at all.
    pub fn decode(bytes: Bytes) -> Result<Message, ProtocolError> {
        let mut input = Input { bytes, of: "head" };
        match input.u8()? {
            VERSION => {}
            other => return Err(ProtocolError::Version(other)),
        }
        let kind = input.u8()?;
        let session = SessionId(input.u64()?);
        let message = match kind {
            FETCH => {
                input.of = "fetch";
                let (sequence, takes_records) = (input.u64()?, input.flag()?);
                let broker_epoch = BrokerEpoch(input.u64()?);
                let asked = input.list(ASKED_BYTES, |input| {
                    let partition = input.partition()?;
                    let position = Position {
                        epoch: LeaderEpoch(input.i32()?),
                        last_fetched_epoch: LeaderEpoch(input.i32()?),
                        offset: Offset(input.i64()?),
                        durable: input.durable()?,
                        told: input.marks()?,
                    };
                    Ok((partition, position))
                })?;
                let forgotten = input.list(PARTITION_BYTES, Input::partition)?;
                Message::Fetch(Fetch { session, sequence, takes_records, broker_epoch, asked, forgotten })
            }
            SYNCED => {
                input.of = "synced";
                let (sequence, takes_records) = (input.u64()?, input.flag()?);
                let reports = input.list(REPORT_BYTES, |input| {
                    Ok((input.partition()?, LeaderEpoch(input.i32()?), input.durable()?))
                })?;
                Message::Synced(SyncedUpTo { session, sequence, takes_records, reports })
            }
            ANSWER => {
                input.of = "answer";
                let (sequence, number) = (input.u64()?, input.u64()?);
                let partitions = input.list(ANSWERED_BYTES_MIN, |input| {
                    Ok((input.partition()?, LeaderEpoch(input.i32()?), take_outcome(input)?))
                })?;
                Message::Answer(Answer { session, sequence, number, partitions })
            }
            REFUSED => {
                input.of = "refused";
                let why = match input.u8()? {
                    1 => Refused::UnknownSession,
                    2 => Refused::OtherProcess,
                    _ => return Err(input.damaged()),
                };
                Message::Refused(session, why)
            }
            _ => return Err(ProtocolError::Damaged("kind")),
        };
        if input.bytes.has_remaining() { Err(input.damaged()) } else { Ok(message) }
    }
}

fn put_partition(out: &mut BytesMut, partition: PartitionId) {
    out.put_slice(partition.topic.0.as_bytes());
    out.put_i32(partition.index);
}

fn put_durable(out: &mut BytesMut, durable: Durable) {
    out.put_i64(durable.synced.0);
    out.put_i64(durable.log_start.0);
}

fn put_marks(out: &mut BytesMut, marks: LeaderMarks) {
    out.put_i64(marks.high_watermark.0);
    out.put_i64(marks.log_start.0);
    out.put_i64(marks.held_by_all.0);
}

fn put_outcome(out: &mut BytesMut, outcome: &Result<Fetched, FetchError>) {
    match outcome {
        Ok(Fetched::Records { batches, marks }) => {
            out.put_u8(0);
            put_marks(out, *marks);
            out.put_u32(batches.iter().map(Bytes::len).sum::<usize>() as u32);
            for batch in batches {
                out.put_slice(batch);
            }
        }
        Ok(Fetched::Diverging { epoch, end }) => {
            out.put_u8(1);
            out.put_i32(epoch.0);
            out.put_i64(end.0);
        }
        Err(FetchError::OutOfRange { log_start, log_end }) => {
            out.put_u8(2);
            out.put_i64(log_start.0);
            out.put_i64(log_end.0);
        }
        Err(FetchError::Storage) => out.put_u8(3),
        Ok(Fetched::BeginsLater { at }) => {
            out.put_u8(4);
            out.put_i64(at.0);
        }
    }
}

fn take_outcome(input: &mut Input) -> Result<Result<Fetched, FetchError>, ProtocolError> {
    Ok(match input.u8()? {
        0 => {
            let marks = input.marks()?;
            let length = input.u32()? as usize;
            if input.bytes.remaining() < length {
                return Err(input.damaged());
            }
            let records = input.bytes.split_to(length);
            let batches = if records.is_empty() { Vec::new() } else { vec![records] };
            Ok(Fetched::Records { batches, marks })
        }
        1 => Ok(Fetched::Diverging { epoch: LeaderEpoch(input.i32()?), end: Offset(input.i64()?) }),
        2 => {
            let (log_start, log_end) = (Offset(input.i64()?), Offset(input.i64()?));
            Err(FetchError::OutOfRange { log_start, log_end })
        }
        3 => Err(FetchError::Storage),
        4 => Ok(Fetched::BeginsLater { at: Offset(input.i64()?) }),
        _ => return Err(input.damaged()),
    })
}

/// What has not been read yet of a message.
struct Input {
    bytes: Bytes,
    /// What is being read, for errors.
    of: &'static str,
}

impl Input {
    fn damaged(&self) -> ProtocolError {
        ProtocolError::Damaged(self.of)
    }

    fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.bytes.try_get_u8().map_err(|_| self.damaged())
    }

    fn flag(&mut self) -> Result<bool, ProtocolError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged()),
        }
    }

    fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.bytes.try_get_u32().map_err(|_| self.damaged())
    }

    fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.bytes.try_get_u64().map_err(|_| self.damaged())
    }

    fn i32(&mut self) -> Result<i32, ProtocolError> {
        self.bytes.try_get_i32().map_err(|_| self.damaged())
    }

    fn i64(&mut self) -> Result<i64, ProtocolError> {
        self.bytes.try_get_i64().map_err(|_| self.damaged())
    }

    fn marks(&mut self) -> Result<LeaderMarks, ProtocolError> {
        let (high_watermark, log_start) = (Offset(self.i64()?), Offset(self.i64()?));
        Ok(LeaderMarks { high_watermark, log_start, held_by_all: Offset(self.i64()?) })
    }

    fn partition(&mut self) -> Result<PartitionId, ProtocolError> {
        let topic = self.bytes.try_get_u128().map_err(|_| self.damaged())?;
        Ok(PartitionId { topic: TopicId(Uuid::from_u128(topic)), index: self.i32()? })
    }

    fn durable(&mut self) -> Result<Durable, ProtocolError> {
        Ok(Durable { synced: Offset(self.i64()?), log_start: Offset(self.i64()?) })
    }

    /// A count, and so many of what has at least `bytes_min` each: no room is made for more than there can be.
    fn list<T>(
        &mut self,
        bytes_min: usize,
        take: impl Fn(&mut Input) -> Result<T, ProtocolError>,
    ) -> Result<Vec<T>, ProtocolError> {
        let count = self.u32()? as usize;
        if count > self.bytes.remaining() / bytes_min {
            return Err(self.damaged());
        }
        (0..count).map(|_| take(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that a seed gives, large and small ones.
    struct Draw(u64);

    impl Draw {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let drawn = self.0 >> 11;
            if drawn.is_multiple_of(3) { drawn << 11 } else { drawn % 9 }
        }

        fn offset(&mut self) -> Offset {
            Offset(self.next() as i64)
        }

        fn epoch(&mut self) -> LeaderEpoch {
            LeaderEpoch(self.next() as i32)
        }

        fn partition(&mut self) -> PartitionId {
            PartitionId {
                topic: TopicId(Uuid::from_u64_pair(self.next(), self.next())),
                index: self.next() as i32,
            }
        }

        fn many<T>(&mut self, one: impl Fn(&mut Draw) -> T) -> Vec<T> {
            (0..self.next() % 4).map(|_| one(self)).collect()
        }

        fn durable(&mut self) -> Durable {
            Durable { synced: self.offset(), log_start: self.offset() }
        }

        fn marks(&mut self) -> LeaderMarks {
            let [high_watermark, log_start, held_by_all] = [(); 3].map(|()| self.offset());
            LeaderMarks { high_watermark, log_start, held_by_all }
        }

        fn position(&mut self) -> Position {
            Position {
                epoch: self.epoch(),
                last_fetched_epoch: self.epoch(),
                offset: self.offset(),
                durable: self.durable(),
                told: self.marks(),
            }
        }

        fn outcome(&mut self) -> Result<Fetched, FetchError> {
            match self.next() % 5 {
                0 => Ok(Fetched::Diverging { epoch: self.epoch(), end: self.offset() }),
                3 => Ok(Fetched::BeginsLater { at: self.offset() }),
                1 => Err(FetchError::OutOfRange { log_start: self.offset(), log_end: self.offset() }),
                2 => Err(FetchError::Storage),
                _ => {
                    let bytes = Bytes::from(vec![self.next() as u8; (self.next() % 70) as usize]);
                    let batches = if bytes.is_empty() { Vec::new() } else { vec![bytes] };
                    let marks = self.marks();
                    Ok(Fetched::Records { batches, marks })
                }
            }
        }

        fn message(&mut self) -> Message {
            let (session, sequence) = (SessionId(self.next()), self.next());
            match self.next() % 4 {
                0 => Message::Fetch(Fetch {
                    session,
                    sequence,
                    takes_records: self.next().is_multiple_of(2),
                    broker_epoch: BrokerEpoch(self.next()),
                    asked: self.many(|draw| (draw.partition(), draw.position())),
                    forgotten: self.many(Draw::partition),
                }),
                1 => {
                    let reports = self.many(|draw| (draw.partition(), draw.epoch(), draw.durable()));
                    let takes_records = self.next().is_multiple_of(2);
                    Message::Synced(SyncedUpTo { session, sequence, takes_records, reports })
                }
                2 => {
                    let partitions = self.many(|draw| (draw.partition(), draw.epoch(), draw.outcome()));
                    Message::Answer(Answer { session, sequence, number: sequence / 2, partitions })
                }
                _ => Message::Refused(
                    session,
                    [Refused::UnknownSession, Refused::OtherProcess][(sequence % 2) as usize],
                ),
            }
        }
    }

    #[test]
    fn what_is_said_is_understood_and_a_part_of_it_or_more_is_not() {
        for seed in 0..2_000 {
            let message = Draw(seed).message();
            let bytes = message.encode();
            assert_eq!(Message::decode(bytes.clone()), Ok(message.clone()), "seed {seed}");
            for length in 0..bytes.len() {
                assert!(Message::decode(bytes.slice(..length)).is_err(), "seed {seed}, {length} bytes");
            }
            let more = Bytes::from([&bytes[..], &[0]].concat());
            assert!(Message::decode(more).is_err(), "seed {seed}");
        }
    }

    #[test]
    fn no_bytes_lead_to_a_panic_or_to_more_room_than_they_take() {
        for seed in 0..4_000 {
            let mut draw = Draw(seed);
            let mut bytes = draw.message().encode().to_vec();
            for _ in 0..=draw.next() % 3 {
                let at = (draw.next() as usize) % bytes.len();
                bytes[at] = draw.next() as u8;
            }
            if let Ok(message) = Message::decode(bytes.clone().into()) {
                assert_eq!(message.encode(), bytes, "seed {seed}: one message has one form");
            }
        }
        let mut huge = vec![VERSION, SYNCED];
        huge.extend([0; 17]);
        huge.extend(u32::MAX.to_be_bytes());
        assert_eq!(Message::decode(huge.into()), Err(ProtocolError::Damaged("synced")));
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut bytes = Message::Refused(SessionId(1), Refused::OtherProcess).encode().to_vec();
        bytes[0] = VERSION + 1;
        assert_eq!(Message::decode(bytes.into()), Err(ProtocolError::Version(VERSION + 1)));
    }
}
