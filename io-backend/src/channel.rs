//! Named bounded channels, and replies to what was sent over them.
//!
//! A channel has one receiver, which is the owner of some state; its senders are the only doors to it.
//! Sending waits for room, receiving for a message, a [`Reply`] for its answer: each with a
//! deadline and an entry in the registry that names the task on the other side.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::Backend;
use crate::backend::{Pressure, Seam};
use crate::registry::{Holder, Resource, WaitKind, lock};
use crate::task;
use crate::time::{Deadline, within};

/// Makes a channel that holds at most `capacity` messages.
pub fn channel<B: Backend, T: Send>(
    backend: &B,
    name: impl Into<Arc<str>>,
    capacity: usize,
) -> (Sender<B, T>, Receiver<B, T>) {
    assert!(capacity > 0, "a channel holds at least one message");
    let shared = Arc::new(Shared {
        resource: Resource::new(name),
        capacity,
        state: Mutex::new(State {
            queue: VecDeque::new(),
            receiver: None,
            blocked: VecDeque::new(),
            senders: 1,
            closed: false,
            blocked_numbers: 0,
        }),
    });
    (
        Sender { backend: backend.clone(), shared: shared.clone() },
        Receiver { backend: backend.clone(), shared, named: false },
    )
}

struct Shared<T> {
    /// Its holder is the receiving task.
    resource: Arc<Resource>,
    capacity: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    queue: VecDeque<T>,
    receiver: Option<Waker>,
    blocked: VecDeque<(u64, Waker)>,
    blocked_numbers: u64,
    senders: usize,
    closed: bool,
}

/// The message comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    Full(T),
    TimedOut(T),
    Closed(T),
}

impl<T> SendError<T> {
    pub fn into_message(self) -> T {
        match self {
            SendError::Full(m) | SendError::TimedOut(m) | SendError::Closed(m) => m,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveError {
    TimedOut,
    /// Empty, and all senders are gone.
    Closed,
}

pub struct Sender<B, T> {
    backend: B,
    shared: Arc<Shared<T>>,
}

impl<B: Clone, T> Clone for Sender<B, T> {
    fn clone(&self) -> Self {
        lock(&self.shared.state).senders += 1;
        Sender { backend: self.backend.clone(), shared: self.shared.clone() }
    }
}

impl<B, T> Drop for Sender<B, T> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.senders -= 1;
        if state.senders == 0
            && let Some(receiver) = state.receiver.take()
        {
            drop(state);
            receiver.wake();
        }
    }
}

impl<B: Backend, T: Send> Sender<B, T> {
    pub fn name(&self) -> &Arc<str> {
        &self.shared.resource.name
    }

    pub fn is_closed(&self) -> bool {
        lock(&self.shared.state).closed
    }

