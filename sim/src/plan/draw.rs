//! The parameters of one drawn fault: where, when, for how long, how bad.

use std::time::Duration;

use crate::fault::{
    Extent, Family, Fault, FaultKind, Link, NodeRef, Offset, Operation, PathClass, PathSelector, Span, When,
};
use crate::streams::Stream;

pub(super) struct Place {
    pub(super) nodes: u32,
    /// Of each topic.
    pub(super) partitions: u64,
    pub(super) duration: Duration,
    pub(super) longest: Duration,
}

/// Appends a fault of this kind, and what belongs to it.
pub(super) fn fault(kind: FaultKind, place: &Place, stream: &mut Stream, faults: &mut Vec<Fault>) {
    use FaultKind::*;
    let node = u32::try_from(stream.between(1, u64::from(place.nodes))).unwrap_or(1);
    let mut fault = Fault::new(kind).on(node);
    // Not in the first moments, when there is nothing to break, and not at the very end.
    let from = ms(place.duration) / 12;
    fault.at = Span::millis(stream.between(from, (ms(place.duration) * 11 / 12).max(from)));
    fault.for_ = Extent::For(length(place.longest, stream));
    match kind {
        DiskStall => {
            at_files(&mut fault, stream, &[Operation::Sync, Operation::Write, Operation::Any]);
            fault.count = stream.coin().then(|| stream.between(1, 3));
            match stream.below(8) {
                // Some stalls outlast every patience.
                0 | 1 => fault.for_ = Extent::For(length(place.longest * 4, stream).max(place.longest * 2)),
                2 => fault.path = Some(single_file(place, stream)),
                3 => {
                    hang_for_good(&mut fault, stream);
                    return faults.push(fault);
                }
                _ => {}
            }
            slow_before(&fault, node, stream, faults);
        }
        DiskSlow => {
            at_files(&mut fault, stream, &[Operation::Sync, Operation::Write, Operation::Any]);
            fault.delay = Some(log_uniform(stream, 1, 500));
        }
        DiskError => {
            use Operation::{Name, Open, Read, Sync, Write};
            at_files(&mut fault, stream, &[Write, Read, Sync, Open, Name]);
            fault.per_mille = Some(share(stream));
            fault.for_ = Extent::For(length(place.longest / 4, stream));
        }
        SyncFails => {
            use PathClass::{Index, Journal, Raft, Segment, Snapshot};
            let classes = [Journal, Journal, Segment, Segment, Raft, Snapshot, Index];
            fault.path = Some(PathSelector::Class(*pick(stream, &classes)));
            fault.count = Some(stream.between(1, 2));
        }
        TornWrite | LostWrite | MisdirectedWrite => {
            at_files(&mut fault, stream, &[Operation::Write]);
            fault.count = Some(1);
        }
        DiskFull => {
            if stream.below(3) == 0 {
                end_inside(&fault, node, stream, faults);
            }
        }
        BitRot => {
            use PathClass::{Index, Journal, Segment, Snapshot};
            let classes = [Segment, Segment, Journal, Journal, Index, Snapshot];
            fault.path = Some(PathSelector::Class(*pick(stream, &classes)));
        }
        Partition | Reset | Silence | ConnectHangs => aim_at_a_way(&mut fault, node, place, stream),
        Flapping => {
            aim_at_a_way(&mut fault, node, place, stream);
            fault.delay = Some(log_uniform(stream, 5, 2_000));
        }
        OneWay => {
            aim_at_a_way(&mut fault, node, place, stream);
            if let Some(Link { from, to, both_ways }) = &mut fault.link {
                *both_ways = false;
                if !stream.coin() {
                    std::mem::swap(from, to);
                }
            }
        }
        Loss => {
            aim_at_a_way(&mut fault, node, place, stream);
            fault.per_mille = Some(share(stream));
        }
        Delay => {
            aim_at_a_way(&mut fault, node, place, stream);
            fault.delay = Some(log_uniform(stream, 1, 800));
        }
        SlowLink => {
            aim_at_a_way(&mut fault, node, place, stream);
            fault.bytes_per_s = Some(stream.between(2_000, 200_000));
        }
        Kill | PowerLoss | Restart | Wipe => {
            fault.for_ = Extent::For(log_uniform(stream, 50, 3_000).0);
            if kind == PowerLoss {
                slow_before(&fault, node, stream, faults);
            }
        }
        Pause | Unkillable => {}
        ClockSkew | ClockJump => {
            let hour = 3_600_000_000_000_i64;
            let far = i64::try_from(stream.below(2 * hour as u64)).unwrap_or(0) - hour;
            let near = i64::try_from(stream.below(4_000_000_000)).unwrap_or(0) - 2_000_000_000;
            let mut by = if stream.coin() { far } else { near };
            if kind == ClockJump {
                // A jump forward takes the monotonic clock along, as a suspend does: not for hours.
                by = by.min(20_000_000_000);
            }
            by = by.max(-may_fall_back(node, faults));
            fault.by = Some(Offset { nanos: by });
        }
        ClockDrift => {
            fault.drift_ppm = Some(i64::try_from(stream.below(400_000)).unwrap_or(0) - 200_000);
        }
        TaskStopped | ThreadBlocked => {
            let tasks = [
                "partition*",
                "commit*",
                "commit[journal]",
                "journal-files*",
                "checkpoint*",
                "replicas",
                "raft",
                "connection*",
                "kafka",
                "*",
            ];
            fault.task = Some((*pick(stream, &tasks)).to_owned());
            fault.for_ = Extent::For(length(place.longest / 2, stream));
        }
        LockDelay => {
            fault.lock = Some("producer ids".into());
            fault.delay = Some(log_uniform(stream, 1, 200));
        }
        ChannelDelay => {
            fault.channel = Some(channel(stream));
            fault.delay = Some(log_uniform(stream, 1, 200));
        }
        ChannelFull => {
            fault.channel = Some(channel(stream));
            fault.per_mille = Some(share(stream));
            fault.for_ = Extent::For(length(place.longest / 4, stream));
        }
    }
    if matches!(kind.family(), Family::Disk | Family::Process) && stream.below(3) == 0 {
        aim_at_a_state(&mut fault, node, stream, faults);
    }
    faults.push(fault);
}

