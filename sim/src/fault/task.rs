//! Task faults: which tasks are not polled.

use super::active::{ActiveFaults, FaultId};
use super::model::{Family, Fault, FaultKind};
use super::select::matches_pattern;

/// Whether the fault is about this task of this machine; `name` is `role` or `role[instance]`.
pub fn aims_at(fault: &Fault, machine: &str, role: &str, name: &str) -> bool {
    matches!(fault.kind, FaultKind::TaskStopped | FaultKind::ThreadBlocked)
        && fault.node.as_ref().is_some_and(|node| node.is(machine))
        && fault
            .task
            .as_deref()
            .is_some_and(|wanted| matches_pattern(wanted, name) || matches_pattern(wanted, role))
}

/// The fault in force that keeps a task from being polled.
pub fn stops(faults: &ActiveFaults, machine: &str, role: &str, name: &str, now: u64) -> Option<FaultId> {
    if !faults.any_of(Family::Task) {
        return None;
    }
    faults.force(Family::Task, now, |fault| aims_at(fault, machine, role, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_named_by_its_role_or_its_role_and_instance() {
        let mut fault = Fault::new(FaultKind::TaskStopped).on(1);
        for (wanted, expected) in [
            ("partition", true),
            ("partition[orders-3]", true),
            ("partition[orders-4]", false),
            ("part*", true),
        ] {
            fault.task = Some(wanted.to_owned());
            assert_eq!(aims_at(&fault, "node1", "partition", "partition[orders-3]"), expected, "{wanted}");
        }
        assert!(!aims_at(&fault, "node2", "partition", "partition"));
    }
}
