//! A connection between two processes, and the streams that are its ends.
//!
//! A process that ends closes its connections (a reset where bytes are unread); one whose machine lost power
//! says nothing, and the first segment that reaches the machine when it is up again is answered with a reset.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use io_backend::network::Unread;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pipe::{Pipe, Segment};
use crate::fault;
use crate::world::alloc;
use crate::world::descriptors::Descriptor;
use crate::world::lock;
use crate::world::trace::{Event, What, digest};
use crate::world::universe::Universe;

/// Un-acknowledged for so long, a connection is given up by its sender.
const GIVE_UP: u64 = 924_000_000_000;

pub struct Connection {
    pub number: u64,
    pub ends: [End; 2],
    state: Mutex<State>,
}

#[derive(Clone, Debug)]
pub struct End {
    pub machine: Arc<str>,
    pub process: u64,
    /// `machine:port`.
    pub address: String,
}

#[derive(Default)]
struct State {
    /// `pipes[n]` carries what end `n` writes.
    pipes: [Pipe; 2],
    error: [Option<io::ErrorKind>; 2],
    closed: [bool; 2],
    vanished: [bool; 2],
    silent: bool,
}

impl Connection {
    pub fn new(number: u64, ends: [End; 2]) -> Arc<Connection> {
        Arc::new(Connection { number, ends, state: Mutex::default() })
    }

    pub fn is_over(&self) -> bool {
        let state = lock(&self.state);
        (0..2).all(|end| state.closed[end] || state.vanished[end])
    }

    /// Bytes may be sent from this end to the other: no partition between them, both machines up.
    fn passes(&self, universe: &Arc<Universe>, from: usize) -> bool {
        let (from, to) = (&self.ends[from].machine, &self.ends[1 - from].machine);
        let blocked = universe.with_faults(|faults| {
            let id = fault::network::blocked(faults, from, to, universe.now())?;
            faults.hit(id);
            Some(id)
        });
        blocked.is_none() && universe.network.is_up(universe, to)
    }

    fn send(self: &Arc<Connection>, universe: &Arc<Universe>, from: usize, segment: Segment) {
        let (bytes, content) = match &segment {
            Segment::Data(data) => (data.len(), digest(data)),
            Segment::Fin | Segment::Reset => (0, 0),
        };
        let now = universe.now();
        let (a, b) = (&self.ends[from].machine, &self.ends[1 - from].machine);
        let transit = universe.network.transit(universe, a, b, bytes);
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
        universe.event(Event { content, ..sent });
        if schedule {
            self.deliver_at(universe, from, arrives);
        }
    }

    fn deliver_at(self: &Arc<Connection>, universe: &Arc<Universe>, from: usize, at: u64) {
        let connection = self.clone();
        universe.act_at(at, move |universe| connection.deliver(universe, from));
    }

