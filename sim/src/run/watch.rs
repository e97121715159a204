//! The watch: looks at a run from outside, twice a second, for two things that cannot be told afterwards.
//!
//! Who waits for whom whenever something looks like a standstill: by the time a checker says so, it is over. And
//! what the node does while nobody asks for anything.

use std::time::Duration;

use reports::{RunRecord, Standstill, Verdict};

use super::node;
use super::witness::{Failures, Witness};
use crate::checker::budgets::{Idle, Peaks};
use crate::checker::circumstances::Circumstances;
use crate::checker::replicas::{Looks, Movements};
use crate::history::{At, History, Outcome, RequestEnd, Trade, seconds};
use crate::scenario::Scenario;
use crate::workload::Field;
use crate::world::trace::Marked;
use crate::world::waits::{self, Explanation};
use crate::world::{MachineHandle, Stop, World};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(500);
/// After the clients have fallen silent: checkpoints may still be on their way.
pub(super) const SETTLE: Duration = Duration::from_secs(5);
/// Undecided for this long is a first sign.
const SIGN: At = 5_000_000_000;
/// So many sends are looked through for one that waits: those on their way are among the last.
const SENDS_LOOKED_AT: usize = 256;
/// So many sightings of one cause are kept: the first ones tell.
const KEPT: usize = 4;
/// Refusals are many, and most have their reason: those that lie so far apart are kept, and more of them.
const REFUSALS_APART: At = 3_000_000_000;
const REFUSALS_KEPT: usize = 32;

/// What made the watch look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nothing of a trade was decided for a while.
    Undecided(Trade, At),
    /// ... and for so long that it is a standstill.
    Frozen(Trade, At),
    /// A client gave up on a request.
    Unanswered(Trade, At),
    /// A client was told an error.
    Refused(Trade, At),
    /// A producer waits for an acknowledgement while others get theirs.
    Unacknowledged(At),
    /// Clients did not come to their end.
    Unfinished,
    /// The last read did not.
    Unread,
    NotStopping,
    /// The world stopped by itself.
    Stopped,
}

impl Why {
    fn text(self) -> String {
        match self {
            Why::Undecided(trade, since) => {
                format!("no {} request decided since {}", trade.name(), seconds(since))
            }
            Why::Frozen(trade, since) => {
                format!("no {} request decided since {}, a standstill", trade.name(), seconds(since))
            }
            Why::Unanswered(trade, sent) => {
                format!("a {} request of {} was given up", trade.name(), seconds(sent))
            }
            Why::Refused(trade, sent) => {
                format!("a {} request of {} was answered with an error", trade.name(), seconds(sent))
            }
            Why::Unacknowledged(began) => {
                format!("a batch of {} waits for its acknowledgement", seconds(began))
            }
            Why::Unfinished => "clients did not come to their end".into(),
            Why::Unread => "the last read did not come to its end".into(),
            Why::NotStopping => "the node was asked to stop and did not".into(),
            Why::Stopped => "the run could not go on".into(),
        }
    }

    /// How well it fits a finding of that checker; more is better.
    fn fits(self, checker: &str) -> u32 {
        match (checker, self) {
            ("standstill" | "livelock", Why::Frozen(..) | Why::Stopped) => 3,
            ("standstill", Why::Undecided(..)) => 2,
            ("answered-by-deadline", Why::Unanswered(..)) => 3,
            ("answered-by-deadline", Why::Undecided(..)) => 2,
            ("acknowledged-when-clear", Why::Unacknowledged(_)) => 3,
            ("acknowledged-when-clear", Why::Undecided(..)) => 2,
            ("silent-refusal" | "refused-at-once" | "error-without-cause", Why::Refused(..)) => 3,
            ("silent-refusal", Why::Undecided(Trade::Produce, _)) => 2,
            ("served-beside-others", Why::Unanswered(..)) => 3,
            ("served-beside-others", Why::Undecided(..)) => 2,
            ("unreadable", Why::Unread) => 3,
            ("polite-stop" | "left-in-flight", Why::NotStopping) => 3,
            (_, Why::Stopped) => 2,
            _ => 1,
        }
    }

    /// Whether the finding tells of that very moment.
    fn is_named_in(self, what: &str) -> bool {
        match self {
            Why::Refused(_, at) | Why::Unanswered(_, at) | Why::Unacknowledged(at) => {
                what.contains(&format!(" {}", seconds(at)))
            }
            _ => false,
        }
    }

