//! Where the newest record of each key is, in bounded memory: of a key only a hash is kept.
//!
//! Two keys with one hash would be one key, and a record would be lost: so there are 128 bits, and which keys come to the
//! same nobody can know, for the hash has a secret (SipHash).

#![expect(
    clippy::disallowed_types,
    reason = "it is never walked: keys are looked up, millions of them in little memory"
)]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::ids::Offset;

/// What an entry takes, with what a table keeps beside it.
const ENTRY_BYTES: usize = 25;

/// Hash and offset of each key, as many as fit.
pub struct Newest {
    secret: SipHasher13,
    offsets: HashMap<[u64; 2], i64, BuildHasherDefault<AsItIs>>,
    keys_max: usize,
    /// A key did not fit.
    overflowed: bool,
}

impl Newest {
    /// Of no key yet; with so much memory it gets along, and half as much again while it grows.
    pub fn new(secret: (u64, u64), bytes_max: usize) -> Newest {
        // A table has a power of two of places, and seven of eight are taken.
        let places = (bytes_max / ENTRY_BYTES).max(8);
        let places = 1usize << places.ilog2();
        Newest {
            secret: SipHasher13::new_with_keys(secret.0, secret.1),
            offsets: HashMap::default(),
            keys_max: places / 8 * 7,
            overflowed: false,
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let mut hasher = self.secret;
        hasher.write(key);
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    }

    /// There is a record of this key at `offset`, behind all that were taken in before. Where there is no room for the key,
    /// nothing is known of it.
    pub fn take(&mut self, key: &[u8], offset: Offset) {
        let hash = self.hash(key);
        let has_room = self.offsets.len() < self.keys_max;
        match self.offsets.entry(hash) {
            std::collections::hash_map::Entry::Occupied(mut known) => *known.get_mut() = offset.0,
            std::collections::hash_map::Entry::Vacant(entry) if has_room => {
                entry.insert(offset.0);
            }
            std::collections::hash_map::Entry::Vacant(_) => self.overflowed = true,
        }
    }

    /// Where its newest record is, of those that were taken in.
    pub fn of(&self, key: &[u8]) -> Option<Offset> {
        self.offsets.get(&self.hash(key)).map(|offset| Offset(*offset))
    }

    /// Of a key that was taken in nothing is known.
    pub fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// How many keys are known.
    pub fn keys(&self) -> usize {
        self.offsets.len()
    }
}

/// What is hashed is a hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 ^= value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_record_of_a_key_is_its_newest() {
        let mut newest = Newest::new((1, 2), 1_000);
        newest.take(b"a", Offset(1));
        newest.take(b"b", Offset(2));
        newest.take(b"a", Offset(3));
        assert_eq!(
            (newest.of(b"a"), newest.of(b"b"), newest.of(b"c")),
            (Some(Offset(3)), Some(Offset(2)), None)
        );
        assert!(!newest.has_overflowed());
    }

    #[test]
    fn keys_without_room_are_unknown_and_known_ones_go_on() {
        let mut newest = Newest::new((1, 2), 16 * ENTRY_BYTES);
        for key in 0..20u8 {
            newest.take(&[key], Offset(key.into()));
        }
        assert!(newest.has_overflowed());
        assert_eq!(newest.keys(), 14);
        assert_eq!(newest.of(&[15]), None);
        newest.take(&[3], Offset(99));
        assert_eq!(newest.of(&[3]), Some(Offset(99)));
    }
}
