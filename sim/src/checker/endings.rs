//! How processes ended, and what they left behind: one judgement for each of them.

use reports::{Verdict, Violation};

use super::Findings;
use super::circumstances::{Circumstances, End, Life, exits};
use crate::fault::FaultKind;
use crate::history::{At, seconds};

/// A node's stop has a deadline of eight seconds, then its tasks are told.
const STOPS_WITHIN: At = 9_000_000_000;
/// A service manager kills what has not stopped ten seconds after it was asked; whoever watches looks every half
/// second.
const KILLED_AFTER: At = 9_400_000_000;

/// Processes that ended by themselves with a status that nothing on their machine explains.
pub fn exits(circumstances: &Circumstances, node: &str) -> Vec<Violation> {
    let mut findings = Findings::of("crash", Verdict::Crash);
    for life in circumstances.lives(node) {
        let Some((at, End::Exited(status, why))) = &life.end else { continue };
        if *status == 0 || exits::are_caused(circumstances, life, *at, *status) {
            continue;
        }
        let doing = if life.serving.is_some() { "serving" } else { "starting" };
        findings.add(format!("{node} ended with status {status} at {} while {doing}: {why}", seconds(*at)));
    }
    findings.all()
}

/// A process that is asked to stop does so within its bound, and nothing of it is in flight then.
pub fn polite_stops(circumstances: &Circumstances, node: &str) -> Vec<Violation> {
    let mut stubborn = Findings::of("polite-stop", Verdict::Freeze);
    let mut left = Findings::of("left-in-flight", Verdict::Freeze);
    for life in circumstances.lives(node) {
        let Some(asked) = life.asked_to_stop else { continue };
        let over = life.stopped.unwrap_or(life.ended_at()).min(circumstances.until());
        let could_not_run = circumstances.times_of(node, 0, keeps_from_stopping).meet(asked, over);
        // A start is not interrupted.
        if could_not_run || life.serving.is_none_or(|serving| serving > asked) {
            continue;
        }
        let name = format!("start {} of {node}, asked to stop at {},", life.incarnation, seconds(asked));
        let still = || match life.in_flight.as_slice() {
            [] => "nothing of it was in flight".to_owned(),
            entries => format!("still in flight: {}", entries.join("; ")),
        };
        match (life.stopped, &life.end) {
            (Some(stopped), _) => {
                if stopped - asked > STOPS_WITHIN {
                    stubborn.add(format!("{name} had stopped only at {}", seconds(stopped)));
                }
                // An operation that the disk holds cannot be taken back.
                if !circumstances.times_of(node, 0, holds_operations).meet(asked, stopped) {
                    for entry in &life.in_flight {
                        left.add(format!("{name} left in flight: {entry}"));
                    }
                }
            }
            (None, Some((at, End::Killed))) if *at - asked >= KILLED_AFTER => {
                stubborn.add(format!("{name} did not, and was killed at {}; {}", seconds(*at), still()));
            }
            (None, None) if circumstances.until() - asked > STOPS_WITHIN => {
                stubborn.add(format!("{name} never did; {}", still()));
            }
            // It found another end before its time was up.
            (None, _) => {}
        }
    }
    let mut all = stubborn.all();
    all.extend(left.all());
    all
}

/// Whoever stops politely leaves nothing behind that the next start has to make good: no group half written, and no batch
/// without a checkpoint.
pub fn starts_after_stops(circumstances: &Circumstances, node: &str) -> Vec<Violation> {
    let mut findings = Findings::of("left-to-do", Verdict::Safety);
    let lives: Vec<&Life> = circumstances.lives(node).collect();
    // Checkpoints end at their deadlines, and what stands on a disk is not always what was written.
    let disturbed = circumstances.times_of(node, 0, |kind| kind != FaultKind::Restart);
    let damaged = circumstances.times_of(node, At::MAX, FaultKind::destroys_data);
    for pair in lives.windows(2) {
        let [before, after] = pair else { continue };
        let (Some(serving), Some(asked), Some((ended, End::Exited(0, _)))) =
            (before.serving, before.asked_to_stop, &before.end)
        else {
            continue;
        };
        let until = after.serving.unwrap_or(after.ended_at());
        if serving > asked || disturbed.meet(asked, *ended) || damaged.meet(0, until) {
            continue;
        }
        let name = format!("start {} of {node}, after a polite stop,", after.incarnation);
        if after.torn_tail {
            findings.add(format!("{name} found a group in a journal that was not written to its end"));
        }
        if after.replayed > 0 {
            findings.add(format!("{name} had to replay {} batches", after.replayed));
        }
    }
    findings.all()
}

fn keeps_from_stopping(kind: FaultKind) -> bool {
    use FaultKind::*;
    matches!(kind, Pause | Unkillable | TaskStopped | ThreadBlocked | ClockDrift)
}

fn holds_operations(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::DiskStall | FaultKind::DiskSlow)
}

