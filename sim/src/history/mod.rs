//! What clients saw: every operation with its times and its outcome, in the world's time.
//!
//! Written by the workload, read by the checkers and never by the broker. An operation whose outcome the client
//! does not know stays unknown: a checker must allow both.

mod place;
mod value;
mod progress_monitor;
mod lookup;
pub mod groups;
pub mod compaction;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

pub use lookup::{Lookup, LookupQuery};
pub use place::{Place, wire_name};
pub use progress_monitor::{At, ProgressMonitor, Standstill, Trade};
pub use value::Value;

/// For messages: `12.345 s`.
pub fn seconds(at: At) -> String {
    format!("{}.{:03} s", at / 1_000_000_000, at / 1_000_000 % 1_000)
}

/// What a producer asks to be told, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum AckMode {
    #[serde(rename = "0")]
    None,
    #[serde(rename = "1")]
    Leader,
    #[serde(rename = "all")]
    All,
}

/// Create time of a record of a batch whose first is of `first_ms`: what time look-ups go by. As with programs that
/// hand over what happened elsewhere, times within a batch go back as well as forth.
pub fn timestamp_of(first_ms: i64, index: usize) -> i64 {
    const STEPS_MS: [i64; 8] = [0, 7, -5, 3, 120, -70, 2, 11];
    (first_ms + STEPS_MS[index % STEPS_MS.len()]).max(0)
}

/// One batch on its way, all attempts together.
#[derive(Clone, Debug, PartialEq)]
pub struct Send {
    pub producer: u32,
    pub idempotent: bool,
    pub acks: AckMode,
    pub place: Place,
    pub first: u64,
    pub count: u32,
    /// When its producer wanted it sent.
    pub began: At,
    /// When its first attempt was put on the wire: before, it waited for room among what its own producer had sent.
    pub sent: Option<At>,
    /// Attempts of which it is not known whether they were written.
    pub unknown_attempts: u32,
    /// Create time of its first record, in the producer's wall-clock milliseconds; the others' follow from it
    /// ([`timestamp_of`]).
    pub timestamp_ms: i64,
    /// What the batch takes, at most, wherever it is stored.
    pub bytes: u64,
    /// What it takes at least: its values, which do not shrink.
    pub bytes_min: u64,
    /// How many of its records, from the first, show their number to a disk: in a compressed batch not all do.
    pub visible: u32,
    /// Others of the same producer may be on their way to the same partition at the same time: unless it is idempotent,
    /// a retry may change their order.
    pub pipelined: bool,
    /// Its client went away, as it had planned, without waiting for the answer: nobody is owed one.
    pub abandoned: bool,
    pub outcome: Outcome,
}

impl Send {
    pub fn values(&self) -> impl Iterator<Item = Value> + '_ {
        let producer = self.producer;
        (self.first..self.first + u64::from(self.count)).map(move |number| Value { producer, number })
    }

    pub fn has(&self, value: Value) -> bool {
        value.producer == self.producer
            && (self.first..self.first + u64::from(self.count)).contains(&value.number)
    }

    /// Those whose writing the disk can tell.
    pub fn visible_values(&self) -> impl Iterator<Item = Value> + '_ {
        self.values().take(self.visible as usize)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// `base` is missing where nothing is answered (acks=0) or the original's offset is no longer known.
    Acked {
        at: At,
        base: Option<i64>,
    },
    /// Refused for good, surely not written by this or any attempt counted as refused.
    Refused {
        at: At,
        error: String,
    },
    Unknown,
}

/// One request, whatever it asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub client: Arc<str>,
    /// Who was asked.
    pub node: u32,
    pub trade: Trade,
    pub sent: At,
    /// When the client asked to have an answer.
    pub deadline: At,
    pub ended: At,
    /// When the client began to make the connection that it went over.
    pub connecting: At,
    pub end: RequestEnd,
}

