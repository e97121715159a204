//! Files of segments that nobody needs any more: removed one after another, some time later, whatever fails.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use io_backend::{Backend, Deadline, Disk, DiskError, Moment};

use crate::limits;
use crate::log::segment::SegmentName;
use crate::partition::DeadFiles;

/// The pause after a failure, doubled with each further one.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// How often it is looked whether the disk is full, while files wait to be removed.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(1);

/// What failed, how often in a row.
#[derive(Default)]
pub(super) struct Retry {
    failures: u32,
}

impl Retry {
    /// Tells of the first failure in a row; the pause until the next try.
    pub(super) fn failed(&mut self, what: &str, error: &dyn std::fmt::Display) -> Duration {
        if self.failures == 0 {
            tracing::warn!(error = %error, "{what}; tried again until it succeeds");
        }
        self.failures = self.failures.saturating_add(1);
        RETRY_FIRST.saturating_mul(1 << (self.failures - 1).min(8)).min(RETRY_LAST)
    }

    /// How often it has failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn succeeded(&mut self, what: &str) {
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!("{what} again");
        }
    }
}

struct Dead {
    from: Moment,
    /// The last first.
    paths: Vec<PathBuf>,
}

/// The files of a segment, each of which need not be there.
fn files_of(directory: &Path, name: SegmentName) -> impl Iterator<Item = PathBuf> {
    ["log", "index", "timeindex"].into_iter().map(move |extension| directory.join(name.file(extension)))
}

/// What is to be removed.
pub(super) struct Removals {
    /// For people.
    what: &'static str,
    /// In the order in which they were forgotten.
    dead: VecDeque<Dead>,
    /// Nothing is removed before.
    not_before: Option<Moment>,
    retry: Retry,
}

impl Removals {
    pub(super) fn new(what: &'static str) -> Removals {
        Removals { what, dead: VecDeque::new(), not_before: None, retry: Retry::default() }
    }

    /// These are to go after the delay that they have.
    pub(super) fn put(&mut self, backend: &impl Backend, files: DeadFiles) {
        let paths = files.segments.iter().flat_map(|name| files_of(&files.directory, *name)).collect();
        self.dead.push_back(Dead { from: backend.now() + files.delay, paths });
    }

    /// These are to go now: what was not finished.
    pub(super) fn put_unfinished(&mut self, backend: &impl Backend, paths: Vec<PathBuf>) {
        self.dead.push_back(Dead { from: backend.now(), paths });
    }

    /// Removes what has waited for long enough, or some of it; when there is more to do. Where the disk is full, nothing waits.
    pub(super) async fn remove(&mut self, backend: &impl Backend, is_full: bool) -> Option<Moment> {
        let now = backend.now();
        if let Some(pause) = self.not_before.filter(|pause| *pause > now) {
            return Some(pause);
        }
        let mut left = limits::RETENTION_FILES_PER_ROUND;
        while let Some(nth) = self.dead.iter().position(|dead| is_full || dead.from <= now)
            && left > 0
        {
            let dead = &mut self.dead[nth];
            let Some(path) = dead.paths.last().cloned() else {
                self.dead.remove(nth);
                continue;
            };
            match remove(backend, &path).await {
                Ok(()) => {
                    self.dead[nth].paths.pop();
                    self.retry.succeeded(&format!("{} are removed", self.what));
                    left -= 1;
                }
                Err(error) => {
                    let pause = self.retry.failed(&format!("{} stay", self.what), &error);
                    self.not_before = Some(backend.now() + pause);
                    return self.not_before;
                }
            }
        }
        let first = self.dead.iter().map(|dead| dead.from).min()?;
        Some(first.min(backend.now() + LOOK_FOR_SPACE).max(now))
    }
}

/// What a crash leaves the next start removes.
async fn remove<B: Backend>(backend: &B, path: &Path) -> Result<(), DiskError> {
    let deadline = Deadline::after(backend, limits::DISK_DEADLINE);
    match backend.disk().remove_file(path, deadline).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn earlier(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
