//! Opening compressed batches: for a search by time, for cleaning, where a topic wants to know what is in them, and for the command
//! line. Otherwise batches are stored and served as they were sent.
//!
//! The bytes come from clients: they are opened piece by piece, so that a batch which opens to much costs
//! neither memory nor a long time at once, and whatever cannot be opened is an error.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More of a batch is not opened, whoever wants to look into it.
pub const OPENED_BYTES_MAX: usize = 32 << 20;

/// A snappy block is opened as a whole: larger ones are not.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// As much as decoders are to support at least, and as much as is in memory for one batch here.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

/// Their numbers in a batch's attributes.
pub const GZIP: i16 = 1;
/// See [`GZIP`].
pub const SNAPPY: i16 = 2;
/// See [`GZIP`].
pub const LZ4: i16 = 3;
/// See [`GZIP`].
pub const ZSTD: i16 = 4;

/// The records of a batch compressed with `codec` (the attribute's number; 0 is not compressed).
///
/// # Errors
/// There is no such codec, or the bytes do not begin as it begins; damage further on shows as an error of reading.
pub fn open(codec: i16, records: &[u8]) -> io::Result<Box<dyn Read + Send + '_>> {
    open_by(codec, records, &Pace::default())
}

fn open_by<'a>(codec: i16, records: &'a [u8], pace: &Pace) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match codec {
        0 => Box::new(records),
        GZIP => Box::new(flate2::bufread::GzDecoder::new(Paced { rest: records, pace: pace.clone() })),
        SNAPPY => Box::new(Snappy::new(records)),
        // What other frames take is not known before.
        LZ4 if !records.starts_with(&LZ4_MAGIC) => return Err(io::Error::other("it is no lz4 frame")),
        LZ4 => Box::new(lz4_flex::frame::FrameDecoder::new(records)),
        ZSTD if zstd_window(records).is_none_or(|bytes| bytes > ZSTD_WINDOW_BYTES_MAX) => {
            return Err(io::Error::other("the window of its zstd frame is too large, or not said"));
        }
        // Zstandard's own: no block of it opens to more than a block may, whatever it says.
        ZSTD => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(records)?;
            decoder.window_log_max(ZSTD_WINDOW_BYTES_MAX.ilog2())?;
            Box::new(decoder)
        }
        other => return Err(io::Error::other(format!("there is no codec {other}"))),
    })
}

/// What a piece opens to at most.
pub const PIECE_BYTES: usize = 64 << 10;
/// What is taken in for one: gzip's blocks may open to nothing, and take their time.
pub const PIECE_BYTES_IN: usize = 16 << 10;

/// A batch's records while they are opened piece by piece, each of which takes about a millisecond.
pub struct Pieces<'a> {
    from: Box<dyn Read + Send + 'a>,
    pace: Pace,
}

impl<'a> Pieces<'a> {
    /// Nothing is opened yet.
    ///
    /// # Errors
    /// As those of [`open`].
    pub fn of(codec: i16, records: &'a [u8]) -> io::Result<Pieces<'a>> {
        let pace = Pace::default();
        Ok(Pieces { from: open_by(codec, records, &pace)?, pace })
    }

    /// Opens the next one, behind what is there. Whether it was the last.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn next(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        self.pace.renew(PIECE_BYTES_IN);
        match (&mut self.from).take(PIECE_BYTES as u64).read_to_end(into) {
            Ok(bytes) => Ok(bytes < PIECE_BYTES),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// How many bytes a decoder may take in, until that is said anew.
#[derive(Clone, Debug)]
struct Pace(Arc<AtomicUsize>);

impl Default for Pace {
    /// As many as there are.
    fn default() -> Pace {
        Pace(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl Pace {
    /// So many from now on.
    fn renew(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Is [`io::ErrorKind::WouldBlock`] where its pace has to be renewed.
struct Paced<'a> {
    rest: &'a [u8],
    pace: Pace,
}

impl io::BufRead for Paced<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.pace.left() {
            0 if !self.rest.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            left => Ok(&self.rest[..left.min(self.rest.len())]),
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
        self.pace.renew(self.pace.left().saturating_sub(bytes));
    }
}

impl Read for Paced<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = io::BufRead::fill_buf(self)?.read(into)?;
        io::BufRead::consume(self, bytes);
        Ok(bytes)
    }
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

/// What opening `opened` bytes of it takes in memory at most.
pub fn memory_bytes(codec: i16, records: &[u8], opened: usize) -> usize {
    match codec {
        GZIP => GZIP_BYTES,
        SNAPPY => Snappy::new(records).largest_block().min(BLOCK_BYTES_MAX),
        LZ4 => lz4_bytes(records).unwrap_or(0),
        ZSTD => {
            let window = zstd_window(records).unwrap_or(0).min(ZSTD_WINDOW_BYTES_MAX) as usize;
            // What has been opened, as far back as the window, and a block as it came.
            ZSTD_TABLES_BYTES + window.min(opened) + 3 * ZSTD_BLOCK_BYTES_MAX
        }
        _ => 0,
    }
}

const GZIP_BYTES: usize = 64 << 10;
const ZSTD_BLOCK_BYTES_MAX: usize = 128 << 10;
const ZSTD_TABLES_BYTES: usize = 192 << 10;
const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();

/// Of an lz4 frame: the largest block as it came, and a block opened; where blocks copy from those before them, two and as far back as
/// that reaches. `None` where it ends in the middle.
fn lz4_bytes(frame: &[u8]) -> Option<usize> {
    let (flags, blocks) = (*frame.get(4)?, *frame.get(5)?);
    let block = match blocks >> 4 & 7 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        _ => 4 << 20,
    };
    let has = |bit: u8| usize::from(flags >> bit & 1);
    // Magic, flags, block size, the size of all, the dictionary, a checksum.
    let mut rest = frame.get(6 + 8 * has(3) + 4 * has(0) + 1..)?;
    let mut largest = 0;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = (u32::from_le_bytes(*length) & 0x7FFF_FFFF) as usize;
        largest = largest.max(length.min(block));
        rest = after.get(length + 4 * has(4)..).unwrap_or_default();
    }
    let is_independent = has(5) == 1;
    Some(largest + if is_independent { block } else { 2 * block + (64 << 10) })
}

/// Either one raw block, or the framing of xerial's Java library: a header, then blocks with their lengths.
struct Snappy<'a> {
    rest: &'a [u8],
    framed: bool,
    block: io::Cursor<Vec<u8>>,
}

/// What the framing begins with.
pub const XERIAL: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

impl Snappy<'_> {
    fn new(compressed: &[u8]) -> Snappy<'_> {
        let framed = compressed.starts_with(XERIAL);
        let rest =
            if framed { compressed.get(XERIAL_HEADER_BYTES..).unwrap_or_default() } else { compressed };
        Snappy { rest, framed, block: io::Cursor::default() }
    }