impl Request {
    /// The machine of the node that was asked.
    pub fn machine(&self) -> String {
        format!("node{}", self.node)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    Answered,
    /// The connection ended.
    Disconnected,
    /// The client gave up.
    Unanswered,
}

/// What one fetch of one partition brought. What was brought before, by whatever fetch, at the same offset and with
/// the same value is only counted: each place keeps each of its records once.
#[derive(Clone, Debug, PartialEq)]
pub struct Poll {
    pub consumer: u32,
    /// Counts how often this consumer started over.
    pub round: u32,
    pub place: Place,
    pub from: i64,
    /// So many records, at `from` and on without a gap, were as they had been read before.
    pub again: u32,
    pub at: At,
    /// What came behind those.
    pub records: Vec<(i64, Value)>,
}

impl Poll {
    /// The offset behind the records that were as before.
    pub fn known_until(&self) -> i64 {
        self.from + i64::from(self.again)
    }
}

/// Something served that cannot be what was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Damage {
    pub place: Place,
    pub at: At,
    pub what: String,
}

/// An idempotent producer was told that it is wrong though it was right.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    pub producer: u32,
    pub place: Place,
    pub at: At,
    pub error: String,
}

/// A change of metadata that a client wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The node that it asked last.
    pub node: u32,
    /// When it asked first.
    pub began: At,
    /// `None`: never; the run came to its end.
    pub made: Option<At>,
}

impl Change {
    /// How long it took.
    pub fn took(&self) -> At {
        self.made.map_or(At::MAX, |made| made - self.began)
    }
}

/// An error that a well-behaved client was told instead of what it had asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Complaint {
    pub client: Arc<str>,
    pub trade: Trade,
    /// The partition that it was about, where it was about one.
    pub place: Option<Place>,
    /// Kafka's name of the error.
    pub error: String,
    pub sent: At,
    pub at: At,
    /// When the client had been told who leads the partition, if it goes by that and it was before the request.
    pub routed: Option<At>,
}

/// What a node answered on `/health/ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// It serves, but not all of what it has: with what it said of the rest.
    ReadyBut(String),
    /// With the reason, as it was given.
    NotReady(String),
    /// It does not serve yet, as far as its start has come.
    Starting(String),
    /// Nobody listened, or no answer came in time.
    Silent,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// Number of the node.
    pub node: u32,
    pub asked: At,
    pub at: At,
    pub answer: Readiness,
}

/// The high watermark as a fetch told it, noted when it differs from what the same consumer was told before.
#[derive(Clone, Debug, PartialEq)]
pub struct Watermark {
    pub consumer: u32,
    pub place: Place,
    /// The leader's, where the fetch named one: it was answered by the leader of that epoch.
    pub epoch: Option<i32>,
    pub sent: At,
    pub at: At,
    pub high_watermark: i64,
}

/// One request to delete all records of a partition before an offset.
#[derive(Clone, Debug, PartialEq)]
pub struct Deletion {
    pub client: Arc<str>,
    pub place: Place,
    /// `None`: all that is there, up to the high watermark.
    pub before: Option<i64>,
    pub sent: At,
    /// When it was answered; absent: it never was, and may come to pass.
    pub answered: Option<At>,
    pub told: Deleted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The log starts there.
    From(i64),
    /// It was refused for good.
    Refused,
    Unknown,
}

/// Where a log starts, as somebody was told; noted when it differs from what the same client was told before.
#[derive(Clone, Debug, PartialEq)]
pub struct LogStart {
    pub client: Arc<str>,
    pub place: Place,
    pub start: i64,
    pub by: Teller,
    pub sent: At,
    pub at: At,
    /// By the wall clock, which all machines share.
    pub wall_ms: i64,
}

/// Who has told where a log starts, and holds to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Teller {
    /// One that acknowledged a deletion: whoever leads from then on.
    AllInSync,
    /// The node that led then: another need not have deleted as much.
    Node(u32),
    /// Nobody can be held to it: several may have told it, or who told it has lost its disk.
    Nobody,
}

/// A consumer was told that its offset is out of range, and began again where the log starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Reset {
    pub consumer: u32,
    pub place: Place,
    pub from: i64,
    pub at: At,
    pub to: i64,
    /// One node has told both: another need not have deleted as much.
    pub of_one: bool,
}

