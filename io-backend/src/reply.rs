//! The answer to one request that was sent over a channel.
//!
//! A [`Replier`] goes with the request and answers at most once; dropped unanswered, it says so. The waiting
//! [`Reply`] is shown in the registry with the channel's receiver as the one to wake it.

use std::future::poll_fn;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use crate::backend::Backend;
use crate::mutex::lock;
use crate::registry::{Resource, WaitKind};
use crate::time::{Deadline, within};

enum Cell<A> {
    Waiting(Option<Waker>),
    Answered(A),
    Dropped,
}

pub(crate) fn reply<B: Backend, A: Send>(
    backend: &B,
    what: &'static str,
    resource: &Arc<Resource>,
) -> (Replier<A>, Reply<B, A>) {
    let cell = Arc::new(Mutex::new(Cell::Waiting(None)));
    (
        Replier { cell: Some(cell.clone()) },
        Reply { backend: backend.clone(), what, resource: resource.clone(), cell },
    )
}

/// Answers one request; dropping it unanswered tells the waiter so.
pub struct Replier<A> {
    cell: Option<Arc<Mutex<Cell<A>>>>,
}

impl<A> Replier<A> {
    /// For who is not waited for.
    pub fn to_nobody() -> Replier<A> {
        Replier { cell: None }
    }

    /// Answers. Nobody may be waiting any more; the answer is dropped then.
    pub fn answer(mut self, answer: A) {
        self.settle(Cell::Answered(answer));
    }

    /// Whether somebody waits for the answer still.
    pub fn is_awaited(&self) -> bool {
        self.cell.as_ref().is_some_and(|cell| Arc::strong_count(cell) > 1)
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

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// It did not come by the deadline.
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
    /// The answer.
    ///
    /// # Errors
    /// [`ReplyError::TimedOut`] when the answer is not there by the deadline, [`ReplyError::Dropped`] when it
    /// never comes.
    #[track_caller]
    pub fn wait(self, deadline: Deadline) -> impl Future<Output = Result<A, ReplyError>> + Send {
        let site = Location::caller();
        async move {
            let waiting = poll_fn(|cx| {
                let mut cell = lock(&self.cell);
                match &mut *cell {
                    Cell::Waiting(Some(old)) => old.clone_from(cx.waker()),
                    Cell::Waiting(none) => *none = Some(cx.waker().clone()),
                    settled => {
                        return match std::mem::replace(settled, Cell::Dropped) {
                            Cell::Answered(answer) => Poll::Ready(Ok(answer)),
                            _ => Poll::Ready(Err(ReplyError::Dropped)),
                        };
                    }
                }
                Poll::Pending
            });
            let wait = self
                .backend
                .registry()
                .waiting(&self.backend, WaitKind::Reply, self.what, site)
                .on(self.resource.name.clone())
                .held(self.resource.clone())
                .bounded_by(deadline);
            within(&self.backend, deadline, wait.during(waiting)).await.unwrap_or(Err(ReplyError::TimedOut))
        }
    }
}

#[cfg(test)]
mod tests;
