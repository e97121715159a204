//! Prints what a durable write costs on either disk, in turns on the same file:
//! `cargo run --release -p io-backend --example disk_figures [DIR]`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "measures from outside")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use io_backend::real::{DiskChoice, RealBackend, RealDedicatedDisk};
use io_backend::{Backend, DedicatedDisk, DedicatedFile, DedicatedLoop};

const FILE_BYTES: usize = 64 << 20;
const ROUNDS: usize = 5;
const TIME_PER_ROUND: Duration = Duration::from_millis(400);

struct Writer {
    path: PathBuf,
    bytes: usize,
    answer: std::sync::mpsc::Sender<Vec<Duration>>,
}

impl DedicatedLoop<RealBackend> for Writer {
    async fn run(self, disk: RealDedicatedDisk) {
        let file = disk.open(&self.path).await.expect("the file is there");
        let mut data = vec![7; self.bytes];
        let mut samples = Vec::new();
        let began = Instant::now();
        let mut position = 0;
        while began.elapsed() < TIME_PER_ROUND {
            let before = Instant::now();
            let (result, back) = file.write_durable(position as u64, data).await;
            result.expect("the disk takes it");
            data = back;
            samples.push(before.elapsed());
            position = (position + self.bytes) % FILE_BYTES;
        }
        let _ = self.answer.send(samples);
    }
}

fn main() {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "target".into());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let path = Path::new(&dir).join(format!("disk-figures-{}", std::process::id()));
    std::fs::write(&path, vec![0; FILE_BYTES]).expect("room for the file");
    std::fs::File::open(&path).and_then(|file| file.sync_all()).expect("a sync");

    let mut disks = Vec::new();
    for choice in [DiskChoice::Threads, DiskChoice::Uring] {
        match RealBackend::start(choice, Path::new(&dir)) {
            Ok((backend, report)) => disks.push((choice, backend, report)),
            Err(reason) => println!("{choice}: skipped: {reason}"),
        }
    }
    for bytes in [4 << 10, 64 << 10, 1 << 20] {
        let mut samples = vec![Vec::new(); disks.len()];
        for _ in 0..ROUNDS {
            for ((_, backend, _), all) in disks.iter().zip(&mut samples) {
                let (answer, answered) = std::sync::mpsc::channel();
                backend.spawn_dedicated("writer", Writer { path: path.clone(), bytes, answer });
                all.extend(answered.recv().expect("the loop answers"));
            }
        }
        for ((choice, _, _), mut all) in disks.iter().zip(samples) {
            all.sort();
            let at = |part: usize| all[(all.len() * part / 100).min(all.len() - 1)].as_micros();
            let rate = all.len() as f64 / all.iter().sum::<Duration>().as_secs_f64();
            println!(
                "{choice:8} {:5} KiB durable: p50 {:5} us  p99 {:5} us  {rate:6.0}/s  {:6.0} MB/s",
                bytes >> 10,
                at(50),
                at(99),
                rate * bytes as f64 / 1e6,
            );
        }
    }
    for (_, _, report) in &disks {
        println!("disk {report}");
    }
    let _ = std::fs::remove_file(&path);
}
