//! What was broken, where and when: the only excuses there are.
//!
//! Made of the times in which faults really were in force and of the lives of the nodes' processes. An excuse
//! belongs to a node, and where it is about a way, to a client: no fault excuses what it cannot have touched, and
//! one that hit nothing excuses nobody. A disk that stands still is no excuse for silence: answering in spite of it
//! is the point.

mod life;
mod paths;
mod times;
mod ways;
pub mod exits;

pub use life::{End, JournalFailures, Life};
pub use times::Times;
pub use ways::Hold;

use crate::fault::{Family, Fault, FaultHits, FaultKind, Link, PathSelector};
use crate::history::{At, Request, RequestEnd, Trade};

/// What was held up needs this long to be on its way again: segments are sent anew, tasks catch up.
const SETTLING: At = 1_000_000_000;
/// An operation that does not complete is waited for no longer, and what it belonged to is done again by then.
const GIVEN_UP_AFTER: At = 13_000_000_000;
/// A process that starts reads its journal back before it serves; beyond this it has no excuse any more.
const START_WITHIN: At = 10_000_000_000;

#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    faults: Vec<FaultHits>,
    lives: Vec<Life>,
    /// Up to when they are known.
    until: At,
}

impl Circumstances {
    pub fn new(faults: Vec<FaultHits>, mut lives: Vec<Life>, until: At) -> Circumstances {
        lives.sort_by(|a, b| (&a.node, a.incarnation).cmp(&(&b.node, b.incarnation)));
        Circumstances { faults, lives, until }
    }

    pub fn until(&self) -> At {
        self.until
    }

    /// The processes of a node, in order.
    pub fn lives<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Life> {
        self.lives.iter().filter(move |life| life.node == node)
    }

    /// Nothing was broken at all, in the whole run.
    pub fn were_calm(&self) -> bool {
        self.faults.iter().all(|fault| !counts(fault))
    }

