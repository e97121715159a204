//! Disk faults: what becomes of one operation on one file.

use std::path::Path;

use super::active::{ActiveFaults, FaultId};
use super::model::{Family, Fault, FaultKind};
use super::select::{Operation, PathSelector};
use crate::streams::Stream;

/// One operation about to begin.
#[derive(Clone, Copy, Debug)]
pub struct DiskTarget<'a> {
    pub machine: &'a str,
    pub path: &'a Path,
    pub operation: Operation,
    /// Needs space that the file does not have yet.
    pub allocates: bool,
    /// Of a process that accepts no clients yet: it cannot do without its files.
    pub recovering: bool,
}

/// What faults do to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskEffect {
    /// Does not complete before this fault ends.
    pub stalled_by: Option<FaultId>,
    pub delay: u64,
    pub failure: Option<DiskFailure>,
    pub write: WriteFate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFailure {
    Io,
    /// Io, and what the sync should have covered is lost.
    PagesLost,
    Full,
}

/// What a write that reports success really does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteFate {
    #[default]
    Done,
    Torn,
    Lost,
    Misdirected,
}

/// Whether the fault is about such an operation.
pub fn aims_at(fault: &Fault, target: &DiskTarget<'_>) -> bool {
    let implied = match fault.kind {
        FaultKind::SyncFails => Operation::Sync,
        FaultKind::TornWrite | FaultKind::LostWrite | FaultKind::MisdirectedWrite => Operation::Write,
        _ => Operation::Any,
    };
    let possible = implied.covers(target.operation)
        && (fault.kind != FaultKind::DiskFull || target.allocates)
        && fault.kind != FaultKind::BitRot
        && !(fault.outlives_the_healing() && target.recovering);
    possible
        && fault.operation.unwrap_or(Operation::Any).covers(target.operation)
        && fault.node.as_ref().is_some_and(|node| node.is(target.machine))
        && fault.path.as_ref().unwrap_or(&PathSelector::Any).matches(target.path)
}

/// Decides, and counts the hits.
pub fn effect(
    faults: &mut ActiveFaults,
    target: &DiskTarget<'_>,
    now: u64,
    stream: &mut Stream,
) -> DiskEffect {
    let mut effect = DiskEffect::default();
    if !faults.any_of(Family::Disk) {
        return effect;
    }
    for (kind, id) in faults.strike(Family::Disk, now, stream, |fault| aims_at(fault, target)) {
        match kind {
            FaultKind::DiskStall => effect.stalled_by = Some(id),
            FaultKind::DiskSlow => effect.delay += faults.delay_of(id, 0),
            FaultKind::DiskError => effect.failure = Some(DiskFailure::Io),
            FaultKind::SyncFails => effect.failure = Some(DiskFailure::PagesLost),
            FaultKind::DiskFull => effect.failure = Some(DiskFailure::Full),
            FaultKind::TornWrite => effect.write = WriteFate::Torn,
            FaultKind::LostWrite => effect.write = WriteFate::Lost,
            FaultKind::MisdirectedWrite => effect.write = WriteFate::Misdirected,
            _ => {}
        }
    }
    effect
}

