use super::*;
use crate::fault::{Fault, Span};

const S: At = 1_000_000_000;

fn hit(fault: Fault, from: At, until: At) -> FaultHits {
    FaultHits::once(fault, from * S, until * S)
}

fn link(kind: FaultKind, link: &str) -> Fault {
    Fault { link: Some(link.parse().unwrap()), ..Fault::new(kind) }
}

fn on_node(kind: FaultKind) -> Fault {
    Fault::new(kind).on(1)
}

fn task(kind: FaultKind, name: &str) -> Fault {
    Fault { task: Some(name.into()), ..on_node(kind) }
}

/// Asked at 100 s to be answered by 103 s, and given up at 108 s.
fn unanswered(client: &str, trade: Trade) -> Request {
    Request {
        node: 1,
        client: client.into(),
        trade,
        sent: 100 * S,
        deadline: 103 * S,
        ended: 108 * S,
        connecting: 98 * S,
        end: RequestEnd::Unanswered,
    }
}

fn excused(hits: Vec<FaultHits>, request: &Request) -> bool {
    Circumstances::new(hits, Vec::new(), 200 * S).excuse(request, "node1", 2 * S)
}

#[test]
fn a_fault_excuses_those_whose_way_or_whose_work_it_broke_and_nobody_else() {
    use FaultKind::*;
    let delay = |millis| Fault { delay: Some(Span::millis(millis)), ..link(Delay, "client-1 <-> node1") };
    let slow = Fault { bytes_per_s: Some(2_000), ..link(SlowLink, "client-1 <-> node1") };
    let table = [
        (link(Partition, "client-1 <-> node1"), 99, 104, true),
        (link(Partition, "client-2 <-> node1"), 99, 104, false),
        (link(Partition, "* <-> node1"), 99, 104, true),
        (link(Partition, "* <-> node2"), 99, 104, false),
        (link(OneWay, "node1 -> *"), 99, 104, true),
        // Half a second does not make an answer five seconds late.
        (link(Partition, "* <-> node1"), 99, 100, false),
        (link(Partition, "* <-> node1"), 90, 98, false),
        (link(Reset, "* <-> node1"), 101, 101, false),
        (link(Silence, "* <-> node1"), 99, 99, true),
        (link(Silence, "client-2 <-> node1"), 99, 99, false),
        (link(Silence, "* <-> node1"), 60, 60, false),
        (link(ConnectHangs, "* <-> node1"), 100, 101, true),
        (delay(800), 95, 110, true),
        (delay(20), 95, 110, false),
        (slow, 80, 81, true),
        (on_node(Pause), 100, 104, true),
        (Fault::new(Pause).on(2), 100, 104, false),
        (on_node(DiskStall), 90, 110, false),
        (on_node(DiskFull), 90, 110, false),
        (on_node(ClockJump), 100, 100, false),
        (task(TaskStopped, "partition*"), 100, 105, true),
        (task(TaskStopped, "checkpoint*"), 100, 105, false),
        (task(TaskStopped, "commit*"), 100, 105, true),
        (task(ThreadBlocked, "checkpoint*"), 100, 105, true),
    ];
    for (fault, from, until, expected) in table {
        let text = fault.to_string();
        let seen = excused(vec![hit(fault, from, until)], &unanswered("client-1", Trade::Produce));
        assert_eq!(seen, expected, "{text} from {from} s to {until} s");
    }
}

/// However long ago that was: the client has not used it since. Who connected later has another one.
#[test]
fn a_connection_that_has_silently_ended_excuses_those_who_ask_on_it() {
    let silence = || vec![hit(link(FaultKind::Silence, "* <-> node1"), 20, 20)];
    let request =
        |connecting| Request { connecting: connecting * S, ..unanswered("client-1", Trade::Produce) };
    assert!(excused(silence(), &request(19)));
    assert!(!excused(silence(), &request(21)));
    assert!(!excused(silence(), &Request { end: RequestEnd::Answered, ..request(19) }));
}

