//! A machine's disk: operations in flight, how long they take, what faults make of them.
//!
//! An operation lives here from the call until it is done, whoever waits for it: its waiter may give up, its
//! effect still comes. A stalled one has no timer until its stall ends. A process that ends takes its
//! operations with it: a write in flight then leaves some first part of its bytes in the cache.

use std::collections::{BTreeMap, VecDeque};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use io_backend::Moment;
use io_backend::disk::Space;
use io_backend::registry::EntryGuard;

use super::image::Image;
use super::markers::{MarkerTimes, Markers};
use super::names::Inode;
use super::operation::{Closes, Outlet, Output, SyncRecord, Target, Work};
use super::pages::Pages;
use super::pages::is_zero;
use crate::fault::disk::{DiskEffect, DiskFailure, DiskTarget, WriteFate};
use crate::fault::{self, Fault, FaultId, Occasion, PathClass, PathSelector};
use crate::probe::Probe;
use crate::streams::Stream;
use crate::world::alloc;
use crate::world::kernel::Kernel;
use crate::world::lock;
use crate::world::permits::Permit;
use crate::world::process::Process;
use crate::world::timers::TimerKey;
use crate::world::trace::{Event, What, digest};

/// So many syncs are remembered for checkers.
pub(super) const SYNCS_KEPT: usize = 100_000;

/// Nor so many failures.
pub(super) const FAILURES_KEPT: usize = 100_000;

pub struct Device {
    machine: Arc<str>,
    kernel: Arc<Kernel>,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) stream: Stream,
    pub(super) image: Image,
    pub(super) in_flight: BTreeMap<u64, Operation>,
    /// Directories taken, and by which process.
    pub(super) locked: BTreeMap<PathBuf, u64>,
    pub(super) syncs: VecDeque<SyncRecord>,
    pub(super) markers: Markers,
    pub(super) counts: DeviceCounts,
    pub(super) failures: Vec<JournalFailure>,
    /// Writes and syncs of the records' journal that failed since it last wrote a group, or its process began.
    pub(super) failed_in_a_row: u32,
    /// Groups of journals that are not there as they were given, and behind which nothing stands yet.
    pub(super) untold: Vec<Untold>,
    /// When the device has moved all that it was given so far.
    busy_until: u64,
}

/// A file of a journal that could not be opened, written or synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalFailure {
    pub at: u64,
    pub class: PathClass,
    pub opens: bool,
    /// How many of them it makes, with no group written in between.
    pub in_a_row: u32,
}

/// A write that reported success and went wrong. A group behind it shows that something is missing; a journal that ends
/// here reads like one whose last group was never acknowledged, and what a node makes of that nobody can judge.
pub(super) struct Untold {
    pub(super) class: PathClass,
    pub(super) inode: Inode,
    pub(super) position: u64,
    pub(super) data: Bytes,
}

/// Counts of operations done, for budgets and probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    pub reads: u64,
    pub writes: u64,
    pub syncs: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

pub(super) struct Operation {
    pub(super) device: Arc<Device>,
    pub(super) process: Arc<Process>,
    pub(super) path: Arc<Path>,
    pub(super) work: Work,
    pub(super) effect: DiskEffect,
    /// Changes of the file, or of names, made before it was called: what a sync covers.
    pub(super) covers: u64,
    pub(super) began: u64,
    pub(super) latency: u64,
    pub(super) timer: Option<TimerKey>,
    pub(super) entry: EntryGuard,
    pub(super) outlet: Arc<Outlet>,
    /// Given back when the operation is over; a dedicated loop's has none.
    pub(super) _permit: Option<Permit>,
}

/// An operation in flight that a planned fault holds.
pub(in crate::world) struct HeldOperation {
    pub(in crate::world) what: &'static str,
    pub(in crate::world) path: Arc<Path>,
    /// In the world's time.
    pub(in crate::world) began: u64,
    pub(in crate::world) fault: FaultId,
}

impl Device {
    pub fn new(kernel: &Arc<Kernel>, machine: Arc<str>) -> Arc<Device> {
        let state = State {
            stream: Stream::new(kernel.seed, &format!("disk/{machine}")),
            image: Image::default(),
            in_flight: BTreeMap::new(),
            locked: BTreeMap::new(),
            syncs: VecDeque::new(),
            markers: Markers::new(kernel.options.marker),
            counts: DeviceCounts::default(),
            failures: Vec::new(),
            failed_in_a_row: 0,
            untold: Vec::new(),
            busy_until: 0,
        };
        Arc::new(Device { machine, kernel: kernel.clone(), state: Mutex::new(state) })
    }