/// The node that was asked to stop in the end was there, or had said why it was not.
pub fn stopped_in_the_end(circumstances: &Circumstances, node: &str) -> Vec<Violation> {
    let mut findings = Findings::of("polite-stop", Verdict::Freeze);
    let last: Option<&Life> = circumstances.lives(node).last();
    let excused = last.is_some_and(|life| match &life.end {
        Some((at, End::Exited(status, _))) => {
            *status == 0 || exits::are_caused(circumstances, life, *at, *status)
        }
        _ => false,
    });
    if !excused && last.is_none_or(|life| life.asked_to_stop.is_none()) {
        findings.add(format!("{node} could not be asked to stop in the end: it does not run"));
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::circumstances::JournalFailures;
    use crate::fault::{Fault, FaultHits};

    const S: At = 1_000_000_000;

    fn life(incarnation: u64) -> Life {
        Life { node: "node1".into(), incarnation, began: 0, serving: Some(S), ..Life::default() }
    }

    fn found(
        faults: Vec<FaultHits>,
        lives: Vec<Life>,
        check: fn(&Circumstances, &str) -> Vec<Violation>,
    ) -> Vec<String> {
        check(&Circumstances::new(faults, lives, 200 * S), "node1").into_iter().map(|v| v.what).collect()
    }

    fn fault(kind: FaultKind) -> FaultHits {
        FaultHits::once(Fault::new(kind).on(1), 90 * S, 110 * S)
    }

    #[test]
    fn a_status_of_its_own_needs_a_reason_of_that_kind_on_that_node() {
        let ended = |status| Life {
            journal_failures: JournalFailures { raft: 1, ..JournalFailures::default() },
            end: Some((100 * S, End::Exited(status, "because".into()))),
            ..life(1)
        };
        for (kind, status, count) in [
            (FaultKind::SyncFails, 5, 0),
            (FaultKind::SyncFails, 1, 1),
            (FaultKind::DiskFull, 5, 1),
            (FaultKind::DiskFull, 0, 0),
            (FaultKind::Pause, 5, 1),
        ] {
            assert_eq!(found(vec![fault(kind)], vec![ended(status)], exits).len(), count, "{kind} {status}");
        }
    }

    #[test]
    fn a_clean_stop_of_one_process_does_not_speak_for_another() {
        let asked = Life { asked_to_stop: Some(100 * S), ..life(1) };
        let hangs = Life {
            end: Some((110 * S, End::Killed)),
            in_flight: vec!["fdatasync of journal/1".into()],
            ..asked.clone()
        };
        let clean = Life {
            asked_to_stop: Some(150 * S),
            stopped: Some(151 * S),
            end: Some((151 * S, End::Exited(0, String::new()))),
            ..life(2)
        };
        assert_eq!(found(vec![], vec![clean.clone()], polite_stops), Vec::<String>::new());
        let both = found(vec![], vec![hangs.clone(), clean], polite_stops);
        assert!(both.len() == 1 && both[0].contains("journal/1") && both[0].contains("start 1"), "{both:?}");
        assert_eq!(found(vec![fault(FaultKind::Pause)], vec![hangs], polite_stops), Vec::<String>::new());
    }

    #[test]
    fn another_end_before_the_time_was_up_is_no_fault_of_the_stop() {
        for (end, count) in [(End::Killed, 0), (End::PowerLost, 0)] {
            let life = Life { asked_to_stop: Some(100 * S), end: Some((103 * S, end)), ..life(1) };
            assert_eq!(found(vec![], vec![life], polite_stops).len(), count);
        }
        let never = Life { asked_to_stop: Some(100 * S), ..life(1) };
        assert_eq!(found(vec![], vec![never], polite_stops).len(), 1);
    }

    #[test]
    fn what_is_still_in_flight_after_a_stop_is_named_unless_the_disk_holds_it() {
        let left = Life {
            asked_to_stop: Some(100 * S),
            stopped: Some(101 * S),
            in_flight: vec!["wait of task x".into()],
            ..life(1)
        };
        assert!(found(vec![], vec![left.clone()], polite_stops)[0].contains("wait of task x"));
        let late = Life { stopped: Some(115 * S), in_flight: vec![], ..left.clone() };
        assert!(found(vec![], vec![late], polite_stops)[0].contains("only at 115.000 s"));
        assert_eq!(found(vec![fault(FaultKind::DiskStall)], vec![left], polite_stops), Vec::<String>::new());
    }

    #[test]
    fn in_the_end_the_node_is_there_to_be_asked_or_has_told_why_not() {
        let asked = Life { asked_to_stop: Some(100 * S), ..life(1) };
        assert_eq!(found(vec![], vec![asked], stopped_in_the_end), Vec::<String>::new());
        assert_eq!(found(vec![], vec![life(1)], stopped_in_the_end).len(), 1);
        let refused = Life { serving: None, end: Some((100 * S, End::Exited(3, "x".into()))), ..life(1) };
        assert_eq!(found(vec![], vec![refused.clone()], stopped_in_the_end).len(), 1);
        assert_eq!(
            found(vec![fault(FaultKind::BitRot)], vec![refused], stopped_in_the_end),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_polite_stop_leaves_the_next_start_nothing_to_do() {
        let stopped = Life {
            asked_to_stop: Some(100 * S),
            stopped: Some(101 * S),
            end: Some((101 * S, End::Exited(0, "stopped".into()))),
            ..life(1)
        };
        let killed = Life { end: Some((101 * S, End::Killed)), ..life(1) };
        let next = Life { began: 102 * S, serving: Some(103 * S), ..life(2) };
        let replays = Life { replayed: 3, ..next.clone() };
        let torn = Life { torn_tail: true, ..next.clone() };
        for (faults, first, second, count) in [
            (vec![], &stopped, &next, 0),
            (vec![], &stopped, &replays, 1),
            (vec![], &stopped, &torn, 1),
            (vec![], &killed, &replays, 0),
            (vec![fault(FaultKind::DiskStall)], &stopped, &replays, 0),
            (vec![fault(FaultKind::Restart)], &stopped, &replays, 1),
        ] {
            let lives = vec![first.clone(), second.clone()];
            assert_eq!(found(faults, lives, starts_after_stops).len(), count, "{first:?} {second:?}");
        }
    }
}
