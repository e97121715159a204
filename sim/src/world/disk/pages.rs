//! A file's bytes as pages; a page that is missing is all zeros.
//!
//! Durable and current contents share the pages in which they agree, and preallocated zeros cost nothing.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

pub const PAGE: u64 = 4096;
pub const SECTOR: u64 = 512;
const PAGE_LEN: usize = PAGE as usize;

type Page = [u8; PAGE_LEN];

static ZEROS: Page = [0; PAGE_LEN];

/// Contents of a file. Bytes past its length are never kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// A piece of a write that lies within one page.
struct Piece {
    page: u64,
    from: usize,
    start: usize,
    len: usize,
}

fn pieces(position: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = position + done as u64;
        let from = (at % PAGE) as usize;
        let piece = Piece { page: at / PAGE, from, start: done, len: (PAGE_LEN - from).min(len - done) };
        done += piece.len;
        Some(piece)
    })
}

pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(PAGE_LEN).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

impl Pages {
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn read(&self, position: u64, len: usize) -> Vec<u8> {
        let len = usize::try_from(self.len.saturating_sub(position)).unwrap_or(usize::MAX).min(len);
        let mut bytes = vec![0; len];
        for piece in pieces(position, len) {
            if let Some(page) = self.pages.get(&piece.page) {
                bytes[piece.start..piece.start + piece.len]
                    .copy_from_slice(&page[piece.from..piece.from + piece.len]);
            }
        }
        bytes
    }

    pub fn write(&mut self, position: u64, data: &[u8]) {
        for piece in pieces(position, data.len()) {
            self.put(piece.page, piece.from, &data[piece.start..piece.start + piece.len]);
        }
        self.len = self.len.max(position + data.len() as u64);
    }

    fn put(&mut self, page: u64, from: usize, bytes: &[u8]) {
        match self.pages.get_mut(&page) {
            Some(known) if bytes.len() == PAGE_LEN && is_zero(bytes) => {
                let _ = known;
                self.pages.remove(&page);
            }
            Some(known) => Arc::make_mut(known)[from..from + bytes.len()].copy_from_slice(bytes),
            None if is_zero(bytes) => {}
            None => {
                let mut fresh = ZEROS;
                fresh[from..from + bytes.len()].copy_from_slice(bytes);
                self.pages.insert(page, Arc::new(fresh));
            }
        }
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            let rest = (len % PAGE) as usize;
            if rest != 0
                && let Some(page) = self.pages.get_mut(&(len / PAGE))
            {
                Arc::make_mut(page)[rest..].fill(0);
            }
        }
        self.len = len;
    }

    /// Takes the pages that this range touches from `other`, sharing them.
    pub fn share(&mut self, other: &Pages, position: u64, len: u64) {
        if len == 0 {
            return;
        }
        for page in position / PAGE..=(position + len - 1) / PAGE {
            match other.pages.get(&page) {
                Some(theirs) => {
                    self.pages.insert(page, theirs.clone());
                }
                None => {
                    self.pages.remove(&page);
                }
            }
        }
    }

    /// Sets the length without cutting pages that were shared; for use after [`Pages::share`].
    pub fn adopt_len(&mut self, len: u64) {
        if len < self.len { self.set_len(len) } else { self.len = len }
    }

    /// Numbers of the pages that are not all zeros.
    pub fn occupied(&self) -> Vec<u64> {
        self.pages.keys().copied().collect()
    }

    /// Puts the length and all that is not zero into a hash.
    pub fn feed(&self, hasher: &mut impl Hasher) {
        hasher.write(&self.len.to_le_bytes());
        for (number, page) in &self.pages {
            hasher.write(&number.to_le_bytes());
            hasher.write(&page[..]);
        }
    }

    /// Flips one bit.
    pub fn flip(&mut self, position: u64, bit: u8) {
        let mut byte = self.read(position, 1);
        if let Some(value) = byte.first_mut() {
            *value ^= 1 << (bit % 8);
            self.write(position, &byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_across_pages() {
        let mut pages = Pages::default();
        let data: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
        pages.write(5_000, &data);
        assert_eq!(pages.len(), 15_000);
        assert_eq!(pages.read(5_000, 10_000), data);
        assert_eq!(pages.read(0, 5_000), vec![0; 5_000]);
        assert_eq!(pages.read(14_999, 100).len(), 1);
        assert!(pages.read(20_000, 1).is_empty());
    }

    #[test]
    fn zeros_cost_nothing() {
        let mut pages = Pages::default();
        pages.write(0, &vec![0; 1 << 20]);
        assert_eq!((pages.len(), pages.occupied().len()), (1 << 20, 0));
        pages.write(4096, &[1; 4096]);
        pages.write(4096, &[0; 4096]);
        assert!(pages.occupied().is_empty());
    }

    #[test]
    fn cutting_a_file_forgets_what_was_behind_the_cut() {
        let mut pages = Pages::default();
        pages.write(0, &[7; 10_000]);
        pages.set_len(5_000);
        pages.set_len(10_000);
        assert_eq!(pages.read(0, 5_000), vec![7; 5_000]);
        assert_eq!(pages.read(5_000, 5_000), vec![0; 5_000]);
    }

    #[test]
    fn a_shared_page_is_copied_when_one_side_writes() {
        let mut one = Pages::default();
        one.write(0, &[1; 4096]);
        let mut two = Pages::default();
        two.share(&one, 0, 4096);
        two.adopt_len(4096);
        one.write(0, &[2]);
        assert_eq!((one.read(0, 2), two.read(0, 2)), (vec![2, 1], vec![1, 1]));
    }
}
