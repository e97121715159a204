//! Opening compressed batches, for a search by time, for cleaning and for the command line, and compressing what cleaning made.
//! Otherwise batches are stored and served as they were sent.
//!
//! The bytes come from clients: they are opened piece by piece, so that a batch which opens to much costs
//! neither memory nor a long time at once, and whatever cannot be opened is an error.

use std::io::{self, Read, Write};

/// A snappy block is opened as a whole: larger ones are not.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// As much as decoders are to support at least, and as much as is in memory for one batch here.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

const GZIP: i16 = 1;
const SNAPPY: i16 = 2;
const LZ4: i16 = 3;
const ZSTD: i16 = 4;

/// The records of a batch compressed with `codec` (the attribute's number; 0 is not compressed).
///
/// # Errors
/// There is no such codec, or the bytes do not begin as it begins; damage further on shows as an error of reading.
pub fn open(codec: i16, records: &[u8]) -> io::Result<Box<dyn Read + Send + '_>> {
    Ok(match codec {
        0 => Box::new(records),
        GZIP => Box::new(flate2::read::GzDecoder::new(records)),
        SNAPPY => Box::new(Snappy::new(records)),
        LZ4 => Box::new(lz4_flex::frame::FrameDecoder::new(records)),
        ZSTD if zstd_window(records).is_none_or(|bytes| bytes > ZSTD_WINDOW_BYTES_MAX) => {
            return Err(io::Error::other("the window of its zstd frame is too large, or not said"));
        }
        ZSTD => Box::new(ruzstd::decoding::StreamingDecoder::new(records).map_err(io::Error::other)?),
        other => return Err(io::Error::other(format!("there is no codec {other}"))),
    })
}

/// How much of what a zstd frame opens to has to be in memory (RFC 8878, 3.1.1.1): its window, or all of it.
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let (descriptor, rest) = frame.get(4..)?.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let id_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = 1usize << (descriptor >> 6);
    let size = rest.get(id_bytes..id_bytes + size_bytes)?;
    let size = size.iter().rev().fold(0u64, |size, byte| size << 8 | u64::from(*byte));
    // Two bytes count from 256 on.
    Some(if size_bytes == 2 { size + 256 } else { size })
}

/// Records compressed with `codec`, as every client opens them.
///
/// # Errors
///
/// There is no such codec, or it fails.
pub fn compress(codec: i16, records: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        0 => Ok(records.to_vec()),
        GZIP => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            gzip.write_all(records)?;
            gzip.finish()
        }
        SNAPPY => {
            // Java's clients open no other framing.
            let mut out = XERIAL.to_vec();
            out.extend([1i32.to_be_bytes(), 1i32.to_be_bytes()].concat());
            for block in records.chunks(XERIAL_BLOCK_BYTES) {
                let block = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::other)?;
                out.extend((block.len() as u32).to_be_bytes());
                out.extend(block);
            }
            Ok(out)
        }
        LZ4 => {
            let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
            lz4.write_all(records)?;
            lz4.finish().map_err(io::Error::other)
        }
        ZSTD => Ok(ruzstd::encoding::compress_to_vec(records, ruzstd::encoding::CompressionLevel::Fastest)),
        other => Err(io::Error::other(format!("there is no codec {other}"))),
    }
}

/// Either one raw block, or the framing of xerial's Java library: a header, then blocks with their lengths.
struct Snappy<'a> {
    rest: &'a [u8],
    framed: bool,
    block: io::Cursor<Vec<u8>>,
}

const XERIAL: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

