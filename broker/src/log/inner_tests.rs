use std::io::Read;

use super::*;
use crate::ids::Offset;
use crate::log::batch::{BatchHeader, verify};
use crate::log::encoder::compress;
use crate::log::records::{Aim, RecordSearch, Step as SearchStep};
use crate::log::test_batches::BatchSpec;
use crate::log::validate::{check, check_outside};

const VERSION: i16 = 9;
const MIB: usize = 1 << 20;

fn looked_at(batch: &CheckedBatch, wanted: Wanted) -> Result<CheckedBatch, BatchError> {
    let mut inner = Inner::of(batch, wanted)?;
    while inner.step()? == Step::More {}
    inner.finish()
}

fn wanted(keys: bool, codec: Option<i16>) -> Wanted {
    Wanted { keys, method: codec.map(Method::of), bytes_max: 8 * MIB }
}

/// The batch as a producer sends it that compresses so.
fn sent(plain: &[u8], codec: i16) -> Bytes {
    let header = BatchHeader::read(plain).unwrap();
    let mut batch = plain[..HEADER_BYTES].to_vec();
    batch.extend(compress(Method::of(codec), &plain[HEADER_BYTES..]).unwrap());
    batch::close(&mut batch, codec, header.max_timestamp);
    batch.into()
}

fn checked(batch: &Bytes) -> CheckedBatch {
    check_outside(Some(batch), VERSION, 64 * MIB).unwrap()
}

fn plain_records(batch: &[u8]) -> Vec<u8> {
    let header = BatchHeader::read(batch).unwrap();
    let mut opened = Vec::new();
    let mut from = codec::open(header.compression(), &batch[HEADER_BYTES..]).unwrap();
    from.read_to_end(&mut opened).unwrap();
    opened
}

#[test]
fn every_codec_becomes_every_other_and_says_the_same() {
    for spec in [
        BatchSpec::keyed_many(1).timestamp(5_000),
        BatchSpec::keyed_many(500).timestamp(5_000).step(10).value_bytes(900).producer(7, 1, 40),
    ] {
        let plain = spec.build();
        for from in 0..=4 {
            let came = sent(&plain, from);
            let batch = checked(&came);
            for to in 0..=4 {
                let made = looked_at(&batch, wanted(true, Some(to))).unwrap();
                let header = BatchHeader::read(&made.bytes).unwrap();
                assert_eq!(verify(&made.bytes), Ok(()), "{from} to {to}");
                assert_eq!((header.compression(), header.bytes), (to, made.bytes.len()), "{from} to {to}");
                assert_eq!(plain_records(&made.bytes), plain[HEADER_BYTES..], "{from} to {to}");
                let before = BatchHeader::read(&came).unwrap();
                let alike = BatchHeader { attributes: before.attributes, bytes: before.bytes, ..header };
                assert_eq!(alike, before, "{from} to {to}");
                assert_eq!(
                    (made.producer, made.times),
                    (batch.producer, check(Some(&plain), VERSION, MIB).unwrap().times)
                );
                assert_eq!(made.bytes.as_ptr() == came.as_ptr(), from == to, "the same codec is left alone");
                // What comes to its partition is taken as if a producer had sent it so.
                assert!(check(Some(&made.bytes), VERSION, MIB).is_ok());
            }
        }
    }
}

#[test]
fn a_record_is_found_by_its_time_in_what_was_compressed_anew() {
    let plain = BatchSpec::keyed_many(500).timestamp(1_000).step(10).value_bytes(300).build();
    for to in 0..=4 {
        let made = looked_at(&checked(&sent(&plain, 3)), wanted(false, Some(to))).unwrap();
        let header = BatchHeader::read(&made.bytes).unwrap();
        let mut search = RecordSearch::new(&header, &made.bytes, Aim::Since(1_000 + 4_321), Offset(0));
        let found = loop {
            if let SearchStep::Done(found) = search.step() {
                break found;
            }
        };
        assert_eq!(found, Some((Offset(433), 5_330)), "codec {to}");
    }
}

#[test]
fn the_largest_time_is_what_the_records_say() {
    for codec in 1..=4 {
        let mut batch = sent(&BatchSpec::keyed_many(20).timestamp(1_000).step(10).build(), codec).to_vec();
        batch::close(&mut batch, codec, 999_999);
        for method in [None, Some(0)] {
            let made = looked_at(&checked(&batch.clone().into()), wanted(true, method)).unwrap();
            assert_eq!((made.max_timestamp, made.times), (1_190, (1_000, 1_190)));
            assert_eq!(BatchHeader::read(&made.bytes).unwrap().max_timestamp, 1_190);
            assert_eq!(verify(&made.bytes), Ok(()));
        }
    }
}

