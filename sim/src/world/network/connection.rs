//! Connections between two processes each: what passes, what is stuck, how they end.
//!
//! A process that ends closes its connections (a reset where bytes are unread); one whose machine lost power
//! says nothing, and the first segment that reaches the machine when it is up again is answered with a reset.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use super::fabric::Fabric;
use super::pipe::{Pipe, Segment};
use crate::fault;
use crate::world::lock;
use crate::world::trace::{Event, What, digest};

/// Un-acknowledged for so long, a connection is given up by its sender.
const GIVE_UP: u64 = 924_000_000_000;

/// All connections of a network, on its fabric.
pub struct Connections {
    pub(super) fabric: Fabric,
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    opened: AtomicU64,
}

/// Open connections and all ever opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    pub open: u64,
    pub opened: u64,
}

impl Connections {
    pub fn on(fabric: Fabric) -> Arc<Connections> {
        Arc::new(Connections { fabric, open: Mutex::default(), opened: AtomicU64::new(0) })
    }

    pub fn counts(&self, machine: &str) -> NetworkCounts {
        let open = lock(&self.open)
            .values()
            .filter(|connection| connection.ends.iter().any(|end| &*end.machine == machine))
            .count();
        NetworkCounts { open: open as u64, opened: self.opened.load(Ordering::Relaxed) }
    }

    pub fn add(&self, connection: &Arc<Connection>) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(connection.number, connection.clone());
    }

    pub fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.open).values().cloned().collect()
    }

    /// Whether what this end's process drops is dropped by a power loss.
    pub fn is_vanishing(&self, end: &End) -> bool {
        !self.fabric.is_up(&end.machine)
    }

    fn forget_if_over(&self, connection: &Arc<Connection>) {
        if connection.is_over() {
            let forgotten = lock(&self.open).remove(&connection.number);
            drop(forgotten);
        }
    }

    pub fn clear(&self) {
        let open = std::mem::take(&mut *lock(&self.open));
        drop(open);
    }
}

pub struct Connection {
    pub number: u64,
    pub ends: [End; 2],
    pub(super) state: Mutex<State>,
}

#[derive(Clone, Debug)]
pub struct End {
    pub machine: Arc<str>,
    pub process: u64,
    /// `machine:port`.
    pub address: String,
}

#[derive(Default)]
pub(super) struct State {
    /// `pipes[n]` carries what end `n` writes.
    pub(super) pipes: [Pipe; 2],
    pub(super) error: [Option<io::ErrorKind>; 2],
    closed: [bool; 2],
    vanished: [bool; 2],
    silent: bool,
}

impl Connection {
    pub fn new(number: u64, ends: [End; 2]) -> Arc<Connection> {
        Arc::new(Connection { number, ends, state: Mutex::default() })
    }

    fn is_over(&self) -> bool {
        let state = lock(&self.state);
        (0..2).all(|end| state.closed[end] || state.vanished[end])
    }

    /// Bytes may be sent from this end to the other: no partition between them, both machines up.
    fn passes(&self, net: &Arc<Connections>, from: usize) -> bool {
        let (from, to) = (&self.ends[from].machine, &self.ends[1 - from].machine);
        let kernel = &net.fabric.kernel;
        let blocked = kernel.with_faults(|faults| {
            let id = fault::network::blocked(faults, from, to, kernel.now())?;
            faults.hit(id);
            Some(id)
        });
        blocked.is_none() && net.fabric.is_up(to)
    }

    pub(super) fn send(self: &Arc<Connection>, net: &Arc<Connections>, from: usize, segment: Segment) {
        let (bytes, content) = match &segment {
            Segment::Data(data) => (data.len(), digest(data)),
            Segment::Fin | Segment::Reset => (0, 0),
        };
        let now = net.fabric.kernel.now();
        let (a, b) = (&self.ends[from].machine, &self.ends[1 - from].machine);
        let transit = net.fabric.transit(a, b, bytes);
        let mut state = lock(&self.state);
        if state.silent {
            return;
        }
        let pipe = &mut state.pipes[from];
        let leaves = now.max(pipe.busy_until) + transit.occupies;
        pipe.busy_until = leaves;
        let arrives = pipe.send(segment, leaves + transit.latency);
        let schedule = !std::mem::replace(&mut pipe.scheduled, true);
        drop(state);
        let sent = Event::new(What::Sent).numbers(self.number * 2 + from as u64, bytes as u64);
        net.fabric.kernel.event(Event { content, ..sent });
        if schedule {
            self.deliver_at(net, from, arrives);
        }
    }

    fn deliver_at(self: &Arc<Connection>, net: &Arc<Connections>, from: usize, at: u64) {
        let (connection, within) = (self.clone(), net.clone());
        net.fabric.kernel.act_at(at, move || connection.deliver(&within, from));
    }

