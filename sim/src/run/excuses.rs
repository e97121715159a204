//! When nothing can be asked of a node: the way to it is broken, or it cannot run. A disk that stands still is no
//! excuse: answering in spite of it is the point.

use crate::checker::answers::Excuses;
use crate::fault::{Extent, Family, Fault, FaultKind, FaultPlan};
use crate::history::{At, Request, RequestEnd};

/// A client notices a silent connection only when its request runs out of time.
const UNNOTICED: At = 20_000_000_000;

/// From when to when the fault acts; a moment is over at once.
pub(super) fn window(fault: &Fault) -> (At, At) {
    let from = u64::try_from(fault.at.0.as_nanos()).unwrap_or(u64::MAX);
    if fault.kind == FaultKind::Silence {
        return (from, from.saturating_add(UNNOTICED));
    }
    let at_once = fault.kind.is_moment() && fault.kind.family() != Family::Process;
    if at_once || (fault.kind == FaultKind::Restart && fault.for_ == Extent::Forever) {
        (from, from)
    } else {
        (from, fault.for_.end(from))
    }
}

/// Times in which a client waits for an answer on a connection whose other end is gone without a word: it cannot know
/// before its request runs out of time.
pub(super) fn unnoticed(plan: &FaultPlan, requests: &[Request]) -> Vec<(At, At)> {
    let silent = |fault: &&Fault| matches!(fault.kind, FaultKind::PowerLoss | FaultKind::Silence);
    let vanished: Vec<At> = plan.faults.iter().filter(silent).map(|fault| window(fault).0).collect();
    requests
        .iter()
        .filter(|request| request.end == RequestEnd::Unanswered)
        .filter_map(|request| {
            let at = vanished.iter().find(|at| (request.sent..=request.ended).contains(*at))?;
            Some((*at, request.ended))
        })
        .collect()
}

/// Excused times of a plan, each with `after` for connections to be made again.
pub(super) fn excuses(plan: &FaultPlan, after: At) -> Excuses {
    plan.faults
        .iter()
        .filter_map(|fault| {
            let (from, to) = window(fault);
            match (fault.kind.family(), fault.kind) {
                // Clocks that run wrong make deadlines that run wrong.
                (_, FaultKind::ClockDrift) => Some((from, to.saturating_add(after))),
                (Family::Network | Family::Process | Family::Task, _) => {
                    Some((from, to.saturating_add(after)))
                }
                (Family::Disk | Family::Clock | Family::Seam, _) => None,
            }
        })
        .collect()
}

/// Whether a moment is excused.
pub(super) fn covers(excuses: &Excuses, at: At) -> bool {
    excuses.iter().any(|(from, to)| *from <= at && at <= *to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn one(fault: Fault) -> Excuses {
        let fault = fault.window(Duration::from_nanos(100), Duration::from_nanos(50));
        excuses(&FaultPlan { faults: vec![fault] }, 10)
    }

    #[test]
    fn a_client_that_waits_for_a_machine_without_power_is_excused_until_it_gives_up() {
        let request = |sent, ended, end| Request {
            client: "client-1".into(),
            trade: crate::history::Trade::Produce,
            sent,
            deadline: ended,
            ended,
            end,
        };
        let plan = |kind| FaultPlan {
            faults: vec![Fault::new(kind).on(1).window(Duration::from_nanos(100), Duration::from_nanos(50))],
        };
        let waits = [
            request(90, 300, RequestEnd::Unanswered),
            request(90, 200, RequestEnd::Answered),
            request(110, 400, RequestEnd::Unanswered),
        ];
        assert_eq!(unnoticed(&plan(FaultKind::PowerLoss), &waits), [(100, 300)]);
        assert_eq!(unnoticed(&plan(FaultKind::DiskStall), &waits), []);
    }

    #[test]
    fn a_broken_way_and_a_stopped_process_are_excuses_and_a_disk_is_none() {
        assert_eq!(one(Fault::new(FaultKind::Partition).on(1)), [(100, 160)]);
        assert_eq!(one(Fault::new(FaultKind::Kill).on(1)), [(100, 160)]);
        assert_eq!(one(Fault::new(FaultKind::Reset).on(1)), [(100, 110)]);
        assert_eq!(one(Fault::new(FaultKind::DiskStall).on(1)), []);
        assert!(covers(&one(Fault::new(FaultKind::Kill).on(1)), 160));
        assert!(!covers(&one(Fault::new(FaultKind::Kill).on(1)), 161));
    }
}
