//! From an answer to bytes.

use std::fmt::Debug;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, FetchResponse, ProduceResponse};
use kafka_protocol::protocol::Encodable;

use super::head::RequestHead;
use super::outgoing::Outgoing;
use super::records;

/// An answer on its way out.
#[derive(Debug)]
pub struct Response {
    /// Of the request that is answered.
    pub head: RequestHead,
    header_version: i16,
    /// In which the body is written.
    version: i16,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Message(Box<dyn Message>),
    /// As any other, without an allocation for each.
    Produce(ProduceResponse),
    /// With what stands in place of the records' markers, in their order.
    Fetch(FetchResponse, Vec<Vec<Bytes>>),
}

/// What the codec can write.
pub trait Message: Debug + Send {
    /// # Errors
    /// What of the message this version cannot say.
    fn write(&self, out: &mut BytesMut, version: i16) -> Result<(), String>;
}

impl<M: Encodable + Debug + Send> Message for M {
    fn write(&self, out: &mut BytesMut, version: i16) -> Result<(), String> {
        self.encode(out, version).map_err(|error| format!("{error:#}"))
    }
}

impl Response {
    fn of(head: RequestHead, body: Body) -> Response {
        let key = ApiKey::try_from(head.key);
        let header_version = key.map_or(0, |key| key.response_header_version(head.version));
        Response { head, header_version, version: head.version, body }
    }

    /// The answer to a request of a served version.
    pub fn to(head: RequestHead, message: impl Message + 'static) -> Response {
        Response::of(head, Body::Message(Box::new(message)))
    }

    /// The answer to whoever asked in a version that is not known: in version 0, whose header has no tags.
    pub fn in_version_0(head: RequestHead, message: impl Message + 'static) -> Response {
        Response { head, header_version: 0, version: 0, body: Body::Message(Box::new(message)) }
    }

    /// The answer to a produce of a served version.
    pub fn produced(head: RequestHead, message: ProduceResponse) -> Response {
        Response::of(head, Body::Produce(message))
    }

    /// The answer to a fetch of a served version; `records` stand in place of [`records::marker`]s.
    pub fn fetched(head: RequestHead, message: FetchResponse, records: Vec<Vec<Bytes>>) -> Response {
        Response::of(head, Body::Fetch(message, records))
    }
}

/// Appends the response's frame, size first, to `out`. On failure `out` is as it was.
pub fn encode(response: &Response, out: &mut Outgoing) -> Result<(), String> {
    let has_tags = response.header_version >= 1;
    if let Body::Fetch(message, records) = &response.body {
        let mut head = response.head.correlation.to_be_bytes().to_vec();
        // No tagged fields.
        head.resize(head.len() + usize::from(has_tags), 0);
        return records::encode(message, response.version, &head, records, out);
    }
    let out = out.buffer();
    let start = out.len();
    out.put_i32(0);
    out.put_i32(response.head.correlation);
    if has_tags {
        // No tagged fields.
        out.put_u8(0);
    }
    let encoded = match &response.body {
        Body::Message(message) => message.write(out, response.version),
        Body::Produce(message) => message.write(out, response.version),
        Body::Fetch(..) => Ok(()),
    };
    let sized = encoded.and_then(|()| {
        i32::try_from(out.len() - start - 4).map_err(|_| "the response is larger than a frame can say".into())
    });
    match sized {
        Ok(size) => out[start..start + 4].copy_from_slice(&size.to_be_bytes()),
        Err(_) => out.truncate(start),
    }
    sized.map(|_| ())
}
