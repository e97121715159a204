//! One connection to a broker: a request at a time, each recorded with when it was due and how it ended.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use io_backend::network::{self, Stream};
use io_backend::{Backend, Deadline, Network};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{
    Decodable, HeaderVersion, Request as Api, StrBytes, encode_request_header_into_buffer,
};

use super::Client;
use crate::history::{At, Request, RequestEnd, Trade};

/// What a client grants beyond the deadline before it hangs up: late answers are seen as late, not as none.
const PATIENCE: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// No answer that we ask for is larger.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("the connection ended: {0}")]
    Disconnected(io::Error),
    #[error("no answer in time")]
    Unanswered,
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

impl CallError {
    /// Nothing was sent.
    pub fn never_sent(&self) -> bool {
        matches!(self, CallError::Connect(_))
    }
}

pub struct Connection<B: Backend> {
    client: Client<B>,
    stream: Stream<B>,
    buffer: BytesMut,
    correlation: i32,
}

impl<B: Backend> Connection<B> {
    /// Connects and asks for the versions on offer, as every client does.
    pub async fn open(client: &Client<B>) -> Result<Connection<B>, CallError> {
        let backend = &client.backend;
        let began = client.now();
        let deadline = Deadline::after(backend, CONNECT_WITHIN);
        let stream = match backend.network().connect(&client.field.bootstrap, deadline).await {
            Ok(stream) => stream,
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    // There is no process, and clients are told so at once: nobody is kept waiting.
                    client.field.notes.write().pulse.excuse(client.now());
                }
                if error.kind() == io::ErrorKind::TimedOut {
                    let due = began + ns(CONNECT_WITHIN);
                    note(client, Trade::Look, began, due, RequestEnd::Unanswered);
                }
                return Err(CallError::Connect(error));
            }
        };
        let mut connection = Connection {
            client: client.clone(),
            stream,
            buffer: BytesMut::with_capacity(8 * 1024),
            correlation: 0,
        };
        let versions = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("chronik-sim"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        connection.call(Trade::Look, &versions, 3, CONNECT_WITHIN, |_| true).await?;
        Ok(connection)
    }

    /// Sends a request and waits for its answer. `within` is what the broker was asked to answer within;
    /// `decided` tells an answer that settles something from one that says that time is up.
    pub async fn call<R: Api>(
        &mut self,
        trade: Trade,
        request: &R,
        version: i16,
        within: Duration,
        decided: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, CallError> {
        let sent = self.client.now();
        let due = sent + ns(within);
        self.client.field.notes.write().pulse.asked(trade, sent);
        let outcome = self.exchange(request, version, within + PATIENCE).await;
        let end = match &outcome {
            Ok(_) | Err(CallError::Unreadable(_)) => RequestEnd::Answered,
            Err(CallError::Unanswered) => RequestEnd::Unanswered,
            Err(_) => RequestEnd::Disconnected,
        };
        let in_time = self.client.now() <= due;
        let settled = in_time && outcome.as_ref().is_ok_and(decided);
        let now = note(&self.client, trade, sent, due, end);
        self.client.field.notes.write().pulse.ended(trade, now, settled);
        outcome
    }

    /// Sends a request that is never answered (acks=0).
    pub async fn fire<R: Api>(&mut self, request: &R, version: i16) -> Result<(), CallError> {
        let frame = self.frame(request, version)?;
        let deadline = Deadline::after(&self.client.backend, PATIENCE);
        network::write_all(&self.client.backend, &mut self.stream, &frame, "request", deadline)
            .await
            .map_err(CallError::Disconnected)
    }

    fn frame<R: Api>(&mut self, request: &R, version: i16) -> Result<BytesMut, CallError> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_string(self.client.name.to_string())));
        let mut frame = BytesMut::zeroed(4);
        encode_request_header_into_buffer(&mut frame, &header)
            .and_then(|()| request.encode(&mut frame, version))
            .map_err(|error| CallError::Unreadable(error.to_string()))?;
        let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(frame)
    }

    async fn exchange<R: Api>(
        &mut self,
        request: &R,
        version: i16,
        within: Duration,
    ) -> Result<R::Response, CallError> {
        let frame = self.frame(request, version)?;
        let backend = self.client.backend.clone();
        let deadline = Deadline::after(&backend, within);
        let ended = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => CallError::Unanswered,
            _ => CallError::Disconnected(error),
        };
        network::write_all(&backend, &mut self.stream, &frame, "request", deadline).await.map_err(ended)?;
        let length = loop {
            if let Some(prefix) = self.buffer.get(..4) {
                let mut length = [0; 4];
                length.copy_from_slice(prefix);
                let length = u32::from_be_bytes(length) as usize;
                if length > FRAME_BYTES_MAX {
                    return Err(CallError::Unreadable(format!("it claims {length} bytes")));
                }
                if self.buffer.len() >= 4 + length {
                    break length;
                }
                self.buffer.reserve(4 + length - self.buffer.len());
            } else {
                self.buffer.reserve(4096);
            }
            let read = network::read(&backend, &mut self.stream, &mut self.buffer, "response", deadline)
                .await
                .map_err(ended)?;
            if read == 0 {
                return Err(CallError::Disconnected(io::ErrorKind::UnexpectedEof.into()));
            }
        };
        self.buffer.advance(4);
        let mut body = self.buffer.split_to(length).freeze();
        let unreadable = |what: String| CallError::Unreadable(what);
        let header_version = <R::Response as HeaderVersion>::header_version(version);
        let header = ResponseHeader::decode(&mut body, header_version)
            .map_err(|error| unreadable(error.to_string()))?;
        if header.correlation_id != self.correlation {
            return Err(unreadable(format!(
                "it answers request {} where {} was asked",
                header.correlation_id, self.correlation
            )));
        }
        R::Response::decode(&mut body, version).map_err(|error| unreadable(error.to_string()))
    }
}

