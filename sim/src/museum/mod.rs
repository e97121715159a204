//! The museum: historical defects, rebuilt as parts that take the place of ours inside the whole broker.
//!
//! Clients reach an exhibit by real requests through the real front; only what stands behind the journal's
//! handle (and before it, where requests waited) is the old code. What the exhibits have in common and did
//! right is in [`frame`] and [`ledger`].

mod frame;
mod ledger;
mod legacy_wal;
mod ring;

use std::sync::{Arc, OnceLock};

use broker::ids::PartitionId;
use broker::parts::{Admission, Admit, Parts};

use crate::planted;
use crate::world::SimBackend;
use legacy_wal::{Habits, LegacyWal};

/// One exhibit.
pub struct Exhibit {
    pub name: &'static str,
    /// What it was, in a line.
    pub about: &'static str,
}

pub const EXHIBITS: [Exhibit; 6] = [
    Exhibit {
        name: "fsync-without-deadline",
        about: "group commit holds the file lock across a sync that has no time-out",
    },
    Exhibit { name: "offset-reset", about: "the ring writer starts every write at file offset 0" },
    Exhibit { name: "ring-blocking-recv", about: "the ring's thread blocks in a sync recv" },
    Exhibit { name: "interval-only-commit", about: "only a 100 ms tick commits" },
    Exhibit { name: "idle-thrash", about: "23 partitions tick ten times a second, and a global worker too" },
    Exhibit { name: "blocking-call-in-async", about: "a blocking call starves the runtime's threads" },
];

/// Names that `--part` takes: exhibits and planted bugs.
pub fn part_names() -> Vec<&'static str> {
    EXHIBITS.iter().chain(&planted::BUGS).map(|exhibit| exhibit.name).collect()
}

pub fn is_part(name: &str) -> bool {
    part_names().contains(&name)
}

const LISTENS: Habits =
    Habits { listens: true, commits_nothing: false, global_worker: false, blocks_thread: false };

/// The broker's parts, with the named one in place of ours. Unknown names are refused before it comes to this.
pub fn parts(name: Option<&str>) -> Parts<SimBackend> {
    match name {
        Some("fsync-without-deadline") => with_legacy_wal(LISTENS),
        Some("interval-only-commit") => with_legacy_wal(Habits { listens: false, ..LISTENS }),
        Some("idle-thrash") => {
            with_legacy_wal(Habits { commits_nothing: true, global_worker: true, ..LISTENS })
        }
        Some("blocking-call-in-async") => with_legacy_wal(Habits { blocks_thread: true, ..LISTENS }),
        Some("offset-reset") => {
            let mut parts = unwatched();
            parts.journal = Box::new(|context| Box::pin(ring::open(context, ring::Defect::OffsetReset)));
            parts
        }
        Some("ring-blocking-recv") => {
            let mut parts = unwatched();
            parts.raft_journal =
                Box::new(|context| Box::pin(ring::open(context, ring::Defect::BlockingRecv)));
            parts
        }
        _ => Parts::production(),
    }
}

/// Nobody watched the old disk.
fn unwatched() -> Parts<SimBackend> {
    Parts { watch_stalls: false, ..Parts::production() }
}

fn with_legacy_wal(habits: Habits) -> Parts<SimBackend> {
    let opened: Arc<OnceLock<Arc<LegacyWal>>> = Arc::default();
    let door = Door { wal: opened.clone() };
    let mut parts = unwatched();
    parts.admission = Box::new(move |_| Arc::new(door));
    parts.journal = Box::new(move |context| {
        Box::pin(async move {
            let (wal, journal) = legacy_wal::open(context, habits).await?;
            let _ = opened.set(wal);
            Ok(journal)
        })
    });
    parts
}

/// Where requests waited: at the log's own mutexes.
struct Door {
    wal: Arc<OnceLock<Arc<LegacyWal>>>,
}

impl Admission for Door {
    fn admit(&self, partition: PartitionId, bytes: usize) -> Admit {
        match self.wal.get() {
            Some(wal) if partition != PartitionId::NODE => {
                Admit::Wait(Box::pin(wal.clone().admit(partition, bytes)))
            }
            _ => Admit::Now,
        }
    }
}
