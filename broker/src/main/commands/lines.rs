//! From a line of input to a record, and to the partition that Kafka's own clients would give it.

use bytes::Bytes;

/// A line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From one on.
    pub number: u64,
    pub key: Option<Bytes>,
    pub value: Bytes,
}

impl Line {
    /// The line without its end. With a separator, what stands before the first is the key.
    pub fn of(number: u64, text: &[u8], separator: Option<&str>) -> Result<Line, String> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let Some(separator) = separator else {
            return Ok(Line { number, key: None, value: Bytes::copy_from_slice(text) });
        };
        let at = text.windows(separator.len()).position(|window| window == separator.as_bytes());
        let at = at.ok_or_else(|| format!("line {number} has no {separator:?} (--key-separator) in it"))?;
        let (key, value) = (&text[..at], &text[at + separator.len()..]);
        Ok(Line { number, key: Some(Bytes::copy_from_slice(key)), value: Bytes::copy_from_slice(value) })
    }

    pub fn size(&self) -> usize {
        self.value.len() + self.key.as_ref().map_or(0, Bytes::len)
    }
}

/// The partition of a key, of so many.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// As Kafka's Java clients hash keys.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (nth, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * nth);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hashed_as_by_kafka_itself() {
        // Of Kafka's own test of its hash.
        let cases: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
        assert!((0..100u32).all(|n| partition_of(&n.to_be_bytes(), 3) < 3));
    }

    #[test]
    fn a_line_is_a_value_or_a_key_and_a_value() {
        let line = |text: &str, separator| Line::of(4, text.as_bytes(), separator);
        let made = |key: Option<&'static str>, value: &'static str| {
            Ok(Line { number: 4, key: key.map(Bytes::from), value: value.into() })
        };
        assert_eq!(line("a:b\n", None), made(None, "a:b"));
        assert_eq!(line("a\r\n", None), made(None, "a"));
        assert_eq!(line("", None), made(None, ""));
        assert_eq!(line("k:v:w\n", Some(":")), made(Some("k"), "v:w"));
        assert_eq!(line("k => v", Some(" => ")), made(Some("k"), "v"));
        assert_eq!(line(":v", Some(":")), made(Some(""), "v"));
        assert!(line("kv\n", Some(":")).unwrap_err().contains("line 4"));
    }
}
