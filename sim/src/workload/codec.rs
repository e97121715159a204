//! Compression as clients do it: gzip, snappy (one raw block as librdkafka sends it, or framed as the Java client does),
//! lz4 frames and zstd.

use std::io::{Read, Write};

use crate::scenario::Compression as Codec;

pub(super) const ALL: [Codec; 6] =
    [Codec::None, Codec::Gzip, Codec::Snappy, Codec::SnappyFramed, Codec::Lz4, Codec::Zstd];

/// As it stands in a batch's attributes.
pub(super) fn attribute(codec: Codec) -> i16 {
    match codec {
        Codec::None => 0,
        Codec::Gzip => 1,
        Codec::Snappy | Codec::SnappyFramed => 2,
        Codec::Lz4 => 3,
        Codec::Zstd => 4,
    }
}

const FRAMED: &[u8] = b"\x82SNAPPY\0";
const FRAMED_HEADER: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Java's block.
const BLOCK_BYTES: usize = 32 * 1024;
/// More than any codec puts around its blocks; gzip's holds the note.
const PACKED_HEADER_BYTES: usize = 128;
/// No batch opens to more.
const OPENED_BYTES_MAX: u64 = 64 << 20;

/// How many of `bytes` records may take so that they fit when they are packed, even if they do not get smaller.
pub(super) fn room(codec: Codec, bytes: usize) -> usize {
    match codec {
        Codec::None => bytes,
        _ => bytes.saturating_sub(bytes / 256 + PACKED_HEADER_BYTES),
    }
}

/// `note` goes where gzip has room for what is not compressed; the others have none.
pub(super) fn pack(codec: Codec, records: &[u8], note: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{codec:?}: {error}");
    match codec {
        Codec::None => Ok(records.to_vec()),
        Codec::Gzip => {
            let builder = flate2::GzBuilder::new().extra(note);
            let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
            encoder.write_all(records).and_then(|()| encoder.finish()).map_err(|error| failed(&error))
        }
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(records).map_err(|error| failed(&error)),
        Codec::SnappyFramed => {
            let mut framed = FRAMED_HEADER.to_vec();
            for block in records.chunks(BLOCK_BYTES) {
                let block = snap::raw::Encoder::new().compress_vec(block).map_err(|error| failed(&error))?;
                framed.extend(u32::try_from(block.len()).unwrap_or(0).to_be_bytes());
                framed.extend(block);
            }
            Ok(framed)
        }
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(records).map_err(|error| failed(&error))?;
            encoder.finish().map_err(|error| failed(&error))
        }
        Codec::Zstd => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            Ok(ruzstd::encoding::compress_to_vec(records, level))
        }
    }
}

/// The records of a batch whose attributes name `codec`.
pub(super) fn unpack(codec: i16, packed: &[u8]) -> Result<Vec<u8>, String> {
    match codec {
        1 => read(flate2::read::MultiGzDecoder::new(packed)),
        2 => unpack_snappy(packed),
        3 => read(lz4_flex::frame::FrameDecoder::new(packed)),
        4 => read(ruzstd::decoding::StreamingDecoder::new(packed).map_err(|error| error.to_string())?),
        other => Err(format!("compression {other}")),
    }
}

fn read(from: impl Read) -> Result<Vec<u8>, String> {
    let mut opened = Vec::new();
    from.take(OPENED_BYTES_MAX).read_to_end(&mut opened).map_err(|error| error.to_string())?;
    Ok(opened)
}

fn unpack_snappy(packed: &[u8]) -> Result<Vec<u8>, String> {
    let block =
        |block: &[u8]| snap::raw::Decoder::new().decompress_vec(block).map_err(|error| error.to_string());
    if !packed.starts_with(FRAMED) {
        return block(packed);
    }
    let mut opened = Vec::new();
    let mut rest = packed.get(FRAMED_HEADER.len()..).ok_or("a frame without a header")?;
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (one, behind) = behind.split_at_checked(length).ok_or("a frame that ends in a block")?;
        opened.extend(block(one)?);
        rest = behind;
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_opens_to_what_was_put_in() {
        let records: Vec<u8> = (0..100_000u32).flat_map(|n| (n % 251).to_be_bytes()).collect();
        for codec in ALL.into_iter().skip(1) {
            let packed = pack(codec, &records, b"a note").unwrap();
            assert!(packed.len() < records.len(), "{codec:?}");
            assert_eq!(unpack(attribute(codec), &packed), Ok(records.clone()), "{codec:?}");
        }
    }

    #[test]
    fn what_was_cut_off_is_not_taken_for_whole() {
        let records = vec![7; 1000];
        for codec in [Codec::Gzip, Codec::Snappy, Codec::SnappyFramed, Codec::Zstd] {
            let packed = pack(codec, &records, &[]).unwrap();
            assert_ne!(
                unpack(attribute(codec), &packed[..packed.len() - 3]),
                Ok(records.clone()),
                "{codec:?}"
            );
        }
    }
}
