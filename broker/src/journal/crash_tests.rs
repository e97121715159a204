//! Lives of a journal that end at any moment, on a disk that keeps what it likes of what was not synced.
//!
//! Held against a model: an entry that was reported durable is there at every later start; one that a
//! start found is there at every later one; one that a start did not find never comes back; and what was
//! reported as failed is not found once something later was durable.

#[cfg(test)]
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use io_backend::Clock;
use io_backend::progress::Progress;

use super::fake::Fake;
use super::tests::entry;
use super::*;

/// A generator that no other crate's change can change.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

#[derive(Default)]
struct Model {
    /// What each LSN that was given out holds.
    submitted: BTreeMap<Lsn, i64>,
    acknowledged: BTreeSet<Lsn>,
    failed: BTreeSet<Lsn>,
    found: BTreeSet<Lsn>,
    gone: BTreeSet<Lsn>,
    released: Lsn,
    next_offset: i64,
}

impl Model {
    fn check(&mut self, opened: &OpenedJournal, story: &str) {
        let mut last = Lsn(0);
        let mut now = BTreeSet::new();
        for RecoveredEntry { lsn, entry } in &opened.entries {
            assert!(*lsn > last, "{story}: LSNs rise");
            last = *lsn;
            let submitted = self.submitted.get(lsn);
            assert_eq!(submitted, Some(&entry.base_offset.0), "{story}: {lsn} holds what was submitted");
            assert!(!self.gone.contains(lsn), "{story}: {lsn} came back");
            now.insert(*lsn);
        }
        for lsn in self.acknowledged.union(&self.found).filter(|lsn| **lsn >= self.released) {
            assert!(now.contains(lsn), "{story}: {lsn} was durable and is lost; found {now:?}");
        }
        let durable = self.acknowledged.union(&self.found).max().copied().unwrap_or(Lsn(0));
        let mut failed = now.difference(&self.found).filter(|lsn| self.failed.contains(lsn));
        let revived = failed.find(|lsn| **lsn < durable);
        assert_eq!(revived, None, "{story}: it failed, and something later was durable");
        self.gone.extend(self.submitted.keys().filter(|lsn| !now.contains(lsn)));
        self.found.append(&mut now);
    }
}

fn tiny() -> JournalSettings {
    JournalSettings {
        file_bytes: 36 * 1024,
        group_entries: 4,
        group_bytes: 12 * 1024,
        queue_entries: 40,
        queue_bytes: 64 * 1024,
        linger: Duration::ZERO,
        unreleased_bytes_max: u64::MAX,
    }
}

async fn reopen(fake: &Fake, story: &str) -> OpenedJournal {
    let context = JournalContext {
        backend: fake.clone(),
        name: "journal",
        directory: PathBuf::from("/data/journal"),
        settings: tiny(),
        metrics: Arc::default(),
    };
    open(context).await.unwrap_or_else(|error| panic!("{story}: {error}"))
}

/// Submits at random until `until`, and keeps book.
async fn live(fake: &Fake, draw: &mut Draw, model: &mut Model, opened: OpenedJournal, until: u64) {
    let journal = opened.journal;
    let mut progress: Vec<Arc<Progress>> = (0..3).map(|_| Arc::default()).collect();
    let mut waiting: Vec<Vec<Lsn>> = vec![Vec::new(); 3];
    while fake.now().0 < until {
        let partition = draw.below(3) as usize;
        let count = 1 + draw.below(3);
        let entries: Vec<JournalEntry> = (0..count)
            .map(|n| {
                entry(partition as i32, model.next_offset + n as i64, &vec![7; draw.below(6000) as usize])
            })
            .collect();
        if let Ok(last) = journal.submit(entries, &progress[partition]) {
            for (n, lsn) in (last.0 + 1 - count..=last.0).enumerate() {
                let before = model.submitted.insert(Lsn(lsn), model.next_offset + n as i64);
                assert_eq!(before, None, "LSN {lsn} is given out twice");
                waiting[partition].push(Lsn(lsn));
            }
            model.next_offset += count as i64;
        }
        fake.sleep(Duration::from_nanos(draw.below(400_000))).await;
        for (progress, waiting) in progress.iter_mut().zip(&mut waiting) {
            let reached = Lsn(progress.reached());
            model.acknowledged.extend(waiting.extract_if(.., |lsn| *lsn <= reached));
            if progress.failed_from().is_some() {
                model.failed.extend(waiting.drain(..));
                *progress = Arc::default();
            }
        }
        if draw.below(20) == 0 {
            model.released = model.acknowledged.last().copied().unwrap_or(model.released);
            journal.release_before(model.released);
        }
        if draw.below(200) == 0 {
            fake.world().durable_writes.push_back(Some(std::io::ErrorKind::Other));
        }
    }
}

fn story(seed: u64) {
    let fake = Fake::seeded(seed);
    fake.world().latency = 300_000;
    let mut draw = Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut model = Model::default();
    for life in 0..8 {
        let story = format!("seed {seed}, life {life}");
        let length = [200_000, 5_000_000, 40_000_000][draw.below(3) as usize];
        let until = fake.now().0 + 1 + draw.below(length);
        fake.run(async {
            let opening = reopen(&fake, &story);
            let Ok(opened) =
                io_backend::within(&fake, Deadline::At(io_backend::Moment(until)), opening).await
            else {
                return;
            };
            model.check(&opened, &story);
            live(&fake, &mut draw, &mut model, opened, until).await;
        });
        fake.world().durable_writes.clear();
        match draw.below(4) {
            // A kill: the page cache survives.
            0 => fake.forget_waiting(),
            1 => fake.lose_power(|_, _| false),
            _ => {
                let odds = 1 + draw.below(8);
                fake.lose_power(|_, _| draw.below(8) < odds);
            }
        }
    }
    fake.run(async {
        let opened = reopen(&fake, "the last").await;
        model.check(&opened, &format!("seed {seed}, the last life"));
    });
}

#[test]
fn no_end_of_a_life_loses_what_was_durable_or_brings_back_what_was_not() {
    for seed in 1..=130 {
        story(seed);
    }
}
