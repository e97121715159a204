//! What an API declares of itself: key, versions, how a request is bounded, what it needs authorized, who handles it.
//!
//! [`Api`] is the form of all that is answered by one message when its turn on the connection has come, [`AskedInLine`] of what is asked
//! before that. Produce and fetch have phases of their own, and a row of their own in the table.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use io_backend::Backend;
use kafka_protocol::messages::{ApiKey, FetchRequest, ProduceRequest};
use kafka_protocol::protocol::Decodable;

use super::authorization::Needs;
use crate::budget::Share;
use crate::context::Context;
use crate::session::Session;
use crate::wire::shape::Bounds;
use crate::wire::{Message, RequestHead, Response, WireError, decode_body};

/// The versions of an API, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first that is served.
    pub min: i16,
    /// The last that is served.
    pub max: i16,
    /// What ApiVersions says is the first; it differs from `min` only where a client needs to be told so.
    pub advertised_min: i16,
}

impl Versions {
    /// Those from `min` to `max`, advertised as they are.
    pub const fn of(min: i16, max: i16) -> Versions {
        Versions { min, max, advertised_min: min }
    }

    /// Whether this version is served.
    pub fn contain(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

/// What is known of an API without asking its handler.
#[derive(Clone, Copy, Debug)]
pub struct Declaration {
    /// Kafka's number and name of it.
    pub key: ApiKey,
    /// The versions that are served.
    pub versions: Versions,
    /// What a request may be made of, and how much of it.
    pub bounds: Bounds,
    /// What its client has to be allowed.
    #[allow(
        dead_code,
        reason = "an authorizer asks for it, and there is none: who connects may do everything"
    )]
    pub needs: Needs,
}

/// A request on its way to its handler.
#[derive(Clone)]
pub struct Call<B: Backend> {
    /// What all handlers share.
    pub context: Arc<Context<B>>,
    /// The client, as it was when the request came.
    pub session: Arc<Session>,
    /// API, version and correlation id.
    pub head: RequestHead,
}

/// An answer, and for how long nothing more is read from who asked (a quota was exceeded).
#[derive(Debug)]
pub struct Answer<M> {
    /// The response, in the codec's form.
    pub message: M,
    /// Zero where no quota was exceeded.
    pub throttle: Duration,
}

impl<M> From<M> for Answer<M> {
    fn from(message: M) -> Answer<M> {
        Answer { message, throttle: Duration::ZERO }
    }
}

/// An API whose requests are answered by one message; its request implements it.
pub trait Api: Decodable + Send + 'static {
    /// What is known of it before it is asked.
    const DECLARATION: Declaration;
    /// What is answered.
    type Response: Message + Send + 'static;

    /// Answers the request; errors are codes in the answer, never an end of the connection.
    fn answer<B: Backend>(self, call: Call<B>) -> impl Future<Output = Answer<Self::Response>> + Send;

    /// Each error code that a response carries, 0 for none.
    fn errors(response: &Self::Response, each: &mut dyn FnMut(i16));
}

/// An answer that is on its way.
pub type Pending<M> = BoxFuture<'static, Answer<M>>;

/// What is left of a request when its question has been asked.
pub fn pending<M>(answer: impl Future<Output = Answer<M>> + Send + 'static) -> Pending<M> {
    Box::pin(answer)
}

/// An API whose requests ask somebody who answers for long: they take their place in his line in the order in which they came, and are
/// answered in that order.
pub trait AskedInLine: Decodable + Send + 'static {
    /// What is known of it before it is asked.
    const DECLARATION: Declaration;
    /// What is answered.
    type Response: Message + Send + 'static;

    /// Asks. Errors are codes in the answer, never an end of the connection.
    fn ask<B: Backend>(self, call: Call<B>) -> impl Future<Output = Pending<Self::Response>> + Send;

    /// Each error code that a response carries, 0 for none.
    fn errors(response: &Self::Response, each: &mut dyn FnMut(i16));
}

/// A request that has been decoded; nothing has been done about it.
pub enum Asked {
    /// Is queued at its partitions when it is started, and is answered when its turn has come.
    Produce(ProduceRequest),
    /// Gives back what it holds while it waits for records.
    Fetch(Box<FetchRequest>),
    /// Asks when it is started, and gives back what it holds while it waits for the answer.
    InLine(BoxFuture<'static, Pending<Response>>),
    /// Is worked on when its turn has come.
    Later(BoxFuture<'static, Answer<Response>>),
    /// Asks nothing of anybody.
    Done(Response),
}

/// What a connection does with a finished request.
pub enum Finished {
    /// It is written when its turn has come.
    Answer {
        /// The answer, encoded when it is written.
        response: Response,
        /// What is taken for it.
        room: Option<Share>,
        /// For how long nothing more is read.
        throttle: Duration,
    },
    /// The client asked for no answer.
    Silent,
    /// Nothing can be said, and keeping silent would be a lie.
    Close(String),
}

/// How bytes become a request of an API.
pub type Ask<B> = fn(Call<B>, Bytes) -> Result<Asked, WireError>;

/// A row of the table of APIs.
pub struct Row<B: Backend> {
    /// What is known of the API.
    pub declaration: Declaration,
    /// Decodes a request of it.
    pub ask: Ask<B>,
}

impl<B: Backend> Row<B> {
    /// The row of an API.
    pub const fn of<A: Api>() -> Row<B> {
        Row { declaration: A::DECLARATION, ask: ask::<A, B> }
    }

    /// The row of an API whose requests ask when they are started.
    pub const fn in_line<A: AskedInLine>() -> Row<B> {
        Row { declaration: A::DECLARATION, ask: ask_in_line::<A, B> }
    }
}

impl Declaration {
    /// Decodes what follows the header, within the API's bounds.
    ///
    /// # Errors
    ///
    /// It is malformed, or has more elements than the API has use for.
    pub fn decode<R: Decodable>(&self, version: i16, body: Bytes) -> Result<R, WireError> {
        decode_body(self.key, version, self.bounds, body)
    }
}

fn ask<A: Api, B: Backend>(call: Call<B>, body: Bytes) -> Result<Asked, WireError> {
    let request: A = A::DECLARATION.decode(call.head.version, body)?;
    Ok(Asked::Later(Box::pin(async move {
        let (head, context) = (call.head, call.context.clone());
        let Answer { message, throttle } = request.answer(call).await;
        A::errors(&message, &mut |code| context.requests.count_error(head.key, code));
        Answer { message: Response::to(head, message), throttle }
    })))
}

fn ask_in_line<A: AskedInLine, B: Backend>(call: Call<B>, body: Bytes) -> Result<Asked, WireError> {
    let request: A = A::DECLARATION.decode(call.head.version, body)?;
    let (head, context) = (call.head, call.context.clone());
    let answered = move |asked: Pending<A::Response>| {
        pending(async move {
            let Answer { message, throttle } = asked.await;
            A::errors(&message, &mut |code| context.requests.count_error(head.key, code));
            Answer { message: Response::to(head, message), throttle }
        })
    };
    Ok(Asked::InLine(Box::pin(request.ask(call).map(answered))))
}