    fn next_compressed(&mut self) -> Option<&[u8]> {
        if !self.framed {
            return Some(std::mem::take(&mut self.rest));
        }
        let (length, after) = self.rest.split_at_checked(4)?;
        let length = usize::try_from(i32::from_be_bytes(length.try_into().ok()?)).ok()?;
        let (block, after) = after.split_at_checked(length)?;
        self.rest = after;
        Some(block)
    }

    /// How much the largest block opens to, as far as blocks can be told apart.
    fn largest_block(mut self) -> usize {
        let mut largest = 0;
        while !self.rest.is_empty() {
            let Some(block) = self.next_compressed() else { break };
            largest = largest.max(snap::raw::decompress_len(block).unwrap_or(0));
        }
        largest
    }

    fn next_block(&mut self) -> Option<Vec<u8>> {
        let block = self.next_compressed()?;
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
        assert!(
            memory_bytes(ZSTD, &frame(&[0x00, 13 << 3]), 256 << 10) <= 1 << 20,
            "of the first that it opens to"
        );
        assert!(memory_bytes(ZSTD, &frame(&[0x00, 13 << 3]), OPENED_BYTES_MAX) >= 8 << 20, "of all");
    }

    #[test]
    fn blocks_say_what_they_take() {
        for (codec, compressed) in samples(&vec![7; 200_000]) {
            let memory = memory_bytes(codec, &compressed, OPENED_BYTES_MAX);
            assert!((50_000..2 << 20).contains(&memory), "codec {codec}: {memory}");
        }
        let raw = snap::raw::Encoder::new().compress_vec(&vec![0; 3 << 20]).unwrap();
        assert_eq!(memory_bytes(SNAPPY, &raw, 1), 3 << 20);
        assert_eq!(memory_bytes(SNAPPY, b"\xff\xff\xff\xff\x0f", 1), BLOCK_BYTES_MAX);
        assert_eq!(memory_bytes(LZ4, b"", 1), 0);
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

    /// 131 KB that say they are 8.6 GB: a block of 65,500 sequences, each of which repeats the last four bytes 131,074 times.
    #[test]
    fn a_zstd_block_that_says_it_is_larger_than_blocks_are_is_not_opened() {
        let block = |kind: u32, is_last: u32, content: &[u8]| {
            let header = ((content.len() as u32) << 3 | kind << 1 | is_last).to_le_bytes();
            [&header[..3], content].concat()
        };
        // No literals; their number; one code for all literal lengths, offsets and match lengths; these codes.
        let mut sequences = vec![0x00, 255];
        sequences.extend((65_500u16 - 0x7F00).to_le_bytes());
        sequences.extend([0x54, 0, 0, 52]);
        sequences.extend(vec![0xFF; 2 * 65_500 - 8]);
        sequences.push(0x01);
        let frame =
            [&[0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x00], &block(0, 0, b"abcd")[..], &block(2, 1, &sequences)]
                .concat();
        let (mut from, mut into, mut most) = (open(ZSTD, &frame).unwrap(), vec![0; 64 << 10], 0);
        let end = loop {
            match from.read(&mut into) {
                Ok(0) => break Ok(()),
                Ok(read) => most += read,
                Err(error) => break Err(error),
            }
        };
        assert!(end.is_err() && most <= ZSTD_BLOCK_BYTES_MAX, "{end:?} after {most} bytes");
        assert_eq!(opened(ZSTD, &frame), None);
    }

    #[test]
    fn only_lz4_frames_that_say_what_they_take_are_opened() {
        assert!(open(LZ4, &0x184C_2102_u32.to_le_bytes()).is_err(), "a legacy frame");
        let small = samples(b"a record")[3].1.clone();
        let mut large = small.clone();
        large[5] = 0x70;
        assert!(
            memory_bytes(LZ4, &large, 1) > 4 << 20 && memory_bytes(LZ4, &large, 1) < 5 << 20,
            "a block of 4 MiB"
        );
        assert!(memory_bytes(LZ4, &small, 1) < memory_bytes(LZ4, &large, 1));
    }

    #[test]
    fn a_snappy_block_of_any_size_is_not_opened() {
        let raw = snap::raw::Encoder::new().compress_vec(&vec![0; BLOCK_BYTES_MAX + 1]).unwrap();
        assert_eq!(opened(SNAPPY, &raw), None);
    }
}
