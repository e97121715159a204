//! What is in a batch: its records, looked at while it is opened piece by piece, and compressed anew on the way where its topic has
//! a codec of its own. Pure: each step takes about a millisecond, and the caller says when the next one is.
//!
//! Of what is opened only a piece is in memory, and the codec's own. Records are not put into other bytes: their distances in time and
//! offset stay right, for the header that they count from stays, but for its codec and its largest time.

use bytes::Bytes;

use super::batch::{self, CheckedBatch, HEADER_BYTES};
use super::codec::{self, OPENED_BYTES_MAX, PIECE_BYTES, Pieces};
use super::encoder::{self, Encoder, Method};
use super::records::take_varint;
use super::validate::{BatchError, largest_time};

/// The longest number.
const NUMBER_BYTES_MAX: usize = 10;

/// What is wanted of a batch beyond that its records are records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Each record has a key: its topic is compacted.
    pub keys: bool,
    /// It is compressed so.
    pub method: Option<Method>,
    /// It is not larger then (`max.message.bytes`), its header included.
    pub bytes_max: usize,
}

impl Wanted {
    /// Compressed otherwise than the batch is.
    fn other_method(&self, batch: &CheckedBatch) -> Option<Method> {
        self.method.filter(|method| method.codec != codec_of(batch))
    }

    /// Whether a batch is to be opened for it.
    pub fn is_anything(&self, batch: &CheckedBatch) -> bool {
        self.keys || self.other_method(batch).is_some()
    }

    /// What that takes in memory at most, until it has opened to more than `opened`.
    pub fn memory_bytes(&self, batch: &CheckedBatch, opened: usize) -> usize {
        let records = &batch.bytes[HEADER_BYTES..];
        let codec = codec_of(batch);
        let opened = if codec == 0 { records.len() } else { opened };
        // What grows is there twice when it grows.
        let made = self.other_method(batch).map_or(0, |_| {
            encoder::MEMORY_BYTES + 2 * self.bytes_max.min(opened + opened / 8) + 2 * PIECE_BYTES
        });
        2 * PIECE_BYTES + codec::memory_bytes(codec, records, opened) + made
    }
}

fn codec_of(batch: &CheckedBatch) -> i16 {
    i16::from(batch.bytes[22] & 7)
}

/// The outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more.
    More,
    /// All of it was looked at.
    Done,
}

/// A batch while it is looked into.
pub struct Inner<'a> {
    batch: &'a CheckedBatch,
    wanted: Wanted,
    pieces: Pieces<'a>,
    records: Records,
    encoder: Option<Encoder>,
    /// What is opened and not looked at: the beginning of a number, between two steps.
    buffer: Vec<u8>,
    opened: usize,
}

impl<'a> Inner<'a> {
    /// Begins; nothing is opened yet.
    ///
    /// # Errors
    ///
    /// The bytes do not begin as their codec begins.
    pub fn of(batch: &'a CheckedBatch, wanted: Wanted) -> Result<Inner<'a>, BatchError> {
        let pieces = Pieces::of(codec_of(batch), &batch.bytes[HEADER_BYTES..])
            .map_err(|error| unopenable(batch, &error))?;
        let encoder = match wanted.other_method(batch) {
            None => None,
            Some(method) => {
                let header = batch.bytes[..HEADER_BYTES].to_vec();
                Some(Encoder::behind(header, method).map_err(|error| unopenable(batch, &error))?)
            }
        };
        let records = Records::new(batch.records, wanted.keys);
        Ok(Inner { batch, wanted, pieces, records, encoder, buffer: Vec::new(), opened: 0 })
    }

    /// How much it has opened to so far.
    pub fn opened(&self) -> usize {
        self.opened
    }

    /// Opens the next piece, looks at it, and compresses it.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or not to as much as it may; its records are not what is wanted, or too large compressed.
    pub fn step(&mut self) -> Result<Step, BatchError> {
        let carried = self.buffer.len();
        self.buffer.reserve(PIECE_BYTES);
        let has_ended = self.pieces.next(&mut self.buffer).map_err(|error| unopenable(self.batch, &error))?;
        self.opened += self.buffer.len() - carried;
        if codec_of(self.batch) != 0 && self.opened > OPENED_BYTES_MAX {
            return Err(BatchError::OpensToTooMuch { max: OPENED_BYTES_MAX });
        }
        let looked_at = self.records.look(&self.buffer, has_ended)?;
        if let Some(encoder) = &mut self.encoder {
            encoder.put(&self.buffer[carried..]).map_err(|error| unopenable(self.batch, &error))?;
            let (size, max) = (encoder.made(), self.wanted.bytes_max);
            if size > max {
                return Err(BatchError::TooLarge { size, max });
            }
        }
        self.buffer.drain(..looked_at);
        Ok(if has_ended { Step::Done } else { Step::More })
    }

    /// The batch as it is kept, when all of it was looked at.
    ///
    /// # Errors
    ///
    /// It is larger than it may be.
    pub fn finish(self) -> Result<CheckedBatch, BatchError> {
        let Inner { batch, wanted, records, encoder, .. } = self;
        let base = batch.base_timestamp;
        let times = (base.saturating_add(records.earliest), base.saturating_add(records.latest));
        let max_timestamp = largest_time(batch, times);
        let bytes: Bytes = match (encoder, wanted.method) {
            (Some(encoder), Some(method)) => {
                let mut made = encoder.finish().map_err(|error| unopenable(batch, &error))?;
                if made.len() > wanted.bytes_max {
                    return Err(BatchError::TooLarge { size: made.len(), max: wanted.bytes_max });
                }
                made.shrink_to_fit();
                batch::close(&mut made, method.codec, max_timestamp);
                made.into()
            }
            _ if max_timestamp != batch.max_timestamp => {
                batch::with_max_timestamp(&batch.bytes, max_timestamp)
            }
            _ => batch.bytes.clone(),
        };
        Ok(CheckedBatch { bytes, max_timestamp, times, ..batch.clone() })
    }
}

fn unopenable(batch: &CheckedBatch, error: &std::io::Error) -> BatchError {
    BatchError::Unopenable { codec: codec_of(batch), why: error.to_string() }
}

/// What is expected next of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Length,
    Attributes,
    Time,
    Offset,
    Key,
    Value,
    Headers,
    HeaderKey,
    HeaderValue,
}

