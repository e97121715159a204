//! Which disk a node uses: told, or found by trying both on the data directory.
//!
//! The trial is the commit path itself: a dedicated loop that writes 4 KiB durably into a prefilled file, in turns on
//! either disk. It is bounded in time; a disk that does not even answer is left to those who watch for that.
//!
//! `cargo run --release -p io-backend --example disk_figures` (2 cores, ext4 on virtio, other builds keeping both
//! cores busy), p50 of a durable write: threads 94 us at 4 KiB, 139 us at 64 KiB, 1.5 ms at 1 MiB; uring 2.2, 3.0
//! and 3.6 ms. The ring hands each write to a kernel worker and is woken by it, and on busy cores each of those
//! wake-ups waits for a turn. On quiet ones the trial itself, in the ready line, gave threads 81 to 112 us and uring
//! 107 to 247 us.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::core::Core;
use super::dedicated::{self, RealDedicatedDisk};
use super::kind::{DiskChoice, DiskKind};
use super::ring;
use crate::disk::{DedicatedDisk, DedicatedFile, DiskResult};

/// What was chosen, and on which figures. Displays as `threads (sync p50 131 us, uring 335 us)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskReport {
    /// The disk that the node uses.
    pub chosen: DiskKind,
    /// Median of a durable write of 4 KiB; none if it was not measured or did not answer in time.
    pub threads_p50_us: Option<u64>,
    /// Likewise, of `uring`.
    pub uring_p50_us: Option<u64>,
    /// Why io_uring is not available, and what to do about it.
    pub uring_refused: Option<String>,
}

impl fmt::Display for DiskReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, other, other_name) = match self.chosen {
            DiskKind::Threads => (self.threads_p50_us, self.uring_p50_us, "uring"),
            DiskKind::Uring => (self.uring_p50_us, self.threads_p50_us, "threads"),
        };
        write!(f, "{} (sync p50 ", self.chosen)?;
        match own {
            Some(us) => write!(f, "{us} us")?,
            None => f.write_str("unknown")?,
        }
        match (other, &self.uring_refused) {
            (Some(us), _) => write!(f, ", {other_name} {us} us")?,
            (None, Some(reason)) => write!(f, ", no io_uring: {reason}")?,
            (None, None) => {}
        }
        f.write_str(")")
    }
}

/// Rounds of the trial; each asks every candidate once, so that a moment of noise meets both.
const ROUNDS: usize = 3;
const WRITES_PER_ROUND: usize = 16;
const ROUND_TIME_MAX: Duration = Duration::from_millis(50);
/// Beyond its own bound a round may hang in one operation: so long, then the trial goes on without it.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
const WRITE_BYTES: usize = 4096;
const PROBE_BYTES: usize = 64 * WRITE_BYTES;

