//! Record numbers found in what is written: the checkers' own knowledge of when a record was durable.
//!
//! The workload puts a known marker and a number into each record. Whatever file, format and code
//! path the bytes take, the disk sees them pass.

use std::collections::BTreeMap;

/// When a record was first written and first durable, in nanoseconds of the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarkerTimes {
    pub written: Option<u64>,
    pub durable: Option<u64>,
}

#[derive(Default)]
pub struct Markers {
    marker: Option<[u8; 8]>,
    times: BTreeMap<u64, MarkerTimes>,
}

impl Markers {
    pub fn new(marker: Option<[u8; 8]>) -> Markers {
        Markers { marker, times: BTreeMap::new() }
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
        let Some(marker) = &self.marker else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut rest = data;
        while let Some(at) = position(rest, marker) {
            let behind = &rest[at + marker.len()..];
            if let Some(number) = behind.first_chunk::<8>() {
                found.push(u64::from_be_bytes(*number));
            }
            rest = behind;
        }
        found
    }
}

fn position(data: &[u8], marker: &[u8; 8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = data[from..].iter().position(|byte| *byte == marker[0]) {
        let at = from + at;
        if data.len() - at < marker.len() {
            return None;
        }
        if &data[at..at + marker.len()] == marker {
            return Some(at);
        }
        from = at + 1;
    }
    None
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