/// Looks at records wherever the pieces end that they come in: as many as there should be, in order, and nothing after them. As
/// `validate` does where a batch is there as a whole.
struct Records {
    count: i32,
    keys: bool,
    /// Those of which nothing is expected but bytes to pass over.
    seen: i32,
    next: Next,
    /// Bytes of a key or a value that are still to come, and are of no interest.
    skip: usize,
    /// Bytes of the current record that are still to come.
    left: usize,
    headers: i64,
    earliest: i64,
    latest: i64,
}

impl Records {
    fn new(count: i32, keys: bool) -> Records {
        Records {
            count,
            keys,
            seen: 0,
            next: Next::Length,
            skip: 0,
            left: 0,
            headers: 0,
            earliest: i64::MAX,
            latest: i64::MIN,
        }
    }

    /// Looks at what can be told of these bytes, and says how many they are: the rest comes again with what follows.
    fn look(&mut self, bytes: &[u8], has_ended: bool) -> Result<usize, BatchError> {
        let mut rest = bytes;
        let is_last = loop {
            // The last value of a record's headers, too.
            let skipped = self.skip.min(rest.len());
            rest = &rest[skipped..];
            self.skip -= skipped;
            if self.skip == 0 && self.seen == self.count {
                break true;
            }
            if rest.is_empty() || (rest.len() < NUMBER_BYTES_MAX && !has_ended) {
                break false;
            }
            self.look_at_next(&mut rest)?;
        };
        match (is_last, has_ended) {
            (true, _) if !rest.is_empty() => Err(self.wrong("bytes after the last record")),
            (false, true) => Err(self.wrong("it is longer than the batch")),
            _ => Ok(bytes.len() - rest.len()),
        }
    }

    fn look_at_next(&mut self, rest: &mut &[u8]) -> Result<(), BatchError> {
        let before = rest.len();
        let number = match self.next {
            Next::Attributes => {
                *rest = &rest[1..];
                0
            }
            _ => take_varint(rest).ok_or_else(|| self.wrong("a number does not end"))?,
        };
        if self.next != Next::Length {
            self.take(before - rest.len())?;
        }
        match self.next {
            Next::Length => {
                self.left = usize::try_from(number).map_err(|_| self.wrong("a negative length"))?;
                self.next = Next::Attributes;
            }
            Next::Attributes => self.next = Next::Time,
            Next::Time => {
                self.earliest = self.earliest.min(number);
                self.latest = self.latest.max(number);
                self.next = Next::Offset;
            }
            Next::Offset if number != i64::from(self.seen) => {
                return Err(self.wrong("its offset does not follow"));
            }
            Next::Offset => self.next = Next::Key,
            Next::Key => {
                if self.keys && number < 0 {
                    return Err(BatchError::NoKey);
                }
                self.pass_over(number, "a wrong key length")?;
                self.next = Next::Value;
            }
            Next::Value => {
                self.pass_over(number, "a wrong value length")?;
                self.next = Next::Headers;
            }
            Next::Headers if number < 0 || number > self.left as i64 => {
                return Err(self.wrong("an impossible number of headers"));
            }
            Next::Headers => {
                self.headers = number;
                self.next = Next::HeaderKey;
            }
            Next::HeaderKey if number < 0 => return Err(self.wrong("a wrong header key length")),
            Next::HeaderKey => {
                self.pass_over(number, "a header key longer than the record")?;
                self.next = Next::HeaderValue;
            }
            Next::HeaderValue => {
                self.pass_over(number, "a wrong header value length")?;
                self.headers -= 1;
                self.next = Next::HeaderKey;
            }
        }
        if self.next == Next::HeaderKey && self.headers == 0 {
            if self.left > 0 {
                return Err(self.wrong("bytes after its end"));
            }
            self.seen += 1;
            self.next = Next::Length;
        }
        Ok(())
    }

    /// Bytes or null (-1).
    fn pass_over(&mut self, length: i64, wrong: &'static str) -> Result<(), BatchError> {
        if length == -1 {
            return Ok(());
        }
        let length = usize::try_from(length).map_err(|_| self.wrong(wrong))?;
        if length > self.left {
            return Err(self.wrong(wrong));
        }
        self.take(length)?;
        self.skip = length;
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), BatchError> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| self.wrong("a number does not end in it"))?;
        Ok(())
    }

    fn wrong(&self, what: &'static str) -> BatchError {
        BatchError::Framing { record: self.seen, what }
    }
}

#[cfg(test)]
#[path = "inner_tests.rs"]
mod tests;
