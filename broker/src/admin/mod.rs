//! The admin port: what operators and machines ask a node over HTTP. `GET` only, one request per connection.
//!
//! It reads; it changes nothing, waits for no owner task and touches no disk, so it answers while
//! everything else stands still, and from the moment that it is bound: a start that reads a large journal back says so.

mod lags;
mod metrics;
pub mod stalls;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use io_backend::stream::{self, Stream};
use io_backend::task::TaskHandle;
use io_backend::{Backend, Deadline, Listener, Moment, Network, Published};
use tracing::{debug, warn};

use self::lags::GroupLags;
use crate::context::Context;
use crate::limits;
use crate::metrics::Metrics;
use crate::stall::writes::{Refusal, Refusing};
use crate::stall::{Health, StorageHealth};

/// What the port tells of.
pub struct Shown<B: Backend> {
    /// Whose registry says what is in flight.
    pub backend: B,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// Whether the storage stands still or has failed.
    pub health: StorageHealth,
    /// How far the node is.
    pub phase: Published<Phase<B>>,
}

/// How far a node is between its start and its end.
pub enum Phase<B: Backend> {
    /// Clients are not accepted yet: what it does, and since when.
    Starting(&'static str, Moment),
    /// Clients are served.
    Serving(Arc<Context<B>>),
    /// Clients are answered and let go; a load balancer is to look elsewhere.
    Stopping(Arc<Context<B>>),
}

impl<B: Backend> Phase<B> {
    /// What all of the node share, once there is all of it.
    fn context(&self) -> Option<&Context<B>> {
        match self {
            Phase::Starting(..) => None,
            Phase::Serving(context) | Phase::Stopping(context) => Some(context),
        }
    }
}

/// Serves until the process ends.
pub async fn serve<B: Backend>(shown: Arc<Shown<B>>, listener: <B::Network as Network>::Listener) {
    let backend = shown.backend.clone();
    let mut requests = Requests::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "the admin port cannot accept");
                backend.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if requests.open() >= limits::ADMIN_CONNECTIONS_MAX {
            continue;
        }
        let shown = shown.clone();
        requests.0.push(backend.spawn("admin-request", async move {
            if let Err(error) = answer(&shown, stream).await {
                debug!(%error, "an admin request was not answered");
            }
        }));
    }
}

/// Those that are being answered; they end with the port.
#[derive(Default)]
struct Requests(Vec<TaskHandle>);

impl Requests {
    fn open(&mut self) -> usize {
        self.0.retain(|request| !request.is_finished());
        self.0.len()
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        for request in self.0.drain(..) {
            request.abort();
        }
    }
}

async fn answer<B: Backend>(shown: &Shown<B>, mut stream: Stream<B>) -> std::io::Result<()> {
    let backend = &shown.backend;
    let deadline = Deadline::after(backend, limits::ADMIN_DEADLINE);
    let mut head = BytesMut::with_capacity(1024);
    let response = loop {
        if stream::read(backend, &mut stream, &mut head, "admin request", deadline).await? == 0 {
            return Ok(());
        }
        match parse(&head) {
            Parsed::Partial if head.len() < limits::ADMIN_HEAD_BYTES_MAX => {}
            Parsed::Partial | Parsed::Garbage => break Response::text(400, "not an HTTP request\n"),
            Parsed::Get(path) => break route(shown, &path),
            Parsed::Head(path) => break route(shown, &path).without_body(),
            Parsed::OtherMethod => break Response::text(405, "only GET is served here\n"),
        }
    };
    stream::write_all(backend, &mut stream, &response.encode(), "admin response", deadline).await
}

enum Parsed {
    Partial,
    Garbage,
    OtherMethod,
    Get(String),
    Head(String),
}

fn parse(head: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Err(_) => Parsed::Garbage,
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Ok(httparse::Status::Complete(_)) => match (request.method, request.path) {
            (Some(method @ ("GET" | "HEAD")), Some(path)) => {
                let path = path.split('?').next().unwrap_or_default().to_string();
                if method == "GET" { Parsed::Get(path) } else { Parsed::Head(path) }
            }
            _ => Parsed::OtherMethod,
        },
    }
}

struct Response {
    status: u16,
    content_type: &'static str,
    body: String,
    /// HEAD: the length is told, the body is not sent.
    only_head: bool,
}

impl Response {
    fn text(status: u16, body: impl Into<String>) -> Response {
        Response { status, content_type: "text/plain; charset=utf-8", body: body.into(), only_head: false }
    }

    fn json(body: &serde_json::Value) -> Response {
        let mut text = format!("{body:#}");
        text.push('\n');
        Response { status: 200, content_type: "application/json", body: text, only_head: false }
    }

    fn without_body(self) -> Response {
        Response { only_head: true, ..self }
    }

    fn encode(&self) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Service Unavailable",
        };
        format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{}",
            self.status,
            self.content_type,
            self.body.len(),
            if self.only_head { "" } else { &self.body }
        )
        .into_bytes()
    }
}

const INDEX: &str = "chronik admin port\n\n\
    /metrics        Prometheus metrics\n\
    /health/live    200 while the process answers\n\
    /health/ready   200 while it takes and serves records, 503 with the reason otherwise (as while it starts)\n\
    /debug/stalls   JSON: every disk operation in flight and who waits for whom\n\
    /config         the configuration in effect\n";

