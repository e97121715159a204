//! The faults of a running world: which of them are in force, and how often each one hit.
//!
//! The family files ask here; they are pure but for the counting of hits and draws from the stream that
//! the caller hands in (of the disk or link that is hit).

use super::duration::nanos;
use super::model::{Family, Fault, FaultKind};
use super::trigger::{Occasion, When};
use crate::streams::Stream;

/// Number of a fault in its world, in order of injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultId(pub usize);

/// A fault and how often it touched something.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultHits {
    pub fault: Fault,
    pub hits: u64,
    /// From when until when (exclusive) it was in force, in nanoseconds of the world; `u64::MAX` for never.
    pub from: u64,
    pub until: u64,
    /// When it hit, where it does so a few times only.
    pub struck: Vec<u64>,
}

#[cfg(test)]
impl FaultHits {
    /// One that hit once.
    pub fn once(fault: Fault, from: u64, until: u64) -> FaultHits {
        FaultHits { fault, hits: 1, from, until, struck: Vec::new() }
    }
}

pub(super) struct Slot {
    pub(super) fault: Fault,
    from: u64,
    pub(super) until: u64,
    hits: u64,
    struck: Vec<u64>,
    /// Occasions that it still waits for before it begins; none once it has begun or never will.
    awaits: Option<u64>,
}

/// All faults ever injected into a world; a slot is never removed, so that ids stay.
#[derive(Default)]
pub struct ActiveFaults {
    slots: Vec<Slot>,
    families: [Vec<usize>; 6],
    fresh_hits: Vec<FaultId>,
    /// Those that wait for an occasion.
    armed: Vec<FaultId>,
}

impl ActiveFaults {
    /// Takes a fault in. What lies in the past of `now` begins at once, what is aimed at a state with its occasion.
    pub fn add(&mut self, fault: &Fault, now: u64) -> FaultId {
        let awaits = fault.when.map(|when| match when {
            When::Write(number) => number,
            _ => fault.nth.unwrap_or(1),
        });
        let from = if awaits.is_some() { u64::MAX } else { nanos(fault.at.0).max(now) };
        let until = if fault.kind.is_moment() { from } else { fault.for_.end(from) };
        let id = FaultId(self.slots.len());
        if awaits.is_some() {
            self.armed.push(id);
        }
        self.slots.push(Slot { fault: fault.clone(), from, until, hits: 0, struck: Vec::new(), awaits });
        self.families[fault.kind.family() as usize].push(id.0);
        id
    }

    pub fn get(&self, id: FaultId) -> &Fault {
        &self.slots[id.0].fault
    }

    /// From when until when (exclusive) it is in force.
    pub fn window(&self, id: FaultId) -> (u64, u64) {
        (self.slots[id.0].from, self.slots[id.0].until)
    }

    pub fn in_force(&self, id: FaultId, now: u64) -> bool {
        let slot = &self.slots[id.0];
        slot.from <= now && now < slot.until
    }

    /// Ends it now, or keeps it from beginning.
    pub fn end(&mut self, id: FaultId, now: u64) {
        let slot = &mut self.slots[id.0];
        if slot.awaits.take().is_some() {
            self.armed.retain(|armed| *armed != id);
        } else {
            slot.until = slot.until.min(now);
        }
    }

    /// Whether any fault waits for an occasion: if not, nobody needs to tell of one.
    pub fn awaits_any(&self) -> bool {
        !self.armed.is_empty()
    }

    /// Faults whose occasion this is. They are in force from now on; those that happen at a moment do so at `moment`.
    pub fn trigger(&mut self, occasion: &Occasion<'_>, now: u64, moment: u64) -> Vec<FaultId> {
        let mut begun = Vec::new();
        for id in self.armed.clone() {
            let slot = &mut self.slots[id.0];
            let fault = &slot.fault;
            let here = fault.node.as_ref().is_some_and(|node| node.is(occasion.machine));
            let (Some(when), Some(left)) = (fault.when, slot.awaits) else { continue };
            if !here || now < nanos(fault.at.0) || !when.is_met_by(occasion) {
                continue;
            }
            // Operations of a recovery have numbers of their own: the fifth is the fifth of one process.
            let met = if when == When::Recovery { occasion.recovering == Some(left) } else { left <= 1 };
            if met {
                slot.awaits = None;
                slot.from = if fault.kind.is_moment() { moment } else { now };
                slot.until = if fault.kind.is_moment() { moment } else { fault.for_.end(now) };
                begun.push(id);
            } else if when != When::Recovery {
                slot.awaits = Some(left - 1);
            }
        }
        self.armed.retain(|id| !begun.contains(id));
        begun
    }

