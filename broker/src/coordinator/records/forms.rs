//! Kafka's forms of numbers, texts and lists, written and read: plain ones, and the compact ones of flexible versions.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// A record that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It ends before what it announces.
    #[error("it is cut short")]
    CutShort,
    /// A text is not UTF-8.
    #[error("a text in it is not UTF-8")]
    NotText,
    /// A length below zero where nothing may be missing.
    #[error("something is missing in it")]
    Missing,
    /// Of a form that this version does not read: an offset or a group, written by a later one.
    #[error("its value has version {0}, which this broker does not know")]
    ValueVersion(i16),
}

/// Texts are bounded where they come in ([`crate::limits::GROUP_TEXT_BYTES_MAX`]).
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).expect("a text within its bound"));
    out.put_slice(text.as_bytes());
}

pub(super) fn put_text_or_null(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_text(out, text),
        None => out.put_i16(-1),
    }
}

pub(super) fn put_count(out: &mut BytesMut, count: usize) {
    out.put_i32(i32::try_from(count).expect("what came in requests"));
}

pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.put_slice(bytes);
}

pub(super) fn put_ms(out: &mut BytesMut, duration: Duration) {
    out.put_i32(i32::try_from(duration.as_millis()).unwrap_or(i32::MAX));
}

/// A number in as many bytes as it takes, seven bits each.
pub(super) fn put_unsigned(out: &mut BytesMut, number: usize) {
    let mut rest = u32::try_from(number).expect("what came in requests");
    while rest >= 0x80 {
        out.put_u8((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// Compact: one more than the length, and the text; 0 for null.
pub(super) fn put_compact_text(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => {
            put_unsigned(out, text.len() + 1);
            out.put_slice(text.as_bytes());
        }
        None => put_unsigned(out, 0),
    }
}

/// Compact: one more than the length, and the bytes.
pub(super) fn put_compact_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_unsigned(out, bytes.len() + 1);
    out.put_slice(bytes);
}

/// Compact: one more than their number, and each.
pub(super) fn put_compact_many<T>(
    out: &mut BytesMut,
    many: impl ExactSizeIterator<Item = T>,
    each: impl Fn(&mut BytesMut, T),
) {
    put_unsigned(out, many.len() + 1);
    many.for_each(|one| each(out, one));
}

/// No tagged field.
pub(super) fn put_no_tags(out: &mut BytesMut) {
    put_unsigned(out, 0);
}

/// What is left of a key or a value.
pub(super) struct Reader(pub(super) Bytes);

impl Reader {
    pub(super) fn i16(&mut self) -> Result<i16, RecordError> {
        self.0.try_get_i16().map_err(|_| RecordError::CutShort)
    }

    pub(super) fn i32(&mut self) -> Result<i32, RecordError> {
        self.0.try_get_i32().map_err(|_| RecordError::CutShort)
    }

    pub(super) fn i64(&mut self) -> Result<i64, RecordError> {
        self.0.try_get_i64().map_err(|_| RecordError::CutShort)
    }

    pub(super) fn length(&mut self) -> Result<usize, RecordError> {
        usize::try_from(self.i32()?).map_err(|_| RecordError::Missing)
    }

    pub(super) fn ms(&mut self) -> Result<Duration, RecordError> {
        self.length().map(|ms| Duration::from_millis(ms as u64))
    }

    pub(super) fn take(&mut self, length: usize) -> Result<Bytes, RecordError> {
        if length > self.0.len() {
            return Err(RecordError::CutShort);
        }
        Ok(self.0.split_to(length))
    }

    /// A copy: what is read from is a batch of many records, which is not to stay for one.
    pub(super) fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let length = self.length()?;
        self.take(length).map(|bytes| Bytes::copy_from_slice(&bytes))
    }

    pub(super) fn text_or_null(&mut self) -> Result<Option<Arc<str>>, RecordError> {
        let Ok(length) = usize::try_from(self.i16()?) else { return Ok(None) };
        let bytes = self.take(length)?;
        std::str::from_utf8(&bytes).map(|text| Some(Arc::from(text))).map_err(|_| RecordError::NotText)
    }

    pub(super) fn text(&mut self) -> Result<Arc<str>, RecordError> {
        self.text_or_null()?.ok_or(RecordError::Missing)
    }

    pub(super) fn i8(&mut self) -> Result<i8, RecordError> {
        self.0.try_get_i8().map_err(|_| RecordError::CutShort)
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, RecordError> {
        self.0.try_get_u128().map(Uuid::from_u128).map_err(|_| RecordError::CutShort)
    }

    pub(super) fn unsigned(&mut self) -> Result<usize, RecordError> {
        let mut number = 0u32;
        for nth in 0..5 {
            let byte = self.0.try_get_u8().map_err(|_| RecordError::CutShort)?;
            number |= u32::from(byte & 0x7f) << (nth * 7);
            if byte < 0x80 {
                return Ok(number as usize);
            }
        }
        Err(RecordError::Missing)
    }

    pub(super) fn compact_text_or_null(&mut self) -> Result<Option<Arc<str>>, RecordError> {
        let Some(length) = self.unsigned()?.checked_sub(1) else { return Ok(None) };
        let bytes = self.take(length)?;
        std::str::from_utf8(&bytes).map(|text| Some(Arc::from(text))).map_err(|_| RecordError::NotText)
    }

    pub(super) fn compact_text(&mut self) -> Result<Arc<str>, RecordError> {
        self.compact_text_or_null()?.ok_or(RecordError::Missing)
    }

    /// A copy, as of plain bytes.
    pub(super) fn compact_bytes(&mut self) -> Result<Bytes, RecordError> {
        let length = self.unsigned()?.checked_sub(1).ok_or(RecordError::Missing)?;
        self.take(length).map(|bytes| Bytes::copy_from_slice(&bytes))
    }

    /// As many as are announced, none of which is nothing.
    pub(super) fn compact_many<T>(
        &mut self,
        mut each: impl FnMut(&mut Reader) -> Result<T, RecordError>,
    ) -> Result<Vec<T>, RecordError> {
        let count = self.unsigned()?.checked_sub(1).ok_or(RecordError::Missing)?;
        let mut many = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            many.push(each(self)?);
        }
        Ok(many)
    }

    /// Tagged fields, each with its number and bytes.
    pub(super) fn tags(&mut self) -> Result<Vec<(usize, Reader)>, RecordError> {
        let count = self.unsigned()?;
        let mut tags = Vec::new();
        for _ in 0..count {
            let (tag, length) = (self.unsigned()?, self.unsigned()?);
            tags.push((tag, Reader(self.take(length)?)));
        }
        Ok(tags)
    }
}