    pub fn len(&self) -> usize {
        lock(&self.shared.state).queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands the message over if there is room now.
    pub fn try_send(&self, message: T) -> Result<(), SendError<T>> {
        if self.backend.pressure(Seam::Channel(self.name())) == Pressure::Full {
            return Err(SendError::Full(message));
        }
        self.push(message)
    }

    fn push(&self, message: T) -> Result<(), SendError<T>> {
        let mut state = lock(&self.shared.state);
        if state.closed {
            return Err(SendError::Closed(message));
        }
        if state.queue.len() >= self.shared.capacity {
            return Err(SendError::Full(message));
        }
        state.queue.push_back(message);
        let receiver = state.receiver.take();
        drop(state);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        Ok(())
    }

    /// Hands the message over, waiting for room until the deadline.
    #[track_caller]
    pub fn send(
        &self,
        message: T,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), SendError<T>>> + Send {
        let site = Location::caller();
        async move {
            let message = match self.backend.pressure(Seam::Channel(self.name())) {
                Pressure::None => match self.push(message) {
                    Err(SendError::Full(message)) => message,
                    done => return done,
                },
                Pressure::Delay(delay) => {
                    self.backend.sleep(delay).await;
                    message
                }
                Pressure::Full => message,
            };
            self.send_slowly(message, deadline, site).await
        }
    }

    async fn send_slowly(
        &self,
        message: T,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<(), SendError<T>> {
        let mut slot = Some(message);
        let mut place = Place { shared: &self.shared, number: None };
        let waiting = poll_fn(|cx| {
            let Some(message) = slot.take() else {
                return Poll::Ready(Ok(()));
            };
            match self.try_send(message) {
                Ok(()) => {
                    place.leave();
                    Poll::Ready(Ok(()))
                }
                Err(SendError::Full(message)) => {
                    slot = Some(message);
                    place.take(cx.waker());
                    Poll::Pending
                }
                Err(closed) => Poll::Ready(Err(closed)),
            }
        });
        let wait = self
            .backend
            .registry()
            .waiting(&self.backend, WaitKind::Send, "room in channel", site)
            .on(self.name().clone())
            .held(self.shared.resource.clone());
        let done = within(&self.backend, deadline, wait.during(waiting)).await;
        match done {
            Ok(result) => result,
            Err(_) => match slot.take() {
                Some(message) => Err(SendError::TimedOut(message)),
                None => Ok(()),
            },
        }
    }

    /// A reply that the receiver of this channel is to answer.
    pub fn reply<A: Send>(&self, what: &'static str) -> (Replier<A>, Reply<B, A>) {
        let cell = Arc::new(Mutex::new(Cell::Waiting(None)));
        (
            Replier { cell: Some(cell.clone()) },
            Reply { backend: self.backend.clone(), what, resource: self.shared.resource.clone(), cell },
        )
    }
}

/// A sender's place in the line of those that wait for room.
struct Place<'a, T> {
    shared: &'a Shared<T>,
    number: Option<u64>,
}

impl<T> Place<'_, T> {
    fn take(&mut self, waker: &Waker) {
        let mut state = lock(&self.shared.state);
        let number = match self.number {
            Some(number) => number,
            None => {
                state.blocked_numbers += 1;
                state.blocked_numbers
            }
        };
        self.number = Some(number);
        match state.blocked.iter_mut().find(|(n, _)| *n == number) {
            Some((_, old)) => old.clone_from(waker),
            None => state.blocked.push_back((number, waker.clone())),
        }
    }

    fn leave(&mut self) {
        if let Some(number) = self.number.take() {
            lock(&self.shared.state).blocked.retain(|(n, _)| *n != number);
        }
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.leave();
        // A wake-up meant for us must not be lost: pass it to the next in line.
        let next = {
            let state = lock(&self.shared.state);
            if state.queue.len() < self.shared.capacity {
                state.blocked.front().map(|(_, waker)| waker.clone())
            } else {
                None
            }
        };
        if let Some(next) = next {
            next.wake();
        }
    }
}

pub struct Receiver<B, T> {
    backend: B,
    shared: Arc<Shared<T>>,
    named: bool,
}

impl<B: Backend, T: Send> Receiver<B, T> {
    /// The next message.
    #[track_caller]
    pub fn receive(&mut self, deadline: Deadline) -> impl Future<Output = Result<T, ReceiveError>> + Send {
        let site = Location::caller();
        async move {
            let mut one = Vec::with_capacity(1);
            self.receive_at(&mut one, 1, deadline, site).await?;
            one.pop().ok_or(ReceiveError::Closed)
        }
    }

    /// Waits for a message and takes all that are there, at most `limit`.
    #[track_caller]
    pub fn receive_many(
        &mut self,
        into: &mut Vec<T>,
        limit: usize,
        deadline: Deadline,
    ) -> impl Future<Output = Result<usize, ReceiveError>> + Send {
        let site = Location::caller();
        self.receive_at(into, limit, deadline, site)
    }

    /// Takes what is there, at most `limit`, without waiting.
    pub fn try_receive_many(&mut self, into: &mut Vec<T>, limit: usize) -> usize {
        let mut state = lock(&self.shared.state);
        let taken = state.queue.len().min(limit);
        into.extend(state.queue.drain(..taken));
        let wakers: Vec<Waker> = state.blocked.iter().take(taken).map(|(_, w)| w.clone()).collect();
        drop(state);
        for waker in wakers {
            waker.wake();
        }
        taken
    }

