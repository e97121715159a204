//! The segment files that readers have open: a bounded number for the whole node, those used last.
//!
//! A [`SegmentFile`] is a path and a share of that; it is opened when something is read, with the deadline of the
//! reader, and closed when others need its place. Nothing is written through it: a checkpoint opens the file
//! it writes for itself, and keeps it from its first write to its sync. Where the process has no descriptor left for
//! either, those kept here make room. No lock is held across a wait.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use io_backend::disk::DiskResult;
use io_backend::{Backend, Deadline, Disk, File, OpenHow};

/// Cloneable: all clones are the same files.
pub struct OpenFiles<B: Backend> {
    shared: Arc<Shared<B>>,
}

struct Shared<B: Backend> {
    backend: B,
    state: Mutex<State<<B::Disk as Disk>::File>>,
}

struct State<F> {
    most: usize,
    open: BTreeMap<u64, Open<F>>,
    /// By when they were used, the longest ago first.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
    numbers: u64,
    /// How often half of the files was closed for want of descriptors.
    halvings: u64,
}

struct Open<F> {
    file: F,
    used: u64,
}

impl<B: Backend> Clone for OpenFiles<B> {
    fn clone(&self) -> Self {
        OpenFiles { shared: self.shared.clone() }
    }
}

impl<B: Backend> OpenFiles<B> {
    /// At most `most` are open at a time.
    pub fn new(backend: B, most: usize) -> OpenFiles<B> {
        let state = State {
            most: most.max(1),
            open: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            numbers: 0,
            halvings: 0,
        };
        OpenFiles { shared: Arc::new(Shared { backend, state: Mutex::new(state) }) }
    }

    /// A file by its path; it need not be there before it is read.
    pub fn file(&self, path: PathBuf) -> SegmentFile<B> {
        let mut state = self.shared.state();
        state.numbers += 1;
        let number = state.numbers;
        drop(state);
        SegmentFile { one: Arc::new(One { number, path, shared: self.shared.clone() }) }
    }

    /// Opens a file that is not kept here.
    pub async fn open(
        &self,
        path: &Path,
        how: OpenHow,
        deadline: Deadline,
    ) -> DiskResult<<B::Disk as Disk>::File> {
        self.shared.open(path, how, deadline).await
    }

    #[cfg(test)]
    pub fn open_now(&self) -> usize {
        self.shared.state().open.len()
    }
}

impl<B: Backend> Shared<B> {
    /// Every critical section is a few moves, so a panic in one leaves sound data.
    fn state(&self) -> MutexGuard<'_, State<<B::Disk as Disk>::File>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(
        &self,
        path: &Path,
        how: OpenHow,
        deadline: Deadline,
    ) -> DiskResult<<B::Disk as Disk>::File> {
        let disk = self.backend.disk();
        let halvings = self.state().halvings;
        match disk.open(path, how, deadline).await {
            // Those that were not used for longest go, for good.
            Err(error) if error.lacks_descriptors() => {
                let closed = self.state().halve_unless_since(halvings);
                if let Some(closed) = closed {
                    tracing::warn!(error = %error, closed = closed.len(), "no descriptors left: fewer segments stay open");
                }
                disk.open(path, how, deadline).await
            }
            opened => opened,
        }
    }
}

impl<F: Clone> State<F> {
    fn get(&mut self, number: u64) -> Option<F> {
        self.uses += 1;
        let open = self.open.get_mut(&number)?;
        self.by_use.remove(&open.used);
        open.used = self.uses;
        self.by_use.insert(open.used, number);
        Some(open.file.clone())
    }

    /// Takes a file in; returns those that are closed for it.
    fn put(&mut self, number: u64, file: F) -> Vec<F> {
        let mut closed = Vec::new();
        closed.extend(self.remove(number));
        self.uses += 1;
        self.by_use.insert(self.uses, number);
        self.open.insert(number, Open { file, used: self.uses });
        self.close_above(self.most, &mut closed);
        closed
    }

    fn close_above(&mut self, most: usize, closed: &mut Vec<F>) {
        while self.open.len() > most
            && let Some((_, number)) = self.by_use.pop_first()
        {
            closed.extend(self.open.remove(&number).map(|open| open.file));
        }
    }

    /// Keeps half of what is open, now and later, and returns the others; nothing where that was done since there had
    /// been so many `halvings`: what many miss at once is made room for once.
    fn halve_unless_since(&mut self, halvings: u64) -> Option<Vec<F>> {
        if self.halvings != halvings {
            return None;
        }
        self.halvings += 1;
        self.most = (self.open.len() / 2).max(1);
        let mut closed = Vec::new();
        self.close_above(self.most, &mut closed);
        Some(closed)
    }

    fn remove(&mut self, number: u64) -> Option<F> {
        let open = self.open.remove(&number)?;
        self.by_use.remove(&open.used);
        Some(open.file)
    }
}

/// A segment's file, open or not; clones are the same.
pub struct SegmentFile<B: Backend> {
    one: Arc<One<B>>,
}

