//! Compressing, piece by piece, so that neither a long time at once nor more memory is needed than what comes out and a block.
//!
//! Each codec is written as every client reads it: snappy in the framing of xerial's Java library, for Java's clients open no other; lz4 in
//! independent blocks of 64 KiB, as its producers make them; a zstd frame says how much it opens to, for kafka-python opens no
//! larger one than 1 MiB that does not.
//!
//! The blocks of a zstd frame are made one by one, each as a frame of its own, and put into one. Such blocks say all of their tables
//! and copy from nothing before them, so they may follow one another. Our codec has no other way to stop in between.

use std::io::{self, Write};

use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::codec::{GZIP, LZ4, SNAPPY, XERIAL, ZSTD};

/// What an encoder takes at most beside what comes out of it.
pub const MEMORY_BYTES: usize = 512 << 10;

const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// Zstd's largest block, and what a reader has to have in memory: no block copies from another.
const ZSTD_BLOCK_BYTES: usize = 128 << 10;
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// A size of four bytes, no checksum, for the batch has one; and the window (RFC 8878, 3.1.1.1).
const ZSTD_DESCRIPTOR: [u8; 2] = [0x80, (17 - 10) << 3];
const ZSTD_SIZE_AT: usize = 6;
/// Of a frame that our codec makes: magic, descriptor, window.
const MADE_HEADER_BYTES: usize = 6;
const MADE_CHECKSUM_BIT: u8 = 0x04;

/// How to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The attribute's number; 0 is not compressed.
    pub codec: i16,
    /// How hard gzip tries, 1 to 9; `None`: as it does by itself. The other codecs have one level here.
    pub gzip_level: Option<u32>,
}

impl Method {
    /// As the codec does by itself.
    pub fn of(codec: i16) -> Method {
        Method { codec, gzip_level: None }
    }
}

/// Takes bytes, and has them compressed behind those that it began with.
pub struct Encoder(How);

enum How {
    Plain(Vec<u8>),
    Gzip(Box<flate2::write::GzEncoder<Vec<u8>>>),
    Snappy(Blocks),
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Zstd { blocks: Blocks, frame_at: usize, taken: usize },
}

/// What came out, and the beginning of the next block.
struct Blocks {
    out: Vec<u8>,
    block: Vec<u8>,
    block_bytes: usize,
}

impl Blocks {
    fn take(
        &mut self,
        mut bytes: &[u8],
        close: impl Fn(&[u8], &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.block_bytes - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == self.block_bytes {
                close(&self.block, &mut self.out)?;
                self.block.clear();
            }
        }
        Ok(())
    }

    fn end(&mut self, close: impl Fn(&[u8], &mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        if !self.block.is_empty() {
            close(&self.block, &mut self.out)?;
        }
        Ok(())
    }
}

impl Encoder {
    /// What is compressed will follow `begun`.
    ///
    /// # Errors
    ///
    /// There is no such codec.
    pub fn behind(begun: Vec<u8>, method: Method) -> io::Result<Encoder> {
        let mut out = begun;
        Ok(Encoder(match method.codec {
            0 => How::Plain(out),
            GZIP => {
                let level =
                    method.gzip_level.map_or_else(flate2::Compression::default, flate2::Compression::new);
                How::Gzip(Box::new(flate2::write::GzEncoder::new(out, level)))
            }
            SNAPPY => {
                out.extend_from_slice(XERIAL);
                // The version of the framing, and the oldest that reads it.
                out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
                How::Snappy(Blocks { out, block: Vec::new(), block_bytes: XERIAL_BLOCK_BYTES })
            }
            LZ4 => {
                let info = FrameInfo::new().block_size(BlockSize::Max64KB);
                How::Lz4(Box::new(FrameEncoder::with_frame_info(info, out)))
            }
            ZSTD => {
                let frame_at = out.len();
                out.extend_from_slice(&ZSTD_MAGIC);
                out.extend_from_slice(&ZSTD_DESCRIPTOR);
                out.extend_from_slice(&[0; 4]);
                let blocks = Blocks { out, block: Vec::new(), block_bytes: ZSTD_BLOCK_BYTES };
                How::Zstd { blocks, frame_at, taken: 0 }
            }
            other => return Err(io::Error::other(format!("there is no codec {other}"))),
        }))
    }

    /// Takes more.
    ///
    /// # Errors
    ///
    /// The codec fails.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            How::Plain(out) => out.write_all(bytes),
            How::Gzip(gzip) => gzip.write_all(bytes),
            How::Lz4(lz4) => lz4.write_all(bytes),
            How::Snappy(blocks) => blocks.take(bytes, snappy_block),
            How::Zstd { blocks, taken, .. } => {
                *taken += bytes.len();
                blocks.take(bytes, zstd_block)
            }
        }
    }

    /// Bytes that have come out so far, with those that it began with.
    pub fn made(&self) -> usize {
        match &self.0 {
            How::Plain(out) => out.len(),
            How::Gzip(gzip) => gzip.get_ref().len(),
            How::Lz4(lz4) => lz4.get_ref().len(),
            How::Snappy(blocks) | How::Zstd { blocks, .. } => blocks.out.len(),
        }
    }

    /// Nothing follows: all that came out, behind what it began with.
    ///
    /// # Errors
    ///
    /// The codec fails.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self.0 {
            How::Plain(out) => Ok(out),
            How::Gzip(gzip) => gzip.finish(),
            How::Lz4(lz4) => lz4.finish().map_err(io::Error::other),
            How::Snappy(mut blocks) => {
                blocks.end(snappy_block)?;
                Ok(blocks.out)
            }
            How::Zstd { mut blocks, frame_at, taken } => {
                blocks.end(zstd_block)?;
                // The last block, of nothing.
                blocks.out.extend_from_slice(&[1, 0, 0]);
                let size = u32::try_from(taken).map_err(io::Error::other)?;
                blocks.out[frame_at + ZSTD_SIZE_AT..][..4].copy_from_slice(&size.to_le_bytes());
                Ok(blocks.out)
            }
        }
    }
}

