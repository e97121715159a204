use bytes::{BufMut, BytesMut};

use super::*;

const MAX: usize = 1 << 20;

/// An uncompressed batch of records with a key, a value and a header each.
fn batch(records: i32) -> Vec<u8> {
    let mut body = BytesMut::new();
    for delta in 0..records {
        // attributes, time delta, offset delta, key "k", value "vv", one header "h" without a value
        let record = [0, 0, (delta as u8) << 1, 2, b'k', 4, b'v', b'v', 2, 2, b'h', 1];
        body.put_u8((record.len() as u8) << 1);
        body.put_slice(&record);
    }
    with_header(records, &body)
}

fn with_header(records: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_i64(0);
    bytes.put_i32((HEADER_BYTES - FRAME_BYTES + body.len()) as i32);
    bytes.put_i32(-1);
    bytes.put_u8(2);
    bytes.put_u32(0);
    bytes.put_i16(0);
    bytes.put_i32(records - 1);
    bytes.put_i64(1_000);
    bytes.put_i64(1_000);
    bytes.put_i64(-1);
    bytes.put_i16(-1);
    bytes.put_i32(-1);
    bytes.put_i32(records);
    bytes.put_slice(body);
    sealed(bytes.to_vec())
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The batch with some of its bytes replaced, and a CRC that is right again.
fn with(at: usize, replacement: &[u8]) -> Vec<u8> {
    let mut bytes = batch(3);
    bytes[at..at + replacement.len()].copy_from_slice(replacement);
    sealed(bytes)
}

fn checked(bytes: Vec<u8>) -> Result<CheckedBatch, BatchError> {
    check(Some(&Bytes::from(bytes)), 9, MAX)
}

#[test]
fn a_good_batch_passes_as_it_is() {
    let bytes = batch(3);
    let expected = CheckedBatch {
        bytes: Bytes::from(bytes.clone()),
        records: 3,
        last_offset_delta: 2,
        base_timestamp: 1_000,
        max_timestamp: 1_000,
        times: (1_000, 1_000),
        producer: None,
        behind_refused_first: false,
        transactional: false,
    };
    assert_eq!(checked(bytes), Ok(expected));
}

#[test]
fn the_largest_timestamp_is_what_the_records_say_and_not_the_header() {
    for said in [1_001i64, i64::MAX] {
        let sent = with(35, &said.to_be_bytes());
        let batch = checked(sent.clone()).expect("a good batch");
        assert_eq!(batch.max_timestamp, 1_000);
        let stored = checked(batch.bytes.to_vec()).expect("its CRC is right again");
        assert_eq!((stored.max_timestamp, &stored.bytes), (1_000, &batch.bytes));
        let differs = |at: &usize| sent[*at] != batch.bytes[*at];
        assert!((0..sent.len()).filter(differs).all(|at| (17..21).contains(&at) || (35..43).contains(&at)));
    }
}

#[test]
fn what_an_idempotent_producer_says_is_read() {
    let stamp = [&7i64.to_be_bytes()[..], &1i16.to_be_bytes(), &5i32.to_be_bytes()].concat();
    let producer = checked(with(43, &stamp)).map(|batch| batch.producer);
    assert_eq!(producer, Ok(Some(ProducerStamp { id: ProducerId(7), epoch: 1, base_sequence: 5 })));
}

#[test]
fn bad_batches_are_refused_for_what_is_wrong_with_them() {
    let negative = (-1i32).to_be_bytes();
    let table: Vec<(&str, Vec<u8>, BatchError)> = vec![
        ("negative length", with(8, &negative), BatchError::Length { said: 11, found: batch(3).len() }),
        ("old format", with(16, &[1]), BatchError::Magic(1)),
        ("unknown codec", with(21, &5i16.to_be_bytes()), BatchError::Codec(5)),
        ("control batch", with(21, &0x20i16.to_be_bytes()), BatchError::Control),
        ("transactional", with(21, &0x10i16.to_be_bytes()), BatchError::Transactional),
        ("append time", with(21, &0x08i16.to_be_bytes()), BatchError::TimestampType),
        ("fewer records", with(57, &2i32.to_be_bytes()), BatchError::Count { records: 2, last_delta: 2 }),
        ("negative count", with(57, &negative), BatchError::Count { records: -1, last_delta: 2 }),
        (
            "huge delta",
            with(23, &i32::MAX.to_be_bytes()),
            BatchError::Count { records: 3, last_delta: i32::MAX },
        ),
        (
            "time runs backwards",
            with(35, &999i64.to_be_bytes()),
            BatchError::Timestamp { base: 1_000, max: 999 },
        ),
        (
            "time before time",
            with(27, &(-2i64).to_be_bytes()),
            BatchError::Timestamp { base: -2, max: 1_000 },
        ),
        (
            "producer without epoch",
            with(43, &7i64.to_be_bytes()),
            BatchError::Producer { id: 7, epoch: -1, sequence: -1 },
        ),
        (
            "no such producer",
            with(43, &(-2i64).to_be_bytes()),
            BatchError::Producer { id: -2, epoch: -1, sequence: -1 },
        ),
        ("two batches", [batch(3), batch(3)].concat(), BatchError::SeveralBatches),
        (
            "negative record length",
            with(61, &[1]),
            BatchError::Framing { record: 0, what: "a negative length" },
        ),
        (
            "long record",
            with(61, &[0x7e]),
            BatchError::Framing { record: 0, what: "it is longer than the batch" },
        ),
        (
            "offsets out of order",
            with(64, &[2]),
            BatchError::Framing { record: 0, what: "its offset does not follow" },
        ),
        (
            "negative key length",
            with(65, &[3]),
            BatchError::Framing { record: 0, what: "a wrong key length" },
        ),
        (
            "negative header count",
            with(70, &[1]),
            BatchError::Framing { record: 0, what: "an impossible number of headers" },
        ),
    ];
    for (story, bytes, expected) in table {
        assert_eq!(checked(bytes), Err(expected), "{story}");
    }
}

#[test]
fn a_count_that_matches_nothing_in_the_batch_is_found_by_walking() {
    let body = &batch(3)[HEADER_BYTES..];
    let more = with_header(4, body);
    assert!(matches!(checked(more), Err(BatchError::Framing { record: 3, .. })));
    let fewer = with_header(2, body);
    let what = "bytes after the last record";
    assert_eq!(checked(fewer), Err(BatchError::Framing { record: 2, what }));
}

#[test]
fn damage_on_the_way_is_told_by_the_crc() {
    let mut bytes = batch(3);
    bytes[70] ^= 1;
    assert!(matches!(checked(bytes), Err(BatchError::Crc { .. })));
}

#[test]
fn sizes_and_absence_are_told() {
    assert_eq!(check(None, 9, MAX), Err(BatchError::Missing));
    assert_eq!(check(Some(&Bytes::new()), 9, MAX), Err(BatchError::Missing));
    let bytes = Bytes::from(batch(3));
    let (size, max) = (bytes.len(), bytes.len() - 1);
    assert_eq!(check(Some(&bytes), 9, max), Err(BatchError::TooLarge { size, max }));
    assert!(check(Some(&bytes), 9, size).is_ok());
}

#[test]
fn zstd_needs_version_7_and_compressed_records_are_not_looked_into() {
    let zstd = Bytes::from(with(21, &ZSTD.to_be_bytes()));
    assert_eq!(check(Some(&zstd), 6, MAX), Err(BatchError::CodecTooNew));
    assert!(check(Some(&zstd), 7, MAX).is_ok());
}

#[test]
fn no_truncation_and_no_flipped_bit_panics_or_passes() {
    let good = batch(3);
    for len in 0..good.len() {
        assert!(checked(good[..len].to_vec()).is_err(), "cut to {len}");
    }
    // The base offset and the leader epoch are the broker's to set: not under the CRC.
    let free = |byte: usize| byte < 8 || (12..16).contains(&byte);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(checked(bytes).is_ok(), free(bit / 8), "bit {bit}");
    }
}

