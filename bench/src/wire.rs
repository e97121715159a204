//! The control plane of the bench: one request at a time on one connection, any API, encoded by `kafka-protocol`.
//!
//! Slow and general on purpose. The produce path does not use it: see `produce_frame` and `load`.
//! Every exchange has a deadline, so a broker that hangs ends in an error that names the API.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiVersionsRequest, RequestHeader};
use kafka_protocol::protocol::{
    Decodable, HeaderVersion, Request, StrBytes, encode_request_header_into_buffer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one exchange on the control plane may take.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(30);
/// No answer we ask for is larger than this; a larger length prefix is not Kafka.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// A connection whose broker's version ranges are known.
pub struct Wire {
    stream: TcpStream,
    ranges: BTreeMap<i16, (i16, i16)>,
    correlation_id: i32,
}

impl Wire {
    /// Connects and asks for the versions on offer.
    pub async fn connect(address: &str) -> Result<Self> {
        let stream = open(address).await?;
        let mut wire = Self { stream, ranges: BTreeMap::new(), correlation_id: 0 };
        let versions = wire.exchange(&ApiVersionsRequest::default(), 0).await?;
        check(versions.error_code).context("ApiVersions")?;
        wire.ranges =
            versions.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(wire)
    }

    /// Connects to the first address that answers.
    pub async fn connect_any(addresses: &[String]) -> Result<Self> {
        let mut refusal = None;
        for address in addresses {
            match Self::connect(address).await {
                Ok(wire) => return Ok(wire),
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| anyhow::anyhow!("no bootstrap server given")))
    }

    /// The newest version of `R` that both sides speak and that is not above `cap`.
    pub fn version_of<R: Request>(&self, cap: i16) -> Result<i16> {
        let ours = R::VERSIONS;
        let Some(&(lowest, highest)) = self.ranges.get(&R::KEY) else {
            bail!("the broker does not offer API {}", R::KEY);
        };
        let version = ours.max.min(highest).min(cap);
        if version < ours.min.max(lowest) {
            bail!(
                "no common version of API {}: the broker offers {lowest}..{highest}, we speak {}..{}",
                R::KEY,
                ours.min,
                cap.min(ours.max)
            );
        }
        Ok(version)
    }

    /// Sends `request` in the newest common version up to `cap` and returns the decoded answer.
    pub async fn call<R: Request>(&mut self, request: &R, cap: i16) -> Result<R::Response> {
        let version = self.version_of::<R>(cap)?;
        self.exchange(request, version).await
    }

    async fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        self.correlation_id += 1;
        let frame = encode_frame(request, version, self.correlation_id)?;
        let answer = timeout(EXCHANGE_DEADLINE, async {
            self.stream.write_all(&frame).await?;
            let length = self.stream.read_u32().await? as usize;
            if length > FRAME_BYTES_MAX {
                bail!("the answer claims {length} bytes; is this a Kafka port?");
            }
            let mut body = BytesMut::zeroed(length);
            self.stream.read_exact(&mut body).await?;
            Ok(body.freeze())
        })
        .await
        .with_context(|| format!("API {} unanswered after {EXCHANGE_DEADLINE:?}", R::KEY))?;
        let mut answer = answer.with_context(|| format!("API {} v{version}", R::KEY))?;
        let header_version = <R::Response as HeaderVersion>::header_version(version);
        if answer.remaining() < 4 {
            bail!("the answer to API {} ends before its header", R::KEY);
        }
        let header = kafka_protocol::messages::ResponseHeader::decode(&mut answer, header_version)?;
        if header.correlation_id != self.correlation_id {
            bail!("correlation id {} answered to {}", header.correlation_id, self.correlation_id);
        }
        R::Response::decode(&mut answer, version)
            .with_context(|| format!("decoding the answer to API {} v{version}", R::KEY))
    }
}

/// Opens a connection the way the load does: no Nagle, with a deadline.
pub async fn open(address: &str) -> Result<TcpStream> {
    let stream = timeout(Duration::from_secs(10), TcpStream::connect(address))
        .await
        .with_context(|| format!("connecting to {address}: no answer after 10 s"))?
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A whole request frame, length prefix included.
pub fn encode_frame<R: Request>(request: &R, version: i16, correlation_id: i32) -> Result<BytesMut> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("chronik-bench")));
    let mut frame = BytesMut::zeroed(4);
    encode_request_header_into_buffer(&mut frame, &header)?;
    request.encode(&mut frame, version)?;
    let length = u32::try_from(frame.len() - 4).context("request too large")?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Turns a Kafka error code into an error that carries its name.
pub fn check(code: i16) -> Result<()> {
    match code {
        0 => Ok(()),
        code => bail!("{}", code_name(code)),
    }
}

/// The name of a Kafka error code in the spelling of Kafka's documents.
pub fn code_name(code: i16) -> String {
    let Some(error) = ResponseError::try_from_code(code) else {
        return "NONE".into();
    };
    let camel = format!("{error:?}");
    let mut name = String::with_capacity(camel.len() + 8);
    for (index, letter) in camel.char_indices() {
        if index > 0 && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_are_named_as_kafka_names_them() {
        assert_eq!(code_name(3), "UNKNOWN_TOPIC_OR_PARTITION");
        assert_eq!(code_name(7), "REQUEST_TIMED_OUT");
        assert_eq!(code_name(0), "NONE");
    }

    #[test]
    fn a_frame_starts_with_its_length_and_key() {
        let frame = encode_frame(&ApiVersionsRequest::default(), 0, 7).unwrap();
        assert_eq!(frame[..4], (frame.len() as u32 - 4).to_be_bytes());
        assert_eq!(frame[4..8], [0, 18, 0, 0]);
        assert_eq!(frame[8..12], 7i32.to_be_bytes());
    }
}
