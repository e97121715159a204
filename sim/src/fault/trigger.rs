//! Faults aimed at states: what has to happen on a machine for a fault to begin.
//!
//! A fault that falls at a drawn time seldom meets the few milliseconds of a recovery, a checkpoint or a commit. One
//! with a `when` waits for its occasion, which the disk tells of: every such state shows in what is asked of it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::duration::as_text;
use super::select::{Operation, PathClass};

/// The state that a fault is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// A process has begun and accepts no clients yet; `nth` is the number of its disk operation.
    Recovery,
    /// An operation of a checkpoint begins.
    Checkpoint,
    /// A group of the journal has just been handed to the disk.
    GroupInFlight,
    /// The same of Raft's journal: what the creation of a topic is.
    RaftGroupInFlight,
    /// A segment's file is opened.
    OpenSegment,
    /// Records are being deleted: a file of theirs is about to be removed.
    Deletion,
    /// A compacted log is being cleaned: an operation on a file of it begins.
    Cleaning,
    /// So many writes of the machine have begun, counted from `at`.
    Write(u64),
}

/// An operation that begins on a machine's disk, as far as triggers ask.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    pub machine: &'a str,
    pub path: &'a Path,
    /// The classes that the operation belongs to.
    pub operations: &'a [Operation],
    /// Role of the task that began it.
    pub role: &'a str,
    /// Its number in its process, from 1, while the process accepts no clients yet.
    pub recovering: Option<u64>,
}

impl When {
    /// Whether an operation is what is waited for, be it not the first one.
    pub fn is_met_by(self, occasion: &Occasion<'_>) -> bool {
        let group_of = |class| {
            occasion.operations == [Operation::Write, Operation::Sync]
                && PathClass::of(occasion.path) == class
        };
        match self {
            When::Recovery => occasion.recovering.is_some(),
            When::Checkpoint => occasion.role == "checkpoint",
            When::GroupInFlight => group_of(PathClass::Journal),
            When::RaftGroupInFlight => group_of(PathClass::Raft),
            When::OpenSegment => {
                occasion.operations == [Operation::Open] && PathClass::of(occasion.path) == PathClass::Segment
            }
            When::Deletion => occasion.role == "retention",
            When::Cleaning => occasion.role == "cleaner",
            When::Write(_) => occasion.operations.contains(&Operation::Write),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Recovery => f.write_str("recovery"),
            When::Checkpoint => f.write_str("checkpoint"),
            When::GroupInFlight => f.write_str("group-in-flight"),
            When::RaftGroupInFlight => f.write_str("raft-group-in-flight"),
            When::OpenSegment => f.write_str("open-segment"),
            When::Deletion => f.write_str("deletion"),
            When::Cleaning => f.write_str("cleaning"),
            When::Write(number) => write!(f, "write:{number}"),
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text:?} is no state: write recovery, checkpoint, group-in-flight, raft-group-in-flight, open-segment, deletion, \
     cleaning or write:N"
)]
pub struct WhenError {
    text: String,
}

impl FromStr for When {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<When, WhenError> {
        let wrong = || WhenError { text: text.to_owned() };
        Ok(match text {
            "recovery" => When::Recovery,
            "checkpoint" => When::Checkpoint,
            "group-in-flight" => When::GroupInFlight,
            "raft-group-in-flight" => When::RaftGroupInFlight,
            "open-segment" => When::OpenSegment,
            "deletion" => When::Deletion,
            "cleaning" => When::Cleaning,
            other => {
                let number = other.strip_prefix("write:").ok_or_else(wrong)?;
                When::Write(number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?)
            }
        })
    }
}

as_text!(When);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_from_what_is_asked_of_the_disk() {
        let group: &[Operation] = &[Operation::Write, Operation::Sync];
        for (when, path, operations, role, recovering, expected) in [
            (When::Recovery, "data/identity.json", &[Operation::Read][..], "main", Some(3), true),
            (When::Recovery, "data/identity.json", &[Operation::Read], "main", None, false),
            (When::Checkpoint, "data/p/0.log", &[Operation::Sync], "checkpoint", None, true),
            (When::Checkpoint, "data/p/0.log", &[Operation::Sync], "partition", None, false),
            (When::GroupInFlight, "data/journal/1.journal", group, "commit", None, true),
            (When::GroupInFlight, "data/raft/1.journal", group, "commit", None, false),
            (When::GroupInFlight, "data/journal/1.journal", &[Operation::Write], "commit", None, false),
            (When::RaftGroupInFlight, "data/raft/1.journal", group, "commit", None, true),
            (When::OpenSegment, "data/p/0.log", &[Operation::Open], "checkpoint", None, true),
            (When::OpenSegment, "data/p/0.index", &[Operation::Open], "checkpoint", None, false),
            (When::Deletion, "data/p/0.log", &[Operation::Name], "retention", None, true),
            (When::Deletion, "data/p/0.log", &[Operation::Name], "checkpoint", None, false),
            (When::Cleaning, "data/p/0.log", &[Operation::Read], "cleaner", None, true),
            (When::Cleaning, "data/p/0.log", &[Operation::Name], "retention", None, false),
            (When::Write(3), "data/p/0.log", &[Operation::Write], "checkpoint", None, true),
            (When::Write(3), "data/p/0.log", &[Operation::Sync], "checkpoint", None, false),
        ] {
            let occasion = Occasion { machine: "node1", path: Path::new(path), operations, role, recovering };
            assert_eq!(when.is_met_by(&occasion), expected, "{when} by {occasion:?}");
        }
    }

    #[test]
    fn a_state_is_written_as_it_is_read() {
        for text in [
            "recovery",
            "checkpoint",
            "group-in-flight",
            "raft-group-in-flight",
            "open-segment",
            "deletion",
            "cleaning",
            "write:7",
        ] {
            assert_eq!(text.parse::<When>().unwrap().to_string(), text);
        }
        for text in ["", "recover", "write", "write:", "write:0", "write:x"] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }
}