/// Where a consumer was when it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub offset: i64,
    /// What was acknowledged later it need not have seen: it had seen all that it waited for by then.
    pub owed_until: At,
}

/// What came of a question that names the leader epoch the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochAnswer {
    Served,
    /// The client's is behind (FENCED_LEADER_EPOCH).
    Fenced,
    /// The client's is ahead (UNKNOWN_LEADER_EPOCH).
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EpochQuestion {
    pub client: Arc<str>,
    pub place: Place,
    pub sent: At,
    /// The partition's leader epoch as Metadata of the node that is asked had told it before.
    pub told: i32,
    pub named: i32,
    pub answer: EpochAnswer,
}

/// Where a leader epoch ends, as OffsetForLeaderEpoch answered: the largest epoch up to the one asked for, and the
/// offset after its last record; both -1 where the log knows nothing of it.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochEnd {
    pub client: Arc<str>,
    pub place: Place,
    pub sent: At,
    /// The partition's leader epoch as Metadata had told it before.
    pub told: i32,
    pub asked: i32,
    pub epoch: i32,
    pub end: i64,
}

/// A configuration of a topic, of a broker or, where that has no name, of all brokers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigKey {
    /// Kafka's number of the kind of resource.
    pub kind: i8,
    pub resource: String,
    pub name: &'static str,
}

impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.resource.as_str()) {
            (2, topic) => write!(f, "{} of topic {topic}", self.name),
            (_, "") => write!(f, "{} of all brokers", self.name),
            (_, broker) => write!(f, "{} of broker {broker}", self.name),
        }
    }
}

/// A configuration was set, or went back to its default; all attempts together.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigChange {
    pub key: ConfigKey,
    /// None: the default.
    pub value: Option<String>,
    pub sent: At,
    /// Attempts of which it is not known whether they took effect, or will.
    pub unknown_attempts: u32,
    pub acked: Option<At>,
}

/// What somebody was told of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigSeen {
    pub client: Arc<str>,
    pub key: ConfigKey,
    /// None: nothing was set there.
    pub value: Option<String>,
    pub sent: At,
    pub at: At,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub sends: Vec<Send>,
    pub requests: Vec<Request>,
    pub polls: Vec<Poll>,
    pub damages: Vec<Damage>,
    pub rejections: Vec<Rejection>,
    /// The whole of each partition, read after everything has come to rest. Absent: it could not be read.
    pub last_read: BTreeMap<Place, Vec<(i64, Value)>>,
    /// The leader epochs that the records of the last read tell, each with the first offset that has it.
    pub epochs: BTreeMap<Place, Vec<(i64, i32)>>,
    pub unreadable: Vec<Place>,
    /// Topics whose creation was answered with success, and when.
    pub topics: BTreeMap<String, At>,
    /// Partitions that were added to a topic, and when that was answered.
    pub added: BTreeMap<Place, At>,
    /// Of each topic that its creator wrote to at once: from the answer to its creation to the first acknowledgement, nanoseconds.
    pub first_records: Vec<At>,
    /// By the clients that ask one node again and again until they are made.
    pub changes: Vec<Change>,
    pub topics_in_the_end: Option<BTreeSet<String>>,
    /// Topics whose deletion was asked for, and when first: what is in them is owed to nobody from then on.
    pub deleted: BTreeMap<String, At>,
    /// In the order in which their one client wanted them.
    pub config_changes: Vec<ConfigChange>,
    pub configs_seen: Vec<ConfigSeen>,
    pub complaints: Vec<Complaint>,
    /// When the first of a partition's replicas was seen to lead it again, after another: as the controller balances leaders.
    pub returned: BTreeMap<String, Vec<At>>,
    /// When the replicas of a partition were seen to have changed.
    pub reassigned: BTreeMap<String, Vec<At>>,
    pub health: Vec<HealthCheck>,
    pub watermarks: Vec<Watermark>,
    pub lookups: Vec<Lookup>,
    /// Look-ups among batches that cannot be opened which led past one, in words.
    pub misled: Vec<String>,
    pub epoch_questions: Vec<EpochQuestion>,
    pub epoch_ends: Vec<EpochEnd>,
    pub deletions: Vec<Deletion>,
    pub log_starts: Vec<LogStart>,
    pub resets: Vec<Reset>,
    /// Where the last read of each partition began.
    pub last_start: BTreeMap<Place, i64>,
    /// Where each consumer got to in its last round.
    pub positions: BTreeMap<(u32, Place), Position>,
    /// What fetches brought first, per place and offset.
    pub seen: Seen,
    /// By members of groups.
    pub groups: groups::Groups,
    /// Of compacted topics.
    pub compaction: compaction::Compaction,
    pub pulse: ProgressMonitor,
    pub counts: BTreeMap<&'static str, u64>,
}

