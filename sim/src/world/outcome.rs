//! What a world is started with, and what is left of it when it is over.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::ending::Ending;
use super::spins::Spinner;
use super::trace::{Event, Keep, Marked};
use super::waits::Explanation;
use crate::fault::FaultHits;

#[derive(Clone, Debug)]
pub struct Options {
    /// How much of the trace is kept.
    pub keep: Keep,
    /// The run ends at this time of the world.
    pub time_limit: Duration,
    /// So many polls without a moment at which nothing can run: something loops.
    pub polls_without_idle: u64,
    /// A single poll that takes this long in real time never yields.
    pub wall_guard: Duration,
    /// Threads of a process's runtime: so many blocking calls it takes to stop it.
    pub runtime_threads: usize,
    /// What a poll of a task takes, in nanoseconds: all machines share one core, and a task that yields for ever does not stop time.
    pub poll_ns: u64,
    /// Bytes that a disk holds.
    pub disk_capacity: u64,
    /// Descriptors that a process may have open: files and sockets.
    pub descriptors: u64,
    /// What a disk's device moves.
    pub disk_bytes_per_s: u64,
    /// What a sync takes on an idle device beside moving what is dirty, in nanoseconds.
    pub disk_sync_ns: u64,
    /// Events after which a run is a livelock.
    pub events_max: u64,
    /// Real time after which a run is given up, as a livelock too.
    pub wall_time_max: Duration,
    /// Eight bytes that precede each eight-byte record number in what the workload writes; disks
    /// note when the record is written and when it is durable.
    pub marker: Option<[u8; 8]>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            keep: Keep::Last(200),
            time_limit: Duration::from_secs(30 * 24 * 3600),
            polls_without_idle: 5_000_000,
            wall_guard: Duration::from_secs(10),
            runtime_threads: 2,
            poll_ns: 100,
            disk_capacity: 1 << 40,
            descriptors: 65_536,
            disk_bytes_per_s: 1_000_000_000,
            disk_sync_ns: 110_000,
            events_max: 200_000_000,
            wall_time_max: Duration::from_secs(300),
            marker: None,
        }
    }
}

/// Why a world stood still or broke before its main future was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A task panicked.
    Crash {
        machine: String,
        task: String,
        message: String,
    },
    /// One poll of this task did not come back.
    NeverYields {
        task: String,
    },
    /// Tasks ran without a pause; this is the one that was polled most.
    Busy {
        task: String,
        polls: u64,
    },
    /// The budget of events is used up: the run goes round and round.
    Livelock {
        events: u64,
        spinners: Vec<Spinner>,
    },
    /// It took too long in real time, which depends on the machine: the last resort.
    GivenUp {
        after: Duration,
        events: u64,
        spinners: Vec<Spinner>,
    },
    /// Nobody waits for anything that will ever happen.
    NothingLeft,
    OutOfTime,
    /// The main future itself panicked.
    Main(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Crash { machine, task, message } => write!(f, "{machine}: task {task} panicked: {message}"),
            Stop::NeverYields { task } => write!(f, "task {task} never yields"),
            Stop::Busy { task, polls } => {
                write!(f, "{polls} polls without a pause, most of them of task {task}")
            }
            Stop::Livelock { events, spinners } => {
                write!(f, "the budget of {events} events is used up; in the last of them ")?;
                list(f, spinners)
            }
            Stop::GivenUp { after, events, spinners } => {
                write!(f, "given up after {} s of real time", after.as_secs())?;
                write!(f, " and {events} events, which another machine may do otherwise; towards the end ")?;
                list(f, spinners)
            }
            Stop::NothingLeft => f.write_str("no timer, no operation in flight, nobody can run"),
            Stop::OutOfTime => f.write_str("the time limit is reached"),
            Stop::Main(message) => write!(f, "the run itself panicked: {message}"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, spinners: &[Spinner]) -> fmt::Result {
    if spinners.is_empty() {
        return f.write_str("no task was polled");
    }
    f.write_str("these were polled most: ")?;
    for (index, spinner) in spinners.iter().enumerate() {
        let comma = if index == 0 { "" } else { "; " };
        write!(f, "{comma}{spinner}")?;
    }
    Ok(())
}

/// What is left of a world.
#[derive(Debug)]
pub struct Outcome<T> {
    /// What the main future returned, or why it never did.
    pub result: Result<T, Stop>,
    pub trace_hash: u64,
    /// The trace's hash after every [`super::trace::CHUNK`] events.
    pub digests: Vec<u64>,
    pub events: u64,
    pub events_by_class: BTreeMap<&'static str, u64>,
    pub polls: u64,
    pub simulated: Duration,
    pub fault_hits: Vec<FaultHits>,
    pub probes: BTreeMap<String, u64>,
    pub endings: Vec<Ending>,
    /// As many of the last events as were asked for.
    pub last_events: Vec<Event>,
    /// Those around the moment that was marked last.
    pub marked: Option<Marked>,
    /// Who waited for whom when the world stopped by itself.
    pub explanation: Option<Explanation>,
}
