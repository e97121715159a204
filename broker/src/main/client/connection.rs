//! One connection to one node: a request, its response, and a deadline over both.

#![allow(clippy::disallowed_types, reason = "the command line connects by itself, and has no backend")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{
    Decodable, HeaderVersion, Request, StrBytes, encode_request_header_into_buffer,
};

use super::apis::{Known, agreed};
use super::clock::Deadline;
use super::failure::Failure;

/// How this client calls itself.
const CLIENT_ID: &str = "chronik-cli";
/// To connect to one address: there may be another node to ask.
const CONNECT_LONGEST: Duration = Duration::from_secs(5);
/// No answer is larger: fetches ask for less, and a list of a million partitions is.
const ANSWER_BYTES_MAX: usize = 512 << 20;

pub struct Connection {
    /// Number and address, for messages.
    pub node: String,
    stream: TcpStream,
    /// By key of an API, the versions that the node serves.
    served: BTreeMap<i16, (i16, i16)>,
    sent: i32,
}

impl Connection {
    /// Connects, and asks what the node serves.
    pub fn open(
        address: &str,
        node: String,
        doing: &str,
        deadline: &Deadline,
    ) -> Result<Connection, Failure> {
        let lost =
            |error| Failure::Lost { doing: doing.into(), node: node.clone(), error, may_be_done: false };
        let stream = connect(address, deadline).map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        // ApiVersions is served by who serves anything.
        let served = BTreeMap::from([(<ApiVersionsRequest as Request>::KEY, (0, 0))]);
        let mut connection = Connection { node, stream, served, sent: 0 };
        let answer = connection.ask(doing, &ApiVersionsRequest::default(), deadline)?;
        let rows = answer.api_keys.iter().map(|row| (row.api_key, (row.min_version, row.max_version)));
        connection.served.extend(rows);
        Ok(connection)
    }

    pub fn serves<R: Known>(&self) -> bool {
        agreed::<R>(self.served.get(&R::KEY).copied()).is_some()
    }

    /// Sends the request and waits for its response.
    pub fn ask<R: Known>(
        &mut self,
        doing: &str,
        request: &R,
        deadline: &Deadline,
    ) -> Result<R::Response, Failure> {
        let version = self.send(doing, request, deadline)?;
        let lost = |error, node: &str| Failure::Lost {
            doing: doing.into(),
            node: node.into(),
            error,
            may_be_done: !R::REPEATABLE,
        };
        let malformed = |why: String, node: &str| Failure::Malformed {
            doing: doing.into(),
            node: node.into(),
            why: format!("{} version {version}: {why}", R::NAME),
        };
        let mut answer = self.receive(deadline).map_err(|error| lost(error, &self.node))?;
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))
            .map_err(|error| malformed(format!("{error:#}"), &self.node))?;
        if header.correlation_id != self.sent {
            let why = format!("it answers request {}, not {}", header.correlation_id, self.sent);
            return Err(malformed(why, &self.node));
        }
        R::Response::decode(&mut answer, version).map_err(|error| malformed(format!("{error:#}"), &self.node))
    }

    /// Sends what is not answered (a produce with acks=0), or not yet; the version that it was sent in.
    pub fn send<R: Known>(&mut self, doing: &str, request: &R, deadline: &Deadline) -> Result<i16, Failure> {
        let served = self.served.get(&R::KEY).copied();
        let version = agreed::<R>(served).ok_or_else(|| Failure::Unserved {
            doing: doing.into(),
            node: self.node.clone(),
            api: R::NAME.trim_end_matches("Request"),
            ours: versions((R::FIRST, R::LAST)),
            theirs: served.map_or("not at all".into(), |served| format!("in {}", versions(served))),
        })?;
        self.sent = self.sent.wrapping_add(1);
        let frame = frame(request, version, self.sent).map_err(|why| Failure::Malformed {
            doing: doing.into(),
            node: self.node.clone(),
            why: format!("nothing was sent: {} version {version}: {why}", R::NAME),
        })?;
        let written = self
            .stream
            .set_write_timeout(Some(patience(deadline)))
            .and_then(|()| self.stream.write_all(&frame));
        written.map_err(|error| Failure::Lost {
            doing: doing.into(),
            node: self.node.clone(),
            error: in_words(error),
            may_be_done: !R::REPEATABLE,
        })?;
        Ok(version)
    }

    fn receive(&mut self, deadline: &Deadline) -> io::Result<Bytes> {
        let mut size = [0; 4];
        self.fill(&mut size, deadline)?;
        let size = usize::try_from(i32::from_be_bytes(size)).ok().filter(|size| *size <= ANSWER_BYTES_MAX);
        let size = size.ok_or_else(|| io::Error::other("it does not speak Kafka's protocol"))?;
        let mut answer = vec![0; size];
        self.fill(&mut answer, deadline)?;
        Ok(answer.into())
    }

    fn fill(&mut self, into: &mut [u8], deadline: &Deadline) -> io::Result<()> {
        let mut filled = 0;
        while filled < into.len() {
            self.stream.set_read_timeout(Some(patience(deadline)))?;
            match self.stream.read(&mut into[filled..]) {
                Ok(0) => return Err(io::Error::other("it closed the connection without an answer")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(in_words(error)),
            }
        }
        Ok(())
    }
}

/// What is left; a wait of zero would be one for ever.
fn patience(deadline: &Deadline) -> Duration {
    deadline.left().max(Duration::from_millis(1))
}

fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, "no answer in time (--timeout allows more)")
        }
        _ => error,
    }
}

fn connect(address: &str, deadline: &Deadline) -> io::Result<TcpStream> {
    let mut last = io::Error::other("this name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, patience(deadline).min(CONNECT_LONGEST)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn frame<R: Known>(request: &R, version: i16, correlation: i32) -> Result<Bytes, String> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
    let mut body = BytesMut::new();
    encode_request_header_into_buffer(&mut body, &header).map_err(|error| format!("{error:#}"))?;
    request.encode(&mut body, version).map_err(|error| format!("{error:#}"))?;
    let size = i32::try_from(body.len()).map_err(|_| "it is larger than a frame can say".to_owned())?;
    let mut frame = BytesMut::with_capacity(4 + body.len());
    frame.put_i32(size);
    frame.put_slice(&body);
    Ok(frame.freeze())
}

fn versions((first, last): (i16, i16)) -> String {
    match first == last {
        true => format!("version {first}"),
        false => format!("versions {first} to {last}"),
    }
}
