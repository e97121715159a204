//! Record numbers found in what is written: the checkers' own knowledge of when a record was durable.
//!
//! The workload puts a known marker and a number into each record. Whatever file, format and code
//! path the bytes take, the disk sees them pass.

use std::collections::BTreeMap;

use memchr::memmem::Finder;

/// When a record was first written and first durable, in nanoseconds of the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarkerTimes {
    pub written: Option<u64>,
    pub durable: Option<u64>,
}

/// Bytes of a marker.
const LEN: usize = 8;

#[derive(Default)]
pub struct Markers {
    finder: Option<Finder<'static>>,
    times: BTreeMap<u64, MarkerTimes>,
}

impl Markers {
    pub fn new(marker: Option<[u8; 8]>) -> Markers {
        Markers { finder: marker.map(|marker| Finder::new(&marker).into_owned()), times: BTreeMap::new() }
    }

    pub fn get(&self, record: u64) -> MarkerTimes {
        self.times.get(&record).copied().unwrap_or_default()
    }

    pub fn written(&mut self, data: &[u8], now: u64) {
        for record in self.find(data) {
            self.times.entry(record).or_default().written.get_or_insert(now);
        }
    }

    pub fn durable(&mut self, data: &[u8], now: u64) {
        for record in self.find(data) {
            self.times.entry(record).or_default().durable.get_or_insert(now);
        }
    }

    /// What was not durable was perhaps never written.
    pub fn power_loss(&mut self) {
        self.times.retain(|_, times| times.durable.is_some());
    }

    fn find(&self, data: &[u8]) -> Vec<u64> {
        let Some(finder) = &self.finder else {
            return Vec::new();
        };
        let number = |at: usize| data[at + LEN..].first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        finder.find_iter(data).filter_map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_wherever_they_lie() {
        let mut markers = Markers::new(Some(*b"CHRONIKR"));
        let mut data = b"xxCCHRONIKR".to_vec();
        data.extend(7u64.to_be_bytes());
        data.extend(b"CHRONIKR");
        data.extend(9u64.to_be_bytes());
        data.extend(b"CHRONIKR123");
        markers.written(&data, 5);
        markers.written(&data, 6);
        markers.durable(&data[..20], 8);
        assert_eq!(markers.get(7), MarkerTimes { written: Some(5), durable: Some(8) });
        assert_eq!(markers.get(9), MarkerTimes { written: Some(5), durable: None });
        assert_eq!(markers.get(8), MarkerTimes::default());
    }
}
