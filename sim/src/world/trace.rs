//! The trace: everything that happens in a world, in order, hashed.
//!
//! Two runs are the same run if and only if their traces are equal. Always kept: the hash, counts by class, a digest
//! after every [`CHUNK`] events (so that two runs are compared without keeping either), and the last events that
//! are more than ticking. All events, or those of a window, are kept on request only.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use io_backend::WaitKind;
use twox_hash::XxHash3_64;

/// What happened. The numbers go into the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    Spawn = 1,
    Poll,
    Wake,
    TaskEnd,
    TimerFired,
    OperationBegin,
    OperationEnd,
    WaitBegin,
    WaitEnd,
    DiskEffect,
    Connect,
    Sent,
    Delivered,
    ConnectionEnd,
    FaultBegin,
    FaultEnd,
    FaultHit,
    ProcessStart,
    ProcessEnd,
    PowerLoss,
    Panic,
    Probe,
    Note,
}

impl What {
    pub const ALL: [What; 23] = [
        What::Spawn,
        What::Poll,
        What::Wake,
        What::TaskEnd,
        What::TimerFired,
        What::OperationBegin,
        What::OperationEnd,
        What::WaitBegin,
        What::WaitEnd,
        What::DiskEffect,
        What::Connect,
        What::Sent,
        What::Delivered,
        What::ConnectionEnd,
        What::FaultBegin,
        What::FaultEnd,
        What::FaultHit,
        What::ProcessStart,
        What::ProcessEnd,
        What::PowerLoss,
        What::Panic,
        What::Probe,
        What::Note,
    ];

    /// The class that a run's figures count it under.
    pub fn class(self) -> &'static str {
        match self {
            What::Poll => "polls",
            What::Wake => "wakes",
            What::TimerFired => "timers",
            What::OperationBegin | What::OperationEnd | What::DiskEffect => "disk",
            What::Connect | What::Sent | What::Delivered | What::ConnectionEnd => "network",
            What::WaitBegin | What::WaitEnd => "waits",
            What::Spawn | What::TaskEnd => "tasks",
            What::FaultBegin | What::FaultEnd | What::FaultHit => "faults",
            What::ProcessStart | What::ProcessEnd | What::PowerLoss | What::Panic => "processes",
            What::Probe | What::Note => "remarks",
        }
    }
}

/// One event. What `a` and `b` mean depends on what happened; `name` is of the machine, task or file.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub at: u64,
    pub what: What,
    pub task: u64,
    pub a: u64,
    pub b: u64,
    /// Of the bytes that were written, sent or lost; zero where there are none.
    pub content: u64,
    pub kind: Option<WaitKind>,
    pub name: Option<Arc<str>>,
}

/// What stands for bytes in an event.
pub fn digest(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

impl Event {
    pub fn new(what: What) -> Event {
        Event { at: 0, what, task: 0, a: 0, b: 0, content: 0, kind: None, name: None }
    }

    /// The bytes that it is about.
    pub fn content(mut self, bytes: &[u8]) -> Event {
        self.content = digest(bytes);
        self
    }

    /// Whether it says more than that something ticks: what reports show.
    fn is_notable(&self) -> bool {
        match self.what {
            What::Poll | What::Wake | What::TimerFired => false,
            What::WaitBegin | What::WaitEnd => !matches!(
                self.kind,
                Some(WaitKind::Timer | WaitKind::Receive | WaitKind::Accept | WaitKind::NetworkRead)
            ),
            _ => true,
        }
    }

    pub fn task(mut self, task: u64) -> Event {
        self.task = task;
        self
    }

    pub fn numbers(mut self, a: u64, b: u64) -> Event {
        self.a = a;
        self.b = b;
        self
    }

    pub fn named(mut self, name: impl Into<Arc<str>>) -> Event {
        self.name = Some(name.into());
        self
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.at / 1_000_000_000, self.at % 1_000_000_000);
        write!(f, "{whole}.{part:09} {:?}", self.what)?;
        if let Some(kind) = self.kind {
            write!(f, " {}", kind.name())?;
        }
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        write!(f, " task {}", self.task)?;
        if self.a != 0 || self.b != 0 {
            write!(f, " ({}, {})", self.a, self.b)?;
        }
        if self.content != 0 {
            write!(f, " content {:016x}", self.content)?;
        }
        Ok(())
    }
}

