//! Named bounded channels, and replies to what was sent over them.
//!
//! A channel has one receiver, which is the owner of some state; its senders are the only doors to it.
//! Sending waits for room, receiving for a message, a [`Reply`] for its answer: each with a
//! deadline and an entry in the registry that names the task on the other side.
//!
//! Messages arrive in the order they were sent. Senders that wait for room are queued, and room goes to the
//! line first: a newcomer, [`Sender::try_send`] included, finds the channel full as long as the line
//! needs what room there is.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use crate::backend::{Backend, Interference, SyncPoint};
use crate::mutex::lock;
use crate::registry::{Holder, Resource, WaitKind};
pub use crate::reply::{Replier, Reply, ReplyError};
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
            line: VecDeque::new(),
            numbers: 0,
            senders: 1,
            closed: false,
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
    /// Senders that wait for room, first come first; their numbers ascend.
    line: VecDeque<(u64, Waker)>,
    numbers: u64,
    senders: usize,
    closed: bool,
}

impl<T> State<T> {
    /// How many stand in the line before the sender with this number, or before a newcomer.
    fn ahead(&self, number: Option<u64>) -> usize {
        number.map_or(self.line.len(), |number| self.line.partition_point(|(other, _)| *other < number))
    }

    /// Those in the line for whom there is room.
    fn admitted(&self, capacity: usize) -> impl Iterator<Item = &Waker> {
        let room = capacity.saturating_sub(self.queue.len());
        self.line.iter().take(room).map(|(_, waker)| waker)
    }
}

/// The message comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// There is no room now.
    Full(T),
    /// There was no room by the deadline.
    TimedOut(T),
    /// The receiver is gone.
    Closed(T),
}

impl<T> SendError<T> {
    /// The message, whatever kept it from being sent.
    pub fn into_message(self) -> T {
        match self {
            SendError::Full(m) | SendError::TimedOut(m) | SendError::Closed(m) => m,
        }
    }
}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveError {
    /// Nothing came by the deadline.
    TimedOut,
    /// Empty, and all senders are gone.
    Closed,
}