struct One<B: Backend> {
    number: u64,
    path: PathBuf,
    shared: Arc<Shared<B>>,
}

impl<B: Backend> Drop for One<B> {
    fn drop(&mut self) {
        let closed = self.shared.state().remove(self.number);
        drop(closed);
    }
}

impl<B: Backend> Clone for SegmentFile<B> {
    fn clone(&self) -> Self {
        SegmentFile { one: self.one.clone() }
    }
}

impl<B: Backend> SegmentFile<B> {
    async fn opened(&self, deadline: Deadline) -> DiskResult<<B::Disk as Disk>::File> {
        let One { number, path, shared } = &*self.one;
        let open = shared.state().get(*number);
        if let Some(file) = open {
            return Ok(file);
        }
        let file = shared.open(path, OpenHow::Existing, deadline).await?;
        let closed = shared.state().put(*number, file.clone());
        drop(closed);
        Ok(file)
    }
}

impl<B: Backend> File for SegmentFile<B> {
    fn path(&self) -> &Path {
        &self.one.path
    }

    async fn read_at(&self, position: u64, len: usize, deadline: Deadline) -> DiskResult<Bytes> {
        self.opened(deadline).await?.read_at(position, len, deadline).await
    }

    async fn write_at(&self, position: u64, data: Bytes, deadline: Deadline) -> DiskResult<()> {
        self.opened(deadline).await?.write_at(position, data, deadline).await
    }

    async fn sync(&self, deadline: Deadline) -> DiskResult<()> {
        self.opened(deadline).await?.sync(deadline).await
    }

    async fn len(&self, deadline: Deadline) -> DiskResult<u64> {
        self.opened(deadline).await?.len(deadline).await
    }

    async fn set_len(&self, len: u64, deadline: Deadline) -> DiskResult<()> {
        self.opened(deadline).await?.set_len(len, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::journal::fake::Fake;

    fn opens(fake: &Fake) -> usize {
        fake.world().log.iter().filter(|line| line.starts_with("open ")).count()
    }

    #[test]
    fn only_so_many_are_open_and_those_used_last_stay() {
        let fake = Fake::new();
        fake.run(async {
            let soon = Deadline::after(&fake, Duration::from_secs(9));
            let all = OpenFiles::new(fake.clone(), 2);
            let mut files = Vec::new();
            for name in ["a", "b", "c"] {
                let path = PathBuf::from("/data").join(name);
                let made = fake.disk().open(&path, OpenHow::CreateNew, soon).await.unwrap();
                made.write_at(0, Bytes::from_static(name.as_bytes()), soon).await.unwrap();
                files.push(all.file(path));
            }
            let before = opens(&fake);
            for (nth, opened) in [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4), (0, 4), (2, 5)] {
                let read = files[nth].read_at(0, 1, soon).await.unwrap();
                assert_eq!(&read[..], ["a", "b", "c"][nth].as_bytes());
                assert_eq!(opens(&fake) - before, opened);
                assert!(all.open_now() <= 2);
            }
            drop(files);
            assert_eq!(all.open_now(), 0, "what nobody can read any more is closed");
        });
    }

    #[test]
    fn a_process_without_descriptors_closes_what_it_can_spare_and_reads_all_the_same() {
        let fake = Fake::new();
        fake.run(async {
            let soon = Deadline::after(&fake, Duration::from_secs(9));
            let all = OpenFiles::new(fake.clone(), 100);
            let files: Vec<_> = (0..8).map(|n| all.file(PathBuf::from(format!("/data/{n}")))).collect();
            for file in &files {
                fake.disk().open(file.path(), OpenHow::CreateNew, soon).await.unwrap();
            }
            for file in &files[..7] {
                file.len(soon).await.unwrap();
            }
            fake.world().opens_refused = 1;
            files[7].len(soon).await.unwrap();
            assert_eq!(all.open_now(), 3);
            fake.world().opens_refused = 2;
            let error = files[0].len(soon).await.unwrap_err();
            assert!(error.lacks_descriptors(), "{error}");
            files[0].len(soon).await.unwrap();
        });
    }

    #[test]
    fn many_that_find_no_descriptor_at_once_close_half_of_the_files_once() {
        let fake = Fake::new();
        fake.run(async {
            let soon = Deadline::after(&fake, Duration::from_secs(9));
            let all = OpenFiles::new(fake.clone(), 100);
            let files: Vec<_> = (0..12).map(|n| all.file(PathBuf::from(format!("/data/{n}")))).collect();
            for file in &files {
                fake.disk().open(file.path(), OpenHow::CreateNew, soon).await.unwrap();
            }
            for file in &files[..8] {
                file.len(soon).await.unwrap();
            }
            let mut state = all.shared.state();
            let halvings = state.halvings;
            let closed: Vec<_> =
                (0..4).map(|_| state.halve_unless_since(halvings).map(|closed| closed.len())).collect();
            drop(state);
            assert_eq!(closed, [Some(4), None, None, None]);
            assert_eq!(all.open_now(), 4);
        });
    }
}