/// How much of the trace is kept beside its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// So many of the last notable events.
    Last(usize),
    /// The events of these numbers, counted from 0; the end is excluded.
    Window(u64, u64),
    All,
}

/// So many events are between two digests.
pub const CHUNK: u64 = 4096;
/// Notable events in the ring, which has to reach back from the first sign of a standstill to its beginning.
const RING: usize = 4096;
/// Of a marked moment, so many events before and after it are shown.
const AROUND: usize = 100;
/// Bytes that are gathered before they are hashed.
const GATHERED: usize = 4096;

/// Events around a moment, copied before the ring went on.
#[derive(Clone, Debug, PartialEq)]
pub struct Marked {
    pub at: u64,
    pub before: Vec<Event>,
    pub after: Vec<Event>,
}

pub struct Trace {
    hasher: XxHash3_64,
    gathered: Vec<u8>,
    count: u64,
    counts: [u64; What::ALL.len() + 1],
    digests: Vec<u64>,
    keep: Keep,
    kept: VecDeque<Event>,
}

impl Trace {
    pub fn new(keep: Keep) -> Trace {
        Trace {
            hasher: XxHash3_64::new(),
            gathered: Vec::with_capacity(GATHERED + 256),
            count: 0,
            counts: [0; What::ALL.len() + 1],
            digests: Vec::new(),
            keep,
            kept: VecDeque::new(),
        }
    }

    pub fn push(&mut self, event: Event) {
        let number = self.count;
        self.count += 1;
        self.counts[event.what as usize] += 1;
        let mut head = [0u8; 42];
        head[0] = event.what as u8;
        head[1] = event.kind.map_or(0, |kind| kind as u8 + 1);
        head[2..10].copy_from_slice(&event.at.to_le_bytes());
        head[10..18].copy_from_slice(&event.task.to_le_bytes());
        head[18..26].copy_from_slice(&event.a.to_le_bytes());
        head[26..34].copy_from_slice(&event.b.to_le_bytes());
        head[34..42].copy_from_slice(&event.content.to_le_bytes());
        self.gathered.extend_from_slice(&head);
        if let Some(name) = &event.name {
            self.gathered.extend_from_slice(name.as_bytes());
        }
        let chunk_ends = self.count.is_multiple_of(CHUNK);
        if chunk_ends || self.gathered.len() >= GATHERED {
            self.hasher.write(&self.gathered);
            self.gathered.clear();
        }
        if chunk_ends {
            self.digests.push(self.hasher.finish());
        }
        match self.keep {
            Keep::Last(0) => {}
            Keep::Last(_) if event.is_notable() => {
                if self.kept.len() >= RING {
                    self.kept.pop_front();
                }
                self.kept.push_back(event);
            }
            Keep::Last(_) => {}
            Keep::Window(from, to) if (from..to).contains(&number) => self.kept.push_back(event),
            Keep::Window(..) => {}
            Keep::All => self.kept.push_back(event),
        }
    }

    pub fn hash(&self) -> u64 {
        let mut hasher = self.hasher.clone();
        hasher.write(&self.gathered);
        hasher.finish()
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Events so far by class, classes without any left out.
    pub fn counts_by_class(&self) -> BTreeMap<&'static str, u64> {
        let mut classes = BTreeMap::new();
        for what in What::ALL {
            if self.counts[what as usize] > 0 {
                *classes.entry(what.class()).or_insert(0) += self.counts[what as usize];
            }
        }
        classes
    }

    /// The hash as it was after each [`CHUNK`] events.
    pub fn digests(&self) -> &[u64] {
        &self.digests
    }

    pub fn kept(&self) -> Vec<Event> {
        let from = match self.keep {
            Keep::Last(most) => self.kept.len().saturating_sub(most),
            Keep::Window(..) | Keep::All => 0,
        };
        self.kept.iter().skip(from).cloned().collect()
    }

    /// The notable events around that moment, as far as they are still there.
    pub fn around(&self, at: u64) -> Marked {
        let split = self.kept.partition_point(|event| event.at < at);
        let (from, to) = (split.saturating_sub(AROUND), self.kept.len().min(split + AROUND));
        Marked {
            at,
            before: self.kept.range(from..split).cloned().collect(),
            after: self.kept.range(split..to).cloned().collect(),
        }
    }
}

