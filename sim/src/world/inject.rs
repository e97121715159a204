//! Carrying out faults on machines and on the network: what happens when one begins and when it ends.
//!
//! Faults on operations, segments and sync points are asked for when those happen (see [`crate::fault`]); here is
//! what has to be *done*: stalls catch what is in flight, processes die and come back, clocks jump,
//! connections break, and whatever a fault held is set going again when it ends.

use std::sync::Arc;

use super::ending::Cause;
use super::kernel::{Kernel, Residents};
use super::lock;
use super::machine::Machine;
use super::machines::Machines;
use super::snapshot::ProcessSnapshot;
use super::trace::{Event, What};
use crate::fault::{self, Extent, Fault, FaultId, FaultKind};

impl Residents for Machines {
    fn fault_begins(self: Arc<Self>, id: FaultId) {
        let kernel = self.kernel();
        let (fault, gone) = kernel.with_faults(|faults| {
            let (from, until) = faults.window(id);
            // Healed before it began.
            (faults.get(id).clone(), until < from || (until == from && !faults.get(id).kind.is_moment()))
        });
        if gone {
            return;
        }
        kernel.event(Event::new(What::FaultBegin).numbers(id.0 as u64, 0).named(fault.kind.name()));
        let machine = fault.node.as_ref().and_then(|node| self.get(&node.machine()));
        let hit = match fault.kind {
            FaultKind::Reset | FaultKind::Silence => self.network().break_connections(&fault) > 0,
            FaultKind::Flapping => {
                self.flap(id);
                false
            }
            _ => machine.as_ref().is_some_and(|machine| self.begin_on(machine, &fault, id)),
        };
        if hit {
            kernel.with_faults(|faults| faults.hit(id));
        }
    }

    fn fault_ends(self: Arc<Self>, id: FaultId) {
        let kernel = self.kernel();
        let fault = kernel.with_faults(|faults| faults.get(id).clone());
        kernel.event(Event::new(What::FaultEnd).numbers(id.0 as u64, 0).named(fault.kind.name()));
        let machine = fault.node.as_ref().and_then(|node| self.get(&node.machine()));
        match (fault.kind, machine) {
            (FaultKind::DiskStall, Some(machine)) => machine.disk.stall_ended(id),
            (FaultKind::Partition | FaultKind::OneWay | FaultKind::Flapping, _) => self.network().kick_all(),
            (FaultKind::Pause, Some(machine)) => machine.resume(),
            (FaultKind::ClockSkew, Some(machine)) => {
                lock(&machine.host.clock).unskew(fault.by.unwrap_or_default());
            }
            (FaultKind::ClockDrift, Some(machine)) => {
                lock(&machine.host.clock).drift(kernel.now(), 0);
                wake_machine(&machine);
            }
            (FaultKind::TaskStopped | FaultKind::ThreadBlocked, Some(machine)) => {
                if let Some(process) = machine.process() {
                    for task in process.tasks() {
                        if fault.kind == FaultKind::ThreadBlocked
                            && fault::task::aims_at(
                                &fault,
                                &machine.host.name,
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

    fn snapshots(&self) -> Vec<ProcessSnapshot> {
        self.all().iter().filter_map(|machine| machine.snapshot()).collect()
    }
}

impl Machines {
    /// True when the fault touched something by beginning.
    fn begin_on(&self, machine: &Arc<Machine>, fault: &Fault, id: FaultId) -> bool {
        let kernel = self.kernel();
        let now = kernel.now();
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
                kernel.act_in(10_000_000_000, move || {
                    stubborn.end_now(Cause::Killed);
                });
                restart_when_ended(kernel, machine, process.number);
                true
            }
            FaultKind::Pause => {
                machine.host.pause();
                machine.process().is_some()
            }
            FaultKind::ClockSkew => {
                lock(&machine.host.clock).skew(fault.by.unwrap_or_default());
                true
            }
            FaultKind::ClockJump => {
                lock(&machine.host.clock).jump(now, fault.by.unwrap_or_default());
                wake_machine(machine);
                true
            }
            FaultKind::ClockDrift => {
                lock(&machine.host.clock).drift(now, fault.drift_ppm.unwrap_or_default());
                wake_machine(machine);
                true
            }
            FaultKind::ThreadBlocked => {
                let mut hit = false;
                for task in machine.process().map(|process| process.tasks()).unwrap_or_default() {
                    if fault::task::aims_at(
                        fault,
                        &machine.host.name,
                        task.current.name.role,
                        &task.full_name,
                    ) {
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
    fn flap(self: &Arc<Self>, id: FaultId) {
        let kernel = self.kernel();
        let every = kernel.with_faults(|faults| fault::network::flap(faults.get(id)));
        let machines = self.clone();
        kernel.act_in(every, move || {
            let kernel = machines.kernel();
            if kernel.with_faults(|faults| faults.in_force(id, kernel.now())) {
                machines.network().kick_all();
                machines.flap(id);
            }
        });
    }

    fn start_after(&self, machine: &Arc<Machine>, downtime: Extent) {
        if let Extent::For(length) = downtime {
            let (machine, kernel) = (machine.clone(), self.kernel().clone());
            self.kernel().act_in(fault::duration::nanos(length), move || match machine.process() {
                // Beyond killing still: whoever starts it waits for its end.
                Some(process) if process.is_dying() => {
                    restart_when_ended(&kernel, &machine, process.number);
                }
                _ => machine.start_after_fault(),
            });
        }
    }
}

fn wake_machine(machine: &Machine) {
    if let Some(process) = machine.process() {
        process.wake_all();
    }
}

/// Looks every 10 ms whether the process has ended, and starts the next one.
fn restart_when_ended(kernel: &Arc<Kernel>, machine: &Arc<Machine>, process: u64) {
    let (again, machine) = (kernel.clone(), machine.clone());
    kernel.act_in(10_000_000, move || match machine.process() {
        Some(running) if running.number == process => restart_when_ended(&again, &machine, process),
        Some(_) => {}
        None => machine.start_after_fault(),
    });
}
