use std::path::Path;
use std::time::Duration;

use super::*;
use crate::fault::Operation;

fn aimed(kind: FaultKind, when: &str, nth: Option<u64>) -> Fault {
    let fault = Fault::new(kind).on(1).window(Duration::from_nanos(100), Duration::from_nanos(50));
    Fault { when: Some(when.parse().unwrap()), nth, ..fault }
}

fn write(machine: &str) -> Occasion<'_> {
    Occasion {
        machine,
        path: Path::new("data/journal/1.journal"),
        operations: &[Operation::Write, Operation::Sync],
        role: "commit",
        recovering: None,
    }
}

fn window(faults: &ActiveFaults) -> (u64, u64) {
    (faults.hits()[0].from, faults.hits()[0].until)
}

#[test]
fn an_aimed_fault_begins_with_its_occasion_and_lasts_from_there() {
    let mut faults = ActiveFaults::default();
    let id = faults.add(&aimed(FaultKind::DiskStall, "write:2", None), 0);
    assert_eq!(window(&faults), (u64::MAX, u64::MAX));
    assert_eq!(faults.trigger(&write("node1"), 99, 99), [], "not before its time");
    assert_eq!(faults.trigger(&write("node2"), 100, 100), [], "of another machine");
    assert_eq!(faults.trigger(&write("node1"), 100, 100), [], "the first of two");
    assert!(!faults.in_force(id, 100) && faults.awaits_any());
    assert_eq!(faults.trigger(&write("node1"), 120, 125), [id]);
    assert_eq!(window(&faults), (120, 170));
    assert!(faults.in_force(id, 120) && !faults.awaits_any());
    assert_eq!(faults.trigger(&write("node1"), 130, 130), [], "it begins once");
}

#[test]
fn what_happens_at_a_moment_does_so_while_the_operation_is_in_flight() {
    let mut faults = ActiveFaults::default();
    let id = faults.add(&aimed(FaultKind::Kill, "group-in-flight", Some(1)), 0);
    assert_eq!(faults.trigger(&write("node1"), 120, 125), [id]);
    assert_eq!(window(&faults), (125, 125));
    faults.end(id, 122);
    assert_eq!(window(&faults), (125, 122), "healed before it came to that");
}

#[test]
fn operations_of_a_recovery_are_counted_in_each_process() {
    let mut faults = ActiveFaults::default();
    let id = faults.add(&aimed(FaultKind::Kill, "recovery", Some(3)), 0);
    let operation = |number| Occasion { recovering: Some(number), ..write("node1") };
    for number in [1, 2, 1, 2] {
        assert_eq!(faults.trigger(&operation(number), 200, 200), []);
    }
    assert_eq!(faults.trigger(&operation(3), 200, 200), [id]);
}

#[test]
fn what_never_met_its_occasion_was_never_in_force_and_does_not_come_after_the_healing() {
    let mut faults = ActiveFaults::default();
    let id = faults.add(&aimed(FaultKind::DiskStall, "write:1", None), 0);
    assert_eq!(faults.unfinished(500), [id]);
    faults.end(id, 500);
    assert_eq!(faults.trigger(&write("node1"), 600, 600), []);
    assert_eq!(window(&faults), (u64::MAX, u64::MAX));
    assert!(faults.unfinished(500).is_empty());
}