/// Where two full traces part: the event's number from 1, and what each run did there.
pub fn first_divergence<'a>(
    one: &'a [Event],
    two: &'a [Event],
) -> Option<(usize, Option<&'a Event>, Option<&'a Event>)> {
    let same = one.iter().zip(two).take_while(|(a, b)| a == b).count();
    if same == one.len() && same == two.len() {
        return None;
    }
    Some((same + 1, one.get(same), two.get(same)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_every_field() {
        let hash = |event: Event| {
            let mut trace = Trace::new(Keep::Last(0));
            trace.push(event);
            trace.hash()
        };
        let plain = || Event::new(What::Poll);
        let base = hash(plain());
        assert_eq!(base, hash(plain()));
        for other in [
            Event::new(What::Wake),
            plain().task(1),
            plain().numbers(1, 0),
            plain().numbers(0, 1),
            plain().content(b"x"),
            plain().named("x"),
            Event { at: 1, ..plain() },
            Event { kind: Some(WaitKind::DiskRead), ..plain() },
        ] {
            assert_ne!(base, hash(other));
        }
    }

    #[test]
    fn a_divergence_names_its_first_event() {
        let events = |tasks: &[u64]| -> Vec<Event> {
            tasks.iter().map(|task| Event::new(What::Poll).task(*task)).collect()
        };
        let (one, two) = (events(&[1, 2, 3]), events(&[1, 5, 3]));
        let (number, a, b) = first_divergence(&one, &two).unwrap();
        assert_eq!((number, a.unwrap().task, b.unwrap().task), (2, 2, 5));
        assert!(first_divergence(&one, &one).is_none());
        assert_eq!(first_divergence(&one, &one[..2]).unwrap().0, 3);
    }

    fn remarks(trace: &mut Trace, tasks: std::ops::RangeInclusive<u64>) {
        for task in tasks {
            trace.push(Event { at: task * 10, ..Event::new(What::Note).task(task) });
        }
    }

    fn tasks(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.task).collect()
    }

    #[test]
    fn only_the_last_events_that_say_something_are_kept() {
        let mut trace = Trace::new(Keep::Last(2));
        remarks(&mut trace, 1..=5);
        for _ in 0..10 {
            trace.push(Event::new(What::Poll).task(9));
            trace.push(Event { kind: Some(WaitKind::Timer), ..Event::new(What::WaitBegin) });
        }
        assert_eq!(tasks(&trace.kept()), [4, 5]);
        assert_eq!(trace.count(), 25);
        assert_eq!(trace.counts_by_class(), BTreeMap::from([("polls", 10), ("remarks", 5), ("waits", 10)]));
    }

    #[test]
    fn a_window_keeps_its_events_and_nothing_else() {
        let mut trace = Trace::new(Keep::Window(2, 4));
        remarks(&mut trace, 1..=9);
        assert_eq!(tasks(&trace.kept()), [3, 4]);
    }

    #[test]
    fn what_is_kept_and_how_it_is_gathered_does_not_change_the_hash() {
        let run = |keep, name: &str| {
            let mut trace = Trace::new(keep);
            for number in 0..3 * CHUNK {
                trace.push(Event::new(What::Note).task(number).named(name));
            }
            (trace.hash(), trace.digests().to_vec())
        };
        assert_eq!(run(Keep::All, "x"), run(Keep::Last(0), "x"));
        let (long, _) = run(Keep::All, &"y".repeat(9_000));
        assert_eq!(long, run(Keep::Last(3), &"y".repeat(9_000)).0);
        assert_eq!(run(Keep::All, "x").1.len(), 3);
    }

    #[test]
    fn digests_part_in_the_chunk_in_which_runs_part() {
        let digests = |odd: u64| {
            let mut trace = Trace::new(Keep::Last(0));
            for number in 0..4 * CHUNK {
                trace.push(Event::new(What::Note).task(if number == odd { 7_777 } else { number }));
            }
            trace.digests().to_vec()
        };
        let (one, two) = (digests(u64::MAX), digests(2 * CHUNK));
        assert_eq!(one.iter().zip(&two).take_while(|(a, b)| a == b).count(), 2);
    }

    #[test]
    fn a_marked_moment_has_the_events_before_and_after_it() {
        let mut trace = Trace::new(Keep::Last(5));
        remarks(&mut trace, 1..=300);
        let marked = trace.around(1_500);
        assert_eq!((marked.before.len(), marked.after.len()), (100, 100));
        assert_eq!((marked.before[99].task, marked.after[0].task), (149, 150));
        let late = trace.around(u64::MAX);
        assert_eq!((late.before.len(), late.after.len()), (100, 0));
    }
}