fn route<B: Backend>(shown: &Shown<B>, path: &str) -> Response {
    let phase = shown.phase.get();
    match path {
        "/" => Response::text(200, INDEX),
        "/metrics" => Response {
            status: 200,
            content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
            body: metrics::render(
                &shown.metrics,
                phase.context().map(|context| &context.requests),
                &looked_up(shown, phase.context()),
                &phase.context().map(GroupLags::of).unwrap_or_default(),
            ),
            only_head: false,
        },
        "/health/live" => Response::text(200, "live\n"),
        "/health/ready" => match &*phase {
            Phase::Starting(doing, since) => starting(shown, doing, *since),
            Phase::Serving(context) => ready(context),
            Phase::Stopping(_) => Response::text(503, "stopping\n"),
        },
        "/debug/stalls" => {
            let mut told = stalls::describe(shown.backend.registry(), shown.backend.now(), &shown.health);
            if let Some(context) = phase.context() {
                told["controller"] = stalls::controller(context);
            }
            Response::json(&told)
        }
        "/config" => match &*phase {
            Phase::Starting(doing, since) => starting(shown, doing, *since),
            Phase::Serving(context) | Phase::Stopping(context) => {
                Response::text(200, context.metadata.config().effective())
            }
        },
        _ => Response::text(404, format!("nothing at {path}\n\n{INDEX}")),
    }
}

fn starting<B: Backend>(shown: &Shown<B>, doing: &str, since: Moment) -> Response {
    let seconds = shown.backend.now().since(since).as_secs();
    Response::text(503, format!("starting: {doing} for {seconds} s\n"))
}

/// Whether the node takes and serves records; otherwise why, since when, and what to do.
fn ready<B: Backend>(context: &Context<B>) -> Response {
    let writes = context.health.writes.get();
    match context.health.get() {
        Health::Failed => return Response::text(503, "the storage has failed: see the log\n"),
        Health::Stalled if writes.records.is_none() => {
            return Response::text(503, "the disk stands still: see /debug/stalls\n");
        }
        Health::Stalled | Health::Good => {}
    }
    if let Some(lost) = context.health.contact.lost() {
        let seconds = context.backend.now().since(lost.since).as_secs();
        return Response::text(
            503,
            format!("no records are taken or served for {seconds} s: {}\n", lost.why),
        );
    }
    let since = |refusing: &Refusing| context.backend.now().since(refusing.since).as_secs();
    let told = |what: &str, refusing: &Refusing| {
        let Refusing { reason, .. } = refusing;
        format!("no {what} for {} s: {reason}; {}", since(refusing), reason.advice())
    };
    if let Some(refusing) = &writes.records {
        let mut text = told("records are taken", refusing);
        if let (Refusal::CheckpointsBehind { .. }, Some(held_by)) =
            (&refusing.reason, context.replicas.held_by())
        {
            text += &format!("; held by {held_by}");
        }
        return Response::text(503, text + "\n");
    }
    let mut warnings: Vec<String> = Vec::new();
    warnings.extend(writes.metadata.iter().map(|refusing| told("changes of metadata are taken", refusing)));
    warnings.extend(context.replicas.not_led().map(|not_led| not_led.to_string()));
    let not_open = context.replicas.not_open();
    warnings.extend(not_open.iter().map(|(name, why)| format!("partition {name} does not open: {why}")));
    let text = match warnings.len() {
        0 => "ready\n".to_owned(),
        _ => warnings
            .iter()
            .take(limits::ADMIN_WARNINGS_MAX)
            .map(|warning| format!("ready, but {warning}\n"))
            .collect(),
    };
    Response::text(200, text)
}

fn looked_up<B: Backend>(shown: &Shown<B>, context: Option<&Context<B>>) -> metrics::LookedUp {
    let Shown { backend, health, .. } = shown;
    let registry = backend.registry();
    let oldest = registry.oldest_operation(|entry| entry.kind.is_disk());
    let replicas = context.map(|context| &context.replicas);
    let not_led = replicas.and_then(|replicas| replicas.not_led());
    metrics::LookedUp {
        oldest_operation_s: oldest.map_or(0.0, |e| backend.now().since(e.since).as_secs_f64()),
        late_completions: registry.late_completions(),
        storage_healthy: health.get() == Health::Good,
        partitions: replicas.map_or(0, |replicas| replicas.open().get().len() as i64),
        partitions_damaged: replicas.map_or(0, |replicas| replicas.not_open().len() as i64),
        partitions_not_led: not_led.map_or(0, |not_led| not_led.partitions as i64),
        refusal: health.writes.get().records.map(|refusing| refusing.reason.name()),
        contact_lost: health.contact.lost().map(|lost| lost.why.name()),
        metadata_term: context.map_or(0, |context| context.metadata.members().get().term as i64),
        metadata_index: context.map_or(0, |context| context.metadata.image().index as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_garbage() {
        assert!(
            matches!(parse(b"GET /metrics?x=1 HTTP/1.1\r\nhost: a\r\n\r\n"), Parsed::Get(p) if p == "/metrics")
        );
        assert!(matches!(parse(b"GET /metr"), Parsed::Partial));
        assert!(matches!(parse(b"POST / HTTP/1.1\r\n\r\n"), Parsed::OtherMethod));
        assert!(matches!(parse(b"\x00\x00\x00\x20garbage\r\n\r\n"), Parsed::Garbage));
    }
}