pub(super) fn choose(core: &Arc<Core>, choice: DiskChoice, data_dir: &Path) -> io::Result<DiskReport> {
    let uring_refused = match choice {
        DiskChoice::Threads => None,
        _ => ring::refused(),
    };
    let candidates: &[DiskKind] = match (choice, &uring_refused) {
        (DiskChoice::Threads, _) | (DiskChoice::Auto, Some(_)) => &[DiskKind::Threads],
        (DiskChoice::Uring, Some(reason)) => {
            let text = format!("io_uring is not available: {reason}; or start with --disk threads");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        (DiskChoice::Uring, None) => &[DiskKind::Uring],
        (DiskChoice::Auto, None) => &[DiskKind::Threads, DiskKind::Uring],
    };
    let figures = match measure(core, candidates, data_dir) {
        // A node with a full disk still has to start: it serves what it has.
        Err(full) if matches!(full.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Vec::new()
        }
        measured => measured?,
    };
    let p50 = |wanted: DiskKind| {
        let (_, samples) = figures.iter().find(|(kind, _)| *kind == wanted)?;
        median(samples.clone()?)
    };
    let (threads_p50_us, uring_p50_us) = (p50(DiskKind::Threads), p50(DiskKind::Uring));
    let chosen = match choice {
        DiskChoice::Uring => DiskKind::Uring,
        DiskChoice::Threads => DiskKind::Threads,
        DiskChoice::Auto => faster(threads_p50_us, uring_p50_us),
    };
    Ok(DiskReport { chosen, threads_p50_us, uring_p50_us, uring_refused })
}

/// Durations per candidate; none for one that did not answer.
type Figures = Vec<(DiskKind, Option<Vec<Duration>>)>;

fn measure(core: &Arc<Core>, candidates: &[DiskKind], data_dir: &Path) -> io::Result<Figures> {
    let probe = Probe::new(data_dir)?;
    let mut figures: Figures = candidates.iter().map(|kind| (*kind, Some(Vec::new()))).collect();
    for _ in 0..ROUNDS {
        for (kind, samples) in &mut figures {
            // Once without an answer is enough.
            let Some(so_far) = samples else { continue };
            match round(core, *kind, &probe.path) {
                Some(more) => so_far.extend(more?),
                None => *samples = None,
            }
        }
    }
    Ok(figures)
}

/// Threads in doubt: they need nothing of the kernel.
fn faster(threads_us: Option<u64>, uring_us: Option<u64>) -> DiskKind {
    match (threads_us, uring_us) {
        (Some(threads), Some(uring)) if uring < threads => DiskKind::Uring,
        (None, Some(_)) => DiskKind::Uring,
        _ => DiskKind::Threads,
    }
}

fn median(mut samples: Vec<Duration>) -> Option<u64> {
    samples.sort();
    let middle = samples.get(samples.len() / 2)?;
    u64::try_from(middle.as_micros()).ok()
}

/// The file that is written to; removed whatever happens.
struct Probe {
    path: PathBuf,
}

impl Probe {
    fn new(data_dir: &Path) -> io::Result<Probe> {
        let at = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", data_dir.display()));
        std::fs::create_dir_all(data_dir).map_err(at)?;
        let probe = Probe { path: data_dir.join(format!(".disk-probe-{}", std::process::id())) };
        let file = std::fs::File::create(&probe.path).map_err(at)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; PROBE_BYTES], 0).map_err(at)?;
        file.sync_all().map_err(at)?;
        Ok(probe)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One turn of one candidate; none if it did not answer.
fn round(core: &Arc<Core>, kind: DiskKind, path: &Path) -> Option<io::Result<Vec<Duration>>> {
    let (answer, answered) = mpsc::sync_channel(1);
    let path = path.to_path_buf();
    let body = move |disk: RealDedicatedDisk| async move {
        // Nobody listens any more if it took too long.
        let _ = answer.send(write_repeatedly(disk, &path).await);
    };
    drop(dedicated::spawn(core, kind, "disk probe".into(), body));
    match answered.recv_timeout(ANSWER_TIME_MAX) {
        Ok(samples) => Some(samples.map_err(|error| io::Error::new(error.kind(), error.to_string()))),
        Err(_) => None,
    }
}

async fn write_repeatedly(disk: RealDedicatedDisk, path: &Path) -> DiskResult<Vec<Duration>> {
    let file = disk.open(path).await?;
    let mut data = vec![0; WRITE_BYTES];
    let mut samples = Vec::with_capacity(WRITES_PER_ROUND);
    let began = Instant::now();
    for number in 0..WRITES_PER_ROUND {
        let position = (number * WRITE_BYTES) % PROBE_BYTES;
        let before = Instant::now();
        let (result, back) = file.write_durable(position as u64, data).await;
        result?;
        data = back;
        samples.push(before.elapsed());
        if began.elapsed() > ROUND_TIME_MAX {
            break;
        }
    }
    // The first one pays for waking everything up.
    if samples.len() > 1 {
        samples.remove(0);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests;
