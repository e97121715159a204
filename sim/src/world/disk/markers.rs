//! Record numbers found in what is written: the checkers' own knowledge of when a record was durable.
//!
//! The workload puts a known marker and a number into each record. Whatever file, format and code
//! path the bytes take, the disk sees them pass.

use std::collections::BTreeMap;

use memchr::memmem::Finder;

use super::names::Inode;

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
    /// Records that are synced in a file whose name is not: who cannot be found is not durable.
    unnamed: BTreeMap<Inode, Vec<u64>>,
}

impl Markers {
    pub fn new(marker: Option<[u8; 8]>) -> Markers {
        Markers { finder: marker.map(|marker| Finder::new(&marker).into_owned()), ..Markers::default() }
    }

    pub fn get(&self, record: u64) -> MarkerTimes {
        self.times.get(&record).copied().unwrap_or_default()
    }

    pub fn written(&mut self, data: &[u8], now: u64) {
        for record in self.find(data) {
            self.times.entry(record).or_default().written.get_or_insert(now);
        }
    }

    /// A sync covers this data of a file. It is durable now, or with the file's name.
    pub fn synced(&mut self, data: &[u8], file: Inode, is_named: bool, now: u64) {
        let records = self.find(data);
        if is_named {
            self.durable(records, now);
        } else if !records.is_empty() {
            self.unnamed.entry(file).or_default().extend(records);
        }
    }

    /// Names have become durable: those of these files, among them.
    pub fn named(&mut self, is_named: impl Fn(Inode) -> bool, now: u64) {
        let named: Vec<Inode> = self.unnamed.keys().copied().filter(|file| is_named(*file)).collect();
        for file in named {
            let records = self.unnamed.remove(&file).unwrap_or_default();
            self.durable(records, now);
        }
    }

    fn durable(&mut self, records: Vec<u64>, now: u64) {
        for record in records {
            self.times.entry(record).or_default().durable.get_or_insert(now);
        }
    }

    /// What was not durable was perhaps never written.
    pub fn power_loss(&mut self) {
        self.unnamed.clear();
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
        markers.synced(&data[..20], Inode(1), true, 8);
        assert_eq!(markers.get(7), MarkerTimes { written: Some(5), durable: Some(8) });
        assert_eq!(markers.get(9), MarkerTimes { written: Some(5), durable: None });
        assert_eq!(markers.get(8), MarkerTimes::default());
    }

    #[test]
    fn what_is_synced_in_a_file_without_a_durable_name_is_durable_with_the_name() {
        let mut markers = Markers::new(Some(*b"CHRONIKR"));
        let record = |number: u64| [*b"CHRONIKR", number.to_be_bytes()].concat();
        markers.synced(&record(7), Inode(1), false, 5);
        markers.synced(&record(8), Inode(2), false, 5);
        assert_eq!(markers.get(7).durable, None);
        markers.named(|file| file == Inode(1), 9);
        assert_eq!((markers.get(7).durable, markers.get(8).durable), (Some(9), None));
        markers.power_loss();
        markers.named(|_| true, 12);
        assert_eq!(markers.get(8).durable, None, "what the power took comes back with no name");
    }
}