fn ns(duration: Duration) -> At {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn note<B: Backend>(client: &Client<B>, trade: Trade, sent: At, due: At, end: RequestEnd) -> At {
    let ended = client.now();
    let request = Request { client: client.name.clone(), trade, sent, deadline: due, ended, end };
    client.field.notes.write().requests.push(request);
    ended
}

/// A connection that is made anew when it has ended.
pub(super) struct Line<B: Backend> {
    client: Client<B>,
    connection: Option<Connection<B>>,
}

impl<B: Backend> Line<B> {
    pub(super) fn new(client: &Client<B>) -> Line<B> {
        Line { client: client.clone(), connection: None }
    }

    async fn connected(&mut self) -> Result<&mut Connection<B>, CallError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(Connection::open(&self.client).await?)),
        }
    }

    pub(super) async fn call<R: Api>(
        &mut self,
        trade: Trade,
        request: &R,
        version: i16,
        within: Duration,
        decided: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, CallError> {
        let outcome = self
            .connected()
            .await
            .map_err(not_connected)?
            .call(trade, request, version, within, decided)
            .await;
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    pub(super) async fn fire<R: Api>(&mut self, request: &R, version: i16) -> Result<(), CallError> {
        let outcome = self.connected().await.map_err(not_connected)?.fire(request, version).await;
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }
}

/// Whatever went wrong while connecting: the request itself was not sent.
fn not_connected(error: CallError) -> CallError {
    match error {
        CallError::Connect(error) | CallError::Disconnected(error) => CallError::Connect(error),
        CallError::Unanswered => CallError::Connect(io::ErrorKind::TimedOut.into()),
        CallError::Unreadable(what) => CallError::Connect(io::Error::other(what)),
    }
}

/// How long to wait before the next attempt: doubling from 100 ms to 1 s, with a fifth of jitter.
pub(super) async fn back_off<B: Backend>(backend: &B, failures: u32) {
    let base = 100u64 << failures.saturating_sub(1).min(4);
    let base = base.min(1_000);
    let jitter = backend.random_u64() % (base * 2 / 5 + 1);
    backend.sleep(Duration::from_millis(base * 4 / 5 + jitter)).await;
}