/// The records that fetches brought, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen(BTreeMap<Place, BTreeMap<i64, Value>>);

impl History {
    /// Of partitions whose leaders the controller has moved, or may have.
    pub fn note_movements(&mut self, returned: Vec<String>, reassigned: Vec<String>, now: At) {
        for partition in returned {
            self.returned.entry(partition).or_default().push(now);
        }
        for partition in reassigned {
            self.reassigned.entry(partition).or_default().push(now);
        }
    }

    pub fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    pub fn add(&mut self, name: &'static str, by: u64) {
        *self.counts.entry(name).or_insert(0) += by;
    }

    pub fn counted(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    pub fn complain(&mut self, complaint: Complaint) {
        self.complaints.push(complaint);
    }

    /// Notes what a fetch brought, without what is known already.
    pub fn brought(&mut self, mut poll: Poll) {
        let seen = self.seen.0.entry(poll.place.clone()).or_default();
        let fresh = poll
            .records
            .iter()
            .zip(poll.from..)
            .position(|((offset, value), next)| *offset != next || seen.get(offset) != Some(value));
        let again = fresh.unwrap_or(poll.records.len());
        for (offset, value) in &poll.records[again..] {
            seen.entry(*offset).or_insert(*value);
        }
        poll.again = u32::try_from(again).unwrap_or(u32::MAX);
        poll.records.drain(..again);
        self.polls.push(poll);
    }

    /// Where a partition started when it was read last: what stood before was deleted, rightly or not.
    pub fn start_of(&self, place: &Place) -> i64 {
        self.last_start.get(place).copied().unwrap_or(0)
    }

    pub fn acked_records(&self) -> u64 {
        let acked =
            |send: &&Send| matches!(send.outcome, Outcome::Acked { .. }) && send.acks != AckMode::None;
        self.sends.iter().filter(acked).map(|send| u64::from(send.count)).sum()
    }
}

/// Shared by the clients of one run.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<History>>);

impl Notes {
    pub fn write(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(&self) -> History {
        std::mem::take(&mut *self.write())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::{poll, value};

    #[test]
    fn what_was_read_before_is_counted_and_not_kept() {
        let mut history = History::default();
        history.brought(poll(0, 0, 1, &[(0, 0), (1, 1)]));
        history.brought(poll(1, 0, 2, &[(0, 0), (1, 1), (2, 2)]));
        assert_eq!((history.polls[0].again, history.polls[0].records.len()), (0, 2));
        assert_eq!((history.polls[1].again, history.polls[1].known_until()), (2, 2));
        assert_eq!(history.polls[1].records, [(2, value(2))]);
    }

    #[test]
    fn another_value_and_a_gap_are_kept() {
        let mut history = History::default();
        history.brought(poll(0, 0, 1, &[(0, 0), (1, 1), (2, 2)]));
        history.brought(poll(1, 0, 2, &[(0, 0), (1, 7)]));
        history.brought(poll(2, 0, 3, &[(0, 0), (2, 2)]));
        assert_eq!((history.polls[1].again, &history.polls[1].records), (1, &vec![(1, value(7))]));
        assert_eq!((history.polls[2].again, &history.polls[2].records), (1, &vec![(2, value(2))]));
    }
}