    /// Begins an operation of a process; its result comes to the outlet.
    pub(super) fn begin(
        self: &Arc<Device>,
        process: &Arc<Process>,
        target: &Target,
        work: Work,
        site: &'static Location<'static>,
        permit: Option<Permit>,
    ) -> Arc<Outlet> {
        let _world = alloc::as_world();
        let outlet = Arc::new(Outlet::default());
        if !process.is_alive() {
            return outlet;
        }
        let now = self.kernel.now();
        let entry = process.registry.operation_at(
            Moment(process.host.local_now()),
            work.kind(),
            work.name(),
            target.text.clone(),
            site,
        );
        let path = &*target.path;
        let number = self.kernel.number();
        let mut state = lock(&self.state);
        self.tell(&mut state, process, path, &work, now);
        let effect = self.judge(&mut state, process, path, &work, now);
        let usual = work.usual_latency(self.kernel.options.disk_sync_ns);
        let latency = state.stream.latency(usual) + effect.delay + self.transfer(&mut state, &work, now);
        let covers = match &work {
            Work::Sync { inode } => state.image.file(*inode).map_or(0, |file| file.last_change()),
            Work::SyncDir => state.image.names().last_change(),
            _ => 0,
        };
        let timer = match effect.stalled_by {
            Some(_) => None,
            None => Some(self.complete_at(number, now + latency)),
        };
        let operation = Operation {
            device: self.clone(),
            process: process.clone(),
            path: target.path.clone(),
            work,
            effect,
            covers,
            began: now,
            latency,
            timer,
            entry,
            outlet: outlet.clone(),
            _permit: permit,
        };
        state.in_flight.insert(number, operation);
        outlet
    }

    /// Tells faults that wait for a state what happens here. A process that one of them ends dies, or the power goes,
    /// while the operation is in flight.
    fn tell(&self, state: &mut State, process: &Process, path: &Path, work: &Work, now: u64) {
        let number = process.count_operation();
        if !lock(&self.kernel.faults).awaits_any() {
            return;
        }
        let task = io_backend::task::current();
        let occasion = Occasion {
            machine: &self.machine,
            path,
            operations: work.operations(),
            role: task.as_ref().map_or("", |task| task.name.role),
            recovering: (!process.is_serving()).then_some(number),
        };
        let usual = work.usual_latency(self.kernel.options.disk_sync_ns);
        let moment = now + state.stream.below(usual);
        self.kernel.occasion(&occasion, moment);
    }

    /// Nanoseconds until the device has moved what the operation needs, behind all that it was given before.
    fn transfer(&self, state: &mut State, work: &Work, now: u64) -> u64 {
        let Some(bytes) = work.transfer(&state.image) else {
            return 0;
        };
        let rate = u128::from(self.kernel.options.disk_bytes_per_s.max(1));
        let takes = (u128::from(bytes) * 1_000_000_000 / rate) as u64;
        state.busy_until = state.busy_until.max(now) + takes;
        state.busy_until - now
    }

    /// What the faults in force do to it, and whether there is room for it.
    fn judge(&self, state: &mut State, process: &Process, path: &Path, work: &Work, now: u64) -> DiskEffect {
        let grows = state.grows(path, work);
        let mut all = DiskEffect::default();
        for operation in work.operations() {
            let target = DiskTarget {
                machine: &self.machine,
                path,
                operation: *operation,
                allocates: grows > 0,
                recovering: !process.is_serving(),
            };
            let effect = self
                .kernel
                .with_faults(|faults| fault::disk::effect(faults, &target, now, &mut state.stream));
            all.stalled_by = all.stalled_by.or(effect.stalled_by);
            all.delay += effect.delay;
            all.failure = all.failure.or(effect.failure);
            if effect.write != WriteFate::Done {
                all.write = effect.write;
            }
        }
        let capacity = self.kernel.options.disk_capacity;
        if grows > 0 && state.image.used() + grows > capacity {
            state.image.commit_names();
        }
        if grows > 0 && state.image.used() + grows > capacity {
            self.kernel.probe(Probe::DiskFull.name());
            all.failure = Some(DiskFailure::Full);
        }
        all
    }