#[test]
fn a_record_without_a_key_is_refused_wherever_it_stands_if_keys_are_wanted() {
    let keyed = BatchSpec::keyed_many(300).value_bytes(70_000 / 300).build();
    let keyless = BatchSpec::records(300).value_bytes(1_000).build();
    // Its last record alone has no key: a batch of 300 and one of 1 behind each other.
    let mut last = BatchSpec::keyed_many(2_000).value_bytes(100).build().to_vec();
    let at = last.len() - (1 + 1 + 2 + 1 + 4 + 2 + 100 + 1);
    let key_at = (at..last.len()).find(|at| last[*at..].starts_with(&[8, b'1', b'9', b'9', b'9'])).unwrap();
    // A key of four bytes, or none and a value of so many more.
    last[key_at] = 1;
    last.splice(key_at + 1..key_at + 7, [0xd0, 0x01, b'x', b'x', b'x', b'x']);
    for codec in 0..=4 {
        assert!(looked_at(&checked(&sent(&keyed, codec)), wanted(true, None)).is_ok(), "codec {codec}");
        for batch in [&keyless[..], &last] {
            let batch = checked(&sent(batch, codec));
            assert_eq!(looked_at(&batch, wanted(true, None)), Err(BatchError::NoKey), "codec {codec}");
            assert!(looked_at(&batch, wanted(false, Some((codec + 1) % 5))).is_ok(), "codec {codec}");
        }
    }
}

/// Records with headers, whose values are there, empty, or null.
fn with_headers() -> Bytes {
    let mut records = Vec::new();
    for nth in 0..9u8 {
        let mut body = vec![0, 2 * nth, 2 * nth, 2, b'k', 4, b'v', b'v', 2 * (nth % 4)];
        for header in 0..nth % 4 {
            body.extend([4, b'h', b'0' + header]);
            body.extend([&[8, b'a', b'b', b'c', b'd'][..], &[0], &[1]][usize::from((nth / 4 + header) % 3)]);
        }
        records.push(2 * body.len() as u8);
        records.extend(body);
    }
    let mut batch = BatchSpec::keyed_many(9).step(1).build()[..HEADER_BYTES].to_vec();
    batch.extend(records);
    batch::close(&mut batch, 0, 1_008);
    batch.into()
}

#[test]
fn headers_are_records_wherever_the_pieces_end() {
    let batch = with_headers();
    let whole = check(Some(&batch), VERSION, MIB).unwrap();
    for codec in 1..=4 {
        let made = looked_at(&checked(&sent(&batch, codec)), wanted(true, Some(0))).unwrap();
        assert_eq!((made.bytes, made.times), (batch.clone(), whole.times));
    }
    let bytes = &batch[HEADER_BYTES..];
    for (count, good) in [(9, true), (8, false), (10, false)] {
        for piece in 1..bytes.len() {
            let mut records = Records::new(count, true);
            let (mut from, mut verdict) = (0, Ok(0));
            for end in (piece..bytes.len()).step_by(piece).chain([bytes.len()]) {
                verdict = records.look(&bytes[from..end], end == bytes.len());
                match verdict {
                    Ok(looked_at) => from += looked_at,
                    Err(_) => break,
                }
            }
            assert_eq!(verdict.is_ok(), good, "{count} records in pieces of {piece}: {verdict:?}");
        }
    }
}

#[test]
fn it_is_judged_as_a_batch_that_is_there_as_a_whole() {
    for good in [BatchSpec::keyed_many(40).step(3).build(), with_headers()] {
        judged_alike(&good);
    }
}

fn judged_alike(good: &Bytes) {
    let end = good.len();
    let mut verdicts = [0, 0];
    for at in HEADER_BYTES..end {
        for change in [0x01, 0x02, 0x80, 0xff] {
            let mut plain = good.to_vec();
            plain[at] ^= change;
            let codec = 1 + (at % 4) as i16;
            let whole = check(Some(&sent(&plain, 0)), VERSION, MIB);
            let opened = looked_at(&checked(&sent(&plain, codec)), wanted(false, Some(0)));
            assert_eq!(whole.is_ok(), opened.is_ok(), "byte {at} ^ {change}: {whole:?}, {opened:?}");
            verdicts[usize::from(whole.is_ok())] += 1;
            if let (Ok(whole), Ok(opened)) = (whole, opened) {
                assert_eq!((whole.times, whole.bytes), (opened.times, opened.bytes));
            }
        }
        let cut = sent(&good[..at], 1 + (at % 4) as i16);
        assert!(looked_at(&checked(&cut), wanted(true, None)).is_err(), "cut at {at}");
    }
    assert!(verdicts.iter().all(|verdicts| *verdicts > 30), "both are seen: {verdicts:?}");
    let mut more = good.to_vec();
    more.push(0);
    assert!(looked_at(&checked(&sent(&more, 1)), wanted(true, None)).is_err());
}

