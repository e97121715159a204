//! The declarations against the codec: every version of every request, filled with something in every array.

use bytes::Bytes;
use io_backend::real::RealBackend;
use kafka_protocol::messages::RequestKind;

use super::declaration::Declaration;
use super::test_requests::filled;
use super::*;
use crate::wire::shape::{Bounds, ShapeError, walk};

fn each_version(mut check: impl FnMut(&Declaration, i16, bool, &[u8])) {
    for row in rows::<RealBackend>() {
        let Declaration { key, versions, .. } = row.declaration;
        for version in versions.min..=versions.max {
            let bytes = filled(key, version);
            check(&row.declaration, version, key.request_header_version(version) >= 2, &bytes);
        }
    }
}

#[test]
fn what_is_advertised_is_what_the_codec_knows() {
    for row in rows::<RealBackend>() {
        let (api, codec) = (row.declaration, row.declaration.key.valid_versions());
        assert!(codec.min <= api.versions.min && api.versions.max <= codec.max, "{api:?} but {codec}");
    }
}

#[test]
fn the_table_is_in_order_of_key_and_without_doubles() {
    let keys: Vec<i16> = rows::<RealBackend>().iter().map(|row| row.declaration.key as i16).collect();
    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "{keys:?}");
    for key in -1..KEYS as i16 + 1 {
        assert_eq!(
            row::<RealBackend>(key).map(|row| row.declaration.key as i16 == key),
            keys.contains(&key).then_some(true)
        );
    }
}

#[test]
fn produce_before_3_is_advertised_and_refused() {
    let produce = row::<RealBackend>(0).expect("a row").declaration.versions;
    assert_eq!(produce.advertised_min, 0);
    assert_eq!([2, 3, 13, 14, -1].map(|version| produce.contain(version)), [false, true, true, false, false]);
}

#[test]
fn every_served_request_has_the_shape_that_the_codec_writes() {
    each_version(|api, version, flexible, bytes| {
        assert_eq!(walk(api.bounds, version, flexible, bytes), Ok(bytes.len()), "{:?} {version}", api.key);
    });
}

#[test]
fn a_request_that_was_cut_is_never_walked_to_its_end() {
    each_version(|api, version, flexible, bytes| {
        for len in 0..bytes.len() {
            let walked = walk(api.bounds, version, flexible, &bytes[..len]);
            assert!(walked.is_err(), "{:?} {version} cut to {len}", api.key);
        }
    });
}

#[test]
fn whatever_is_walked_to_an_end_the_codec_can_be_given() {
    // Every byte set to values that make lengths huge or negative: the codec must neither panic nor
    // reserve what did not come.
    each_version(|api, version, flexible, bytes| {
        for at in 0..bytes.len() {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.to_vec();
                changed[at] = value;
                if walk(api.bounds, version, flexible, &changed).is_ok() {
                    let _ = RequestKind::decode(api.key, &mut Bytes::from(changed), version);
                }
            }
        }
    });
}

fn bounds(key: ApiKey) -> Bounds {
    row::<RealBackend>(key as i16).expect("a row").declaration.bounds
}

#[test]
fn an_array_that_announces_more_than_came_is_refused_before_anything_is_reserved() {
    let metadata = bounds(ApiKey::Metadata);
    let mut bytes = i32::MAX.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0; 20]);
    assert_eq!(walk(metadata, 1, false, &bytes), Err(ShapeError::ArrayTooLong(i32::MAX as u64, 20)));
    assert_eq!(
        walk(metadata, 9, true, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
        Err(ShapeError::ArrayTooLong(0xffff_fffe, 1))
    );
    let max = metadata.elements_max;
    let many = vec![0u8; max * 3];
    let mut bytes = ((max + 1) as i32).to_be_bytes().to_vec();
    bytes.extend(many);
    assert_eq!(walk(metadata, 1, false, &bytes), Err(ShapeError::TooManyElements(max)));
}

#[test]
fn null_arrays_are_legal_and_other_negative_lengths_are_not() {
    let metadata = bounds(ApiKey::Metadata);
    assert_eq!(walk(metadata, 1, false, &(-1i32).to_be_bytes()), Ok(4));
    assert_eq!(walk(metadata, 1, false, &(-2i32).to_be_bytes()), Err(ShapeError::NegativeLength(-2)));
}

#[test]
fn a_tagged_field_that_lies_about_its_size_is_refused() {
    let fetch = bounds(ApiKey::Fetch);
    // Fetch 12 without topics, then the cluster id (tag 0) of three letters that says it has nine bytes.
    let mut bytes = vec![0u8; 4 + 4 + 4 + 4 + 1 + 4 + 4];
    bytes.extend_from_slice(&[1, 1, 1]);
    let tags = bytes.len();
    bytes.extend_from_slice(&[1, 0, 9, 4, b'a', b'b', b'c', 0, 0, 0, 0, 0]);
    assert_eq!(walk(fetch, 12, true, &bytes), Err(ShapeError::TagSize(9, 4)));
    bytes[tags + 2] = 4;
    assert_eq!(walk(fetch, 12, true, &bytes), Ok(tags + 7));
}
