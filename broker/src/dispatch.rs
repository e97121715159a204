//! From a request to its answer: who handles what, in two phases.
//!
//! [`start`] runs in the order of the connection's requests and is where a produce takes its place in line;
//! [`finish`] is awaited in the same order and gives the answer. Whatever is not a produce does
//! all of its work in the second phase.

use std::sync::Arc;

use futures::future::BoxFuture;
use io_backend::{Backend, Moment};
use kafka_protocol::messages::{RequestKind, ResponseKind};

use crate::api::produce::{self, PendingProduce};
use crate::api::{
    Finished, create_topics, delete_topics, describe_cluster, describe_configs, fetch, find_coordinator,
    init_producer_id, list_offsets, metadata, offset_for_leader_epoch,
};
use crate::budget::{Class, Held};
use crate::context::Context;
use crate::limits;
use crate::session::Control;
use crate::wire::{self, Incoming, RequestHead, Response};

/// A request whose place among the connection's requests is taken.
pub struct Started<B: Backend> {
    head: RequestHead,
    work: Work<B>,
}

#[expect(clippy::large_enum_variant, reason = "boxing it would cost an allocation per request")]
enum Work<B: Backend> {
    Done(Response),
    Produce(PendingProduce<B>),
    /// Gives back what it holds while it waits for records.
    Fetch(Box<kafka_protocol::messages::FetchRequest>),
    Later(BoxFuture<'static, ResponseKind>),
}

pub async fn start<B: Backend>(
    context: &Arc<Context<B>>,
    incoming: Incoming,
    received: Moment,
    control: &Arc<Control>,
) -> Started<B> {
    let (head, request) = match incoming {
        Incoming::Request(head, request) => (head, request),
        Incoming::NotServed(head) => {
            tracing::debug!(key = head.key, version = head.version, "a request that is not served");
            return Started { head, work: Work::Done(wire::refusal(head)) };
        }
    };
    let work = match request {
        RequestKind::Produce(request) => {
            Work::Produce(produce::start(context, head, request, received, control.clone()).await)
        }
        RequestKind::Fetch(request) => Work::Fetch(Box::new(request)),
        RequestKind::ApiVersions(_) => {
            Work::Done(Response::to(head, wire::api_versions(head.version).into()))
        }
        RequestKind::ListOffsets(request) => {
            later(list_offsets::handle(context.clone(), head.version, request))
        }
        RequestKind::OffsetForLeaderEpoch(request) => {
            later(offset_for_leader_epoch::handle(context.clone(), request))
        }
        RequestKind::Metadata(request) => later(metadata::handle(context.clone(), head.version, request)),
        RequestKind::CreateTopics(request) => {
            later(create_topics::handle(context.clone(), head.version, request))
        }
        RequestKind::DeleteTopics(request) => {
            later(delete_topics::handle(context.clone(), head.version, request))
        }
        RequestKind::InitProducerId(request) => later(init_producer_id::handle(context.clone(), request)),
        RequestKind::DescribeConfigs(request) => later(describe_configs::handle(context.clone(), request)),
        RequestKind::DescribeCluster(request) => {
            later(describe_cluster::handle(context.clone(), head.version, request))
        }
        RequestKind::FindCoordinator(request) => later(find_coordinator::handle(head.version, request)),
        // The version table names no other.
        _ => Work::Done(wire::refusal(head)),
    };
    Started { head, work }
}

fn later<M: Into<ResponseKind>, B: Backend>(handler: impl Future<Output = M> + Send + 'static) -> Work<B> {
    Work::Later(Box::pin(async move { handler.await.into() }))
}

impl<B: Backend> Started<B> {
    pub fn is_produce(&self) -> bool {
        matches!(self.work, Work::Produce(_))
    }
}

/// Called when the request's turn has come: what is worked on counts from here on, a produce from its start.
pub async fn finish<B: Backend>(
    context: &Arc<Context<B>>,
    started: Started<B>,
    mut held: Held,
    control: &Control,
) -> Finished {
    let Started { head, work } = started;
    match work {
        Work::Done(response) => Finished::Answer(response, None),
        Work::Produce(pending) => {
            let finished = produce::finish(context, head, pending).await;
            drop(held);
            finished
        }
        Work::Fetch(request) => {
            let fetched = Box::pin(fetch::handle(context, head.version, *request, held, control)).await;
            Finished::Answer(Response::fetched(head, fetched.response, fetched.records), fetched.room)
        }
        Work::Later(handler) => {
            let deadline = context.backend.now() + limits::DISK_DEADLINE;
            let (backend, budget) = (&context.backend, &context.budget);
            let room =
                budget.room_for_answer(backend, Class::Essential, limits::ANSWER_BYTES_LEAST, deadline).await;
            if room.is_none() {
                return Finished::Close("there was no room for its answer".into());
            }
            let working = match held.request.take() {
                Some(working) => working,
                None => budget.requests.take(Class::Essential, 1).await,
            };
            let message = handler.await;
            drop((working, held));
            Finished::Answer(Response::to(head, message), room)
        }
    }
}