/// Records compressed as a whole.
///
/// # Errors
///
/// There is no such codec, or it fails.
pub fn compress(method: Method, records: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::behind(Vec::new(), method)?;
    encoder.put(records)?;
    encoder.finish()
}

fn snappy_block(block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let block = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::other)?;
    out.extend_from_slice(&(block.len() as u32).to_be_bytes());
    out.extend_from_slice(&block);
    Ok(())
}

/// Puts the blocks of a frame of their own, none of them the last.
fn zstd_block(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let frame = compress_to_vec(bytes, CompressionLevel::Fastest);
    let as_it_is = || io::Error::other("the zstd codec makes frames of another kind");
    let descriptor = *frame.get(4).ok_or_else(as_it_is)?;
    if !frame.starts_with(&ZSTD_MAGIC) || descriptor & !MADE_CHECKSUM_BIT != 0 {
        return Err(as_it_is());
    }
    let mut rest = frame.get(MADE_HEADER_BYTES..).ok_or_else(as_it_is)?;
    let before = out.len();
    loop {
        let header = rest.first_chunk::<3>().ok_or_else(as_it_is)?;
        let said = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let (is_last, kind, size) = (said & 1 != 0, said >> 1 & 3, (said >> 3) as usize);
        // One byte, repeated, stands for a block.
        let size = if kind == 1 { 1 } else { size };
        let block = rest.get(..3 + size).ok_or_else(as_it_is)?;
        if size > 0 {
            out.push(block[0] & !1);
            out.extend_from_slice(&block[1..]);
        }
        if is_last {
            break;
        }
        rest = &rest[3 + size..];
    }
    if out.len() - before > 3 + bytes.len() {
        out.truncate(before);
        out.extend_from_slice(&((bytes.len() as u32) << 3).to_le_bytes()[..3]);
        out.extend_from_slice(bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::codec;
    use super::*;

    fn opened(codec: i16, compressed: &[u8]) -> Option<Vec<u8>> {
        let mut opened = Vec::new();
        codec::open(codec, compressed).ok()?.read_to_end(&mut opened).ok()?;
        Some(opened)
    }

    /// Alike, of few letters, as random as they get, and all of them one behind the other.
    fn texts() -> Vec<Vec<u8>> {
        let mut state = 7u64;
        let mut random = |bytes: usize| -> Vec<u8> {
            let next = |state: &mut u64| {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (*state >> 56) as u8
            };
            (0..bytes).map(|_| next(&mut state)).collect()
        };
        let noise = random(300_000);
        let letters: Vec<u8> = random(400_000).iter().map(|byte| b'a' + byte % 5).collect();
        let counted: Vec<u8> = (0..60_000u32).flat_map(|n| (n % 251).to_be_bytes()).collect();
        let mut texts = vec![Vec::new(), b"a".to_vec(), vec![0; 300_000], counted, letters, noise];
        for bytes in [ZSTD_BLOCK_BYTES - 1, ZSTD_BLOCK_BYTES, ZSTD_BLOCK_BYTES + 1, XERIAL_BLOCK_BYTES] {
            texts.push(random(bytes));
            texts.push((0..bytes).map(|n| (n / 7) as u8).collect());
        }
        texts.push(texts.concat());
        texts
    }

    #[test]
    fn what_is_compressed_in_whatever_pieces_opens_to_what_it_was() {
        for text in texts() {
            for codec in 0..=ZSTD {
                let whole = compress(Method::of(codec), &text).unwrap();
                assert_eq!(opened(codec, &whole).as_deref(), Some(&text[..]), "codec {codec}");
                for piece in [60_001, 131_072] {
                    let mut encoder = Encoder::behind(b"before".to_vec(), Method::of(codec)).unwrap();
                    for piece in text.chunks(piece) {
                        encoder.put(piece).unwrap();
                    }
                    let made = encoder.made();
                    let pieces = encoder.finish().unwrap();
                    assert!(pieces.starts_with(b"before") && made >= 6 && made <= pieces.len());
                    assert_eq!(opened(codec, &pieces[6..]).as_deref(), Some(&text[..]), "codec {codec}");
                }
                let more = text.len() / 64 + 64;
                assert!(whole.len() <= text.len() + more, "codec {codec}: {} of {}", whole.len(), text.len());
            }
        }
        assert!(Encoder::behind(Vec::new(), Method::of(7)).is_err());
    }

    #[test]
    fn what_repeats_becomes_small_and_gzip_tries_as_hard_as_it_is_told() {
        let text: Vec<u8> = (0..60_000u32).flat_map(|n| (n * n % 251).to_be_bytes()).collect();
        let size = |method| compress(method, &text).unwrap().len();
        for codec in 1..=ZSTD {
            assert!(size(Method::of(codec)) < text.len() / 2, "codec {codec}");
        }
        let gzip = |level| size(Method { codec: GZIP, gzip_level: Some(level) });
        assert!(gzip(9) < gzip(1));
        assert_eq!(gzip(6), size(Method::of(GZIP)));
    }

    #[test]
    fn a_zstd_frame_says_how_much_it_opens_to() {
        let frame = compress(Method::of(ZSTD), &vec![7; 300_000]).unwrap();
        assert_eq!(frame[ZSTD_SIZE_AT..][..4], 300_000u32.to_le_bytes());
        let decoder = ruzstd::decoding::StreamingDecoder::new(&frame[..]).unwrap();
        assert_eq!(decoder.decoder.content_size(), 300_000);
    }
}
