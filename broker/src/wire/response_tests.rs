use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiVersionsResponse, JoinGroupResponse};
use kafka_protocol::protocol::Decodable;

use super::*;

fn framed(response: &Response) -> Bytes {
    let mut out = Outgoing::default();
    if let Err(what) = encode(response, &mut out) {
        panic!("{response:?}: {what}");
    }
    let mut out = out.to_bytes();
    assert_eq!(out.get_i32() as usize, out.len(), "the size counts what follows it");
    out
}

#[test]
fn an_api_versions_request_of_the_future_gets_version_0_and_the_list() {
    let head = RequestHead { key: 18, version: 99, correlation: 7 };
    let mut answer = framed(&refusal(head));
    assert_eq!(answer.get_i32(), 7);
    match ApiVersionsResponse::decode(&mut answer, 0) {
        Ok(list) => {
            assert_eq!(list.error_code, 35);
            assert_eq!(list.api_keys.len(), versions::SERVED.len());
        }
        Err(error) => panic!("{error:#}"),
    }
}

#[test]
fn an_unknown_key_keeps_its_correlation_id_and_hears_why() {
    for key in [-1, 4, 999, i16::MAX, i16::MIN] {
        let mut answer = framed(&refusal(RequestHead { key, version: 3, correlation: -12 }));
        assert_eq!((answer.get_i32(), answer.get_i16(), answer.len()), (-12, 35, 0), "key {key}");
    }
}

#[test]
fn a_group_request_is_refused_in_its_own_form() {
    for version in 0..=9 {
        let head = RequestHead { key: ApiKey::JoinGroup as i16, version, correlation: 1 };
        let mut answer = framed(&refusal(head));
        answer.advance(4 + usize::from(version >= 6));
        match JoinGroupResponse::decode(&mut answer, version) {
            Ok(join) => assert_eq!(join.error_code, 35),
            Err(error) => panic!("version {version}: {error:#}"),
        }
    }
}

#[test]
fn every_refusal_of_every_key_and_version_can_be_encoded() {
    for key in 0..100 {
        for version in 0..20 {
            let head = RequestHead { key, version, correlation: 1 };
            let mut out = Outgoing::default();
            if encode(&refusal(head), &mut out).is_err() {
                assert!(out.is_empty(), "a failure leaves nothing behind");
                assert!(encode(&internal_error(head), &mut out).is_ok());
            }
        }
    }
}

#[test]
fn features_are_told_to_who_can_read_them() {
    for version in 0..=4 {
        let mut out = Outgoing::default();
        let message = ResponseKind::ApiVersions(api_versions(version));
        let head = RequestHead { key: 18, version, correlation: 1 };
        assert!(encode(&Response::to(head, message), &mut out).is_ok(), "version {version}");
        assert_eq!(api_versions(version).finalized_features.is_empty(), version < 3);
    }
}