/// A handle of the owner of a channel. Clones are handles of the same; the channel ends with the last of them.
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
    /// What the channel is called in the registry.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.resource.name
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        lock(&self.shared.state).closed
    }

    /// Messages sent and not yet received.
    pub fn len(&self) -> usize {
        lock(&self.shared.state).queue.len()
    }

    /// Whether no message waits to be received.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands the message over if there is room now.
    ///
    /// # Errors
    /// [`SendError::Full`] when there is no room, or others wait for it; [`SendError::Closed`] when the
    /// receiver is gone. The message comes back.
    pub fn try_send(&self, message: T) -> Result<(), SendError<T>> {
        if self.backend.interference(SyncPoint::Channel(self.name())) == Interference::Full {
            return Err(SendError::Full(message));
        }
        self.push(message, None)
    }

    /// `number` is the sender's place in the line, if it stands there.
    fn push(&self, message: T, number: Option<u64>) -> Result<(), SendError<T>> {
        let mut state = lock(&self.shared.state);
        if state.closed {
            return Err(SendError::Closed(message));
        }
        let ahead = state.ahead(number);
        if state.queue.len() + ahead >= self.shared.capacity {
            return Err(SendError::Full(message));
        }
        if number.is_some() {
            state.line.remove(ahead);
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
    ///
    /// # Errors
    /// [`SendError::TimedOut`] when there is no room by the deadline, [`SendError::Closed`] when the receiver
    /// is gone. The message comes back.
    #[track_caller]
    pub fn send(
        &self,
        message: T,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), SendError<T>>> + Send {
        let site = Location::caller();
        async move {
            let message = match self.backend.interference(SyncPoint::Channel(self.name())) {
                Interference::None => match self.push(message, None) {
                    Err(SendError::Full(message)) => message,
                    done => return done,
                },
                Interference::Delay(delay) => {
                    self.backend.sleep(delay).await;
                    message
                }
                Interference::Full => message,
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
        let mut place = Waiter { shared: &self.shared, number: None };
        let waiting = poll_fn(|cx| {
            let Some(message) = slot.take() else {
                return Poll::Ready(Ok(()));
            };
            let full = self.backend.interference(SyncPoint::Channel(self.name())) == Interference::Full;
            if full {
                self.backend.wake_when_relieved(cx.waker());
            }
            let outcome = if full { Err(SendError::Full(message)) } else { self.push(message, place.number) };
            match outcome {
                Ok(()) => {
                    place.number = None;
                    Poll::Ready(Ok(()))
                }
                Err(SendError::Full(message)) => match place.line_up(cx.waker(), full) {
                    LinedUp::Waits => {
                        slot = Some(message);
                        Poll::Pending
                    }
                    LinedUp::RoomAfterAll => {
                        slot = Some(message);
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    LinedUp::Closed => Poll::Ready(Err(SendError::Closed(message))),
                },
                Err(closed) => Poll::Ready(Err(closed)),
            }
        });
        let wait = self
            .backend
            .registry()
            .waiting(&self.backend, WaitKind::Send, "room in channel", site)
            .on(self.name().clone())
            .held(self.shared.resource.clone())
            .bounded_by(deadline);
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
        crate::reply::reply(&self.backend, what, &self.shared.resource)
    }
}

/// A sender's place in the line of those that wait for room.
struct Waiter<'a, T> {
    shared: &'a Shared<T>,
    number: Option<u64>,
}

enum LinedUp {
    Waits,
    /// Room came between the attempt and the lining up, and its wake-up went to nobody.
    RoomAfterAll,
    Closed,
}

impl<T> Waiter<'_, T> {
    fn line_up(&mut self, waker: &Waker, pressed: bool) -> LinedUp {
        let mut state = lock(&self.shared.state);
        if state.closed {
            return LinedUp::Closed;
        }
        let ahead = state.ahead(self.number);
        match self.number {
            Some(_) => {
                if let Some((_, old)) = state.line.get_mut(ahead) {
                    old.clone_from(waker);
                }
            }
            None => {
                state.numbers += 1;
                let number = state.numbers;
                self.number = Some(number);
                state.line.push_back((number, waker.clone()));
            }
        }
        let room = state.queue.len() + ahead < self.shared.capacity;
        if room && !pressed { LinedUp::RoomAfterAll } else { LinedUp::Waits }
    }
}

impl<T> Drop for Waiter<'_, T> {
    fn drop(&mut self) {
        let Some(number) = self.number.take() else { return };
        let mut state = lock(&self.shared.state);
        state.line.retain(|(other, _)| *other != number);
        // Room that was kept for us, and its wake-up, go to those behind us.
        let admitted: Vec<Waker> = state.admitted(self.shared.capacity).cloned().collect();
        drop(state);
        for waker in admitted {
            waker.wake();
        }
    }
}

/// The owner's end of a channel. Dropping it closes the channel, and drops what is in it.
pub struct Receiver<B, T> {
    backend: B,
    shared: Arc<Shared<T>>,
    named: bool,
}

impl<B: Backend, T: Send> Receiver<B, T> {
    /// The next message.
    ///
    /// # Errors
    /// [`ReceiveError::TimedOut`] when nothing comes by the deadline, [`ReceiveError::Closed`] when all
    /// senders are gone and everything was received.
    #[track_caller]
    pub fn receive(&mut self, deadline: Deadline) -> impl Future<Output = Result<T, ReceiveError>> + Send {
        let site = Location::caller();
        self.receive_with(deadline, site, Receiver::poll_receive)
    }

    /// Waits for a message and takes all that are there, at most `limit`.
    ///
    /// # Errors
    /// As of [`receive`](Self::receive).
    #[track_caller]
    pub fn receive_many(
        &mut self,
        into: &mut Vec<T>,
        limit: usize,
        deadline: Deadline,
    ) -> impl Future<Output = Result<usize, ReceiveError>> + Send {
        let site = Location::caller();
        self.receive_with(deadline, site, move |own, cx| own.poll_receive_many(cx, into, limit))
    }

    async fn receive_with<R>(
        &mut self,
        deadline: Deadline,
        site: &'static Location<'static>,
        mut poll: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<Option<R>> + Send,
    ) -> Result<R, ReceiveError> {
        self.claim_at(site);
        // What is there already costs no entry, and nothing to prepare one.
        if let Poll::Ready(received) = poll_fn(|cx| Poll::Ready(poll(self, cx))).await {
            return received.ok_or(ReceiveError::Closed);
        }
        let backend = self.backend.clone();
        let name = self.shared.resource.name.clone();
        let wait = backend
            .registry()
            .waiting(&backend, WaitKind::Receive, "message", site)
            .on(name)
            .bounded_by(deadline);
        let waiting = poll_fn(|cx| poll(self, cx));
        match within(&backend, deadline, wait.during(waiting)).await {
            Ok(received) => received.ok_or(ReceiveError::Closed),
            Err(_) => Err(ReceiveError::TimedOut),
        }
    }

    /// Tells those who wait for this channel that the current task is its owner. Receiving does so by
    /// itself; an owner that only polls says it once.
    #[track_caller]
    pub fn claim(&mut self) {
        self.claim_at(Location::caller());
    }

    fn claim_at(&mut self, site: &'static Location<'static>) {
        if !self.named {
            self.named = true;
            let holder = Holder { task: task::current(), since: self.backend.now(), site };
            self.shared.resource.held_by(holder);
        }
    }

    /// Takes what is there, at most `limit`, without waiting.
    pub fn try_receive_many(&mut self, into: &mut Vec<T>, limit: usize) -> usize {
        let mut state = lock(&self.shared.state);
        let taken = state.queue.len().min(limit);
        into.extend(state.queue.drain(..taken));
        self.taken(state, taken);
        taken
    }

    /// Tells the line about the room that was made.
    fn taken(&self, state: std::sync::MutexGuard<'_, State<T>>, taken: usize) {
        if taken == 0 || state.line.is_empty() {
            return;
        }
        let admitted: Vec<Waker> = state.admitted(self.shared.capacity).cloned().collect();
        drop(state);
        for waker in admitted {
            waker.wake();
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        let mut state = lock(&self.shared.state);
        let Some(message) = state.queue.pop_front() else {
            return ready_if_over(&mut state, cx);
        };
        self.taken(state, 1);
        turn.made_progress();
        Poll::Ready(Some(message))
    }

    /// For owners that wait for several things at once. `None`: closed and empty.
    ///
    /// An owner whose channel is never empty gives way to other tasks from time to time, as tokio's own
    /// channels do.
    pub fn poll_receive_many(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<T>,
        limit: usize,
    ) -> Poll<Option<usize>> {
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        let mut state = lock(&self.shared.state);
        let taken = state.queue.len().min(limit);
        if taken == 0 {
            return ready_if_over(&mut state, cx);
        }
        into.extend(state.queue.drain(..taken));
        self.taken(state, taken);
        turn.made_progress();
        Poll::Ready(Some(taken))
    }
}

/// Nothing is there: over if nobody can send any more, otherwise the receiver is to be woken.
fn ready_if_over<T, R>(state: &mut State<T>, cx: &Context<'_>) -> Poll<Option<R>> {
    if state.senders == 0 {
        return Poll::Ready(None);
    }
    match &mut state.receiver {
        Some(old) => old.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
    Poll::Pending
}

impl<B, T> Drop for Receiver<B, T> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        let line = std::mem::take(&mut state.line);
        drop(state);
        drop(queue);
        for (_, waker) in line {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
