//! Carrying out faults: what happens when one begins and when it ends.
//!
//! Faults on operations, segments and seams are asked for when those happen (see [`crate::fault`]); here is
//! what has to be *done*: stalls catch what is in flight, processes die and come back, clocks jump,
//! connections break, and whatever a fault held is set going again when it ends.

use std::sync::Arc;

use super::lock;
use super::machine::Machine;
use super::process::Cause;
use super::trace::{Event, What};
use super::universe::Universe;
use crate::fault::{self, Extent, Fault, FaultId, FaultKind, Occasion};
use crate::probe::Probe;

impl Universe {
    /// Puts a fault into force at its time, or now if that has passed.
    pub fn inject(self: &Arc<Universe>, fault: &Fault) -> FaultId {
        let now = self.now();
        let id = self.with_faults(|faults| faults.add(fault, now));
        if fault.when.is_none() {
            self.follow(id);
        }
        id
    }

    /// Carries out beginning and end of a fault whose window is known.
    fn follow(self: &Arc<Universe>, id: FaultId) {
        let ((from, until), moment) =
            self.with_faults(|faults| (faults.window(id), faults.get(id).kind.is_moment()));
        self.act_at(from, move |universe| universe.begin(id));
        if !moment && until != u64::MAX {
            self.act_at(until, move |universe| universe.finish(id));
        }
    }

    /// An operation begins on a disk: faults that waited for it begin, those that happen at a moment at `moment`.
    pub(super) fn occasion(self: &Arc<Universe>, occasion: &Occasion<'_>, moment: u64) {
        let begun = self.with_faults(|faults| faults.trigger(occasion, self.now(), moment));
        for id in begun {
            self.probe(Probe::FaultMetItsState.name());
            self.follow(id);
        }
    }

    /// Ends a fault now. What it did for good stays.
    pub fn heal(self: &Arc<Universe>, id: FaultId) {
        let now = self.now();
        let ended = self.with_faults(|faults| {
            let running = faults.in_force(id, now);
            faults.end(id, now);
            running
        });
        if ended {
            self.finish(id);
        }
    }

    /// Ends every fault that is in force and keeps the others from beginning. Operations that are never to complete
    /// stay as they are; no further ones join them.
    pub fn heal_all(self: &Arc<Universe>) {
        let now = self.now();
        let unfinished = self.with_faults(|faults| faults.unfinished(now));
        for id in unfinished {
            if self.with_faults(|faults| faults.get(id).outlives_the_healing()) {
                self.with_faults(|faults| faults.end(id, now));
            } else {
                self.heal(id);
            }
        }
    }

    fn begin(self: &Arc<Universe>, id: FaultId) {
        let (fault, gone) = self.with_faults(|faults| {
            let (from, until) = faults.window(id);
            // Healed before it began.
            (faults.get(id).clone(), until < from || (until == from && !faults.get(id).kind.is_moment()))
        });
        if gone {
            return;
        }
        self.event(Event::new(What::FaultBegin).numbers(id.0 as u64, 0).named(fault.kind.name()));
        let machine = fault.node.as_ref().and_then(|node| self.machine(&node.machine()));
        let hit = match fault.kind {
            FaultKind::Reset | FaultKind::Silence => self.network.break_connections(self, &fault) > 0,
            FaultKind::Flapping => {
                self.flap(id);
                false
            }
            _ => machine.as_ref().is_some_and(|machine| self.begin_on(machine, &fault, id)),
        };
        if hit {
            self.with_faults(|faults| faults.hit(id));
        }
    }

