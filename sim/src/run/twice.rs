//! Where two runs of one order part: compared by digests of thousands of events, shown by the events themselves.
//!
//! Neither run is kept. The first pair of digests that differ names a window, and both runs are made once more
//! to keep that window only.

use super::live;
use super::observations::Observations;
use super::order::Order;
use crate::world::Outcome;
use crate::world::trace::{CHUNK, Event, Keep};

/// So many events before the first difference are shown, and so many from it on.
const BEFORE: usize = 3;
const AFTER: usize = 3;
/// Something that is not deterministic may part elsewhere when it is run once more.
const TRIES: usize = 5;

/// What identifies the course of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    pub events: u64,
    pub trace_hash: u64,
    /// The hash after every [`CHUNK`] events.
    pub digests: Vec<u64>,
}

impl Course {
    pub(super) fn of(outcome: &Outcome<Observations>) -> Course {
        Course { events: outcome.events, trace_hash: outcome.trace_hash, digests: outcome.digests.clone() }
    }

    /// Runs the order and keeps nothing of it.
    pub fn run(order: &Order) -> Course {
        window(order, 0, 0).0
    }

    /// The chunk in which another course parts from this one.
    fn parts_in(&self, other: &Course) -> u64 {
        self.digests.iter().zip(&other.digests).take_while(|(a, b)| a == b).count() as u64
    }
}

/// The events of a run with these numbers, counted from 0, and the course that they are of.
pub(crate) fn window(order: &Order, from: u64, to: u64) -> (Course, Vec<Event>) {
    let (mut outcome, _) = live(order, Keep::Window(from, to));
    let events = std::mem::take(&mut outcome.last_events);
    (Course::of(&outcome), events)
}

/// The first difference between two runs of the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// Counted from 1; none when all events are equal and only the history or the order of hashing differs.
    pub event: Option<u64>,
    /// The last events before it, then what each run did.
    pub before: Vec<String>,
    pub one: Vec<String>,
    pub two: Vec<String>,
}

/// Runs the order twice; if it takes two courses, says where they part.
pub fn divergence(order: &Order) -> Option<Divergence> {
    let two = Course::run(order);
    first_divergence(order, Course::run(order), two, |from, to| here(order, from, to))
}

/// The same for courses that were run before; `there` makes the second one again and keeps the events of these
/// numbers.
pub fn first_divergence(
    order: &Order,
    one: Course,
    two: Course,
    there: impl FnMut(u64, u64) -> (Course, Vec<String>),
) -> Option<Divergence> {
    pinned(one, two, |from, to| here(order, from, to), there)
}

/// A run in this process: its course, and the events of these numbers as text.
pub fn here(order: &Order, from: u64, to: u64) -> (Course, Vec<String>) {
    let (course, events) = window(order, from, to);
    (course, events.iter().map(ToString::to_string).collect())
}

fn pinned(
    mut one: Course,
    mut two: Course,
    mut here: impl FnMut(u64, u64) -> (Course, Vec<String>),
    mut there: impl FnMut(u64, u64) -> (Course, Vec<String>),
) -> Option<Divergence> {
    if one == two {
        return None;
    }
    for _ in 0..TRIES {
        let chunk = one.parts_in(&two);
        // Some of the chunk before it, for what led there.
        let from = (chunk * CHUNK).saturating_sub(BEFORE as u64);
        let (ours, events) = here(from, (chunk + 1) * CHUNK);
        let (theirs, others) = there(from, (chunk + 1) * CHUNK);
        let same = events.iter().zip(&others).take_while(|(a, b)| a == b).count();
        if same < events.len() || same < others.len() {
            let shown = |events: &[String]| events.iter().skip(same).take(AFTER).cloned().collect();
            return Some(Divergence {
                event: Some(from + same as u64 + 1),
                before: events[same.saturating_sub(BEFORE)..same].to_vec(),
                one: shown(&events),
                two: shown(&others),
            });
        }
        (one, two) = (ours, theirs);
    }
    Some(Divergence { event: None, before: Vec::new(), one: Vec::new(), two: Vec::new() })
}

impl std::fmt::Display for Divergence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(event) = self.event else {
            return f.write_str(
                "the events are the same, and what clients saw in the end differs, or runs part elsewhere each time",
            );
        };
        write!(f, "the first difference is event {event}")?;
        for line in &self.before {
            write!(f, "\n      {line}")?;
        }
        for (mark, lines) in [("-", &self.one), ("+", &self.two)] {
            if lines.is_empty() {
                write!(f, "\n    {mark} nothing: the run is over")?;
            }
            for line in lines {
                write!(f, "\n    {mark} {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of so many chunks that differs at one event.
    fn run(chunks: u64, odd: u64) -> impl Fn(u64, u64) -> (Course, Vec<String>) {
        let text =
            move |number: u64| if number == odd { format!("{number} odd") } else { number.to_string() };
        move |from, to| {
            let digests = (0..chunks).map(|chunk| if odd / CHUNK <= chunk { chunk ^ odd } else { chunk });
            let course = Course { events: chunks * CHUNK, trace_hash: odd, digests: digests.collect() };
            (course, (from..to.min(chunks * CHUNK)).map(text).collect())
        }
    }

    fn told(
        one: impl Fn(u64, u64) -> (Course, Vec<String>),
        two: impl Fn(u64, u64) -> (Course, Vec<String>),
    ) -> Option<Divergence> {
        pinned(one(0, 0).0, two(0, 0).0, one, two)
    }

    #[test]
    fn equal_runs_do_not_part() {
        assert_eq!(told(run(3, u64::MAX), run(3, u64::MAX)), None);
    }

    #[test]
    fn the_first_difference_is_named_with_what_was_before_it() {
        let odd = 2 * CHUNK + 1;
        let found = told(run(4, u64::MAX), run(4, odd)).unwrap();
        assert_eq!(found.event, Some(odd + 1));
        assert_eq!(found.before, [(odd - 3).to_string(), (odd - 2).to_string(), (odd - 1).to_string()]);
        assert_eq!((found.one[0].as_str(), found.two[0].as_str()), ("8193", "8193 odd"));
        let text = found.to_string();
        assert!(
            text.contains("event 8194") && text.contains("\n    - 8193\n") && text.contains("+ 8193 odd"),
            "{text}"
        );
    }

    #[test]
    fn a_run_that_ends_earlier_parts_at_its_end() {
        let found = told(run(2, u64::MAX), run(1, u64::MAX)).unwrap();
        assert_eq!(found.event, Some(CHUNK + 1));
        assert!(found.to_string().contains("+ nothing"), "{found}");
    }
}