#[test]
fn what_does_not_open_is_refused() {
    let plain = BatchSpec::keyed_many(2_000).value_bytes(100).build();
    for codec in 1..=4 {
        let good = sent(&plain, codec);
        let max_timestamp = BatchHeader::read(&good).unwrap().max_timestamp;
        let resealed = |mut batch: Vec<u8>| {
            batch::close(&mut batch, codec, max_timestamp);
            looked_at(&checked(&batch.into()), wanted(true, None))
        };
        for cut in [HEADER_BYTES, HEADER_BYTES + 3, HEADER_BYTES + 20, good.len() / 2] {
            let cut = resealed(good[..cut].to_vec());
            assert!(
                matches!(cut, Err(BatchError::Unopenable { .. } | BatchError::Framing { .. })),
                "codec {codec}: {cut:?}"
            );
        }
        let noise = [&good[..HEADER_BYTES], &[0x5a; 500]].concat();
        assert!(matches!(resealed(noise), Err(BatchError::Unopenable { .. })), "codec {codec}");
    }
}

#[test]
fn what_opens_to_too_much_is_refused_and_takes_no_memory() {
    let plain = BatchSpec::keyed_many(40).value_bytes(MIB).build();
    for codec in [1, 3] {
        let batch = checked(&sent(&plain, codec));
        let mut inner = Inner::of(&batch, wanted(true, None)).unwrap();
        let refused = loop {
            assert!(inner.buffer.capacity() <= 4 * PIECE_BYTES);
            match inner.step() {
                Ok(Step::More) => {}
                Ok(Step::Done) => panic!("codec {codec}"),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, BatchError::OpensToTooMuch { max: OPENED_BYTES_MAX }, "codec {codec}");
    }
    let of_one_byte = looked_at(&checked(&plain), wanted(true, None));
    assert!(of_one_byte.is_ok(), "what is not compressed is no larger than it is");
}

#[test]
fn what_is_too_large_as_it_would_be_kept_is_refused_when_it_is_that_large() {
    let plain = BatchSpec::keyed_many(4_000).value_bytes(1_000).build();
    let batch = checked(&sent(&plain, 4));
    assert!(batch.bytes.len() < MIB / 4, "it was small");
    let max = Wanted { bytes_max: MIB, ..wanted(true, Some(0)) };
    let mut inner = Inner::of(&batch, max).unwrap();
    let refused = loop {
        match inner.step() {
            Ok(_) => assert!(inner.opened() <= MIB + PIECE_BYTES, "it goes no further"),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, BatchError::TooLarge { max: MIB, .. }), "{refused:?}");
    let fits = Wanted { bytes_max: plain.len(), ..max };
    assert_eq!(looked_at(&batch, fits).unwrap().bytes, plain);
    let one_less = Wanted { bytes_max: plain.len() - 1, ..max };
    assert!(matches!(looked_at(&batch, one_less), Err(BatchError::TooLarge { .. })));
}

#[test]
fn the_memory_that_it_takes_is_known_before() {
    let small = BatchSpec::keyed_many(20).build();
    for codec in 0..=4 {
        let batch = checked(&sent(&small, codec));
        for method in [None, Some(0), Some(4)] {
            let first = wanted(true, method).memory_bytes(&batch, 256 << 10);
            assert!(first < 5 * MIB / 2, "codec {codec} to {method:?}: {first}");
        }
    }
}

#[test]
fn blocks_that_open_to_nothing_take_many_steps_and_not_much_of_one() {
    const BLOCKS: usize = 50_000;
    let plain = BatchSpec::keyed_many(3).build();
    let mut packed =
        flate2::write::GzEncoder::new(plain[..HEADER_BYTES].to_vec(), flate2::Compression::fast());
    for block in 0..BLOCKS {
        if block == BLOCKS / 2 {
            std::io::Write::write_all(&mut packed, &plain[HEADER_BYTES..]).unwrap();
        }
        std::io::Write::flush(&mut packed).unwrap();
    }
    let mut batch = packed.finish().unwrap();
    let bytes = batch.len() - HEADER_BYTES;
    let max_timestamp = BatchHeader::read(&plain).unwrap().max_timestamp;
    batch::close(&mut batch, codec::GZIP, max_timestamp);
    let batch = checked(&batch.into());
    let mut inner = Inner::of(&batch, wanted(true, Some(0))).unwrap();
    let mut steps = 1;
    while inner.step().unwrap() == Step::More {
        steps += 1;
    }
    assert!(
        steps >= bytes / codec::PIECE_BYTES_IN && bytes > 10 * codec::PIECE_BYTES_IN,
        "{steps} steps for {bytes} bytes"
    );
    assert_eq!(plain_records(&inner.finish().unwrap().bytes), plain[HEADER_BYTES..]);
}
