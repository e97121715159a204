//! Opening compressed batches, for a search by time. Batches are stored and served as they were sent;
//! nothing else in the broker looks inside.
//!
//! The bytes come from clients: what they open to is bounded, and whatever cannot be opened is `None`.

use std::io::Read;

/// More than this of one batch is not looked at.
const OPENED_BYTES_MAX: usize = 64 << 20;

const GZIP: i16 = 1;
const SNAPPY: i16 = 2;
const LZ4: i16 = 3;
const ZSTD: i16 = 4;

/// The records of a batch compressed with `codec` (the attribute's number).
pub fn open(codec: i16, compressed: &[u8]) -> Option<Vec<u8>> {
    match codec {
        GZIP => bounded(flate2::read::GzDecoder::new(compressed)),
        SNAPPY => snappy(compressed),
        LZ4 => bounded(lz4_flex::frame::FrameDecoder::new(compressed)),
        ZSTD => bounded(ruzstd::decoding::StreamingDecoder::new(compressed).ok()?),
        _ => None,
    }
}

fn bounded(from: impl Read) -> Option<Vec<u8>> {
    let mut opened = Vec::new();
    from.take(OPENED_BYTES_MAX as u64 + 1).read_to_end(&mut opened).ok()?;
    (opened.len() <= OPENED_BYTES_MAX).then_some(opened)
}

/// Either one raw block, or the framing of xerial's Java library: a header, then blocks with their lengths.
fn snappy(compressed: &[u8]) -> Option<Vec<u8>> {
    const XERIAL: &[u8] = b"\x82SNAPPY\0";
    const XERIAL_HEADER_BYTES: usize = 16;
    if !compressed.starts_with(XERIAL) {
        return raw_snappy(compressed, OPENED_BYTES_MAX);
    }
    let mut opened = Vec::new();
    let mut rest = compressed.get(XERIAL_HEADER_BYTES..)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_at_checked(4)?;
        let length = usize::try_from(i32::from_be_bytes(length.try_into().ok()?)).ok()?;
        let (block, after) = after.split_at_checked(length)?;
        opened.extend(raw_snappy(block, OPENED_BYTES_MAX - opened.len())?);
        rest = after;
    }
    Some(opened)
}

fn raw_snappy(block: &[u8], room: usize) -> Option<Vec<u8>> {
    if snap::raw::decompress_len(block).ok()? > room {
        return None;
    }
    snap::raw::Decoder::new().decompress_vec(block).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The same text in every codec, as others made it.
    fn samples(text: &[u8]) -> Vec<(i16, Vec<u8>)> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(text).unwrap();
        let raw = snap::raw::Encoder::new().compress_vec(text).unwrap();
        let mut xerial = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
        for half in text.chunks(text.len().div_ceil(2).max(1)) {
            let block = snap::raw::Encoder::new().compress_vec(half).unwrap();
            xerial.extend((block.len() as i32).to_be_bytes());
            xerial.extend(block);
        }
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(text).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
        vec![
            (GZIP, gzip.finish().unwrap()),
            (SNAPPY, raw),
            (SNAPPY, xerial),
            (LZ4, lz4.finish().unwrap()),
            (ZSTD, zstd),
        ]
    }

    #[test]
    fn every_codec_opens_to_what_was_put_in() {
        let text: Vec<u8> = (0..10_000u32).flat_map(|n| (n % 251).to_be_bytes()).collect();
        for (codec, compressed) in samples(&text) {
            assert_eq!(open(codec, &compressed).as_deref(), Some(&text[..]), "codec {codec}");
        }
    }

    #[test]
    fn damaged_and_foreign_bytes_do_not_panic() {
        for (codec, mut compressed) in samples(b"some text, some text, some text and an end") {
            for cut in 0..compressed.len() {
                let _ = open(codec, &compressed[..cut]);
                compressed[cut] ^= 0x55;
                let _ = open(codec, &compressed);
                compressed[cut] ^= 0x55;
            }
        }
        assert_eq!(open(7, b"anything"), None);
    }

    #[test]
    fn a_bomb_is_not_opened() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..(OPENED_BYTES_MAX >> 20) + 1 {
            gzip.write_all(&[0; 1 << 20]).unwrap();
        }
        assert_eq!(open(GZIP, &gzip.finish().unwrap()), None);
    }
}
