//! One connection to a broker: requests leave without waiting for one another, answers come in their order, and each
//! request is recorded with when it was due and how it ended.
//!
//! One task owns a connection. It queues requests with [`Connection::ask`] and then listens; bytes move both
//! ways while it does, so that neither side has to wait for the other to read.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use io_backend::stream::Stream;
use io_backend::{Backend, Deadline, Moment, Network, WaitKind, within};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{
    Decodable, HeaderVersion, Request as Api, StrBytes, encode_request_header_into_buffer,
};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::client::Client;
use super::field::Field;
use crate::history::{At, Request, RequestEnd, Trade};

/// What a client grants beyond the deadline before it hangs up: late answers are seen as late, not as none.
const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(10);
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

/// A request that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) number: i32,
    pub(super) trade: Trade,
    pub(super) sent: At,
    wait: Duration,
    /// The broker was asked to take its time until then, or is busy with what was asked before.
    owed_from: At,
    within: Duration,
    due: At,
    response_header: i16,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The broker is asked to wait for this.
    pub(super) wait: Duration,
    /// It has this beyond it.
    pub(super) within: Duration,
}

impl Terms {
    pub(super) fn within(within: Duration) -> Terms {
        Terms { wait: Duration::ZERO, within }
    }
}

pub(super) struct Answer {
    pub(super) asked: Asked,
    pub(super) heard: At,
    body: Bytes,
}

impl Answer {
    pub(super) fn read<R: Api>(&self, version: i16) -> Result<R::Response, CallError> {
        let mut body = self.body.clone();
        R::Response::decode(&mut body, version).map_err(|error| CallError::Unreadable(error.to_string()))
    }
}

pub struct Connection<B: Backend> {
    client: Client<B>,
    /// Whom it goes to.
    node: u32,
    stream: Stream<B>,
    input: BytesMut,
    out: BytesMut,
    unflushed: bool,
    number: i32,
    pending: VecDeque<Asked>,
    began: At,
}

/// What bytes are moved for.
#[derive(Clone, Copy, PartialEq)]
enum Goal {
    Frame,
    Flushed,
}

impl<B: Backend> Connection<B> {
    /// Connects and asks for the versions on offer, as every client does.
    pub async fn open(client: &Client<B>, node: u32) -> Result<Connection<B>, CallError> {
        Connection::open_within(client, node, CONNECT_WITHIN).await
    }