    /// Ids of all faults that are in force or still to come.
    pub fn unfinished(&self, now: u64) -> Vec<FaultId> {
        let unfinished = |slot: &Slot| slot.awaits.is_some() || (slot.from < u64::MAX && slot.until > now);
        (0..self.slots.len()).map(FaultId).filter(|id| unfinished(&self.slots[id.0])).collect()
    }

    pub fn hit(&mut self, id: FaultId) {
        self.slots[id.0].hits += 1;
        self.fresh_hits.push(id);
    }

    /// Of an operation, whose moment is kept where few are hit.
    pub(super) fn hit_at(&mut self, id: FaultId, now: u64) {
        let slot = &mut self.slots[id.0];
        if slot.fault.count.is_some() {
            slot.struck.push(now);
        }
        self.hit(id);
    }

    pub(super) fn hits_of(&self, id: FaultId) -> u64 {
        self.slots[id.0].hits
    }

    pub fn hits(&self) -> Vec<FaultHits> {
        let told = |slot: &Slot| FaultHits {
            fault: slot.fault.clone(),
            hits: slot.hits,
            from: slot.from,
            until: slot.until,
            struck: slot.struck.clone(),
        };
        self.slots.iter().map(told).collect()
    }

    /// Hits since the last call, for the trace.
    pub fn take_fresh_hits(&mut self) -> Vec<FaultId> {
        std::mem::take(&mut self.fresh_hits)
    }

    pub fn any_of(&self, family: Family) -> bool {
        !self.families[family as usize].is_empty()
    }

    /// Faults of a family in force now that `aims` picks, whose count is not used up and whose share the
    /// draw falls into. Each is counted as a hit.
    pub(super) fn strike(
        &mut self,
        family: Family,
        now: u64,
        stream: &mut Stream,
        aims: impl Fn(&Fault) -> bool,
    ) -> Vec<(FaultKind, FaultId)> {
        let mut struck = Vec::new();
        for at in 0..self.families[family as usize].len() {
            let number = self.families[family as usize][at];
            let slot = &self.slots[number];
            let fault = &slot.fault;
            if now < slot.from || slot.until <= now || !aims(fault) {
                continue;
            }
            if fault.count.is_some_and(|most| slot.hits >= most) {
                continue;
            }
            if fault.per_mille.is_some_and(|share| !stream.per_mille(share)) {
                continue;
            }
            let kind = fault.kind;
            self.hit_at(FaultId(number), now);
            struck.push((kind, FaultId(number)));
        }
        struck
    }

    /// The same without drawing or counting: is any such fault in force?
    pub(super) fn force(&self, family: Family, now: u64, aims: impl Fn(&Fault) -> bool) -> Option<FaultId> {
        self.force_since(family, now, |fault, _| aims(fault))
    }

    /// The same for those that ask since when the fault has been in force.
    pub(super) fn force_since(
        &self,
        family: Family,
        now: u64,
        aims: impl Fn(&Fault, u64) -> bool,
    ) -> Option<FaultId> {
        self.families[family as usize]
            .iter()
            .find(|number| {
                let slot = &self.slots[**number];
                slot.from <= now && now < slot.until && aims(&slot.fault, slot.from)
            })
            .map(|number| FaultId(*number))
    }

    pub(super) fn delay_of(&self, id: FaultId, default_ns: u64) -> u64 {
        self.slots[id.0].fault.delay.map_or(default_ns, |delay| nanos(delay.0))
    }
}

#[cfg(test)]
#[path = "active_tests.rs"]
mod tests;
