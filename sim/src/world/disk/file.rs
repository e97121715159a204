//! One file: what is durable, what is current, and the changes between them that no sync covers yet.
//!
//! At a power loss each page keeps what some prefix of its un-synced changes made of it, the next one
//! perhaps torn at sectors; pages are independent of one another, so any order of write-back is possible.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::pages::{PAGE, Pages, SECTOR};
use crate::streams::Stream;

/// A change that no sync covers yet.
#[derive(Clone, Debug)]
struct Unsynced {
    number: u64,
    change: Change,
}

impl Unsynced {
    fn bytes(&self) -> u64 {
        match &self.change {
            Change::Write { data, .. } => data.len() as u64,
            Change::SetLen(_) => 0,
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { position: u64, data: Bytes },
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
pub struct FileState {
    durable: Pages,
    current: Pages,
    unsynced: Vec<Unsynced>,
    /// Bytes of the writes in `unsynced`.
    dirty: u64,
    numbers: u64,
    /// The first and the last page of what the last sync made durable, zeros aside.
    newest: Option<(u64, u64)>,
}

/// What a sync made durable.
#[derive(Default)]
pub struct Covered {
    /// Position and length of each write.
    pub ranges: Vec<(u64, u64)>,
    pub data: Vec<Bytes>,
}

impl FileState {
    pub fn current(&self) -> &Pages {
        &self.current
    }

    pub fn durable(&self) -> &Pages {
        &self.durable
    }

    /// What a sync called now would have to move.
    pub fn unsynced_bytes(&self) -> u64 {
        self.dirty
    }

    /// Number of the last change made.
    pub fn last_change(&self) -> u64 {
        self.numbers
    }

    pub fn write(&mut self, position: u64, data: Bytes) {
        self.current.write(position, &data);
        self.dirty += data.len() as u64;
        self.push(Change::Write { position, data });
    }

    /// Only some sectors of the write arrive.
    pub fn write_torn(&mut self, position: u64, data: &Bytes, stream: &mut Stream) {
        let mut at = 0;
        while at < data.len() {
            let to_boundary = SECTOR - (position + at as u64) % SECTOR;
            let end = (at + to_boundary as usize).min(data.len());
            if stream.coin() {
                self.write(position + at as u64, data.slice(at..end));
            }
            at = end;
        }
    }

    /// Makes these bytes durable, as if they had been written and synced long ago.
    pub fn put_right(&mut self, position: u64, data: &Bytes) {
        for pages in [&mut self.current, &mut self.durable] {
            pages.write(position, data);
        }
    }

    pub fn set_len(&mut self, len: u64) {
        self.current.set_len(len);
        self.push(Change::SetLen(len));
    }

    fn push(&mut self, change: Change) {
        self.numbers += 1;
        self.unsynced.push(Unsynced { number: self.numbers, change });
    }

    /// Makes every change up to `number` durable.
    pub fn sync(&mut self, number: u64) -> Covered {
        let covered = self.take(number);
        let alone = self.unsynced.is_empty();
        let mut result = Covered::default();
        for unsynced in covered {
            match unsynced.change {
                Change::Write { position, data } => {
                    if alone && data.len() as u64 >= PAGE {
                        self.durable.share(&self.current, position, data.len() as u64);
                        let len = self.durable.len().max(position + data.len() as u64);
                        self.durable.adopt_len(len);
                    } else {
                        self.durable.write(position, &data);
                    }
                    result.ranges.push((position, data.len() as u64));
                    result.data.push(data);
                }
                Change::SetLen(len) => self.durable.set_len(len),
            }
        }
        if alone {
            self.durable.adopt_len(self.current.len());
        }
        self.newest = pages_of(&result).or(self.newest);
        result
    }

    /// The sync failed: some of the pages had reached the medium by then. The kernel marks all of them clean, so
    /// that no later sync writes them; perhaps it drops them, too. Returns what became durable all the same.
    pub fn lose(&mut self, number: u64, drop_pages: bool, stream: &mut Stream) -> Covered {
        let mut kept = Covered::default();
        // All or nothing is as likely as a part.
        let share = [0, 0, 500, 1000][stream.below(4) as usize];
        for unsynced in self.take(number) {
            if !stream.per_mille(share) {
                continue;
            }
            match unsynced.change {
                Change::Write { position, data } => {
                    self.durable.write(position, &data);
                    kept.ranges.push((position, data.len() as u64));
                    kept.data.push(data);
                }
                Change::SetLen(len) => self.durable.set_len(len),
            }
        }
        if drop_pages && self.unsynced.is_empty() {
            self.current = self.durable.clone();
        }
        kept
    }

    fn take(&mut self, number: u64) -> Vec<Unsynced> {
        let rest = self.unsynced.partition_point(|unsynced| unsynced.number <= number);
        let later = self.unsynced.split_off(rest);
        let taken = std::mem::replace(&mut self.unsynced, later);
        for unsynced in &taken {
            self.dirty -= unsynced.bytes();
        }
        taken
    }

    /// What the medium holds after the power went. Returns the bytes that were not synced.
    pub fn power_loss(&mut self, stream: &mut Stream) -> u64 {
        let lost = std::mem::take(&mut self.dirty);
        let unsynced = std::mem::take(&mut self.unsynced);
        if unsynced.is_empty() {
            self.current = self.durable.clone();
            return lost;
        }
        let len = self.length_after(&unsynced, stream);
        let mut by_page: BTreeMap<u64, Vec<(u64, Bytes)>> = BTreeMap::new();
        for change in unsynced {
            match change.change {
                Change::Write { position, data } => split_by_page(position, &data, &mut by_page),
                // What was cut off and written again must not show the old bytes.
                Change::SetLen(cut) => {
                    if cut < self.durable.len() && cut < len {
                        let keep = self.durable.len();
                        self.durable.set_len(cut);
                        self.durable.set_len(keep);
                    }
                }
            }
        }
        for writes in by_page.into_values() {
            let kept = stream.below(writes.len() as u64 + 1) as usize;
            for (position, data) in &writes[..kept] {
                self.durable.write(*position, data);
            }
            if let Some((position, data)) = writes.get(kept)
                && stream.coin()
            {
                tear(&mut self.durable, *position, data, stream);
            }
        }
        self.durable.set_len(len);
        self.current = self.durable.clone();
        lost
    }

    /// The file's length is written back like a page of its own.
    fn length_after(&self, unsynced: &[Unsynced], stream: &mut Stream) -> u64 {
        let mut lengths = vec![self.durable.len()];
        for change in unsynced {
            let last = lengths.last().copied().unwrap_or_default();
            let next = match &change.change {
                Change::Write { position, data } => last.max(position + data.len() as u64),
                Change::SetLen(len) => *len,
            };
            if next != last {
                lengths.push(next);
            }
        }
        lengths[stream.below(lengths.len() as u64) as usize]
    }

    /// Flips a bit of a durable page, on the medium and in the cache; of none that the last sync made durable, if that is
    /// to be spared. False when there is none.
    pub fn rot(&mut self, spares_newest: bool, stream: &mut Stream) -> bool {
        let mut occupied = self.durable.occupied();
        if let Some((first, last)) = self.newest.filter(|_| spares_newest) {
            occupied.retain(|page| !(first..=last).contains(page));
        }
        if occupied.is_empty() {
            return false;
        }
        let page = occupied[stream.below(occupied.len() as u64) as usize];
        let in_page = PAGE.min(self.durable.len() - page * PAGE);
        let bytes = self.durable.read(page * PAGE, in_page as usize);
        // A byte that means something: zeros behind the written part are of no interest.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(in_page, |last| last as u64 + 1);
        let position = page * PAGE + stream.below(used);
        let bit = stream.below(8) as u8;
        self.durable.flip(position, bit);
        self.current.flip(position, bit);
        true
    }
}

/// The first and the last page of what is not zero.
fn pages_of(covered: &Covered) -> Option<(u64, u64)> {
    let writes = covered.ranges.iter().zip(&covered.data);
    let filled = writes.filter(|(_, data)| data.iter().any(|byte| *byte != 0));
    let pages = filled.map(|((position, len), _)| (position / PAGE, (position + len - 1) / PAGE));
    pages.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
}

fn split_by_page(position: u64, data: &Bytes, by_page: &mut BTreeMap<u64, Vec<(u64, Bytes)>>) {
    let mut at = 0;
    while at < data.len() {
        let here = position + at as u64;
        let end = (at + (PAGE - here % PAGE) as usize).min(data.len());
        by_page.entry(here / PAGE).or_default().push((here, data.slice(at..end)));
        at = end;
    }
}

fn tear(pages: &mut Pages, position: u64, data: &Bytes, stream: &mut Stream) {
    let mut at = 0;
    while at < data.len() {
        let end = (at + (SECTOR - (position + at as u64) % SECTOR) as usize).min(data.len());
        if stream.coin() {
            pages.write(position + at as u64, &data[at..end]);
        }
        at = end;
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