    /// Hands over what has arrived. What cannot pass waits for [`Connection::kick`].
    fn deliver(self: &Arc<Connection>, universe: &Arc<Universe>, from: usize) {
        let now = universe.now();
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
                self.deliver_at(universe, from, due);
                break;
            }
            if !self.passes(universe, from) {
                lock(&self.state).pipes[from].scheduled = false;
                self.give_up_later(universe, from);
                break;
            }
            self.hand_over(universe, from, &mut wake);
        }
        for waker in wake {
            waker.wake();
        }
    }

    fn hand_over(self: &Arc<Connection>, universe: &Arc<Universe>, from: usize, wake: &mut Vec<Waker>) {
        let mut state = lock(&self.state);
        let Some(segment) = state.pipes[from].take_arrived(universe.now()) else {
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
        universe.event(Event::new(What::Delivered).numbers(self.number * 2 + from as u64, bytes as u64));
        if answer_reset {
            self.send(universe, 1 - from, Segment::Reset);
        }
    }

    /// Traffic is stuck: in a quarter of an hour its sender gives the connection up.
    fn give_up_later(self: &Arc<Connection>, universe: &Arc<Universe>, from: usize) {
        let Some(stuck) = lock(&self.state).pipes[from].next_arrival() else {
            return;
        };
        let connection = self.clone();
        universe.act_in(GIVE_UP, move |_| {
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
    pub fn kick(self: &Arc<Connection>, universe: &Arc<Universe>) {
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
                let retry =
                    universe.network.retry(universe, &self.ends[from].machine, &self.ends[1 - from].machine);
                self.deliver_at(universe, from, universe.now() + retry);
            }
        }
    }

    /// Breaks it for both ends at once.
    pub fn reset(&self, universe: &Arc<Universe>) {
        let mut wake = Vec::new();
        let mut state = lock(&self.state);
        for end in 0..2 {
            state.fail(end, io::ErrorKind::ConnectionReset, &mut wake);
        }
        drop(state);
        universe.event(Event::new(What::ConnectionEnd).numbers(self.number, 1));
        for waker in wake {
            waker.wake();
        }
    }

    /// From now on nothing passes and nobody is told.
    pub fn silence(self: &Arc<Connection>, universe: &Arc<Universe>) {
        lock(&self.state).silent = true;
        for from in 0..2 {
            self.give_up_later(universe, from);
        }
    }

    /// The end is closed by its process, or vanishes with its machine.
    pub fn close(self: &Arc<Connection>, universe: &Arc<Universe>, end: usize, silently: bool) {
        let mut state = lock(&self.state);
        if state.closed[end] || state.vanished[end] {
            return;
        }
        let farewell = if silently {
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
        universe.event(Event::new(What::ConnectionEnd).numbers(self.number, 2 + end as u64));
        if let Some(farewell) = farewell {
            self.send(universe, end, farewell);
        }
        universe.network.forget_if_over(self);
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

/// One end of a connection.
pub struct SimStream {
    universe: Arc<Universe>,
    connection: Arc<Connection>,
    end: usize,
    /// None while nobody has accepted it.
    _descriptor: Option<Descriptor>,
}

impl SimStream {
    pub(super) fn new(
        universe: &Arc<Universe>,
        connection: Arc<Connection>,
        end: usize,
        descriptor: Option<Descriptor>,
    ) -> SimStream {
        SimStream { universe: universe.clone(), connection, end, _descriptor: descriptor }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let silently = self.universe.network.is_vanishing(&self.universe, &self.connection.ends[self.end]);
        self.connection.close(&self.universe, self.end, silently);
    }
}

fn broken(kind: io::ErrorKind) -> io::Error {
    let text = match kind {
        io::ErrorKind::ConnectionReset => "connection reset by peer",
        io::ErrorKind::TimedOut => "connection timed out",
        _ => "broken pipe",
    };
    io::Error::new(kind, text)
}

impl Unread for SimStream {
    fn unread(&self) -> usize {
        lock(&self.connection.state).pipes[1 - self.end].readable()
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.connection.state);
        if let Some(kind) = state.error[self.end] {
            return Poll::Ready(Err(broken(kind)));
        }
        let pipe = &mut state.pipes[1 - self.end];
        let most = self.universe.network.portion(&self.universe, pipe.readable().min(buf.remaining()));
        let mut read = 0;
        while read < most
            && let Some(bytes) = pipe.read(most - read)
        {
            buf.put_slice(&bytes);
            read += bytes.len();
        }
        if read > 0 {
            let writer = pipe.writer.take();
            drop(state);
            if let Some(writer) = writer {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if pipe.fin_arrived || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.connection.state);
        if let Some(kind) = state.error[self.end] {
            return Poll::Ready(Err(broken(kind)));
        }
        let pipe = &mut state.pipes[self.end];
        if pipe.fin_sent {
            return Poll::Ready(Err(broken(io::ErrorKind::BrokenPipe)));
        }
        let taken = pipe.room().min(data.len());
        if taken == 0 && !data.is_empty() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        if taken > 0 {
            let _world = alloc::as_world();
            let segment = Segment::Data(Bytes::copy_from_slice(&data[..taken]));
            self.connection.send(&self.universe, self.end, segment);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let first = {
            let mut state = lock(&self.connection.state);
            state.error[self.end].is_none() && !std::mem::replace(&mut state.pipes[self.end].fin_sent, true)
        };
        if first {
            self.connection.send(&self.universe, self.end, Segment::Fin);
        }
        Poll::Ready(Ok(()))
    }
}
