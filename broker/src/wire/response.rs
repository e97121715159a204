//! From an answer to bytes, and answers to requests that are not served.

use bytes::{BufMut, Bytes};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{
    ApiKey, DescribeClusterResponse, FetchResponse, FindCoordinatorResponse, HeartbeatResponse,
    InitProducerIdResponse, JoinGroupResponse, LeaveGroupResponse, ListGroupsResponse, OffsetFetchResponse,
    ResponseKind, SaslAuthenticateResponse, SaslHandshakeResponse, SyncGroupResponse,
};

use super::head::RequestHead;
use super::outgoing::Outgoing;
use super::{StrBytes, records, versions};

/// An answer on its way out.
#[derive(Debug)]
pub struct Response {
    pub head: RequestHead,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    Message {
        header_version: i16,
        version: i16,
        message: ResponseKind,
    },
    /// With what stands in place of the records' markers, in their order.
    Fetch {
        header_version: i16,
        version: i16,
        message: FetchResponse,
        records: Vec<Vec<Bytes>>,
    },
    /// Where no version of the response is known: the code alone, which is how most responses begin.
    Code(i16),
}

impl Response {
    /// The answer to a request of a served version.
    pub fn to(head: RequestHead, message: ResponseKind) -> Response {
        let header_version =
            ApiKey::try_from(head.key).map_or(0, |key| key.response_header_version(head.version));
        Response { head, body: Body::Message { header_version, version: head.version, message } }
    }

    /// The answer to a fetch of a served version; `records` stand in place of [`records::marker`]s.
    pub fn fetched(head: RequestHead, message: FetchResponse, records: Vec<Vec<Bytes>>) -> Response {
        let header_version = ApiKey::Fetch.response_header_version(head.version);
        Response { head, body: Body::Fetch { header_version, version: head.version, message, records } }
    }
}

/// Appends the response's frame, size first, to `out`. On failure `out` is as it was.
pub fn encode(response: &Response, out: &mut Outgoing) -> Result<(), String> {
    if let Body::Fetch { header_version, version, message, records } = &response.body {
        let mut head = response.head.correlation.to_be_bytes().to_vec();
        // No tagged fields.
        head.resize(head.len() + usize::from(*header_version >= 1), 0);
        return records::encode(message, *version, &head, records, out);
    }
    let out = out.buffer();
    let start = out.len();
    out.put_i32(0);
    out.put_i32(response.head.correlation);
    let encoded = match &response.body {
        Body::Code(code) => {
            out.put_i16(*code);
            Ok(())
        }
        Body::Message { header_version, version, message } => {
            if *header_version >= 1 {
                // No tagged fields.
                out.put_u8(0);
            }
            message.encode(out, *version)
        }
        Body::Fetch { .. } => Ok(()),
    };
    let size = i32::try_from(out.len() - start - 4);
    match (encoded, size) {
        (Ok(()), Ok(size)) => {
            out[start..start + 4].copy_from_slice(&size.to_be_bytes());
            Ok(())
        }
        (Err(error), _) => {
            out.truncate(start);
            Err(format!("{error:#}"))
        }
        (Ok(()), Err(_)) => {
            out.truncate(start);
            Err("the response is larger than a frame can say".into())
        }
    }
}

/// The answer where ours could not be put into bytes.
pub fn internal_error(head: RequestHead) -> Response {
    Response { head, body: Body::Code(ResponseError::UnknownServerError.code()) }
}

/// What is said to a request that is not served, in a form that its sender can decode where there is one.
pub fn refusal(head: RequestHead) -> Response {
    let code = ResponseError::UnsupportedVersion.code();
    let Ok(key) = ApiKey::try_from(head.key) else {
        return Response { head, body: Body::Code(code) };
    };
    if key == ApiKey::ApiVersions {
        // KIP-511: version 0 whatever was asked, with the list, so that the client can try again.
        let mut message = api_versions(0);
        message.error_code = code;
        let message = ResponseKind::ApiVersions(message);
        return Response { head, body: Body::Message { header_version: 0, version: 0, message } };
    }
    let known = key.valid_versions();
    match message_with_code(key, code) {
        Some(message) if (known.min..=known.max).contains(&head.version) => Response::to(head, message),
        _ => Response { head, body: Body::Code(code) },
    }
}

/// Responses that carry an error for the request as a whole.
fn message_with_code(key: ApiKey, code: i16) -> Option<ResponseKind> {
    Some(match key {
        ApiKey::FindCoordinator => FindCoordinatorResponse::default().with_error_code(code).into(),
        ApiKey::JoinGroup => JoinGroupResponse::default().with_error_code(code).into(),
        ApiKey::SyncGroup => SyncGroupResponse::default().with_error_code(code).into(),
        ApiKey::Heartbeat => HeartbeatResponse::default().with_error_code(code).into(),
        ApiKey::LeaveGroup => LeaveGroupResponse::default().with_error_code(code).into(),
        ApiKey::ListGroups => ListGroupsResponse::default().with_error_code(code).into(),
        ApiKey::OffsetFetch => OffsetFetchResponse::default().with_error_code(code).into(),
        ApiKey::InitProducerId => InitProducerIdResponse::default().with_error_code(code).into(),
        ApiKey::DescribeCluster => DescribeClusterResponse::default().with_error_code(code).into(),
        ApiKey::SaslHandshake => SaslHandshakeResponse::default().with_error_code(code).into(),
        ApiKey::SaslAuthenticate => SaslAuthenticateResponse::default().with_error_code(code).into(),
        _ => return None,
    })
}

/// The answer to ApiVersions of this version.
pub fn api_versions(version: i16) -> ApiVersionsResponse {
    let keys = versions::SERVED.iter().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.advertised_min)
            .with_max_version(api.max)
    });
    let response = ApiVersionsResponse::default().with_api_keys(keys.collect());
    if version < 3 {
        return response;
    }
    let supported = versions::FEATURES.iter().map(|feature| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_version(feature.min)
            .with_max_version(feature.max)
    });
    let finalized = versions::FEATURES.iter().map(|feature| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_version_level(feature.min)
            .with_max_version_level(feature.finalized)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features(finalized.collect())
        .with_finalized_features_epoch(0)
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