    /// Faults of these kinds that touched the machine, whenever.
    pub fn faults_of<'a>(
        &'a self,
        machine: &'a str,
        wanted: impl Fn(FaultKind) -> bool + 'a,
    ) -> impl Iterator<Item = &'a FaultHits> {
        self.faults.iter().filter(move |hit| counts(hit) && wanted(hit.fault.kind) && is_on(hit, machine))
    }

    /// When any of these kinds was in force on the machine, each with `after`.
    pub fn times_of(&self, machine: &str, after: At, wanted: impl Fn(FaultKind) -> bool) -> Times {
        Times::of(self.faults_of(machine, wanted).map(|hit| (hit.from, hit.until.saturating_add(after))))
    }

    /// When any of these kinds was in force on whichever machine, each with `after`.
    pub fn times_of_any(&self, after: At, wanted: impl Fn(FaultKind) -> bool) -> Times {
        let hits = self
            .faults
            .iter()
            .filter(|hit| counts(hit) && wanted(hit.fault.kind) && hit.fault.node.is_some());
        Times::of(hits.map(|hit| (hit.from, hit.until.saturating_add(after))))
    }

    /// When a way between this machine and another was broken, each time with `after`.
    pub fn times_on_ways(&self, machine: &str, after: At) -> Times {
        let hits = self.faults.iter().filter(|hit| {
            let link = Link { both_ways: true, ..hit.fault.links() };
            counts(hit) && hit.fault.kind.family() == Family::Network && link.is_of(machine)
        });
        Times::of(hits.map(|hit| (hit.from, hit.until.saturating_add(after))))
    }

    /// When the node had no process that could answer: down, starting, or on its way out.
    pub fn down(&self, node: &str) -> Times {
        let mut gone = 0;
        let mut down = Vec::new();
        let mut last: Option<&Life> = None;
        for life in self.lives(node) {
            let ready = life.serving.unwrap_or(At::MAX);
            let excused = self.serves_by(life);
            down.push((gone, ready.min(excused).min(life.ended_at())));
            gone = life.asked_to_stop.unwrap_or(At::MAX).min(life.ended_at());
            last = Some(life);
        }
        if last.is_some() && gone < At::MAX {
            down.push((gone, At::MAX));
        }
        Times::of(down)
    }

    /// When a process that has started has to serve. Whatever is broken on its machine may hold up its start, and, of several nodes,
    /// whatever is broken anywhere: it serves when most of them have agreed that it is there.
    fn serves_by(&self, life: &Life) -> At {
        let mut by = life.began.saturating_add(START_WITHIN);
        let broken = match self.lives.iter().all(|other| other.node == life.node) {
            true => self.times_of(&life.node, 0, |_| true),
            false => self.times_of_any(0, |_| true),
        };
        for (from, to) in broken.spans() {
            if *from <= by && *to >= life.began {
                by = by.max(to.saturating_add(START_WITHIN));
            }
        }
        by
    }

    /// When what this client asks of the node could not get through or not be worked on, and what it did to
    /// requests.
    pub fn holds<'a>(
        &'a self,
        client: &'a str,
        node: &'a str,
        trade: Trade,
    ) -> impl Iterator<Item = Hold> + 'a {
        let of_faults = self
            .faults
            .iter()
            .filter(|hit| counts(hit))
            .filter_map(move |hit| ways::hold(hit, Some(client), node, trade));
        let vanished = self.lives(node).filter_map(|life| match &life.end {
            Some((at, End::PowerLost)) => Some(Hold::Silences(*at)),
            _ => None,
        });
        let down = self.down(node).spans().to_vec();
        of_faults.chain(vanished).chain(down.into_iter().map(|(from, to)| Hold::Pauses(from, to)))
    }

    /// Moments at which connections of this client to the node broke: with a reset, or with their process.
    pub fn connections_broken(&self, client: &str, node: &str) -> Times {
        let resets = self
            .faults
            .iter()
            .filter(|hit| counts(hit) && hit.fault.kind == FaultKind::Reset)
            .filter(|hit| Link { both_ways: true, ..hit.fault.links() }.matches(client, node))
            .map(|hit| hit.from);
        let ends = self.lives(node).filter_map(|life| life.end.as_ref()).map(|(at, _)| *at);
        Times::of(resets.chain(ends).map(|at| (at, at.saturating_add(SETTLING))))
    }

    /// The times of [`Circumstances::holds`], whatever they did.
    pub fn kept_away(&self, client: &str, node: &str, trade: Trade) -> Times {
        Times::of(self.holds(client, node, trade).map(|hold| {
            let (from, to) = hold.span();
            (from, to.saturating_add(SETTLING))
        }))
    }

    /// Whether the request could not be answered in time: it, or its answer, was lost on a connection that had
    /// silently ended, or it was held up for as long as it was late.
    pub fn excuse(&self, request: &Request, node: &str, grace: At) -> bool {
        let late = request.ended.saturating_sub(request.deadline.saturating_add(grace));
        let mut held = Vec::new();
        for hold in self.holds(&request.client, node, request.trade) {
            match hold {
                Hold::Swallows(from, to)
                    if request.end != RequestEnd::Answered && request.sent <= to && request.ended >= from =>
                {
                    return true;
                }
                Hold::Silences(at) if is_silenced(request, at) => return true,
                Hold::Swallows(..) | Hold::Silences(_) => {}
                Hold::Pauses(from, to) => held.push((from, to.saturating_add(SETTLING))),
            }
        }
        let asked_for = request.deadline.saturating_sub(request.sent);
        let drift = self
            .faults_of(node, |kind| kind == FaultKind::ClockDrift)
            .filter(|hit| hit.from <= request.ended && request.sent <= hit.until)
            .map(|hit| asked_for / 1_000_000 * hit.fault.drift_ppm.unwrap_or(0).unsigned_abs())
            .sum::<At>();
        let held = Times::of(held).within(request.sent, request.ended);
        held > 0 && late <= held || late <= drift && drift > 0
    }

    /// Whether some client could not get through to the node at that moment or shortly before, or the node not work:
    /// then nothing that is asked has to be decided.
    pub fn keep_somebody_away(&self, node: &str, at: At, shortly: At) -> bool {
        let trades = [Trade::Produce, Trade::Consume, Trade::Change, Trade::Look];
        let held = self.faults.iter().filter(|hit| counts(hit)).any(|hit| {
            let holds = trades.iter().filter_map(|trade| ways::hold(hit, None, node, *trade));
            holds.map(Hold::span).any(|(from, to)| from <= at && at <= to.saturating_add(shortly))
        });
        held || self.down(node).meet(at.saturating_sub(shortly), at)
    }

    /// When nothing may be asked of what this node does for anybody: a fault on its machine or on a way to it, or no
    /// process. The moment at which clients notice that a connection has silently ended is theirs.
    pub fn trouble(&self, node: &str, requests: &[Request]) -> Times {
        self.trouble_by(node, requests, |_| true)
    }

    /// When nothing may be asked of what it does for these partitions: files of others that fail are no trouble of theirs.
    pub fn trouble_of(&self, node: &str, requests: &[Request], partition: i32) -> Times {
        self.trouble_by(node, requests, |fault| {
            let of_others =
                fault.path.as_ref().and_then(PathSelector::partition).is_some_and(|of| of != partition);
            !(of_others && fault.kind == FaultKind::DiskError)
        })
    }

    fn trouble_by(&self, node: &str, requests: &[Request], concerns: impl Fn(&Fault) -> bool) -> Times {
        let mut spans: Vec<(At, At)> = self.down(node).spans().to_vec();
        for hit in self.faults.iter().filter(|hit| counts(hit) && concerns(&hit.fault)) {
            let network = hit.fault.kind.family() == Family::Network;
            if hit.fault.outlives_the_healing() {
                // A few operations that never complete are given up, and then not to be felt by anybody.
                let given_up = |at: &At| (*at, at.saturating_add(GIVEN_UP_AFTER));
                spans.extend(hit.struck.iter().filter(|_| is_on(hit, node)).map(given_up));
            } else if network || is_on(hit, node) {
                // A slow link still has on its way what it took before it became fast.
                let drained = match hit.fault.kind {
                    FaultKind::SlowLink => {
                        ways::hold(hit, None, node, Trade::Produce).map(|hold| hold.span().1)
                    }
                    _ => None,
                };
                spans.push((hit.from, drained.unwrap_or(hit.until)));
            }
        }
        let silent: Vec<At> = self
            .faults
            .iter()
            .filter(|hit| counts(hit) && hit.fault.kind == FaultKind::Silence)
            .map(|hit| hit.from)
            .chain(self.lives(node).filter_map(|life| match &life.end {
                Some((at, End::PowerLost)) => Some(*at),
                _ => None,
            }))
            .collect();
        // Another fault may end the waiting before the client's own patience does.
        for request in requests {
            if let Some(at) = silent.iter().find(|at| is_silenced(request, **at)) {
                spans.push((request.sent.max(*at), request.ended));
            }
        }
        Times::of(spans)
    }
}

/// Whether nobody could answer it, as its connection had ended without a word at that moment.
fn is_silenced(request: &Request, at: At) -> bool {
    request.end != RequestEnd::Answered && request.connecting <= at && at <= request.ended
}

/// Whether connections to the node may have ended by now without it being told: in silence, or behind what a slow link
/// still has on its way.
pub fn hide_ends(hits: &[FaultHits], node: &str, now: At) -> bool {
    hits.iter().filter(|hit| counts(hit)).any(|hit| match hit.fault.kind {
        FaultKind::Silence => true,
        FaultKind::SlowLink => {
            ways::hold(hit, None, node, Trade::Produce).is_some_and(|hold| hold.span().1 > now)
        }
        _ => false,
    })
}

/// One that touched something. A thread can be blocked by a task that began later than the fault.
fn counts(hit: &FaultHits) -> bool {
    hit.from != At::MAX && (hit.hits > 0 || hit.fault.kind == FaultKind::ThreadBlocked)
}

fn is_on(hit: &FaultHits, machine: &str) -> bool {
    hit.fault.node.as_ref().is_some_and(|node| node.machine() == machine)
}

#[cfg(test)]
mod tests;