/// Faults at drawn times seldom meet a recovery, a checkpoint or a commit; these wait for one.
fn aim_at_a_state(fault: &mut Fault, node: u32, stream: &mut Stream, faults: &mut Vec<Fault>) {
    if stream.below(4) == 0 {
        // There has to be something to recover from.
        let ending = *pick(stream, &[FaultKind::Kill, FaultKind::PowerLoss]);
        let mut end = Fault::new(ending).on(node);
        end.at = fault.at;
        end.for_ = Extent::For(log_uniform(stream, 50, 1_000).0);
        faults.push(end);
        fault.when = Some(When::Recovery);
        fault.nth = Some(stream.between(1, 60));
        if fault.path.is_some() && stream.coin() {
            fault.path = Some(PathSelector::Any);
        }
        return;
    }
    let when = match stream.below(5) {
        0 => When::Checkpoint,
        1 => When::GroupInFlight,
        2 => When::RaftGroupInFlight,
        3 => When::OpenSegment,
        _ => When::Write(stream.between(1, 200)),
    };
    fault.when = Some(when);
    fault.nth = (!matches!(when, When::Write(_))).then(|| stream.between(1, 8));
    if fault.path.is_some() {
        // What happens in that state is what it is to hit.
        fault.path = Some(match when {
            When::Checkpoint | When::OpenSegment => PathSelector::Class(*pick(
                stream,
                &[PathClass::Segment, PathClass::Segment, PathClass::Index, PathClass::Snapshot],
            )),
            When::GroupInFlight => PathSelector::Class(PathClass::Journal),
            When::RaftGroupInFlight => PathSelector::Class(PathClass::Raft),
            _ => PathSelector::Any,
        });
    }
}