    pub async fn open_within(
        client: &Client<B>,
        node: u32,
        within: Duration,
    ) -> Result<Connection<B>, CallError> {
        let backend = &client.backend;
        let began = client.now();
        let deadline = Deadline::after(backend, within);
        let stream = match backend.network().connect(&Field::address(node), deadline).await {
            Ok(stream) => stream,
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    // There is no process, and clients are told so at once: nobody is kept waiting.
                    client.field.notes.write().pulse.excuse(client.now());
                }
                if error.kind() == io::ErrorKind::TimedOut {
                    let due = began + ns(within);
                    note(client, node, Trade::Look, began, due, RequestEnd::Unanswered, began);
                }
                return Err(CallError::Connect(error));
            }
        };
        let mut connection = Connection {
            client: client.clone(),
            node,
            stream,
            input: BytesMut::with_capacity(8 * 1024),
            out: BytesMut::new(),
            unflushed: false,
            number: 0,
            pending: VecDeque::new(),
            began,
        };
        let versions = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("chronik-sim"))
            .with_client_software_version(StrBytes::from_static_str("1"));
        connection.call(Trade::Look, &versions, 3, Terms::within(within), |_| true).await?;
        Ok(connection)
    }

    /// Requests that wait for their answers.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Queues a request; its number.
    pub(super) fn ask<R: Api>(
        &mut self,
        trade: Trade,
        request: &R,
        version: i16,
        terms: Terms,
    ) -> Result<i32, CallError> {
        self.put(request, version)?;
        let sent = self.client.now();
        // Answers come in order: this one after those before it, each of which may wait as it was asked to.
        // They wait from now at most: one that was answered early has not used its time.
        let before: At = self.pending.iter().map(|asked| ns(asked.wait)).sum();
        let latest = self.pending.back().map_or(sent, |asked| asked.owed_from.max(sent));
        let owed_from = latest.min(sent + before) + ns(terms.wait);
        self.client.field.notes.write().pulse.asked(trade, sent, owed_from);
        self.pending.push_back(Asked {
            number: self.number,
            trade,
            sent,
            wait: terms.wait,
            owed_from,
            within: terms.within,
            due: owed_from + ns(terms.within),
            response_header: <R::Response as HeaderVersion>::header_version(version),
        });
        self.time_unread(At::MAX);
        Ok(self.number)
    }

    /// A request that is not read yet has not begun, and neither has a fetch that others stand before: its time runs from
    /// when one of those is answered. Those that have begun by `now` have theirs from now on at most.
    fn time_unread(&mut self, now: At) {
        for index in 0..self.pending.len() {
            let at_once = match self.pending[index].trade {
                Trade::Consume => 1,
                _ => self.client.field.answers_queued,
            };
            let read = index.checked_sub(at_once).map(|before| self.pending[before].due);
            let asked = &mut self.pending[index];
            let beyond = ns(asked.wait) + ns(asked.within);
            let owed = asked.owed_from + ns(asked.within);
            asked.due = match read {
                Some(read) => owed.max(read + beyond),
                None => asked.due.min(now.saturating_add(beyond)).max(owed),
            };
        }
    }

    /// The next answer, or none until `until`. After an error the connection is of no use, and whatever was pending
    /// is recorded as ended with it.
    pub(super) async fn hear(&mut self, until: At) -> Result<Option<Answer>, CallError> {
        let Some(give_up) = self.pending.front().map(|asked| asked.due + ns(PATIENCE)) else {
            return Ok(None);
        };
        match self.pump(Goal::Frame, until.min(give_up)).await {
            Ok(true) => {}
            Ok(false) if self.client.now() >= give_up => return Err(self.end(CallError::Unanswered)),
            Ok(false) => return Ok(None),
            Err(error) => return Err(self.end(CallError::Disconnected(error))),
        }
        match self.take_frame() {
            Ok(answer) => Ok(Some(answer)),
            Err(what) => Err(self.end(CallError::Unreadable(what))),
        }
    }

    /// An answer was read: whether it settles something, or only says that time is up.
    pub(super) fn conclude(&self, asked: &Asked, decided: bool) {
        let settled = decided && self.client.now() <= asked.due;
        let (node, began) = (self.node, self.began);
        let now = note(&self.client, node, asked.trade, asked.sent, asked.due, RequestEnd::Answered, began);
        let mut notes = self.client.field.notes.write();
        notes.pulse.ended_one(asked.trade, asked.owed_from, now, settled);
    }

    /// Sends a request and waits for its answer. `decided` tells an answer that settles something from one that says
    /// that time is up.
    pub(super) async fn call<R: Api>(
        &mut self,
        trade: Trade,
        request: &R,
        version: i16,
        terms: Terms,
        decided: impl Fn(&R::Response) -> bool,
    ) -> Result<R::Response, CallError> {
        let number = self.ask(trade, request, version, terms)?;
        loop {
            let Some(answer) = self.hear(At::MAX).await? else { continue };
            let response = answer.read::<R>(version);
            let mine = answer.asked.number == number;
            self.conclude(&answer.asked, !mine || response.as_ref().is_ok_and(&decided));
            if mine {
                return response;
            }
        }
    }

    /// Sends a request that is never answered (acks=0).
    pub(super) async fn fire<R: Api>(&mut self, request: &R, version: i16) -> Result<(), CallError> {
        self.put(request, version)?;
        let until = self.client.now() + ns(PATIENCE);
        match self.pump(Goal::Flushed, until).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.end(CallError::Unanswered)),
            Err(error) => Err(self.end(CallError::Disconnected(error))),
        }
    }

    /// Moves bytes until `until`, and leaves in the middle of whatever is on its way, perhaps of `garbage` that is
    /// only the beginning of something. The answers that came before.
    pub(super) async fn leave(mut self, garbage: &[u8], until: At) -> Vec<Answer> {
        self.out.extend_from_slice(garbage);
        let mut answers = Vec::new();
        while let Ok(true) = self.pump(Goal::Frame, until).await {
            if self.pending.is_empty() {
                break;
            }
            let Ok(answer) = self.take_frame() else { break };
            self.conclude(&answer.asked, true);
            answers.push(answer);
        }
        answers
    }

    fn put<R: Api>(&mut self, request: &R, version: i16) -> Result<(), CallError> {
        self.number += 1;
        frame(&self.client.name, self.number, request, version, &mut self.out).map_err(CallError::Unreadable)
    }

    /// Whatever is pending ends with the connection.
    fn end(&mut self, why: CallError) -> CallError {
        let now = self.client.now();
        for (index, asked) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            let end = match why {
                CallError::Unreadable(_) if index == 0 => RequestEnd::Answered,
                CallError::Unanswered if index == 0 || now > asked.due => RequestEnd::Unanswered,
                _ => RequestEnd::Disconnected,
            };
            note(&self.client, self.node, asked.trade, asked.sent, asked.due, end, self.began);
            self.client.field.notes.write().pulse.ended_one(asked.trade, asked.owed_from, now, false);
        }
        why
    }

    fn frame_bytes(&self) -> Result<Option<usize>, String> {
        let Some(length) = self.input.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(format!("it claims {length} bytes"));
        }
        Ok(Some(length))
    }

    fn take_frame(&mut self) -> Result<Answer, String> {
        let length = self.frame_bytes()?.unwrap_or(0);
        self.input.advance(4);
        let mut body = self.input.split_to(length).freeze();
        let version = self.pending.front().map_or(0, |asked| asked.response_header);
        let header = ResponseHeader::decode(&mut body, version).map_err(|error| error.to_string())?;
        match self.pending.pop_front() {
            Some(asked) if asked.number == header.correlation_id => {
                let heard = self.client.now();
                self.time_unread(heard);
                Ok(Answer { asked, heard, body })
            }
            Some(asked) => {
                let what =
                    format!("it answers request {} where {} was asked", header.correlation_id, asked.number);
                self.pending.push_front(asked);
                Err(what)
            }
            None => Err(format!("it answers request {}, and none was asked", header.correlation_id)),
        }
    }

    /// Moves bytes both ways until there is what is wanted (true) or it is `until`.
    #[track_caller]
    fn pump(&mut self, goal: Goal, until: At) -> impl Future<Output = io::Result<bool>> + '_ {
        let site = Location::caller();
        async move {
            let backend = self.client.backend.clone();
            let deadline = Deadline::At(Moment(until));
            let what = if goal == Goal::Frame { "response" } else { "request" };
            let wait =
                backend.registry().waiting(&backend, WaitKind::NetworkRead, what, site).bounded_by(deadline);
            let moving = wait.during(poll_fn(|cx| self.poll_pump(cx, goal)));
            match within(&backend, deadline, moving).await {
                Ok(moved) => moved.map(|()| true),
                Err(_) => Ok(false),
            }
        }
    }

    fn poll_pump(&mut self, cx: &mut Context<'_>, goal: Goal) -> Poll<io::Result<()>> {
        loop {
            self.poll_write(cx)?;
            match goal {
                Goal::Flushed if self.out.is_empty() && !self.unflushed => return Poll::Ready(Ok(())),
                Goal::Frame => match self.frame_bytes() {
                    Ok(Some(length)) if self.input.len() >= 4 + length => return Poll::Ready(Ok(())),
                    Ok(Some(length)) => self.input.reserve(4 + length - self.input.len()),
                    Ok(None) => {}
                    Err(what) => return Poll::Ready(Err(io::Error::other(what))),
                },
                Goal::Flushed => {}
            }
            if self.input.capacity() == self.input.len() {
                self.input.reserve(4096);
            }
            let reading = pin!(self.stream.read_buf(&mut self.input));
            match reading.poll(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.out.advance(written);
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        Ok(())
    }
}

/// A client that goes away wants no answer any more.
impl<B: Backend> Drop for Connection<B> {
    fn drop(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut notes = self.client.field.notes.write();
        for asked in &self.pending {
            notes.pulse.withdrawn(asked.trade, asked.owed_from);
        }
    }
}

/// Puts a request as it goes over the wire.
pub(super) fn frame<R: Api>(
    client: &str,
    number: i32,
    request: &R,
    version: i16,
    out: &mut BytesMut,
) -> Result<(), String> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(number)
        .with_client_id(Some(StrBytes::from_string(client.to_owned())));
    let mut frame = BytesMut::zeroed(4);
    encode_request_header_into_buffer(&mut frame, &header)
        .and_then(|()| request.encode(&mut frame, version))
        .map_err(|error| error.to_string())?;
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
    if out.is_empty() {
        *out = frame;
    } else {
        out.extend_from_slice(&frame);
    }
    Ok(())
}

pub(super) fn ns(duration: Duration) -> At {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn note<B: Backend>(
    client: &Client<B>,
    node: u32,
    trade: Trade,
    sent: At,
    due: At,
    end: RequestEnd,
    connecting: At,
) -> At {
    let ended = client.now();
    let client_name = client.name.clone();
    let request = Request { client: client_name, node, trade, sent, deadline: due, ended, connecting, end };
    client.field.notes.write().requests.push(request);
    ended
}

/// How long to wait before the next attempt: doubling from 100 ms to 1 s, with a fifth of jitter either way.
pub(super) fn pause(failures: u32, random: u64) -> Duration {
    let base = 100u64 << failures.saturating_sub(1).min(4);
    let base = base.min(1_000);
    let jitter = random % (base * 2 / 5 + 1);
    Duration::from_millis(base * 4 / 5 + jitter)
}

pub(super) async fn back_off<B: Backend>(backend: &B, failures: u32) {
    backend.sleep(pause(failures, backend.random_u64())).await;
}
