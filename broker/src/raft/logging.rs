//! The log lines of the `raft` crate, which speaks slog, in the node's own log.
//!
//! The crate tells each step of each election at its info level; that is our debug level.

use std::fmt::{Arguments, Write};

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

pub(super) fn logger() -> Logger {
    Logger::root(Bridge, o!())
}

struct Bridge;

impl Drain for Bridge {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => {
                tracing::error!(target: "chronik::raft", "{}", text(record, values))
            }
            Level::Warning => tracing::warn!(target: "chronik::raft", "{}", text(record, values)),
            Level::Info | Level::Debug => {
                tracing::debug!(target: "chronik::raft", "{}", text(record, values))
            }
            Level::Trace => tracing::trace!(target: "chronik::raft", "{}", text(record, values)),
        }
        Ok(())
    }
}

fn text(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut line = Line(record.msg().to_string());
    // The writer never fails; a value that cannot be formatted is left out.
    let _ = record.kv().serialize(record, &mut line);
    let _ = values.serialize(record, &mut line);
    line.0
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &Arguments<'_>) -> slog::Result {
        write!(self.0, ", {key}: {value}")?;
        Ok(())
    }
}