/// A fault that waits for a step of a deletion of records: its entry in the journal, the record that vouches for it, the
/// removal of a file, and what the next start makes of the directory.
pub(super) fn at_a_deletion(place: &Place, stream: &mut Stream, faults: &mut Vec<Fault>) {
    let kinds = [
        FaultKind::PowerLoss,
        FaultKind::PowerLoss,
        FaultKind::Kill,
        FaultKind::DiskError,
        FaultKind::DiskStall,
    ];
    let when = [When::Deletion, When::Deletion, When::Deletion, When::GroupInFlight, When::Checkpoint];
    at_a_step(&kinds, &when, 6, place, stream, faults);
}

/// A fault that waits for a step of a cleaning of a compacted log: what it reads, writes, syncs and puts in place, and the checkpoint that
/// vouches for it.
pub(super) fn at_a_cleaning(place: &Place, stream: &mut Stream, faults: &mut Vec<Fault>) {
    let kinds = [
        FaultKind::PowerLoss,
        FaultKind::PowerLoss,
        FaultKind::PowerLoss,
        FaultKind::Kill,
        FaultKind::DiskError,
        FaultKind::DiskStall,
    ];
    let when = [When::Cleaning, When::Cleaning, When::Cleaning, When::Checkpoint];
    at_a_step(&kinds, &when, 40, place, stream, faults);
}

fn at_a_step(
    kinds: &[FaultKind],
    when: &[When],
    nth_max: u64,
    place: &Place,
    stream: &mut Stream,
    faults: &mut Vec<Fault>,
) {
    let kind = *pick(stream, kinds);
    let mut fault = Fault::new(kind).on(1);
    fault.at = Span::millis(stream.between(ms(place.duration) / 12, ms(place.duration) * 10 / 12));
    let when = *pick(stream, when);
    fault.when = Some(when);
    fault.nth = Some(stream.between(1, nth_max));
    if place.nodes > 1 {
        fault = fault.on(u32::try_from(stream.between(1, u64::from(place.nodes))).unwrap_or(1));
    }
    match kind {
        FaultKind::DiskError | FaultKind::DiskStall => {
            fault.for_ = Extent::For(length(place.longest / 4, stream));
            fault.path = Some(match when {
                When::GroupInFlight => PathSelector::Class(PathClass::Journal),
                _ => PathSelector::Class(*pick(stream, &[PathClass::Segment, PathClass::Index])),
            });
            fault.operation = Some(if when == When::Deletion { Operation::Name } else { Operation::Any });
        }
        _ => fault.for_ = Extent::For(log_uniform(stream, 50, 3_000).0),
    }
    faults.push(fault);
}

/// A few operations that never complete, of files that can be done without: nothing may depend on them.
fn hang_for_good(fault: &mut Fault, stream: &mut Stream) {
    use Operation::{Any, Name, Open, Sync, Write};
    let classes = [PathClass::Segment, PathClass::Segment, PathClass::Index, PathClass::Snapshot];
    fault.path = Some(PathSelector::Class(*pick(stream, &classes)));
    fault.operation = Some(*pick(stream, &[Any, Name, Open, Sync, Write]));
    fault.count = Some(stream.between(1, 3));
    fault.for_ = Extent::Forever;
}

/// All files of one partition, or one file of the journal.
fn single_file(place: &Place, stream: &mut Stream) -> PathSelector {
    PathSelector::Pattern(if stream.coin() {
        format!("*-{}.*/*", stream.below(place.partitions))
    } else {
        format!("*/journal/*{}.*", stream.below(6))
    })
}