/// Whether a stall that begins now catches an operation in flight.
pub fn catches(
    faults: &mut ActiveFaults,
    id: FaultId,
    target: &DiskTarget<'_>,
    now: u64,
    stream: &mut Stream,
) -> bool {
    let fault = faults.get(id);
    let caught = fault.kind == FaultKind::DiskStall
        && aims_at(fault, target)
        && fault.count.is_none_or(|most| faults.hits_of(id) < most)
        && fault.per_mille.is_none_or(|share| stream.per_mille(share));
    if caught {
        faults.hit_at(id, now);
    }
    caught
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Extent;
    use std::time::Duration;

    fn target(operation: Operation) -> DiskTarget<'static> {
        let path = Path::new("data/journal/1.journal");
        DiskTarget { machine: "node1", path, operation, allocates: false, recovering: false }
    }

    fn stall(path: &str) -> Fault {
        let mut fault =
            Fault::new(FaultKind::DiskStall).on(1).window(Duration::from_nanos(10), Duration::from_nanos(10));
        fault.path = Some(path.parse().unwrap());
        fault.operation = Some(Operation::Sync);
        fault
    }

    #[test]
    fn a_fault_hits_its_node_path_operation_and_window_and_nothing_else() {
        let mut stream = Stream::new(1, "test");
        for (path, machine, operation, now, hit) in [
            ("journal", "node1", Operation::Sync, 10, true),
            ("journal", "node1", Operation::Sync, 19, true),
            ("journal", "node1", Operation::Sync, 9, false),
            ("journal", "node1", Operation::Sync, 20, false),
            ("journal", "node1", Operation::Write, 15, false),
            ("journal", "node2", Operation::Sync, 15, false),
            ("raft", "node1", Operation::Sync, 15, false),
        ] {
            let mut faults = ActiveFaults::default();
            let id = faults.add(&stall(path), 0);
            let target = DiskTarget { machine, ..target(operation) };
            let effect = effect(&mut faults, &target, now, &mut stream);
            assert_eq!(effect.stalled_by, hit.then_some(id), "{path} {machine} {operation:?} {now}");
            assert_eq!(faults.hits()[0].hits, u64::from(hit));
        }
    }

    #[test]
    fn a_count_limits_the_hits() {
        let mut stream = Stream::new(1, "test");
        let mut faults = ActiveFaults::default();
        faults.add(&Fault { count: Some(2), ..stall("any") }, 0);
        let hits = (0..5)
            .filter(|_| effect(&mut faults, &target(Operation::Sync), 15, &mut stream).stalled_by.is_some())
            .count();
        assert_eq!((hits, faults.hits()[0].hits), (2, 2));
    }

    #[test]
    fn a_count_limits_what_a_stall_catches_in_flight() {
        let mut stream = Stream::new(1, "test");
        let mut faults = ActiveFaults::default();
        let id = faults.add(&Fault { count: Some(2), ..stall("any") }, 0);
        let caught =
            (0..5).filter(|_| catches(&mut faults, id, &target(Operation::Sync), 12, &mut stream)).count();
        assert_eq!(caught, 2);
        assert_eq!(faults.hits()[0].struck, [12, 12]);
    }

    #[test]
    fn what_never_completes_spares_a_process_that_starts() {
        let mut stream = Stream::new(1, "test");
        for (count, extent, recovering, hit) in [
            (Some(1), Extent::Forever, true, false),
            (Some(1), Extent::Forever, false, true),
            (Some(1), Extent::For(Duration::from_secs(1)), true, true),
            (None, Extent::Forever, true, true),
        ] {
            let mut faults = ActiveFaults::default();
            faults.add(&Fault { count, for_: extent, ..stall("any") }, 0);
            let target = DiskTarget { recovering, ..target(Operation::Sync) };
            let stalled = effect(&mut faults, &target, 15, &mut stream).stalled_by;
            assert_eq!(stalled.is_some(), hit, "{count:?} {extent:?} {recovering}");
        }
    }

    #[test]
    fn a_full_disk_refuses_only_what_needs_space() {
        let mut stream = Stream::new(1, "test");
        let mut faults = ActiveFaults::default();
        faults.add(&Fault::new(FaultKind::DiskFull).on(1), 0);
        let rewrite = effect(&mut faults, &target(Operation::Write), 1, &mut stream);
        let extend = DiskTarget { allocates: true, ..target(Operation::Write) };
        let extend = effect(&mut faults, &extend, 1, &mut stream);
        assert_eq!((rewrite.failure, extend.failure), (None, Some(DiskFailure::Full)));
    }

    #[test]
    fn an_ended_fault_hits_no_more() {
        let mut stream = Stream::new(1, "test");
        let mut faults = ActiveFaults::default();
        let id = faults.add(&stall("any"), 0);
        faults.end(id, 12);
        assert!(effect(&mut faults, &target(Operation::Sync), 15, &mut stream).stalled_by.is_none());
        assert!(faults.unfinished(12).is_empty());
    }
}