    /// Hands over what has arrived. What cannot pass waits for [`Connection::kick`].
    fn deliver(self: &Arc<Connection>, net: &Arc<Connections>, from: usize) {
        let now = net.fabric.kernel.now();
        let mut wake = Vec::new();
        loop {
            let due = {
                let mut state = lock(&self.state);
                if state.silent {
                    state.pipes[from].scheduled = false;
                    break;
                }
                match state.pipes[from].next_arrival() {
                    None => {
                        state.pipes[from].scheduled = false;
                        break;
                    }
                    Some(at) => at,
                }
            };
            if due > now {
                self.deliver_at(net, from, due);
                break;
            }
            if !self.passes(net, from) {
                lock(&self.state).pipes[from].scheduled = false;
                self.give_up_later(net, from);
                break;
            }
            self.hand_over(net, from, &mut wake);
        }
        for waker in wake {
            waker.wake();
        }
    }

    fn hand_over(self: &Arc<Connection>, net: &Arc<Connections>, from: usize, wake: &mut Vec<Waker>) {
        let mut state = lock(&self.state);
        let Some(segment) = state.pipes[from].take_arrived(net.fabric.kernel.now()) else {
            return;
        };
        let gone = state.vanished[1 - from] || state.closed[1 - from];
        let mut answer_reset = false;
        let mut bytes = 0;
        match segment {
            Segment::Data(data) => {
                bytes = data.len();
                if gone {
                    answer_reset = true;
                } else {
                    state.pipes[from].arrive(data);
                    wake.extend(state.pipes[from].reader.take());
                }
            }
            Segment::Fin => {
                answer_reset = state.vanished[1 - from];
                state.pipes[from].fin_arrived = true;
                wake.extend(state.pipes[from].reader.take());
            }
            Segment::Reset => {
                state.fail(1 - from, io::ErrorKind::ConnectionReset, wake);
            }
        }
        drop(state);
        let delivered = Event::new(What::Delivered).numbers(self.number * 2 + from as u64, bytes as u64);
        net.fabric.kernel.event(delivered);
        if answer_reset {
            self.send(net, 1 - from, Segment::Reset);
        }
    }

    /// Traffic is stuck: in a quarter of an hour its sender gives the connection up.
    fn give_up_later(self: &Arc<Connection>, net: &Arc<Connections>, from: usize) {
        let Some(stuck) = lock(&self.state).pipes[from].next_arrival() else {
            return;
        };
        let connection = self.clone();
        net.fabric.kernel.act_in(GIVE_UP, move || {
            let mut wake = Vec::new();
            let mut state = lock(&connection.state);
            if state.pipes[from].next_arrival() == Some(stuck) {
                state.fail(from, io::ErrorKind::TimedOut, &mut wake);
            }
            drop(state);
            for waker in wake {
                waker.wake();
            }
        });
    }

    /// Something that may have blocked it has changed: what is stuck is sent again.
    pub fn retransmit(self: &Arc<Connection>, net: &Arc<Connections>) {
        for from in 0..2 {
            let stuck = {
                let mut state = lock(&self.state);
                let stuck = !state.silent
                    && !state.pipes[from].scheduled
                    && state.pipes[from].next_arrival().is_some();
                state.pipes[from].scheduled |= stuck;
                stuck
            };
            if stuck {
                let retry = net.fabric.retry(&self.ends[from].machine, &self.ends[1 - from].machine);
                self.deliver_at(net, from, net.fabric.kernel.now() + retry);
            }
        }
    }

    /// Breaks it for both ends at once.
    pub fn reset(&self, net: &Arc<Connections>) {
        let mut wake = Vec::new();
        let mut state = lock(&self.state);
        for end in 0..2 {
            state.fail(end, io::ErrorKind::ConnectionReset, &mut wake);
        }
        drop(state);
        net.fabric.kernel.event(Event::new(What::ConnectionEnd).numbers(self.number, 1));
        for waker in wake {
            waker.wake();
        }
    }

    /// From now on nothing passes and nobody is told.
    pub fn blackhole(self: &Arc<Connection>, net: &Arc<Connections>) {
        lock(&self.state).silent = true;
        for from in 0..2 {
            self.give_up_later(net, from);
        }
    }

    /// The end is closed by its process, or vanishes with its machine.
    pub fn close(self: &Arc<Connection>, net: &Arc<Connections>, end: usize, silently: bool) {
        let mut state = lock(&self.state);
        if state.closed[end] || state.vanished[end] {
            return;
        }
        let last_segment = if silently {
            state.vanished[end] = true;
            None
        } else {
            state.closed[end] = true;
            let unread = state.pipes[1 - end].has_unread();
            if state.error[end].is_some() {
                None
            } else if unread {
                Some(Segment::Reset)
            } else {
                (!state.pipes[end].fin_sent).then_some(Segment::Fin)
            }
        };
        state.pipes[end].fin_sent = true;
        state.pipes[1 - end].reader_gone = true;
        if silently {
            state.pipes[end].clear_way();
        }
        drop(state);
        net.fabric.kernel.event(Event::new(What::ConnectionEnd).numbers(self.number, 2 + end as u64));
        if let Some(last_segment) = last_segment {
            self.send(net, end, last_segment);
        }
        net.forget_if_over(self);
    }
}

impl State {
    /// The end sees an error from now on.
    fn fail(&mut self, end: usize, kind: io::ErrorKind, wake: &mut Vec<Waker>) {
        self.error[end].get_or_insert(kind);
        self.pipes[1 - end].clear();
        self.pipes[end].clear_way();
        wake.extend(self.pipes[1 - end].reader.take());
        wake.extend(self.pipes[end].writer.take());
    }
}
