//! Values that say who sent them, and whose every byte can be checked.

use bytes::{BufMut, Bytes, BytesMut};

use crate::history::Value;

/// Stands before the number of each record; the disks look for it to know when a record is durable.
pub const MARK: [u8; 8] = *b"CHRONIKR";
const HEAD: usize = 8 + 8;
const NUMBER_BITS: u32 = 40;

/// The value as one number, as it stands behind the mark.
pub fn number(value: Value) -> u64 {
    u64::from(value.producer) << NUMBER_BITS | value.number
}

/// A value of `size` bytes (at least the head).
pub(super) fn encode(value: Value, size: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(size.max(HEAD));
    bytes.put_slice(&MARK);
    bytes.put_u64(number(value));
    let mut fill = Fill::of(value);
    while bytes.len() < size {
        bytes.put_u8(fill.next());
    }
    bytes.freeze()
}

/// Whose value this is, if every byte of it is as it was sent.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let head = bytes.get(..HEAD).ok_or_else(|| format!("a value of {} bytes", bytes.len()))?;
    let (mark, number) = head.split_at(8);
    if mark != MARK {
        return Err(format!("a value that begins with {mark:02x?}"));
    }
    let mut bits = [0; 8];
    bits.copy_from_slice(number);
    let number = u64::from_be_bytes(bits);
    let value = Value {
        producer: u32::try_from(number >> NUMBER_BITS).unwrap_or(u32::MAX),
        number: number & ((1 << NUMBER_BITS) - 1),
    };
    let mut fill = Fill::of(value);
    match bytes[HEAD..].iter().position(|byte| *byte != fill.next()) {
        None => Ok(value),
        Some(at) => Err(format!("{value} with a changed byte at {}", HEAD + at)),
    }
}

/// Bytes that follow from the value, different for each.
struct Fill(u64);

impl Fill {
    fn of(value: Value) -> Fill {
        Fill(value.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(value.producer).rotate_left(32) | 1)
    }

    fn next(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: Value = Value { producer: 3, number: 77 };

    #[test]
    fn a_value_tells_whose_it_is() {
        for size in [0, 16, 17, 100] {
            assert_eq!(decode(&encode(VALUE, size)), Ok(VALUE));
        }
    }

    #[test]
    fn a_single_changed_byte_shows() {
        let sent = encode(VALUE, 60);
        for at in 0..sent.len() {
            let mut bytes = sent.to_vec();
            bytes[at] ^= 1;
            assert_ne!(decode(&bytes), Ok(VALUE), "byte {at}");
        }
        assert!(decode(&sent[..15]).is_err());
    }
}