#[test]
fn no_flipped_bit_under_a_right_crc_panics() {
    let good = batch(3);
    for bit in CRC_FROM * 8..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = checked(sealed(bytes));
    }
}

#[test]
fn times_of_records_lie_within_what_their_topic_takes() {
    let times = |times| CheckedBatch { times, ..checked(batch(1)).unwrap() };
    let hour = Some(Duration::from_secs(3_600));
    let limits = |before_max, after_max| TimeLimits { now_ms: 10_000_000, before_max, after_max };
    let table = [
        ((13_600_000, 13_600_000), limits(None, hour), None),
        ((13_600_000, 13_600_001), limits(None, hour), Some(13_600_001)),
        ((0, 10_000_000), limits(None, hour), None),
        ((6_399_999, 10_000_000), limits(hour, hour), Some(6_399_999)),
        ((6_400_000, 13_600_000), limits(hour, hour), None),
        ((-1, -1), limits(hour, hour), None),
        ((i64::MIN, i64::MAX), limits(None, None), None),
        ((5, i64::MAX), limits(None, Some(Duration::MAX)), None),
    ];
    for (of, limits, wrong) in table {
        let found = match check_times(&times(of), &limits) {
            Ok(()) => None,
            Err(BatchError::TimestampOutOfRange { time, .. }) => Some(time),
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(found, wrong, "{of:?} {limits:?}");
    }
}
