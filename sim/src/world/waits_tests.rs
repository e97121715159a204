use super::*;
use io_backend::TaskName;
use io_backend::registry::{Holder, Resource};
use io_backend::task::TaskIds;

const SECOND: u64 = 1_000_000_000;

/// Puts a snapshot together.
struct Stage {
    ids: TaskIds,
    snapshot: ProcessSnapshot,
}

impl Stage {
    fn new() -> Stage {
        let snapshot = ProcessSnapshot {
            machine: Arc::from("node1"),
            incarnation: 1,
            now: Moment(100 * SECOND),
            clock: crate::world::clock::ClockView::new(),
            held: BTreeMap::new(),
            stopped: Vec::new(),
            paused: None,
            entries: Vec::new(),
            threads: Vec::new(),
            tasks: Vec::new(),
        };
        Stage { ids: TaskIds::default(), snapshot }
    }

    fn task(&mut self, role: &'static str, instance: &str) -> Arc<CurrentTask> {
        let name = if instance.is_empty() { role.into() } else { TaskName::of(role, instance) };
        let task = self.ids.next(name);
        self.snapshot.tasks.push(task.clone());
        task
    }

    #[track_caller]
    fn entry(&mut self, task: &Arc<CurrentTask>, kind: WaitKind, target: &str, since_s: u64) -> &mut Entry {
        let entries = &mut self.snapshot.entries;
        entries.push(Entry {
            number: entries.len() as u64 + 1,
            kind,
            what: kind.name(),
            target: Some(Arc::from(target)),
            task: Some(task.clone()),
            since: Moment(since_s * SECOND),
            site: Location::caller(),
            resource: None,
            operation: false,
            bounded: false,
        });
        entries.last_mut().unwrap()
    }

    #[track_caller]
    fn waits_for(
        &mut self,
        task: &Arc<CurrentTask>,
        kind: WaitKind,
        resource: &Arc<Resource>,
        since_s: u64,
    ) -> &mut Entry {
        let name = resource.name.clone();
        let entry = self.entry(task, kind, &name, since_s);
        entry.resource = Some(resource.clone());
        entry
    }

    fn told(&self) -> Explanation {
        explain(std::slice::from_ref(&self.snapshot))
    }
}

#[track_caller]
fn held(name: &str, by: &Arc<CurrentTask>, since_s: u64) -> Arc<Resource> {
    let resource = Resource::new(name);
    let site = Location::caller();
    resource.held_by(Holder { task: Some(by.clone()), since: Moment(since_s * SECOND), site });
    resource
}

fn has_line(told: &Explanation, parts: &[&str]) -> bool {
    told.lines.iter().any(|line| parts.iter().all(|part| line.contains(part)))
}

#[test]
fn a_stalled_sync_under_a_lock_is_told_from_the_operation_to_the_last_waiter() {
    let mut stage = Stage::new();
    let worker = stage.task("wal-commit", "orders-3");
    stage.entry(&worker, WaitKind::DiskSync, "data/orders-3.wal", 10).operation = true;
    stage.entry(&worker, WaitKind::DiskSync, "data/orders-3.wal", 10);
    let file = held("file orders-3", &worker, 9);
    let owner = stage.task("partition", "orders-3");
    stage.waits_for(&owner, WaitKind::Lock, &file, 11);
    let mailbox = held("partition orders-3", &owner, 1);
    for connection in 0..20 {
        let produce = stage.task("produce", &connection.to_string());
        stage.waits_for(&produce, WaitKind::Reply, &mailbox, 12);
    }
    let idle = stage.task("acceptor", "");
    stage.entry(&idle, WaitKind::Accept, "node1:9092", 0);

    let told = stage.told();
    assert_eq!(told.standstill, Standstill::Freeze);
    assert_eq!(told.component.as_deref(), Some("node1, task wal-commit[orders-3]"));
    assert_eq!(told.operation.as_deref(), Some("fdatasync of data/orders-3.wal"));
    assert_eq!(told.seam.as_deref(), Some("lock file orders-3"));
    assert!(has_line(&told, &["fdatasync of data/orders-3.wal in flight for 1 min 30 s"]), "{told:#?}");
    let line = ["task wal-commit[orders-3] holds lock file orders-3 since 9.000 s", "waits_tests.rs:"];
    assert!(has_line(&told, &line), "{told:#?}");
    assert!(has_line(&told, &["1 task waits for lock file orders-3", "partition[orders-3]"]), "{told:#?}");
    assert!(has_line(&told, &["20 tasks wait for a reply", "produce x20"]), "{told:#?}");
    assert!(!has_line(&told, &["acceptor"]), "who idles is no victim: {told:#?}");
}

