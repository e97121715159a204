//! When nothing can be asked of a node: the way to it is broken, or it cannot run. A disk that stands still is no
//! excuse: answering in spite of it is the point.

use crate::checker::answers::Excuses;
use crate::fault::{Extent, Family, Fault, FaultKind, FaultPlan};
use crate::history::At;

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
    fn a_broken_way_and_a_stopped_process_are_excuses_and_a_disk_is_none() {
        assert_eq!(one(Fault::new(FaultKind::Partition).on(1)), [(100, 160)]);
        assert_eq!(one(Fault::new(FaultKind::Kill).on(1)), [(100, 160)]);
        assert_eq!(one(Fault::new(FaultKind::Reset).on(1)), [(100, 110)]);
        assert_eq!(one(Fault::new(FaultKind::DiskStall).on(1)), []);
        assert!(covers(&one(Fault::new(FaultKind::Kill).on(1)), 160));
        assert!(!covers(&one(Fault::new(FaultKind::Kill).on(1)), 161));
    }
}