    fn is_like(self, other: Why) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// Who waited for whom at one moment, and why that moment.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    pub(super) why: Why,
    pub(super) explanation: Explanation,
}

pub(super) struct Watch<'a> {
    world: &'a World,
    field: &'a Field,
    witness: &'a Witness,
    frozen_after: At,
    connected_for: At,
    pub(super) peaks: Peaks,
    /// What nodes of a cluster had of the same thing.
    pub(super) looks: Looks,
    pub(super) sightings: Vec<Sighting>,
    /// Since when what is undecided now has been, if it was sighted, and whether as a standstill.
    episode: Option<(At, bool)>,
    requests_seen: usize,
    complaints_seen: usize,
    /// When a refusal was sighted last.
    refused: Option<At>,
    quiet: Option<Quiet>,
    quiet_end: Option<Quiet>,
}

/// Counts of the node at one time.
#[derive(Clone, Copy)]
struct Quiet {
    at: At,
    wakes: u64,
    operations: u64,
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        world: &'a World,
        field: &'a Field,
        witness: &'a Witness,
        scenario: &Scenario,
    ) -> Watch<'a> {
        Watch {
            world,
            field,
            witness,
            frozen_after: ns(scenario.liveness.frozen_after.0),
            connected_for: ns(scenario.liveness.connected_for.0),
            peaks: Peaks::default(),
            looks: Looks::default(),
            sightings: Vec::new(),
            episode: None,
            requests_seen: 0,
            complaints_seen: 0,
            refused: None,
            quiet: None,
            quiet_end: None,
        }
    }

    pub(super) async fn until(&mut self, end: Duration, over: impl Fn() -> bool) {
        while self.world.now() < end && !over() {
            self.world.sleep(LOOK.min(end - self.world.now())).await;
            self.look();
        }
    }

    fn look(&mut self) {
        let now = ns(self.world.now());
        self.see_stopping();
        let somebody_is_kept_away = self.keeps_somebody_away(now);
        let mut notes = self.field.notes.write();
        let refusal = self.refusal(&notes, now);
        if somebody_is_kept_away {
            notes.pulse.excuse(now);
            self.episode = None;
            self.requests_seen = notes.requests.len();
            drop(notes);
        } else {
            let signs = self.signs(&notes, now);
            drop(notes);
            for (why, since) in signs {
                // What is shown in the end is the time around the last decision before the first standstill.
                let known = |sighting: &Sighting| matches!(sighting.why, Why::Frozen(..));
                if !self.sightings.iter().any(known) && !matches!(why, Why::Frozen(..)) {
                    self.world.mark(since);
                }
                self.sight(why);
            }
        }
        if let Some(why) = refusal {
            self.sight(why);
        }
        self.count(now);
        if self.field.nodes > 1 {
            let Movements { returned, reassigned } = self.looks.look(&self.witness.insides.look());
            self.field.notes.write().note_movements(returned, reassigned, now);
        }
        for counts in self.nodes().filter_map(|node| node.counts()) {
            self.peaks.memory = self.peaks.memory.max(counts.memory_peak);
            self.peaks.sockets = self.peaks.sockets.max(counts.sockets_peak);
        }
    }

    /// Whether a client cannot get through now, or the node not work.
    fn keeps_somebody_away(&self, now: At) -> bool {
        let lives = self.witness.lives.with_ends(&self.world.endings(), &Failures::new());
        let circumstances = Circumstances::new(self.world.fault_hits(), lives, now);
        self.nodes().any(|node| circumstances.keep_somebody_away(node.name(), now, self.connected_for))
    }

    fn nodes(&self) -> impl Iterator<Item = MachineHandle> + use<'a> {
        let world = self.world;
        (1..=self.field.nodes).map(|number| world.node(number))
    }

    /// A process that was asked to stop and has not: what it still waits for.
    pub(super) fn see_stopping(&self) {
        self.nodes().for_each(|machine| self.see_stopping_of(&machine));
    }

    fn see_stopping_of(&self, machine: &MachineHandle) {
        let Some(backend) = machine.backend() else { return };
        if !backend.process().is_asked_to_stop() {
            return;
        }
        self.witness.lives.note(machine.name(), backend.process().incarnation, |life| {
            life.asked_to_stop.get_or_insert(ns(self.world.now()));
            if life.stopped.is_none() {
                life.in_flight = node::in_flight(&backend);
            }
        });
    }

    /// What looks like a standstill now and did not at the last look, each with its beginning.
    fn signs(&mut self, notes: &History, now: At) -> Vec<(Why, At)> {
        let mut signs = Vec::new();
        let undecided = notes.pulse.undecided(now).filter(|still| still.to - still.from >= SIGN);
        match (&undecided, self.episode) {
            (Some(still), Some((since, frozen))) if since == still.from => {
                if !frozen && still.to - still.from >= self.frozen_after {
                    signs.push((Why::Frozen(still.trade, still.from), still.from));
                    self.episode = Some((since, true));
                }
            }
            (Some(still), _) => {
                signs.push((Why::Undecided(still.trade, still.from), still.from));
                self.episode = Some((still.from, false));
            }
            (None, _) => self.episode = None,
        }
        let fresh = notes.requests.get(self.requests_seen..).unwrap_or_default();
        if let Some(given_up) = fresh.iter().find(|request| request.end == RequestEnd::Unanswered) {
            signs.push((Why::Unanswered(given_up.trade, given_up.sent), given_up.sent));
        }
        self.requests_seen = notes.requests.len();
        let just_too_long = SIGN..SIGN + ns(LOOK);
        let waits = notes.sends.iter().rev().take(SENDS_LOOKED_AT).find(|send| {
            send.outcome == Outcome::Unknown && just_too_long.contains(&now.saturating_sub(send.began))
        });
        if let (Some(send), None) = (waits, &undecided) {
            signs.push((Why::Unacknowledged(send.began), send.began));
        }
        signs
    }

    /// An error that a client was told since the last look, if none was sighted a moment ago.
    fn refusal(&mut self, notes: &History, now: At) -> Option<Why> {
        let fresh = notes.complaints.get(self.complaints_seen..).unwrap_or_default();
        self.complaints_seen = notes.complaints.len();
        let told = fresh.first()?;
        if self.refused.is_some_and(|last| now < last + REFUSALS_APART) {
            return None;
        }
        self.refused = Some(now);
        Some(Why::Refused(told.trade, told.sent))
    }

    /// Notes who waits for whom now.
    pub(super) fn sight(&mut self, why: Why) {
        let kept = if matches!(why, Why::Refused(..)) { REFUSALS_KEPT } else { KEPT };
        if self.sightings.iter().filter(|sighting| sighting.why.is_like(why)).count() < kept {
            self.sightings.push(Sighting { why, explanation: self.world.explain() });
        }
    }

    /// What the scenario leaves as idle time, some seconds after its clients have fallen silent.
    fn count(&mut self, now: At) {
        let schedule = self.field.schedule;
        if now >= schedule.produce_until + ns(SETTLE) && now <= schedule.healed {
            self.count_now(now);
        }
    }

    pub(super) async fn idle_from(&mut self, from: Duration, to: Duration) {
        self.world.sleep_until(from).await;
        self.count_now(ns(from));
        self.world.sleep_until(to).await;
        self.count_now(ns(to));
    }

    fn count_now(&mut self, now: At) {
        let mut quiet = Quiet { at: now, wakes: 0, operations: 0 };
        for machine in self.nodes() {
            let Some(counts) = machine.counts() else { return };
            let disk = machine.disk().counts();
            quiet.wakes += counts.wakes;
            quiet.operations += disk.reads + disk.writes + disk.syncs;
        }
        self.quiet.get_or_insert(quiet);
        self.quiet_end = Some(quiet);
    }

    pub(super) fn idle(&self) -> Option<Idle> {
        let (from, to) = (self.quiet?, self.quiet_end?);
        (to.at > from.at).then(|| Idle {
            seconds: (to.at - from.at) as f64 / 1e9,
            wakeups: to.wakes.saturating_sub(from.wakes),
            disk_operations: to.operations.saturating_sub(from.operations),
        })
    }
}

