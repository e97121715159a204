//! Short histories for the tests of the checkers.

use crate::history::{AckMode, At, History, Outcome, Place, Poll, Send, Value};

pub(crate) fn place() -> Place {
    Place { topic: "orders".into(), partition: 0 }
}

pub(crate) fn value(number: u64) -> Value {
    Value { producer: 1, number }
}

/// Producer 1 sends record `number` and is told that it stands at `offset`.
pub(crate) fn acked(number: u64, offset: i64) -> Send {
    Send {
        producer: 1,
        idempotent: true,
        acks: AckMode::All,
        place: place(),
        first: number,
        count: 1,
        began: 1_000 * number,
        sent: None,
        unknown_attempts: 0,
        timestamp_ms: 1_000 + number as i64,
        bytes: 100,
        bytes_min: 10,
        visible: 1,
        pipelined: false,
        abandoned: false,
        outcome: Outcome::Acked { at: 1_000 * number + 500, base: Some(offset) },
    }
}

pub(crate) fn unknown(number: u64) -> Send {
    Send { outcome: Outcome::Unknown, unknown_attempts: 1, ..acked(number, 0) }
}

pub(crate) fn poll(round: u32, from: i64, at: At, numbers: &[(i64, u64)]) -> Poll {
    Poll {
        consumer: 1,
        round,
        place: place(),
        from,
        again: 0,
        at,
        records: numbers.iter().map(|(offset, number)| (*offset, value(*number))).collect(),
    }
}

/// A history whose last read shows these records.
pub(crate) fn ending_with(sends: Vec<Send>, log: &[(i64, u64)]) -> History {
    let mut history = History { sends, ..History::default() };
    let log = log.iter().map(|(offset, number)| (*offset, value(*number))).collect();
    history.last_read.insert(place(), log);
    history
}
