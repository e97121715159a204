//! What the disk takes: 4 KiB `pwrite` + `fdatasync` into a prefilled file, one after the other, on one thread.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::load::new_histogram;

const BLOCK_BYTES: usize = 4096;
const FILE_BYTES: u64 = 64 << 20;

/// A prefilled file that is removed when dropped.
pub struct Probe {
    file: File,
    path: std::path::PathBuf,
    at: u64,
}

impl Probe {
    pub fn create(dir: &Path) -> Result<Self> {
        let path = dir.join(format!("chronik-bench-disk-{}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("creating {}", path.display()))?;
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Self { file, path, at: 0 })
    }

    pub fn run(&mut self, duration: Duration) -> Result<Histogram<u64>> {
        let block = vec![b'd'; BLOCK_BYTES];
        let mut latency_ns = new_histogram();
        let until = Instant::now() + duration;
        let mut start = Instant::now();
        while start < until {
            self.file.write_all_at(&block, self.at)?;
            self.file.sync_data()?;
            self.at = (self.at + BLOCK_BYTES as u64) % FILE_BYTES;
            let now = Instant::now();
            latency_ns.saturating_record((now - start).as_nanos() as u64);
            start = now;
        }
        Ok(latency_ns)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
