//! The journal on this machine's own disk, written by both kinds of loop.

#[cfg(test)]
use std::sync::Arc;

use io_backend::progress::Progress;
use io_backend::real::{DiskChoice, RealBackend};

use super::tests::{entry, settings, until_reached};
use super::*;

async fn reopen(backend: &RealBackend, directory: &std::path::Path) -> OpenedJournal {
    let context = JournalContext {
        backend: backend.clone(),
        name: "journal",
        directory: directory.join("journal"),
        settings: settings(),
        metrics: Arc::default(),
    };
    open(context).await.expect("the journal opens")
}

fn soon(backend: &RealBackend) -> Deadline {
    Deadline::after(backend, Duration::from_secs(30))
}

/// Two lives with several submitters, through many files.
async fn two_lives(backend: RealBackend, directory: &std::path::Path) {
    let mut last = Lsn(0);
    for life in 0..2 {
        let opened = reopen(&backend, directory).await;
        assert_eq!(opened.entries.len(), life * 600);
        assert!(opened.entries.windows(2).all(|pair| pair[0].lsn < pair[1].lsn));
        assert_eq!(opened.torn_tail, None);
        let progress: Vec<Arc<Progress>> = (0..3).map(|_| Arc::default()).collect();
        for offset in 0..200 {
            for (partition, progress) in progress.iter().enumerate() {
                last = opened
                    .journal
                    .submit(vec![entry(partition as i32, offset, &[1; 500])], progress)
                    .expect("taken");
            }
            if offset % 16 == 0 {
                until_reached(&progress[2], last).await;
            }
        }
        opened.journal.close(soon(&backend)).await.expect("closed in time");
        assert_eq!(progress[2].reached(), last.0);
        assert_eq!(opened.journal.status().durable, last);
    }
}

fn on(choice: DiskChoice) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    runtime.block_on(async {
        match RealBackend::start(choice, directory.path()) {
            Ok((backend, _)) => two_lives(backend, directory.path()).await,
            Err(error) => eprintln!("skipped: {error}"),
        }
    });
}

#[test]
fn a_thread_writes_a_journal_that_is_read_back() {
    on(DiskChoice::Threads);
}

#[test]
fn a_ring_writes_a_journal_that_is_read_back() {
    on(DiskChoice::Uring);
}