/// Whatever stood still is explained: by the sighting that fits the first finding of that kind best, and by the
/// events around the last decision.
pub(super) fn explain(
    record: &mut RunRecord,
    sightings: &[Sighting],
    marked: Option<&Marked>,
    stop: Option<&Stop>,
) {
    let Some(found) = record.violations.iter().find(|found| found.verdict == Verdict::Freeze) else { return };
    let stands_still = |sighting: &Sighting| sighting.explanation.standstill != waits::Standstill::None;
    // The first of equals.
    let best = sightings.iter().rev().max_by_key(|sighting| {
        let is_named = sighting.why.is_named_in(&found.what);
        (sighting.why.fits(&found.checker), is_named, stands_still(sighting))
    });
    if let Some(Sighting { why, explanation }) = best {
        let livelock = matches!(stop, Some(Stop::Livelock { .. } | Stop::GivenUp { .. } | Stop::Busy { .. }));
        let class = if livelock { "livelock" } else { explanation.standstill.name() };
        record.standstill = Some(Standstill {
            at_s: explanation.at as f64 / 1e9,
            why: why.text(),
            class: class.into(),
            component: explanation.component.clone(),
            operation: explanation.operation.clone(),
            seam: explanation.seam.clone(),
            fault: explanation.fault.clone(),
        });
        record.explanation.clone_from(&explanation.lines);
    }
    if let Some(marked) = marked {
        record.last_events = marked.before.iter().map(ToString::to_string).collect();
        record.last_events.push(format!("-- from {} on nothing was decided --", seconds(marked.at)));
        record.last_events.extend(marked.after.iter().map(ToString::to_string));
    }
}

