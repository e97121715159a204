//! ApiVersions: what this broker speaks; and what is said to requests that it does not speak.

use bytes::Bytes;
use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest};

use super::authorization::Needs;
use super::declaration::{Asked, Call, Declaration, Row, Versions};
use crate::session::ClientSoftware;
use crate::wire::shape::{Bounds, Kind, Shape, plain, since};
use crate::wire::{RequestHead, Response, StrBytes, WireError};

/// ApiVersions, key 18 (KIP-35), with the client's software (KIP-511) and features (KIP-584).
pub const DECLARATION: Declaration = Declaration {
    key: ApiKey::ApiVersions,
    versions: Versions::of(0, 4),
    bounds: Bounds::of_resources(&REQUEST),
    needs: Needs::Nothing,
};

static REQUEST: Shape = plain(&[since(SOFTWARE_SINCE, Kind::Text), since(SOFTWARE_SINCE, Kind::Text)]);

const SOFTWARE_SINCE: i16 = 3;
const FEATURES_SINCE: i16 = 3;

/// A finalized cluster feature: levels that this broker supports, and the one that the cluster is at.
struct Feature {
    name: &'static str,
    min: i16,
    max: i16,
    level: i16,
}

/// What clients act upon: Kafka 4.1's `metadata.version`, and that groups may be of the consumer protocol (KIP-848).
const FEATURES: &[Feature] = &[
    Feature { name: "metadata.version", min: 7, max: 27, level: 27 },
    Feature { name: "group.version", min: 0, max: 1, level: 1 },
];

/// `served` is the table of all APIs, in the order in which clients print it.
pub fn ask<B: Backend>(call: Call<B>, body: Bytes, served: &[Row<B>]) -> Result<Asked, WireError> {
    let version = call.head.version;
    let request: ApiVersionsRequest = DECLARATION.decode(version, body)?;
    let mut response = response(served, version, call.context.metadata.shown().index);
    if version >= SOFTWARE_SINCE {
        let (name, version) = (&*request.client_software_name, &*request.client_software_version);
        match is_software_text(name) && is_software_text(version) {
            true => {
                call.session.set_software(ClientSoftware { name: name.into(), version: version.into() });
            }
            false => {
                response =
                    ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
            }
        }
    }
    call.context.requests.count_error(call.head.key, response.error_code);
    Ok(Asked::Done(Response::to(call.head, response)))
}

/// KIP-511: letters, digits, dashes and dots, neither of which begins or ends it.
fn is_software_text(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric())) && text.bytes().all(inner)
}

/// `epoch` rises with each change of the metadata, so with each change of a feature's level.
fn response<B: Backend>(served: &[Row<B>], version: i16, epoch: u64) -> ApiVersionsResponse {
    let keys = served.iter().map(|row| {
        ApiVersion::default()
            .with_api_key(row.declaration.key as i16)
            .with_min_version(row.declaration.versions.advertised_min)
            .with_max_version(row.declaration.versions.max)
    });
    let response = ApiVersionsResponse::default().with_api_keys(keys.collect());
    if version < FEATURES_SINCE {
        return response;
    }
    let supported = FEATURES.iter().map(|feature| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_version(feature.min)
            .with_max_version(feature.max)
    });
    let finalized = FEATURES.iter().map(|feature| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_version_level(feature.level)
            .with_max_version_level(feature.level)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features(finalized.collect())
        .with_finalized_features_epoch(i64::try_from(epoch).unwrap_or(i64::MAX))
}

/// What is said to a request that is not served. But for ApiVersions there is no form that its sender surely reads, and the connection ends,
/// as with Kafka: whatever was answered would be taken for something else.
pub fn unserved<B: Backend>(head: RequestHead, served: &[Row<B>]) -> Result<Response, WireError> {
    if head.key != ApiKey::ApiVersions as i16 {
        return Err(WireError::NotServed { key: head.key, version: head.version });
    }
    // KIP-511: version 0 whatever was asked, with the list, so that the client can try again.
    let code = ResponseError::UnsupportedVersion.code();
    Ok(Response::in_version_0(head, response(served, 0, 0).with_error_code(code)))
}

#[cfg(test)]
#[path = "api_versions_tests.rs"]
mod tests;
