//! From a request to its answer: who handles what, in two phases.
//!
//! [`start`] runs in the order of the connection's requests and is where a produce takes its place in line;
//! [`finish`] is awaited in the same order and gives the answer. Whatever is not a produce does
//! all of its work in the second phase.

use std::sync::Arc;

use futures::future::BoxFuture;
use io_backend::{Backend, Moment};
use kafka_protocol::messages::{RequestKind, ResponseKind};

use crate::budget::Permit;
use crate::fetch;
use crate::produce::{self, PendingProduce};
use crate::server::Front;
use crate::wire::{self, Incoming, RequestHead, Response};

mod changes;
mod cluster;
mod configs;
mod coordinator;
mod create_topics;
mod delete_topics;
mod metadata;
mod offsets;
mod producer_ids;
pub mod topics;

pub use producer_ids::ProducerIds;

/// A request whose place among the connection's requests is taken.
pub struct Started<B: Backend> {
    head: RequestHead,
    work: Work<B>,
}

#[expect(clippy::large_enum_variant, reason = "boxing it would cost an allocation per request")]
enum Work<B: Backend> {
    Done(Response),
    Produce(PendingProduce<B>),
    /// Needs the permit, to give it back while it waits for records.
    Fetch(Box<kafka_protocol::messages::FetchRequest>),
    Later(BoxFuture<'static, ResponseKind>),
}

/// What a connection does with a finished request.
#[expect(clippy::large_enum_variant, reason = "boxing it would cost an allocation per request")]
#[derive(Debug)]
pub enum Finished {
    Answer(Response),
    /// The client asked for no answer.
    Silent,
    /// Nothing can be said, and keeping silent would be a lie.
    Close(String),
}

pub async fn start<B: Backend>(front: &Arc<Front<B>>, incoming: Incoming, received: Moment) -> Started<B> {
    let (head, request) = match incoming {
        Incoming::Request(head, request) => (head, request),
        Incoming::NotServed(head) => {
            tracing::debug!(key = head.key, version = head.version, "a request that is not served");
            return Started { head, work: Work::Done(wire::refusal(head)) };
        }
    };
    let context = &front.context;
    let work = match request {
        RequestKind::Produce(request) => {
            Work::Produce(produce::start(context, head, request, received).await)
        }
        RequestKind::Fetch(request) => Work::Fetch(Box::new(request)),
        RequestKind::ApiVersions(_) => {
            Work::Done(Response::to(head, wire::api_versions(head.version).into()))
        }
        RequestKind::ListOffsets(request) => later(offsets::list(context.clone(), head.version, request)),
        RequestKind::OffsetForLeaderEpoch(request) => {
            later(offsets::for_leader_epoch(context.clone(), request))
        }
        RequestKind::Metadata(request) => later(metadata::handle(context.clone(), head.version, request)),
        RequestKind::CreateTopics(request) => {
            later(create_topics::handle(context.clone(), head.version, request))
        }
        RequestKind::DeleteTopics(request) => {
            later(delete_topics::handle(context.clone(), head.version, request))
        }
        RequestKind::InitProducerId(request) => later(producer_ids::handle(front.clone(), request)),
        RequestKind::DescribeConfigs(request) => later(configs::handle(context.clone(), request)),
        RequestKind::DescribeCluster(request) => {
            later(cluster::handle(context.clone(), head.version, request))
        }
        RequestKind::FindCoordinator(request) => later(coordinator::handle(head.version, request)),
        // The version table names no other.
        _ => Work::Done(wire::refusal(head)),
    };
    Started { head, work }
}

fn later<M: Into<ResponseKind>, B: Backend>(handler: impl Future<Output = M> + Send + 'static) -> Work<B> {
    Work::Later(Box::pin(async move { handler.await.into() }))
}

pub async fn finish<B: Backend>(front: &Arc<Front<B>>, started: Started<B>, permit: Permit) -> Finished {
    let Started { head, work } = started;
    match work {
        Work::Done(response) => Finished::Answer(response),
        Work::Produce(pending) => {
            let finished = produce::finish(&front.context, head, pending).await;
            drop(permit);
            finished
        }
        Work::Fetch(request) => {
            let (response, records) = Box::pin(fetch::handle(front, head.version, *request, permit)).await;
            Finished::Answer(Response::fetched(head, response, records))
        }
        Work::Later(handler) => {
            let message = handler.await;
            drop(permit);
            Finished::Answer(Response::to(head, message))
        }
    }
}