    fn complete_at(self: &Arc<Device>, number: u64, at: u64) -> TimerKey {
        let device = self.clone();
        self.kernel.act_at(at, move || device.complete(number))
    }

    fn complete(self: &Arc<Device>, number: u64) {
        let mut state = lock(&self.state);
        let Some(operation) = state.in_flight.remove(&number) else {
            return;
        };
        let result = state.perform(&operation, self.kernel.options.disk_capacity, self.kernel.now());
        drop(state);
        if let (Err(_), Some(_)) = (&result, operation.effect.failure) {
            self.kernel.event(Event::new(What::DiskEffect).numbers(number, 0));
        }
        if let Some(content) = content(&operation.work, &result) {
            self.kernel.event(Event { content, ..Event::new(What::DiskEffect).numbers(number, 0) });
        }
        let local = Moment(operation.process.host.local_now());
        operation.entry.end(local);
        if !operation.outlet.put(result) {
            operation.process.registry.count_late_completion();
        }
    }

    /// A stall begins: it catches what is in flight.
    pub(in crate::world) fn stall_began(&self, id: FaultId) {
        let mut caught = Vec::new();
        let now = self.kernel.now();
        let mut state = lock(&self.state);
        let State { in_flight, stream, .. } = &mut *state;
        for operation in in_flight.values_mut().filter(|operation| operation.timer.is_some()) {
            let hit = operation.work.operations().iter().any(|class| {
                let target = DiskTarget {
                    machine: &self.machine,
                    path: &operation.path,
                    operation: *class,
                    allocates: false,
                    recovering: !operation.process.is_serving(),
                };
                self.kernel.with_faults(|faults| fault::disk::catches(faults, id, &target, now, stream))
            });
            if hit {
                operation.effect.stalled_by = Some(id);
                caught.extend(operation.timer.take());
            }
        }
        drop(state);
        if !caught.is_empty() {
            self.kernel.probe(Probe::StallHitInFlight.name());
        }
        for timer in caught {
            self.kernel.cancel(timer);
        }
    }

    /// A stall is over: what it held goes on.
    pub(in crate::world) fn stall_ended(self: &Arc<Device>, id: FaultId) {
        let mut state = lock(&self.state);
        let now = self.kernel.now();
        for (number, operation) in &mut state.in_flight {
            if operation.effect.stalled_by == Some(id) && operation.timer.is_none() {
                operation.timer = Some(self.complete_at(*number, now + operation.latency));
            }
        }
    }

    /// Operations of a process that a planned fault holds.
    pub(in crate::world) fn held(&self, process: u64) -> Vec<HeldOperation> {
        let state = lock(&self.state);
        let of_process = state.in_flight.values().filter(|operation| operation.process.number == process);
        of_process
            .filter_map(|operation| {
                Some(HeldOperation {
                    what: operation.work.name(),
                    path: operation.path.clone(),
                    began: operation.began,
                    fault: operation.effect.stalled_by?,
                })
            })
            .collect()
    }

    /// Lets go of the processes whose operations are in flight.
    pub(in crate::world) fn dissolve(&self) {
        let in_flight = std::mem::take(&mut lock(&self.state).in_flight);
        drop(in_flight);
    }

