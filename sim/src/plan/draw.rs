//! The parameters of one drawn fault: where, when, for how long, how bad.

use std::time::Duration;

use crate::fault::{Extent, Fault, FaultKind, Link, Offset, Operation, PathClass, PathSelector, Span};
use crate::world::streams::Stream;

pub(super) struct Place {
    pub(super) nodes: u32,
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
            if stream.below(4) == 0 {
                // Some stalls outlast every patience.
                fault.for_ = Extent::For(length(place.longest * 4, stream).max(place.longest * 2));
            }
            slow_before(&fault, node, stream, faults);
        }
        DiskSlow => {
            at_files(&mut fault, stream, &[Operation::Sync, Operation::Write, Operation::Any]);
            fault.delay = Some(log_uniform(stream, 1, 500));
        }
        DiskError => {
            at_files(&mut fault, stream, &[Operation::Write, Operation::Read, Operation::Sync]);
            fault.per_mille = Some(share(stream));
            fault.for_ = Extent::For(length(place.longest / 4, stream));
        }
        SyncFails => {
            fault.path = Some(PathSelector::Class(*pick(stream, &[PathClass::Journal, PathClass::Segment])));
            fault.count = Some(stream.between(1, 2));
        }
        TornWrite | LostWrite | MisdirectedWrite => {
            at_files(&mut fault, stream, &[Operation::Write]);
            fault.count = Some(1);
        }
        DiskFull => {}
        BitRot => {
            fault.path = Some(PathSelector::Class(*pick(stream, &[PathClass::Segment, PathClass::Journal])));
        }
        Partition | Reset | Silence | ConnectHangs => aim_at_clients(&mut fault, node),
        OneWay => {
            aim_at_clients(&mut fault, node);
            if stream.coin() {
                fault.link = Some(Link { from: "*".into(), to: format!("node{node}"), both_ways: false });
            } else {
                fault.link = Some(Link { from: format!("node{node}"), to: "*".into(), both_ways: false });
            }
        }
        Loss => {
            aim_at_clients(&mut fault, node);
            fault.per_mille = Some(share(stream));
        }
        Delay => {
            aim_at_clients(&mut fault, node);
            fault.delay = Some(log_uniform(stream, 1, 800));
        }
        SlowLink => {
            aim_at_clients(&mut fault, node);
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
            fault.by = Some(Offset { nanos: by });
        }
        ClockDrift => {
            fault.drift_ppm = Some(i64::try_from(stream.below(400_000)).unwrap_or(0) - 200_000);
        }
        TaskStopped | ThreadBlocked => {
            let tasks = ["partition*", "journal*", "raft*", "connection*", "*"];
            fault.task = Some((*pick(stream, &tasks)).to_owned());
            fault.for_ = Extent::For(length(place.longest / 2, stream));
        }
        LockDelay => {
            fault.lock = Some("*".into());
            fault.delay = Some(log_uniform(stream, 1, 200));
        }
        ChannelDelay => {
            fault.channel = Some("*".into());
            fault.delay = Some(log_uniform(stream, 1, 200));
        }
        ChannelFull => {
            fault.channel = Some("*".into());
            fault.per_mille = Some(share(stream));
            fault.for_ = Extent::For(length(place.longest / 4, stream));
        }
    }
    faults.push(fault);
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

fn at_files(fault: &mut Fault, stream: &mut Stream, operations: &[Operation]) {
    let classes = [PathClass::Journal, PathClass::Journal, PathClass::Raft, PathClass::Segment];
    fault.path = Some(match stream.below(5) {
        0 => PathSelector::Any,
        n => PathSelector::Class(classes[n as usize - 1]),
    });
    fault.operation = Some(*pick(stream, operations));
}

fn aim_at_clients(fault: &mut Fault, node: u32) {
    fault.node = None;
    fault.link = Some(Link { from: "*".into(), to: format!("node{node}"), both_ways: true });
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