#[test]
fn a_dedicated_loop_waits_in_its_operation_itself() {
    let mut stage = Stage::new();
    let commit = stage.task("journal-commit", "");
    stage.entry(&commit, WaitKind::DiskSync, "data/journal/1", 40).operation = true;
    let append = stage.task("partition", "orders-0");
    stage.entry(&append, WaitKind::Change, "journal durable", 41);
    let told = stage.told();
    assert_eq!(told.standstill, Standstill::Freeze);
    assert!(
        has_line(&told, &["also waiting since then: 1 task for change", "partition[orders-0]"]),
        "{told:#?}"
    );
}

#[test]
fn an_operation_that_is_merely_in_flight_is_no_standstill() {
    let mut stage = Stage::new();
    let task = stage.task("commit", "");
    stage.entry(&task, WaitKind::DiskSync, "f", 99).operation = true;
    stage.snapshot.now = Moment(99 * SECOND + SECOND / 2);
    assert_eq!(stage.told().standstill, Standstill::None);
    assert!(stage.told().lines.is_empty());
}

#[test]
fn two_tasks_that_hold_each_others_lock_are_a_deadlock() {
    let mut stage = Stage::new();
    let (raft, wal) = (stage.task("raft", ""), stage.task("wal", ""));
    let (raft_lock, wal_lock) = (held("raft state", &raft, 1), held("wal state", &wal, 2));
    stage.waits_for(&raft, WaitKind::Lock, &wal_lock, 3);
    stage.waits_for(&wal, WaitKind::Lock, &raft_lock, 4);
    let victim = stage.task("produce", "");
    stage.waits_for(&victim, WaitKind::Lock, &raft_lock, 5);
    let told = stage.told();
    assert_eq!(told.standstill, Standstill::Deadlock);
    assert!(has_line(&told, &["deadlock: 2 tasks wait for one another, nothing ends it"]), "{told:#?}");
    assert!(
        has_line(&told, &["task raft waits for lock wal state held by task wal since 2.000 s"]),
        "{told:#?}"
    );
    assert!(has_line(&told, &["1 task waits for lock raft state", "produce"]), "{told:#?}");
}

#[test]
fn a_deadlock_that_a_deadline_breaks_is_latent() {
    let mut stage = Stage::new();
    let (sender, reader) = (stage.task("sender", ""), stage.task("reader", ""));
    let (lock, channel) = (held("state", &sender, 1), held("queue", &reader, 1));
    stage.waits_for(&sender, WaitKind::Send, &channel, 3).bounded = true;
    stage.waits_for(&reader, WaitKind::Lock, &lock, 4);
    let told = stage.told();
    assert_eq!(told.standstill, Standstill::LatentDeadlock);
    assert!(has_line(&told, &["room in channel queue, whose reader is task reader"]), "{told:#?}");
}

#[test]
fn a_circle_with_a_way_out_is_no_deadlock() {
    let mut stage = Stage::new();
    let (one, two) = (stage.task("one", ""), stage.task("two", ""));
    let (a, b) = (held("a", &one, 1), held("b", &two, 1));
    stage.waits_for(&one, WaitKind::Lock, &b, 3);
    stage.waits_for(&two, WaitKind::Lock, &a, 3);
    // It waits for either: the network may still speak.
    stage.entry(&two, WaitKind::NetworkRead, "request", 3);
    assert_eq!(stage.told().standstill, Standstill::None);
}

#[test]
fn waiting_for_a_lock_whose_holder_runs_is_no_standstill() {
    let mut stage = Stage::new();
    let (holder, waiter) = (stage.task("holder", ""), stage.task("waiter", ""));
    let lock = held("state", &holder, 1);
    stage.waits_for(&waiter, WaitKind::Lock, &lock, 2);
    assert_eq!(stage.told().standstill, Standstill::None);
}

