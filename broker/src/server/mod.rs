//! The entrance for clients: accepts connections, bounds their number and what they may have in flight, and
//! lets go of them at the end.
//!
//! One task accepts (`kafka listener`), each connection has a task of its own (`connection[PEER]`). Stopping
//! means: accept nobody, let what is in flight be answered, then close; who is not done by
//! the drain deadline is cut off.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use io_backend::{Backend, Deadline, Listener, Network, Published, TaskName};
use tracing::{debug, info, warn};

use crate::context::Context;
use crate::limits;
use crate::lines::Lines;
use crate::session::{Closing, Session};

mod connections;
#[cfg(test)]
pub(crate) mod test_node;

use connections::{Connections, Places};

/// The listener of a backend.
pub type ListenerOf<B> = <<B as Backend>::Network as Network>::Listener;

/// Pause after a failed accept: descriptors may be short for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Kafka's name for a listener that is named after what it speaks.
const LISTENER: &str = "PLAINTEXT";
/// A connection that is told to end at once needs no longer for it.
const CUT_OFF: Duration = Duration::from_secs(1);

/// Serves until `stop` is true and everything in flight has been answered or the drain deadline has passed.
pub async fn serve<B: Backend>(listener: ListenerOf<B>, context: Arc<Context<B>>, stop: Published<bool>) {
    let backend = context.backend.clone();
    let connections = Arc::new(Connections::default());
    {
        let mut stopping = pin!(stop.until(
            &backend,
            Deadline::Unbounded("the process stops when it is told to"),
            |stop| *stop,
        ));
        let failures = Lines::default();
        loop {
            match next_connection(&listener, stopping.as_mut()).await {
                None => break,
                Some(Ok((stream, peer))) => welcome(&context, &connections, stream, peer),
                Some(Err(error)) => {
                    if let Some(times) = failures.next() {
                        warn!(%error, times, "a connection could not be accepted; trying again in {ACCEPT_PAUSE:?}");
                    }
                    backend.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    info!(connections = connections.len(), "the listener is closed, finishing what is in flight");
    connections.close_all(Closing::WhenAnswered);
    if connections.until_empty(&backend, Deadline::after(&backend, limits::DRAIN_DEADLINE)).await.is_err() {
        warn!(connections = connections.len(), "connections with unanswered requests are cut off");
        connections.close_all(Closing::Now);
        let _ = connections.until_empty(&backend, Deadline::after(&backend, CUT_OFF)).await;
    }
}

/// `None`: told to stop.
async fn next_connection<L: Listener>(
    listener: &L,
    mut stopping: Pin<&mut impl Future>,
) -> Option<io::Result<(L::Stream, String)>> {
    let mut accepting = pin!(listener.accept());
    poll_fn(|cx| {
        if stopping.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        accepting.as_mut().poll(cx).map(Some)
    })
    .await
}

fn welcome<B: Backend>(
    context: &Arc<Context<B>>,
    connections: &Arc<Connections>,
    stream: <ListenerOf<B> as Listener>::Stream,
    peer: String,
) {
    let server = &context.config.server;
    let places = Places { all: server.connections, per_address: server.connections_per_address };
    let (now, gauge) = (context.backend.now(), &context.metrics.connections);
    let Some(member) = connections.join(places, &peer, now, gauge) else {
        // A flood of connections must not become a flood of lines.
        let refused = connections.count_refused();
        if refused.is_power_of_two() {
            warn!(%peer, refused, "refused: all places are in use (server.connections, server.connections_per_address)");
        }
        return;
    };
    debug!(%peer, "connected");
    let peer: Arc<str> = peer.into();
    let name = TaskName::of("connection", peer.clone());
    let backend = context.backend.clone();
    let context = context.clone();
    backend.spawn(name, async move {
        let session = Session::new(peer, LISTENER, member.control().clone());
        crate::connection::run(context, stream, session).await;
        drop(member);
    });
}

#[cfg(test)]
mod whole_node_tests;
