//! From a frame to a request: the fixed part of the header first, which every version has, then
//! the rest as far as key and version are known.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Decodable;

use super::shape::{self, Bounds, ShapeError};

/// The fixed part of a request header: eight bytes that every request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The API, by Kafka's number.
    pub key: i16,
    /// Its version.
    pub version: i16,
    /// Kafka's correlation id: the answer carries it back.
    pub correlation: i32,
}

/// Bytes of the fixed part.
const HEAD_BYTES: usize = 8;

/// Why a frame is not a request that can be answered. The connection that sent it cannot be trusted to be in step.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// So few bytes.
    #[error("a frame of {0} bytes is shorter than a request header")]
    NoHead(usize),
    /// An API or a version that is not in the table; ApiVersions is answered whatever its version.
    #[error(
        "API key {key} (version {version}) is not served: no form of an answer is known that its sender could read"
    )]
    NotServed { key: i16, version: i16 },
    /// What follows the fixed part of the header.
    #[error("the header of the {key:?} request is malformed: {what}")]
    Head { key: ApiKey, what: String },
    /// What follows the header.
    #[error("the {key:?} request (version {version}) is malformed: {what}")]
    Body { key: ApiKey, version: i16, what: String },
}

/// Takes the fixed part from the front of a frame (without its size).
pub fn read_head(frame: &mut Bytes) -> Result<RequestHead, WireError> {
    if frame.len() < HEAD_BYTES {
        return Err(WireError::NoHead(frame.len()));
    }
    Ok(RequestHead { key: frame.get_i16(), version: frame.get_i16(), correlation: frame.get_i32() })
}

impl RequestHead {
    /// Takes the rest of the header of a known API from the front of a frame; the client's id, if it names one.
    pub fn read_client_id(self, key: ApiKey, frame: &mut Bytes) -> Result<Option<Bytes>, WireError> {
        let malformed = |what: ShapeError| WireError::Head { key, what: what.to_string() };
        let id = client_id(frame).map_err(malformed)?;
        if is_flexible(key, self.version) {
            let tags = shape::walk_tags(frame).map_err(malformed)?;
            frame.advance(tags);
        }
        Ok(id)
    }
}

/// The id stays in the old form for all versions.
fn client_id(frame: &mut Bytes) -> Result<Option<Bytes>, ShapeError> {
    if frame.len() < 2 {
        return Err(ShapeError::Short(2 - frame.len()));
    }
    let len = frame.get_i16();
    match usize::try_from(len) {
        Ok(len) if len > frame.len() => Err(ShapeError::Short(len - frame.len())),
        Ok(len) => Ok(Some(frame.split_to(len))),
        Err(_) if len == -1 => Ok(None),
        Err(_) => Err(ShapeError::NegativeLength(len.into())),
    }
}

fn is_flexible(key: ApiKey, version: i16) -> bool {
    key.request_header_version(version) >= 2
}

/// Decodes what follows the header of a request, as far as its API's bounds allow it.
pub fn decode_body<R: Decodable>(
    key: ApiKey,
    version: i16,
    bounds: Bounds,
    mut body: Bytes,
) -> Result<R, WireError> {
    let malformed = |what: String| WireError::Body { key, version, what };
    shape::walk(bounds, version, is_flexible(key, version), &body)
        .map_err(|what| malformed(what.to_string()))?;
    R::decode(&mut body, version).map_err(|what| malformed(format!("{what:#}")))
}