#[test]
fn a_task_excuses_only_requests_that_need_it() {
    let stopped = || vec![hit(task(FaultKind::TaskStopped, "commit*"), 100, 105)];
    assert!(excused(stopped(), &unanswered("client-1", Trade::Change)));
    assert!(!excused(stopped(), &unanswered("client-1", Trade::Consume)));
}

#[test]
fn a_fault_that_hit_nothing_or_never_began_excuses_nobody() {
    let request = unanswered("client-1", Trade::Produce);
    let partition = hit(link(FaultKind::Partition, "* <-> node1"), 99, 109);
    assert!(excused(vec![partition.clone()], &request));
    assert!(!excused(vec![FaultHits { hits: 0, ..partition.clone() }], &request));
    assert!(!excused(vec![FaultHits { from: At::MAX, until: At::MAX, ..partition }], &request));
}

fn life(incarnation: u64, began: At, serving: At, end: Option<(At, End)>) -> Life {
    Life {
        node: "node1".into(),
        incarnation,
        began: began * S,
        serving: Some(serving * S),
        end: end.map(|(at, end)| (at * S, end)),
        ..Life::default()
    }
}

#[test]
fn a_node_is_excused_while_it_is_down_and_for_a_start_that_comes_to_an_end() {
    let lives = vec![
        life(1, 0, 1, Some((50, End::Killed))),
        life(2, 52, 53, Some((60, End::PowerLost))),
        life(3, 61, 90, None),
    ];
    let circumstances = Circumstances::new(Vec::new(), lives, 200 * S);
    let spans: Vec<(At, At)> =
        circumstances.down("node1").spans().iter().map(|(from, to)| (from / S, to / S)).collect();
    assert_eq!(spans, [(0, 1), (50, 53), (60, 71)]);
}

#[test]
fn who_waits_for_a_machine_that_lost_its_power_is_not_told() {
    let lost = vec![life(1, 0, 1, Some((101, End::PowerLost))), life(2, 102, 103, None)];
    let killed = vec![life(1, 0, 1, Some((101, End::Killed))), life(2, 102, 103, None)];
    let request = unanswered("client-1", Trade::Produce);
    let excused = |lives| Circumstances::new(Vec::new(), lives, 200 * S).excuse(&request, "node1", 2 * S);
    assert!(excused(lost));
    // Two seconds down, one to settle: that is as late as it was. Not so for who waits for longer.
    let mut later = request.clone();
    later.ended += 2 * S;
    assert!(!Circumstances::new(Vec::new(), killed, 200 * S).excuse(&later, "node1", 2 * S));
}

#[test]
fn files_of_one_partition_that_fail_are_no_trouble_of_another() {
    let of_one = |kind| {
        let path = Some("/data/partitions/*-1.*.log".parse().unwrap());
        hit(Fault { path, ..on_node(kind) }, 10, 20)
    };
    let trouble = |kind, partition| {
        let circumstances = Circumstances::new(vec![of_one(kind)], vec![life(1, 0, 1, None)], 200 * S);
        circumstances.trouble_of("node1", &[], partition).meet(15 * S, 16 * S)
    };
    assert!(trouble(FaultKind::DiskError, 1) && !trouble(FaultKind::DiskError, 0));
    // What stands still may hold a place that others want.
    assert!(trouble(FaultKind::DiskStall, 0));
}

#[test]
fn trouble_is_of_the_node_that_has_it() {
    let hits = vec![
        hit(Fault::new(FaultKind::DiskStall).on(2), 10, 20),
        hit(on_node(FaultKind::DiskStall), 30, 40),
        hit(link(FaultKind::Silence, "* <-> node1"), 100, 100),
        // What it took last arrives half a minute later.
        hit(Fault { bytes_per_s: Some(8_192), ..link(FaultKind::SlowLink, "* <-> node1") }, 120, 121),
    ];
    let circumstances = Circumstances::new(hits, vec![life(1, 0, 1, None)], 200 * S);
    let trouble = circumstances.trouble("node1", &[unanswered("client-1", Trade::Look)]);
    let spans: Vec<(At, At)> = trouble.spans().iter().map(|(from, to)| (from / S, to / S)).collect();
    assert_eq!(spans, [(0, 1), (30, 40), (100, 108), (120, 153)]);
}