    async fn receive_at(
        &mut self,
        into: &mut Vec<T>,
        limit: usize,
        deadline: Deadline,
        site: &'static Location<'static>,
    ) -> Result<usize, ReceiveError> {
        if !self.named {
            self.named = true;
            let holder = Holder { task: task::current(), since: self.backend.now(), site };
            self.shared.resource.held_by(holder);
        }
        let backend = self.backend.clone();
        let name = self.shared.resource.name.clone();
        let waiting = poll_fn(|cx| self.poll_receive_many(cx, into, limit));
        let mut wait = backend.registry().waiting(&backend, WaitKind::Receive, "message", site).on(name);
        if matches!(deadline, Deadline::Unbounded(_)) {
            wait = wait.unbounded();
        }
        match within(&backend, deadline, wait.during(waiting)).await {
            Ok(Some(taken)) => Ok(taken),
            Ok(None) => Err(ReceiveError::Closed),
            Err(_) => Err(ReceiveError::TimedOut),
        }
    }

    /// For owners that wait for several things at once. `None`: closed and empty.
    pub fn poll_receive_many(
        &mut self,
        cx: &mut std::task::Context<'_>,
        into: &mut Vec<T>,
        limit: usize,
    ) -> Poll<Option<usize>> {
        let taken = self.try_receive_many(into, limit);
        if taken > 0 {
            return Poll::Ready(Some(taken));
        }
        let mut state = lock(&self.shared.state);
        if !state.queue.is_empty() {
            drop(state);
            return Poll::Ready(Some(self.try_receive_many(into, limit)));
        }
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        state.receiver = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<B, T> Drop for Receiver<B, T> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        drop(queue);
        for (_, waker) in blocked {
            waker.wake();
        }
    }
}

enum Cell<A> {
    Waiting(Option<Waker>),
    Answered(A),
    Dropped,
}

/// Answers one request; dropping it unanswered tells the waiter so.
pub struct Replier<A> {
    cell: Option<Arc<Mutex<Cell<A>>>>,
}

impl<A> Replier<A> {
    /// Answers. Nobody may be waiting any more; the answer is dropped then.
    pub fn answer(mut self, answer: A) {
        self.settle(Cell::Answered(answer));
    }

    fn settle(&mut self, outcome: Cell<A>) {
        let Some(cell) = self.cell.take() else { return };
        let before = std::mem::replace(&mut *lock(&cell), outcome);
        if let Cell::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<A> Drop for Replier<A> {
    fn drop(&mut self) {
        self.settle(Cell::Dropped);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    TimedOut,
    /// The replier was dropped unanswered: its owner is gone.
    Dropped,
}

/// Waits for one answer.
pub struct Reply<B, A> {
    backend: B,
    what: &'static str,
    resource: Arc<Resource>,
    cell: Arc<Mutex<Cell<A>>>,
}

impl<B: Backend, A: Send> Reply<B, A> {
    #[track_caller]
    pub fn wait(self, deadline: Deadline) -> impl Future<Output = Result<A, ReplyError>> + Send {
        let site = Location::caller();
        async move {
            let waiting = poll_fn(|cx| {
                let mut cell = lock(&self.cell);
                match std::mem::replace(&mut *cell, Cell::Dropped) {
                    Cell::Answered(answer) => Poll::Ready(Ok(answer)),
                    Cell::Dropped => Poll::Ready(Err(ReplyError::Dropped)),
                    Cell::Waiting(_) => {
                        *cell = Cell::Waiting(Some(cx.waker().clone()));
                        Poll::Pending
                    }
                }
            });
            let wait = self
                .backend
                .registry()
                .waiting(&self.backend, WaitKind::Reply, self.what, site)
                .on(self.resource.name.clone())
                .held(self.resource.clone());
            within(&self.backend, deadline, wait.during(waiting)).await.unwrap_or(Err(ReplyError::TimedOut))
        }
    }
}