    /// True when the fault touched something by beginning.
    fn begin_on(self: &Arc<Universe>, machine: &Arc<Machine>, fault: &Fault, id: FaultId) -> bool {
        let now = self.now();
        match fault.kind {
            FaultKind::DiskStall => {
                machine.disk.stall_began(id);
                false
            }
            FaultKind::BitRot => machine.disk.rot(fault),
            FaultKind::Kill => {
                let hit = machine.kill();
                self.start_after(machine, fault.for_);
                hit
            }
            FaultKind::PowerLoss => {
                let hit = machine.process().is_some();
                machine.power_loss();
                self.start_after(machine, fault.for_);
                hit
            }
            FaultKind::Wipe => {
                machine.kill();
                machine.disk.wipe();
                self.start_after(machine, fault.for_);
                true
            }
            FaultKind::Restart => {
                let Some(process) = machine.process() else {
                    return false;
                };
                process.request_stop();
                // A process that does not stop is killed, as a service manager would.
                let stubborn = process.clone();
                self.act_in(10_000_000_000, move |_| {
                    stubborn.end_now(Cause::Killed);
                });
                restart_when_ended(self, machine, process.number);
                true
            }
            FaultKind::Pause => {
                machine.pause();
                machine.process().is_some()
            }
            FaultKind::ClockSkew => {
                lock(&machine.clock).skew(fault.by.unwrap_or_default());
                true
            }
            FaultKind::ClockJump => {
                lock(&machine.clock).jump(now, fault.by.unwrap_or_default());
                wake_machine(machine);
                true
            }
            FaultKind::ClockDrift => {
                lock(&machine.clock).drift(now, fault.drift_ppm.unwrap_or_default());
                wake_machine(machine);
                true
            }
            FaultKind::ThreadBlocked => {
                let mut hit = false;
                for task in machine.process().map(|process| process.tasks()).unwrap_or_default() {
                    if fault::task::aims_at(fault, &machine.name, task.current.name.role, &task.full_name) {
                        task.thread.block(task.number);
                        hit = true;
                    }
                }
                hit
            }
            _ => false,
        }
    }

    /// Sends again what is stuck each time that a flapping link may have come back.
    fn flap(self: &Arc<Universe>, id: FaultId) {
        let every = self.with_faults(|faults| fault::network::flap(faults.get(id)));
        self.act_in(every, move |universe| {
            if universe.with_faults(|faults| faults.in_force(id, universe.now())) {
                universe.network.kick_all(universe);
                universe.flap(id);
            }
        });
    }

    fn start_after(self: &Arc<Universe>, machine: &Arc<Machine>, downtime: Extent) {
        if let Extent::For(length) = downtime {
            let machine = machine.clone();
            self.act_in(fault::duration::nanos(length), move |_| {
                machine.power_on();
                machine.start();
            });
        }
    }

    fn finish(self: &Arc<Universe>, id: FaultId) {
        let fault = self.with_faults(|faults| faults.get(id).clone());
        let ended_before = self.with_faults(|faults| faults.window(id).1 < self.now());
        if ended_before {
            return;
        }
        self.event(Event::new(What::FaultEnd).numbers(id.0 as u64, 0).named(fault.kind.name()));
        let machine = fault.node.as_ref().and_then(|node| self.machine(&node.machine()));
        match (fault.kind, machine) {
            (FaultKind::DiskStall, Some(machine)) => machine.disk.stall_ended(id),
            (FaultKind::Partition | FaultKind::OneWay | FaultKind::Flapping, _) => {
                self.network.kick_all(self)
            }
            (FaultKind::Pause, Some(machine)) => machine.resume(),
            (FaultKind::ClockSkew, Some(machine)) => {
                lock(&machine.clock).unskew(fault.by.unwrap_or_default());
            }
            (FaultKind::ClockDrift, Some(machine)) => {
                lock(&machine.clock).drift(self.now(), 0);
                wake_machine(&machine);
            }
            (FaultKind::TaskStopped | FaultKind::ThreadBlocked, Some(machine)) => {
                if let Some(process) = machine.process() {
                    for task in process.tasks() {
                        if fault.kind == FaultKind::ThreadBlocked
                            && fault::task::aims_at(
                                &fault,
                                &machine.name,
                                task.current.name.role,
                                &task.full_name,
                            )
                        {
                            task.thread.unblock(task.number);
                        }
                    }
                    process.catch_up();
                }
            }
            // Whoever waits for room was told there is none; it has to look again.
            (FaultKind::ChannelFull, Some(machine)) => {
                if let Some(process) = machine.process() {
                    process.relieve();
                }
            }
            // A process whose end was held up ends now.
            (FaultKind::Unkillable, Some(machine)) => {
                if let Some(process) = machine.process() {
                    process.end_if_held_up();
                }
            }
            _ => {}
        }
    }

    pub(super) fn machine(&self, name: &str) -> Option<Arc<Machine>> {
        lock(&self.machines).get(name).cloned()
    }
}

fn wake_machine(machine: &Machine) {
    if let Some(process) = machine.process() {
        process.wake_all();
    }
}

/// Looks every 10 ms whether the process has ended, and starts the next one.
fn restart_when_ended(universe: &Arc<Universe>, machine: &Arc<Machine>, process: u64) {
    let machine = machine.clone();
    universe.act_in(10_000_000, move |universe| match machine.process() {
        Some(running) if running.number == process => restart_when_ended(universe, &machine, process),
        Some(_) => {}
        None => {
            machine.start();
        }
    });
}
