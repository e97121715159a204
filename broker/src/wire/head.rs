//! From a frame to a request: the fixed part of the header first, which every version has, then
//! the rest as far as key and version are known.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiKey, RequestKind};

use super::shape::{self, ShapeError};
use super::{shapes, versions};

/// The fixed part of a request header: eight bytes that every request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    pub key: i16,
    pub version: i16,
    pub correlation: i32,
}

/// Bytes of the fixed part.
pub const HEAD_BYTES: usize = 8;

/// What a frame holds.
#[expect(clippy::large_enum_variant, reason = "boxing it would cost an allocation per request")]
#[derive(Debug)]
pub enum Incoming {
    Request(RequestHead, RequestKind),
    /// The key is unknown or its version not served: answered, with the correlation id kept.
    NotServed(RequestHead),
}

/// Why a frame is not a request. The connection that sent it cannot be trusted to be in step.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a frame of {0} bytes is shorter than a request header")]
    NoHead(usize),
    #[error("the header of the {key:?} request is malformed: {what}")]
    Head { key: ApiKey, what: String },
    #[error("the {key:?} request (version {version}) is malformed: {what}")]
    Body { key: ApiKey, version: i16, what: String },
}

/// Decodes a frame (without its size).
pub fn decode(mut frame: Bytes) -> Result<Incoming, WireError> {
    if frame.len() < HEAD_BYTES {
        return Err(WireError::NoHead(frame.len()));
    }
    let head = RequestHead { key: frame.get_i16(), version: frame.get_i16(), correlation: frame.get_i32() };
    let Ok(key) = ApiKey::try_from(head.key) else {
        return Ok(Incoming::NotServed(head));
    };
    if !versions::is_served(key, head.version) {
        return Ok(Incoming::NotServed(head));
    }
    let Some(bounds) = shapes::of(key) else {
        return Ok(Incoming::NotServed(head));
    };
    let flexible = key.request_header_version(head.version) >= 2;
    skip_rest_of_header(&mut frame, flexible)
        .map_err(|what| WireError::Head { key, what: what.to_string() })?;
    let malformed = |what: String| WireError::Body { key, version: head.version, what };
    shape::walk(bounds, head.version, flexible, &frame).map_err(|what| malformed(what.to_string()))?;
    let request =
        RequestKind::decode(key, &mut frame, head.version).map_err(|what| malformed(what.to_string()))?;
    Ok(Incoming::Request(head, request))
}

/// The client id, which stays in the old form for all versions, and the header's tagged fields.
fn skip_rest_of_header(frame: &mut Bytes, flexible: bool) -> Result<(), ShapeError> {
    if frame.len() < 2 {
        return Err(ShapeError::Short(2 - frame.len()));
    }
    let len = frame.get_i16();
    if len > 0 {
        let len = len as usize;
        if frame.len() < len {
            return Err(ShapeError::Short(len - frame.len()));
        }
        frame.advance(len);
    } else if len < -1 {
        return Err(ShapeError::NegativeLength(len.into()));
    }
    if flexible {
        let tags = shape::walk_tags(frame)?;
        frame.advance(tags);
    }
    Ok(())
}
