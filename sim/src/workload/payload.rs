//! Values that say who sent them, and whose every byte can be checked; keys and headers follow from them.

use bytes::{BufMut, BytesMut};

use crate::history::Value;

/// Stands before the number of each record; the disks look for it to know when a record is durable.
pub const MARK: [u8; 8] = *b"CHRONIKR";
const HEAD: usize = 8 + 8;
const NUMBER_BITS: u32 = 40;
pub(super) const KEY_BYTES: usize = 16;
pub(super) const HEADER_NAME: &[u8] = b"origin";

/// Odd, so that no two values get the same number, and its inverse.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;
const SHIFT: u64 = 0x5851_f42d_4c95_7f2d;
const GATHER: u64 = 0xf1de_83e1_9937_733d;
const _: () = assert!(SCATTER.wrapping_mul(GATHER) == 1);

/// The value as one number, as it stands behind the mark: scattered, since a compressor would see through runs of
/// zeros, and no disk would find it.
pub fn number(value: Value) -> u64 {
    let plain = u64::from(value.producer) << NUMBER_BITS | value.number;
    // The first numbers end in zeros, which no factor takes away.
    plain.wrapping_add(SHIFT).wrapping_mul(SCATTER)
}

/// Bytes of a value that is asked for with `size`: it has to hold its head.
pub(super) fn bytes(size: usize) -> usize {
    size.max(HEAD)
}

/// Puts the mark and the number.
pub(super) fn put_head(value: Value, into: &mut BytesMut) {
    into.put_slice(&MARK);
    into.put_u64(number(value));
}

/// Puts a value of `size` bytes (at least the head).
pub(super) fn put(value: Value, size: usize, into: &mut BytesMut) {
    put_head(value, into);
    let mut fill = Fill::of(value);
    let from = into.len();
    into.put_bytes(0, size.saturating_sub(HEAD));
    let (whole, rest) = into[from..].as_chunks_mut::<8>();
    for chunk in whole {
        *chunk = fill.next().to_be_bytes();
    }
    rest.copy_from_slice(&fill.next().to_be_bytes()[..rest.len()]);
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
    let number = u64::from_be_bytes(bits).wrapping_mul(GATHER).wrapping_sub(SHIFT);
    let value = Value {
        producer: u32::try_from(number >> NUMBER_BITS).unwrap_or(u32::MAX),
        number: number & ((1 << NUMBER_BITS) - 1),
    };
    let mut fill = Fill::of(value);
    let (whole, rest) = bytes[HEAD..].as_chunks::<8>();
    let changed = match whole.iter().position(|chunk| *chunk != fill.next().to_be_bytes()) {
        None => (*rest != fill.next().to_be_bytes()[..rest.len()]).then_some(whole.len()),
        changed => changed,
    };
    match changed {
        Some(chunk) => Err(format!("{value} with a changed byte at {} or soon after", HEAD + chunk * 8)),
        None => Ok(value),
    }
}

/// The key of a record that has one: letters, so that it never looks like a mark to a disk or a compressor.
pub(super) fn key(value: Value) -> [u8; KEY_BYTES] {
    const DIGITS: &[u8; 16] = b"abcdefghijklmnop";
    let mut bits = Fill::of(Value { number: value.number ^ 0x006b_6579, ..value }).next();
    std::array::from_fn(|_| {
        let digit = DIGITS[(bits & 15) as usize];
        bits >>= 4;
        digit
    })
}

/// How many headers a record has, each with the key as its value.
pub(super) fn headers(value: Value) -> u64 {
    value.number % 3
}

/// Bytes that follow from the value, different for each, eight at a time.
struct Fill(u64);

impl Fill {
    fn of(value: Value) -> Fill {
        Fill(value.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(value.producer).rotate_left(32) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: Value = Value { producer: 3, number: 77 };

    fn encode(value: Value, size: usize) -> BytesMut {
        let mut bytes = BytesMut::new();
        put(value, size, &mut bytes);
        bytes
    }

    #[test]
    fn a_value_tells_whose_it_is() {
        for size in [0, 16, 17, 24, 25, 100] {
            let encoded = encode(VALUE, size);
            assert_eq!(encoded.len(), bytes(size));
            assert_eq!(decode(&encoded), Ok(VALUE));
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

    #[test]
    fn keys_differ_and_are_letters() {
        assert_ne!(key(VALUE), key(Value { number: 78, ..VALUE }));
        assert!(key(VALUE).iter().all(u8::is_ascii_lowercase));
    }
}