/// The process ends while the fault lasts, and has to start in it.
fn end_inside(fault: &Fault, node: u32, stream: &mut Stream, faults: &mut Vec<Fault>) {
    let kinds = [FaultKind::Restart, FaultKind::Kill, FaultKind::PowerLoss];
    let mut end = Fault::new(*pick(stream, &kinds)).on(node);
    let length = match fault.for_ {
        Extent::For(length) => length,
        Extent::Forever => Duration::ZERO,
    };
    end.at = Span(fault.at.0 + length / 4);
    end.for_ = Extent::For(length / 4);
    faults.push(end);
}

fn channel(stream: &mut Stream) -> String {
    let channels = ["*", "appends of *", "partition *", "checkpoint", "replicas", "raft proposals"];
    (*pick(stream, &channels)).to_owned()
}

/// Power is seldom lost between a write and its sync by chance, and a disk seldom stops in the middle of an
/// operation: most of the time operations are slow just before, so that something is in flight.
fn slow_before(fault: &Fault, node: u32, stream: &mut Stream, faults: &mut Vec<Fault>) {
    if stream.below(4) == 0 {
        return;
    }
    let mut slow = Fault::new(FaultKind::DiskSlow).on(node);
    slow.path = match &fault.path {
        Some(path) => Some(path.clone()),
        None => Some(PathSelector::Class(PathClass::Journal)),
    };
    slow.operation = Some(*pick(stream, &[Operation::Sync, Operation::Any]));
    slow.delay = Some(log_uniform(stream, 5, 400));
    let lead = Duration::from_millis(stream.between(200, 1_500));
    slow.at = Span(fault.at.0.saturating_sub(lead));
    slow.for_ = Extent::For(lead + Duration::from_millis(100));
    faults.push(slow);
}

/// How far a node's wall clock may still fall back, in ns. Clients' clocks are right, and a broker refuses records that are
/// more than an hour ahead of its own: nobody would be served by it any more.
fn may_fall_back(node: u32, faults: &[Fault]) -> i64 {
    const ALL_TOGETHER: i64 = 55 * 60 * 1_000_000_000;
    let of_node = faults.iter().filter(|fault| fault.node == Some(NodeRef::Number(node)));
    let fallen: i64 = of_node.filter_map(|fault| fault.by).map(|by| by.nanos.min(0)).sum();
    (ALL_TOGETHER + fallen).max(0)
}

fn at_files(fault: &mut Fault, stream: &mut Stream, operations: &[Operation]) {
    let classes = [PathClass::Journal, PathClass::Journal, PathClass::Raft, PathClass::Segment];
    fault.path = Some(match stream.below(5) {
        0 => PathSelector::Any,
        n => PathSelector::Class(classes[n as usize - 1]),
    });
    fault.operation = Some(*pick(stream, operations));
}

/// Everything to and from the node; among several every other time what is between it and one of the others.
fn aim_at_a_way(fault: &mut Fault, node: u32, place: &Place, stream: &mut Stream) {
    fault.node = None;
    let mut from = "*".to_owned();
    if place.nodes > 1 && stream.coin() {
        let other = u64::from(node) + stream.below(u64::from(place.nodes) - 1);
        from = format!("node{}", other % u64::from(place.nodes) + 1);
    }
    fault.link = Some(Link { from, to: format!("node{node}"), both_ways: true });
}

fn pick<'a, T>(stream: &mut Stream, from: &'a [T]) -> &'a T {
    &from[stream.below(from.len() as u64) as usize]
}

/// Most faults are short, some as long as allowed.
fn length(longest: Duration, stream: &mut Stream) -> Duration {
    log_uniform(stream, 20, ms(longest).max(21)).0
}

/// Every order of magnitude is equally likely.
fn log_uniform(stream: &mut Stream, low_ms: u64, high_ms: u64) -> Span {
    let doublings = (high_ms / low_ms.max(1)).max(1).ilog2();
    let base = low_ms << stream.below(u64::from(doublings) + 1);
    Span::millis((base + stream.below(base)).min(high_ms))
}

fn share(stream: &mut Stream) -> u32 {
    *pick(stream, &[10, 50, 200, 500, 1000])
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