#[test]
fn blocked_threads_are_named_with_their_blocker_and_their_victims() {
    let mut stage = Stage::new();
    let (ring, victim) = (stage.task("ring", ""), stage.task("submit", "3"));
    stage.entry(&ring, WaitKind::Receive, "ring requests", 50);
    stage.snapshot.threads.push(ThreadSnapshot {
        name: Arc::from("ring"),
        blockers: vec![ring],
        starved: vec![victim],
    });
    let told = stage.told();
    assert_eq!(told.standstill, Standstill::Freeze);
    assert_eq!(told.operation.as_deref(), Some("a blocking call of task ring"));
    assert!(
        has_line(&told, &["all threads of ring are blocked by task ring; 1 task", "submit[3]"]),
        "{told:#?}"
    );
}

#[test]
fn an_operation_whose_waiter_gave_up_still_freezes() {
    let mut stage = Stage::new();
    let task = stage.task("checkpoint", "");
    stage.entry(&task, WaitKind::DiskWrite, "segment", 20).operation = true;
    stage.entry(&task, WaitKind::Receive, "requests", 30);
    let told = stage.told();
    assert_eq!(told.standstill, Standstill::Freeze);
    assert_eq!(told.operation.as_deref(), Some("write of segment"));
}

#[test]
fn an_operation_names_the_planned_fault_that_holds_it() {
    let mut stage = Stage::new();
    let worker = stage.task("worker", "");
    let entry = stage.entry(&worker, WaitKind::DiskSync, "/data/journal/1.log", 60);
    entry.operation = true;
    let number = entry.number;
    stage.snapshot.held.insert(number, "1 (disk-stall node1 for 3h)".to_owned());
    let told = stage.told();
    assert_eq!(told.fault.as_deref(), Some("1 (disk-stall node1 for 3h)"));
    assert!(
        has_line(&told, &["in flight for 40.000 s", "held by fault 1 (disk-stall node1 for 3h)"]),
        "{told:?}"
    );
    assert_eq!(told.at, 100 * SECOND);
}

#[test]
fn a_task_that_the_plan_keeps_from_running_is_named_with_who_waits_for_it() {
    let mut stage = Stage::new();
    let (owner, asker) = (stage.task("partition", "orders-0"), stage.task("connection", ""));
    let mailbox = held("orders-0 mailbox", &owner, 10);
    stage.waits_for(&asker, WaitKind::Reply, &mailbox, 50);
    stage.snapshot.stopped.push((owner, "2 (task-stopped node1)".to_owned()));
    let told = stage.told();
    assert_eq!(told.standstill, Standstill::Freeze);
    assert_eq!(told.component.as_deref(), Some("node1, task partition[orders-0]"));
    assert!(has_line(&told, &["kept from running by fault 2 (task-stopped node1)"]), "{told:?}");
    assert!(has_line(&told, &["1 task waits for a reply from channel orders-0 mailbox"]), "{told:?}");
}

#[test]
fn where_nothing_stands_still_the_oldest_waits_are_told() {
    let mut stage = Stage::new();
    let (asker, idle) = (stage.task("asker", ""), stage.task("idle", ""));
    stage.entry(&asker, WaitKind::Send, "requests", 50);
    stage.entry(&idle, WaitKind::Timer, "tick", 1);
    let lines = oldest_waits(std::slice::from_ref(&stage.snapshot));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("task asker: send requests since 50.000 s"), "{lines:?}");
    assert_eq!(oldest_waits(&[]), ["no node runs"]);
}

#[test]
fn a_moment_of_a_machine_whose_clock_jumped_is_told_in_the_time_of_the_world() {
    let mut stage = Stage::new();
    let (holder, waiter) = (stage.task("holder", ""), stage.task("waiter", ""));
    stage.snapshot.clock.jump(20 * SECOND, crate::fault::Offset { nanos: 1_000 * SECOND as i64 });
    let lock = held("file", &holder, 1_030);
    stage.waits_for(&waiter, WaitKind::Lock, &lock, 40);
    stage.entry(&holder, WaitKind::DiskSync, "wal", 31).operation = true;
    let told = stage.told();
    assert!(has_line(&told, &["task holder holds lock file since 30.000 s"]), "{told:?}");
}
