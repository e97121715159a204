//! Process faults that are asked for rather than carried out: is this process beyond killing now?

use super::active::{ActiveFaults, FaultId};
use super::model::{Family, FaultKind};

/// The fault that keeps processes of this machine from ending.
pub fn unkillable(faults: &ActiveFaults, machine: &str, now: u64) -> Option<FaultId> {
    faults.force(Family::Process, now, |fault| {
        fault.kind == FaultKind::Unkillable && fault.node.as_ref().is_some_and(|node| node.is(machine))
    })
}
