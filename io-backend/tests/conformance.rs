//! Both real disks, held to the contracts of the traits.

use std::path::Path;

use io_backend::conformance;
use io_backend::real::{DiskChoice, DiskKind, RealBackend};

fn holds_on(choice: DiskChoice, expected: DiskKind) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    // Beside the build, which is a real file system; /tmp may be memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    runtime.block_on(async {
        let (backend, report) = match RealBackend::start(choice, dir.path()) {
            Ok(started) => started,
            Err(reason) if choice == DiskChoice::Uring => {
                println!("skipped: {reason}");
                return;
            }
            Err(reason) => panic!("no backend: {reason}"),
        };
        assert_eq!(report.chosen, expected);
        println!("disk {report}");
        let outcome = sendable(conformance::all(&backend, &dir.path().join("conformance"))).await;
        println!("{outcome}");
        assert!(outcome.passed(), "{outcome}");
        assert!(left_over(dir.path()).is_empty(), "left behind: {:?}", left_over(dir.path()));
    });
    runtime.shutdown_background();
}

/// The suite may itself be a task.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

/// What the trial of the disk left in the data directory.
fn left_over(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).expect("a directory").flatten();
    names.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n != "conformance").collect()
}

#[test]
fn the_contracts_hold_on_threads() {
    holds_on(DiskChoice::Threads, DiskKind::Threads);
}

#[test]
fn the_contracts_hold_on_uring() {
    holds_on(DiskChoice::Uring, DiskKind::Uring);
}
