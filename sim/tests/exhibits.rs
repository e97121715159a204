//! Every exhibit fails in its own scenario as the scenario expects, and our code passes it on the same plan.
//!
//! The freeze of hours is cut to minutes here; the whole of it is in the sweep.

use std::time::Duration;

use reports::{RunRecord, Status, Verdict};
use sim::fault::{Extent, FaultKind, Span};
use sim::run::{Choice, Order, run};
use sim::scenario::ScenarioDir;

fn order(name: &str) -> Order {
    let mut shelved = ScenarioDir::find().unwrap().load(name).unwrap();
    let scenario = &mut shelved.scenario;
    if scenario.duration() > Duration::from_secs(600) {
        scenario.duration = Span::secs(300);
        for fault in scenario.faults.iter_mut().filter(|fault| fault.kind == FaultKind::DiskStall) {
            fault.for_ = Extent::For(Duration::from_secs(150));
        }
    }
    Order::new(shelved, 1)
}

/// Runs the scenario with its part and with ours.
fn shows(name: &str) -> RunRecord {
    let mut order = order(name);
    let exhibit = run(&order);
    assert_eq!(Status::of_run(&exhibit), Status::Expected, "{}", reports::render::terminal::run(&exhibit));
    assert_ne!(exhibit.verdict, Verdict::Pass);
    order.choice = Choice::Production;
    let ours = run(&order);
    assert_eq!(ours.verdict, Verdict::Pass, "{}", reports::render::terminal::run(&ours));
    assert_eq!(ours.plan_hash, exhibit.plan_hash);
    assert_eq!(ours.total_hits() > 0, exhibit.total_hits() > 0, "both meet the faults, or there are none");
    exhibit
}

fn explains(record: &RunRecord, what: &str) {
    let text = record.explanation.join("\n");
    assert!(text.contains(what), "{what} is not in:\n{text}");
}

#[test]
fn a_sync_without_a_deadline_freezes_the_node_and_is_named_with_the_lock_held_behind_it() {
    let record = shows("museum/fsync-without-deadline");
    explains(&record, "fdatasync");
    explains(&record, "holds lock partition");
    explains(&record, "wal-rotation");
    explains(&record, "legacy_wal.rs");
    // The metadata goes the same way.
    explains(&record, "fdatasync of /data/raft/");
    explains(&record, "waits for a reply from channel node commits");
    let still = record.standstill.as_ref().expect("a standstill");
    assert_eq!(still.class, "freeze");
    assert!(still.fault.as_ref().is_some_and(|fault| fault.contains("disk-stall node1")), "{still:?}");
    assert!(still.component.as_ref().is_some_and(|task| task.contains("wal-commit-worker")), "{still:?}");
    let events = record.last_events.join("\n");
    let (before, after) = events.split_once("-- from ").expect("the last decision");
    assert!(before.contains("Delivered") && after.contains(" Sent "), "{events}");
}

#[test]
fn writes_that_begin_at_zero_lose_what_was_acknowledged() {
    let record = shows("museum/offset-reset");
    assert!(record.violations.iter().any(|violation| violation.checker == "lost-write"));
}

#[test]
fn a_ring_thread_in_a_blocking_receive_never_creates_a_topic() {
    let record = shows("museum/ring-blocking-recv");
    explains(&record, "all threads of ring are blocked by task ring");
    assert!(record.hits.is_empty(), "nothing has to break for it");
}

#[test]
fn commits_by_interval_only_break_the_latency_budget() {
    let record = shows("museum/interval-only-commit");
    let p50 = record.budgets.iter().find(|figure| figure.name == "produce_p50_ms").unwrap();
    assert!((95.0..110.0).contains(&p50.measured), "{p50:?}");
}

#[test]
fn workers_that_wake_up_for_nothing_break_the_idle_budget() {
    let record = shows("museum/idle-thrash");
    let kept: Vec<(&str, bool)> =
        record.budgets.iter().map(|figure| (figure.name.as_str(), figure.kept)).collect();
    assert_eq!(kept, [("wakeups_per_s_idle", false), ("disk_ops_per_s_idle", true)]);
}

#[test]
fn blocking_calls_starve_the_runtime_and_its_threads_are_named() {
    let record = shows("museum/blocking-call-in-async");
    explains(&record, "threads of runtime are blocked");
}

#[test]
fn topics_without_assignments_take_no_record() {
    let record = shows("museum/assignments-dropped");
    assert!(record.hits.is_empty(), "nothing has to break for it");
    assert_eq!(record.probes.get("acked records"), None);
}

#[test]
fn a_replicator_that_knows_of_nobody_has_every_produce_time_out() {
    let record = shows("museum/replicator-without-peers");
    assert!(record.hits.is_empty(), "nothing has to break for it");
    assert_eq!(record.probes.get("acked records"), None);
}

#[test]
fn topics_that_take_a_look_up_for_each_step_are_not_there_in_time() {
    let record = shows("museum/topic-creation-30s");
    assert!(record.hits.is_empty(), "nothing has to break for it");
}

#[test]
fn syncs_one_after_the_other_break_the_latency_budget() {
    shows("museum/sequential-fsync");
}

#[test]
fn changes_that_wait_without_a_bound_take_memory_while_the_disk_stands_still() {
    shows("museum/unbounded-metadata-queue");
}

#[test]
fn a_connection_for_each_forwarded_produce_uses_up_sockets() {
    shows("museum/unpooled-forwarding");
}

#[test]
fn a_lock_held_until_the_log_has_written_is_a_deadlock_with_the_log_that_asks_for_it() {
    let record = shows("museum/lock-inversion");
    explains(&record, "waits for lock raft held by task connection");
    explains(&record, "whose reader is task wal-commit-worker");
}

#[test]
fn a_send_into_a_full_queue_whose_reader_wants_the_senders_lock_is_a_deadlock() {
    let record = shows("museum/full-channel");
    explains(&record, "waits for room in channel responses, whose reader is task wal-response-worker");
    explains(&record, "waits for lock log held by task wal-commit-worker");
}

#[test]
fn a_node_to_which_ten_retries_failed_is_left_behind_for_good() {
    shows("museum/message-lost-after-retries");
}

#[test]
fn errors_that_are_answered_as_success_lose_what_was_acknowledged() {
    let record = shows("museum/ack-despite-error");
    assert!(record.violations.iter().any(|violation| violation.checker == "lost-write"));
}
