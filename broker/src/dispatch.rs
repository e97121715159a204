//! From a request to its answer, in two phases.
//!
//! [`start`] runs in the order of the connection's requests and is where a produce is queued at its partitions, and a question about a group
//! at whoever coordinates it; [`finish`] is awaited in the same order and gives the answer. All else is worked on in the second phase.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use io_backend::{Backend, Moment};
use kafka_protocol::messages::FetchRequest;

use crate::api::fetch::{self, Fetched};
use crate::api::produce::{self, PendingProduce};
use crate::api::{Answer, Asked, Finished, Pending};
use crate::budget::{Held, RequestClass};
use crate::context::Context;
use crate::limits;
use crate::session::Session;
use crate::wire::{RequestHead, Response};

/// A request that was read, and when it came with its last byte.
pub struct Received {
    /// API, version and correlation id.
    pub head: RequestHead,
    /// The client.
    pub session: Arc<Session>,
    /// What it asks.
    pub asked: Asked,
    /// When its last byte came, or reading stopped: deadlines count from it.
    pub at: Moment,
}

/// A request whose place among the connection's requests is taken.
pub struct Started<B: Backend> {
    head: RequestHead,
    session: Arc<Session>,
    at: Moment,
    work: Work<B>,
}

enum Work<B: Backend> {
    Done(Response),
    Produce(PendingProduce<B>),
    Fetch(Box<FetchRequest>),
    InLine(Pending<Response>),
    Later(BoxFuture<'static, Answer<Response>>),
}

/// Takes the request's place; a produce waits until its partitions' mailboxes have taken it.
pub async fn start<B: Backend>(context: &Arc<Context<B>>, received: Received) -> Started<B> {
    let Received { head, session, asked, at } = received;
    let work = match asked {
        Asked::Produce(request) => Work::Produce(produce::start(context, &session, head, request, at).await),
        Asked::Fetch(request) => Work::Fetch(request),
        Asked::InLine(question) => Work::InLine(question.await),
        Asked::Later(handler) => Work::Later(handler),
        Asked::Done(response) => Work::Done(response),
    };
    Started { head, session, at, work }
}

impl<B: Backend> Started<B> {
    /// Whether it has been started with a produce: what is left to wait for is its partitions' answers.
    pub fn is_produce(&self) -> bool {
        matches!(self.work, Work::Produce(_))
    }
}

/// Called when the request's turn has come: what is worked on counts from here on, a produce from its start.
pub async fn finish<B: Backend>(context: &Arc<Context<B>>, started: Started<B>, held: Held) -> Finished {
    let Started { head, session, at, work } = started;
    let finished = match work {
        Work::Done(response) => Finished::Answer { response, room: None, throttle: Duration::ZERO },
        Work::Produce(pending) => {
            let finished = produce::finish(context, head, pending).await;
            drop(held);
            finished
        }
        Work::Fetch(request) => {
            let fetched = Box::pin(fetch::handle(context, &session, head.version, *request, held)).await;
            let Fetched { response, records, room } = fetched;
            let response = Response::fetched(head, response, records);
            Finished::Answer { response, room, throttle: Duration::ZERO }
        }
        Work::InLine(pending) => in_line(context, &session, pending, held).await,
        Work::Later(handler) => later(context, handler, held).await,
    };
    context.requests.count_done(head.key, context.backend.now().since(at));
    finished
}

/// Others may have to do something before there is an answer: what the request holds is given back meanwhile.
async fn in_line<B: Backend>(
    context: &Context<B>,
    session: &Session,
    pending: Pending<Response>,
    held: Held,
) -> Finished {
    let (backend, budget) = (&context.backend, &context.budget);
    // A large question lies in its coordinator's mailbox, and its frame here.
    let asked = match held.waiting_amount(false) {
        small if small <= limits::SMALL_QUESTION_BYTES => held.waiting_amount(true),
        large => large,
    };
    let waiting = held.waiting.or_else(|| budget.waiting_bytes.try_take(RequestClass::Essential, asked));
    if waiting.is_none() {
        session.control.hurry(true);
    }
    drop((held.request, held.bytes));
    let Answer { message: response, throttle } = pending.await;
    drop(waiting);
    let deadline = backend.now() + limits::DISK_DEADLINE;
    match budget.room_for_answer(backend, RequestClass::Essential, limits::ANSWER_BYTES_LEAST, deadline).await
    {
        Some(room) => Finished::Answer { response, room: Some(room), throttle },
        None => Finished::Close("there was no room for its answer".into()),
    }
}

async fn later<B: Backend>(
    context: &Context<B>,
    handler: BoxFuture<'static, Answer<Response>>,
    mut held: Held,
) -> Finished {
    let (backend, budget) = (&context.backend, &context.budget);
    let deadline = backend.now() + limits::DISK_DEADLINE;
    let room =
        budget.room_for_answer(backend, RequestClass::Essential, limits::ANSWER_BYTES_LEAST, deadline).await;
    if room.is_none() {
        return Finished::Close("there was no room for its answer".into());
    }
    let working = match held.request.take() {
        Some(working) => working,
        None => budget.requests.take(RequestClass::Essential, 1).await,
    };
    let Answer { message: response, throttle } = handler.await;
    drop((working, held));
    Finished::Answer { response, room, throttle }
}
