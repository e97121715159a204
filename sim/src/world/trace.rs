//! The trace: everything that happens in a world, in order, hashed.
//!
//! Two runs are the same run if and only if their traces are equal. The hash and the count are always
//! kept; the last events are kept for reports; all of them only on request, to find where two runs part.

use std::collections::VecDeque;
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
    /// What was written, read or sent: `b` is a hash of it.
    Content,
}

/// One event. What `a` and `b` mean depends on what happened; `name` is of the machine, task or file.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub at: u64,
    pub what: What,
    pub task: u64,
    pub a: u64,
    pub b: u64,
    pub kind: Option<WaitKind>,
    pub name: Option<Arc<str>>,
}

impl Event {
    pub fn new(what: What) -> Event {
        Event { at: 0, what, task: 0, a: 0, b: 0, kind: None, name: None }
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
        Ok(())
    }
}

/// How much of the trace is kept beside its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Last(usize),
    All,
}

pub struct Trace {
    hasher: XxHash3_64,
    count: u64,
    keep: Keep,
    kept: VecDeque<Event>,
}

impl Trace {
    pub fn new(keep: Keep) -> Trace {
        Trace { hasher: XxHash3_64::new(), count: 0, keep, kept: VecDeque::new() }
    }

    pub fn push(&mut self, event: Event) {
        self.count += 1;
        let mut head = [0u8; 34];
        head[0] = event.what as u8;
        head[1] = event.kind.map_or(0, |kind| kind as u8 + 1);
        head[2..10].copy_from_slice(&event.at.to_le_bytes());
        head[10..18].copy_from_slice(&event.task.to_le_bytes());
        head[18..26].copy_from_slice(&event.a.to_le_bytes());
        head[26..34].copy_from_slice(&event.b.to_le_bytes());
        self.hasher.write(&head);
        if let Some(name) = &event.name {
            self.hasher.write(name.as_bytes());
        }
        match self.keep {
            Keep::Last(0) => {}
            Keep::Last(most) => {
                if self.kept.len() >= most {
                    self.kept.pop_front();
                }
                self.kept.push_back(event);
            }
            Keep::All => self.kept.push_back(event),
        }
    }

    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn kept(&self) -> Vec<Event> {
        self.kept.iter().cloned().collect()
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

    #[test]
    fn only_the_last_events_are_kept() {
        let mut trace = Trace::new(Keep::Last(2));
        for task in 1..=5 {
            trace.push(Event::new(What::Poll).task(task));
        }
        assert_eq!(trace.kept().iter().map(|e| e.task).collect::<Vec<_>>(), [4, 5]);
        assert_eq!(trace.count(), 5);
    }
}
