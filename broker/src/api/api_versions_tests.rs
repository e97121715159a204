use bytes::{Buf, Bytes};
use io_backend::real::RealBackend;
use kafka_protocol::protocol::Decodable;

use super::super::rows;
use super::*;
use crate::wire::encode;
use crate::wire::outgoing::Outgoing;

fn framed(response: &Response) -> Bytes {
    let mut out = Outgoing::default();
    if let Err(what) = encode(response, &mut out) {
        panic!("{response:?}: {what}");
    }
    let mut out = out.to_bytes();
    assert_eq!(out.get_i32() as usize, out.len(), "the size counts what follows it");
    out
}

fn head(key: i16, version: i16) -> RequestHead {
    RequestHead { key, version, correlation: 7 }
}

#[test]
fn an_api_versions_request_of_the_future_gets_version_0_and_the_list() {
    let refused = unserved(head(18, 99), rows::<RealBackend>()).expect("an answer in version 0");
    let mut answer = framed(&refused);
    assert_eq!(answer.get_i32(), 7);
    match ApiVersionsResponse::decode(&mut answer, 0) {
        Ok(list) => {
            assert_eq!(list.error_code, 35);
            assert_eq!(list.api_keys.len(), rows::<RealBackend>().len());
        }
        Err(error) => panic!("{error:#}"),
    }
}

#[test]
fn every_refusal_of_every_key_and_version_can_be_encoded() {
    for key in -2..110 {
        for version in -1..20 {
            if let Ok(refused) = unserved(head(key, version), rows::<RealBackend>()) {
                framed(&refused);
            }
        }
    }
}

#[test]
fn what_has_no_form_that_its_sender_knows_is_no_answer() {
    for (key, version) in [(-1, 3), (4, 3), (999, 3), (i16::MIN, 0), (0, 2), (0, 99), (1, 3), (11, 77)] {
        let refused = unserved(head(key, version), rows::<RealBackend>());
        assert_eq!(refused.err(), Some(WireError::NotServed { key, version }));
    }
}

#[test]
fn features_are_told_to_who_can_read_them_and_their_least_level_is_their_level() {
    for version in 0..=4 {
        let told = response(rows::<RealBackend>(), version, 12);
        framed(&Response::to(head(18, version), told.clone()));
        assert_eq!(told.finalized_features.is_empty(), version < 3);
        assert!(told.finalized_features.iter().all(|one| one.min_version_level == one.max_version_level));
        assert_eq!(told.finalized_features_epoch, if version < 3 { -1 } else { 12 });
    }
}

#[test]
fn software_has_names_of_kafkas_form() {
    for (text, is_one) in [
        ("librdkafka", true),
        ("apache-kafka-java", true),
        ("2.16.0-rc.1", true),
        ("", false),
        ("-a", false),
        ("a.", false),
        ("a b", false),
    ] {
        assert_eq!(is_software_text(text), is_one, "{text}");
    }
}
