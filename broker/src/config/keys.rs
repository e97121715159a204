//! Every configuration key once: path, what it is, how it is read and shown. The loader, the
//! environment names, `/config` and the suggestion for a mistyped key all come from this table.

use super::Profile;

macro_rules! key {
    ($path:literal, $about:literal, $range:literal, $set:expr, $show:expr) => {
        Key { path: $path, about: $about, range: $range, set: $set, show: $show, is_secret: false }
    };
}

mod key;
mod node;
mod storage;
mod cleaner;
mod topics;
mod groups;
mod server;
mod others;

pub use key::{Key, environment_of};

/// By what they are about.
const ROOMS: [&[Key]; 7] =
    [node::KEYS, storage::KEYS, cleaner::KEYS, topics::KEYS, groups::KEYS, server::KEYS, others::KEYS];

const NUMBER: usize = {
    let mut number = 0;
    let mut room = 0;
    while room < ROOMS.len() {
        number += ROOMS[room].len();
        room += 1;
    }
    number
};

/// Every key, in the order in which it is shown.
pub const KEYS: &[Key] = &{
    let mut keys = [ROOMS[0][0]; NUMBER];
    let (mut nth, mut room, mut at) = (0, 0, 0);
    while nth < NUMBER {
        while at == ROOMS[room].len() {
            (room, at) = (room + 1, 0);
        }
        keys[nth] = ROOMS[room][at];
        (nth, at) = (nth + 1, at + 1);
    }
    keys
};

impl std::str::FromStr for Profile {
    type Err = String;
    fn from_str(text: &str) -> Result<Profile, String> {
        [Profile::LowLatency, Profile::Balanced, Profile::Throughput]
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| format!("unknown profile '{text}'"))
    }
}

impl Profile {
    /// The word that the key `journal.profile` has for it.
    pub fn name(self) -> &'static str {
        match self {
            Profile::LowLatency => "low-latency",
            Profile::Balanced => "balanced",
            Profile::Throughput => "throughput",
        }
    }
}

#[cfg(test)]
mod tests;