    /// The process's operations go with it, its locks too. Written bytes stay.
    pub(in crate::world) fn process_ended(&self, process: u64) {
        let mut state = lock(&self.state);
        let mut ended = Vec::new();
        let numbers: Vec<u64> = state
            .in_flight
            .iter()
            .filter(|(_, operation)| operation.process.number == process)
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            if let Some(operation) = state.in_flight.remove(&number) {
                state.cut_off(&operation, self.kernel.now());
                ended.push(operation);
            }
        }
        state.locked.retain(|_, owner| *owner != process);
        state.make_good();
        state.failed_in_a_row = 0;
        drop(state);
        for operation in ended {
            if let Some(timer) = operation.timer {
                self.kernel.cancel(timer);
            }
        }
    }

    pub(in crate::world) fn power_loss(&self) {
        let mut state = lock(&self.state);
        let State { image, stream, markers, .. } = &mut *state;
        let bytes =
            image.unsynced_bytes(|path| matches!(PathClass::of(path), PathClass::Journal | PathClass::Raft));
        let names = image.power_loss(stream);
        markers.power_loss();
        let survived = image.digest();
        drop(state);
        self.kernel.event(Event { content: survived, ..Event::new(What::DiskEffect) });
        if bytes > 0 {
            self.kernel.probe(Probe::PowerLossWithUnsyncedBytes.name());
        }
        if names > 0 {
            self.kernel.probe(Probe::PowerLossWithUnsyncedNames.name());
        }
    }

    pub(in crate::world) fn wipe(&self) {
        let mut state = lock(&self.state);
        state.image.wipe();
        state.markers.power_loss();
    }

    /// Flips a bit in some durable file that the fault aims at. False when there is none.
    pub(in crate::world) fn rot(&self, fault: &Fault) -> bool {
        let mut state = lock(&self.state);
        let State { image, stream, .. } = &mut *state;
        let any = PathSelector::Any;
        let selector = fault.path.as_ref().unwrap_or(&any);
        let matching = image.names().files(true).filter(|(path, _)| selector.matches(path));
        let mut candidates: Vec<(Inode, PathClass)> =
            matching.map(|(path, inode)| (inode, PathClass::of(path))).collect();
        while !candidates.is_empty() {
            let (chosen, class) = candidates.swap_remove(stream.below(candidates.len() as u64) as usize);
            // As with [`Untold`]: the last group of a journal, once damaged, reads like one that was never written to its end.
            let spares_newest = matches!(class, PathClass::Journal | PathClass::Raft);
            if image.alter(chosen, |file| file.rot(spares_newest, stream)) == Some(true) {
                return true;
            }
        }
        false
    }

    pub fn counts(&self) -> DeviceCounts {
        lock(&self.state).counts
    }

    /// The first of them, oldest first.
    pub fn journal_failures(&self) -> Vec<JournalFailure> {
        lock(&self.state).failures.clone()
    }

    /// The last syncs, oldest first.
    pub fn syncs(&self) -> Vec<SyncRecord> {
        lock(&self.state).syncs.iter().cloned().collect()
    }

    /// When the record with this number was first written and when it was durable.
    pub fn marker(&self, record: u64) -> MarkerTimes {
        lock(&self.state).markers.get(record)
    }

    /// Durable files in order of their paths.
    pub fn durable_files(&self) -> Vec<PathBuf> {
        lock(&self.state).image.names().files(true).map(|(path, _)| path.clone()).collect()
    }

    /// What a power loss now could not take: the durable bytes of a file, if its name is durable.
    pub fn durable_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = lock(&self.state);
        let (_, inode) = state.image.names().files(true).find(|(known, _)| *known == path)?;
        let pages = state.image.file(inode)?.durable();
        Some(pages.read(0, usize::try_from(pages.len()).ok()?))
    }

    /// All files as a process reads them now, by their paths.
    pub fn current_files(&self) -> Vec<(PathBuf, Pages)> {
        let state = lock(&self.state);
        let files = state.image.names().files(false);
        files
            .filter_map(|(path, inode)| Some((path.clone(), state.image.file(inode)?.current().clone())))
            .collect()
    }

    /// What a process reads from the file now.
    pub fn current_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = lock(&self.state);
        let (_, inode) = state.image.names().files(false).find(|(known, _)| *known == path)?;
        let pages = state.image.file(inode)?.current();
        Some(pages.read(0, usize::try_from(pages.len()).ok()?))
    }

    /// Whether the range of the file is durable as it reads now.
    pub fn is_durable(&self, path: &Path, position: u64, len: usize) -> bool {
        let state = lock(&self.state);
        let found = state.image.names().files(true).find(|(known, _)| *known == path);
        found.and_then(|(_, inode)| state.image.file(inode)).is_some_and(|file| {
            let durable = file.durable().read(position, len);
            durable.len() == len && durable == file.current().read(position, len)
        })
    }

    pub fn used(&self) -> u64 {
        lock(&self.state).image.used()
    }

    pub fn space(&self) -> Space {
        let total = self.kernel.options.disk_capacity;
        Space { total, usable: total.saturating_sub(self.used()) }
    }
}

impl Closes for Device {
    fn close(&self, inode: Inode) {
        lock(&self.state).image.close(inode);
    }
}

/// The contents that went through an operation, for the trace; zeros are told by their number.
fn content(work: &Work, result: &std::io::Result<Output>) -> Option<u64> {
    let bytes = match (work, result) {
        (Work::Write { data, .. } | Work::WriteDurable { data, .. }, _) => data,
        (_, Ok(Output::Bytes(bytes))) => bytes,
        _ => return None,
    };
    Some(if is_zero(bytes) { bytes.len() as u64 } else { digest(bytes) })
}