impl Snappy<'_> {
    fn new(compressed: &[u8]) -> Snappy<'_> {
        let framed = compressed.starts_with(XERIAL);
        let rest =
            if framed { compressed.get(XERIAL_HEADER_BYTES..).unwrap_or_default() } else { compressed };
        Snappy { rest, framed, block: io::Cursor::default() }
    }

    fn next_block(&mut self) -> Option<Vec<u8>> {
        let block = match self.framed {
            false => std::mem::take(&mut self.rest),
            true => {
                let (length, after) = self.rest.split_at_checked(4)?;
                let length = usize::try_from(i32::from_be_bytes(length.try_into().ok()?)).ok()?;
                let (block, after) = after.split_at_checked(length)?;
                self.rest = after;
                block
            }
        };
        if snap::raw::decompress_len(block).ok()? > BLOCK_BYTES_MAX {
            return None;
        }
        snap::raw::Decoder::new().decompress_vec(block).ok()
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(into)?;
            if read > 0 || into.is_empty() || self.rest.is_empty() {
                return Ok(read);
            }
            let block = self.next_block().ok_or_else(|| io::Error::other("not a snappy block"))?;
            self.block = io::Cursor::new(block);
        }
    }
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

    fn opened(codec: i16, compressed: &[u8]) -> Option<Vec<u8>> {
        let mut opened = Vec::new();
        open(codec, compressed).ok()?.read_to_end(&mut opened).ok()?;
        Some(opened)
    }

    #[test]
    fn every_codec_opens_to_what_was_put_in() {
        let text: Vec<u8> = (0..10_000u32).flat_map(|n| (n % 251).to_be_bytes()).collect();
        for (codec, compressed) in samples(&text) {
            assert_eq!(opened(codec, &compressed).as_deref(), Some(&text[..]), "codec {codec}");
        }
    }

    #[test]
    fn what_is_compressed_here_opens_to_what_it_was() {
        let text: Vec<u8> = (0..30_000u32).flat_map(|n| (n % 251).to_be_bytes()).collect();
        for codec in 0..=ZSTD {
            let compressed = compress(codec, &text).unwrap();
            assert!(codec == 0 || compressed.len() < text.len() / 2, "codec {codec}");
            assert_eq!(opened(codec, &compressed).as_deref(), Some(&text[..]), "codec {codec}");
            assert_eq!(
                opened(codec, &compress(codec, b"").unwrap()).as_deref(),
                Some(&b""[..]),
                "codec {codec}"
            );
        }
        assert!(compress(7, &text).is_err());
    }

    #[test]
    fn a_zstd_frame_says_what_it_takes() {
        // Magic, descriptor, and a window of 8 MiB and of 15 MiB; a content of 5, of 256 + 3, and of 16 MiB.
        let frame = |rest: &[u8]| [&[0x28, 0xB5, 0x2F, 0xFD], rest].concat();
        assert_eq!(zstd_window(&frame(&[0x00, 13 << 3])), Some(8 << 20));
        assert_eq!(zstd_window(&frame(&[0x00, 13 << 3 | 7])), Some(15 << 20));
        assert_eq!(zstd_window(&frame(&[0x20, 5])), Some(5));
        assert_eq!(zstd_window(&frame(&[0x60, 3, 0])), Some(259));
        assert_eq!(zstd_window(&frame(&[0xA0, 0, 0, 0, 1])), Some(16 << 20));
        assert_eq!(zstd_window(&frame(&[0xA0, 0])), None);
        assert!(open(ZSTD, &frame(&[0x00, 14 << 3, 0, 0])).is_err());
        let made = compress(ZSTD, &vec![7; 100_000]).unwrap();
        assert!(zstd_window(&made).is_some_and(|bytes| bytes <= ZSTD_WINDOW_BYTES_MAX), "ours");
    }

    #[test]
    fn damaged_and_foreign_bytes_do_not_panic() {
        for (codec, mut compressed) in samples(b"some text, some text, some text and an end") {
            for cut in 0..compressed.len() {
                let _ = opened(codec, &compressed[..cut]);
                compressed[cut] ^= 0x55;
                let _ = opened(codec, &compressed);
                compressed[cut] ^= 0x55;
            }
        }
        assert_eq!(opened(7, b"anything"), None);
    }

    #[test]
    fn a_snappy_block_of_any_size_is_not_opened() {
        let raw = snap::raw::Encoder::new().compress_vec(&vec![0; BLOCK_BYTES_MAX + 1]).unwrap();
        assert_eq!(opened(SNAPPY, &raw), None);
    }
}