fn ns(duration: Duration) -> At {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::trace::{Event, What};
    use reports::Violation;

    fn sighting(why: Why, line: &str, standstill: waits::Standstill) -> Sighting {
        let explanation = Explanation {
            at: 7_500_000_000,
            standstill,
            component: Some("node1, task worker".into()),
            operation: Some("fdatasync of wal".into()),
            seam: None,
            fault: Some("1 (disk-stall node1)".into()),
            lines: vec![line.to_owned()],
        };
        Sighting { why, explanation }
    }

    fn found(checker: &str, verdict: Verdict) -> RunRecord {
        let what = "client-1 was told something at 9.123 s to a produce request of 9.000 s".to_owned();
        let violation = Violation { checker: checker.into(), verdict, what };
        RunRecord { violations: vec![violation], ..RunRecord::default() }
    }

    #[test]
    fn every_freeze_is_explained_by_the_sighting_that_fits_its_checker() {
        use waits::Standstill::{Freeze, None as Nothing};
        let trade = Trade::Produce;
        let sightings = [
            sighting(Why::Undecided(trade, 0), "undecided", Freeze),
            sighting(Why::Unanswered(trade, 3), "unanswered, nothing seen", Nothing),
            sighting(Why::Unanswered(trade, 5), "unanswered", Freeze),
            sighting(Why::Unanswered(trade, 9), "unanswered later", Freeze),
            sighting(Why::NotStopping, "not stopping", Freeze),
            sighting(Why::Refused(trade, 2_000_000_000), "refused", Freeze),
            sighting(Why::Refused(trade, 9_000_000_000), "refused then", Freeze),
        ];
        for (checker, line) in [
            ("answered-by-deadline", "unanswered"),
            ("standstill", "undecided"),
            ("polite-stop", "not stopping"),
            ("error-without-cause", "refused then"),
            ("served-beside-others", "unanswered"),
            ("a-checker-of-tomorrow", "refused then"),
        ] {
            let mut record = found(checker, Verdict::Freeze);
            explain(&mut record, &sightings, None, None);
            assert_eq!(record.explanation, [line], "{checker}");
            let still = record.standstill.unwrap();
            assert_eq!((still.class.as_str(), still.at_s), ("freeze", 7.5));
            assert_eq!(still.fault.as_deref(), Some("1 (disk-stall node1)"));
        }
    }

    #[test]
    fn what_did_not_stand_still_needs_no_explanation() {
        let mut record = found("lost-write", Verdict::Safety);
        let sightings = [sighting(Why::Unfinished, "x", waits::Standstill::Freeze)];
        explain(&mut record, &sightings, None, None);
        assert!(record.standstill.is_none() && record.explanation.is_empty());
    }

    #[test]
    fn the_events_of_a_standstill_are_those_before_and_after_the_last_decision() {
        let event = |at| Event { at, ..Event::new(What::Note) };
        let marked = Marked { at: 2_000_000_000, before: vec![event(1)], after: vec![event(3_000_000_000)] };
        let mut record = found("standstill", Verdict::Freeze);
        record.last_events = vec!["the shutdown".into()];
        explain(&mut record, &[], Some(&marked), None);
        assert_eq!(
            record.last_events,
            [
                "0.000000001 Note task 0",
                "-- from 2.000 s on nothing was decided --",
                "3.000000000 Note task 0"
            ]
        );
    }
}
