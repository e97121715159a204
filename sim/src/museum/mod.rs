//! The museum: historical defects, rebuilt as parts that take the place of ours inside the whole broker.
//!
//! Clients reach an exhibit by real requests through the real front; only what stands behind one handle is the old code: the
//! journal's (and before it, where requests waited), that of the other nodes, or that of changes of metadata. What the old
//! journals have in common and did right is in `frame` and `ledger`.

mod frame;
mod ledger;
mod legacy_wal;
mod ring;
mod in_sync_for_ever;
mod assignments_dropped;
mod replicator_without_peers;
mod topic_creation;
mod ack_despite_error;
mod told_later;
mod full_channel;
mod lock_inversion;
mod unbounded_queue;
mod message_lost;
mod unpooled_forwarding;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker::ids::PartitionId;
use broker::parts::{Admission, Admit, OpenJournal, Parts};

use crate::planted::{self, Defect};
use crate::world::SimBackend;
use legacy_wal::{DefectOptions, LegacyWal};

pub const EXHIBITS: [Defect; 16] = [
    Defect {
        name: "fsync-without-deadline",
        about: "group commit holds the file lock across a sync, and nobody who waits for it has a time-out",
    },
    Defect { name: "offset-reset", about: "the ring writer starts every write at file offset 0" },
    Defect {
        name: "ring-blocking-recv",
        about: "the ring's thread blocks in a sync recv while operations are under way",
    },
    Defect { name: "interval-only-commit", about: "only a 100 ms tick commits" },
    Defect { name: "idle-thrash", about: "23 partitions tick ten times a second, and a global worker too" },
    Defect { name: "blocking-call-in-async", about: "a blocking call starves the runtime's threads" },
    Defect { name: "assignments-dropped", about: "topics are created, and their assignments are not" },
    Defect {
        name: "replicator-without-peers",
        about: "the replicator knows of no other node, and acks=all waits for those that it cannot reach",
    },
    Defect {
        name: "topic-creation-30s",
        about: "a topic takes several proposals one after the other, and the leader is looked up for each",
    },
    Defect { name: "sequential-fsync", about: "the partitions' files are synced one after the other" },
    Defect {
        name: "unbounded-metadata-queue",
        about: "changes of metadata wait in a queue without a bound, those of clients that gave up too",
    },
    Defect { name: "unpooled-forwarding", about: "each forwarded produce goes on a connection of its own" },
    Defect {
        name: "lock-inversion",
        about: "Raft holds its lock until a proposal is written, and the log asks for it before it says so",
    },
    Defect {
        name: "full-channel",
        about: "who commits waits for room in a queue, with the lock that its reader needs",
    },
    Defect {
        name: "message-lost-after-retries",
        about: "Raft's messages to a peer end for good after ten retries",
    },
    Defect { name: "ack-despite-error", about: "errors of produce requests are answered as success" },
];

/// Names that `--part` takes: exhibits and planted bugs.
pub fn part_names() -> Vec<&'static str> {
    EXHIBITS.iter().chain(planted::all()).map(|exhibit| exhibit.name).collect()
}

pub fn is_part(name: &str) -> bool {
    part_names().contains(&name)
}

const LISTENS: DefectOptions = DefectOptions {
    listens: true,
    tick: Duration::from_millis(100),
    asks_worker: false,
    global_worker: false,
    blocks_thread: false,
    one_after_the_other: false,
};

/// The broker's parts, with the named one in place of ours. Unknown names are refused before it comes to this.
pub fn parts(name: Option<&str>) -> Parts<SimBackend> {
    match name {
        // Its workers hear of everything that there is for them; their own look takes events and shows nothing.
        Some("fsync-without-deadline") => {
            let options = DefectOptions { asks_worker: true, tick: Duration::from_secs(1), ..LISTENS };
            Parts {
                proposals: Box::new(in_sync_for_ever::proposals),
                ..with_legacy_wal(options, Of::DataAndMetadata)
            }
        }
        Some("interval-only-commit") => {
            with_legacy_wal(DefectOptions { listens: false, ..LISTENS }, Of::Data)
        }
        Some("idle-thrash") => with_legacy_wal(DefectOptions { global_worker: true, ..LISTENS }, Of::Data),
        Some("blocking-call-in-async") => {
            with_legacy_wal(DefectOptions { blocks_thread: true, ..LISTENS }, Of::Data)
        }
        Some("sequential-fsync") => {
            with_legacy_wal(DefectOptions { one_after_the_other: true, ..LISTENS }, Of::Data)
        }
        Some("full-channel") => planted_in(unwatched(), full_channel::plant),
        Some("lock-inversion") => planted_in(unwatched(), lock_inversion::plant),
        Some("unbounded-metadata-queue") => {
            Parts { proposals: Box::new(unbounded_queue::proposals), ..unwatched() }
        }
        Some("message-lost-after-retries") => {
            Parts { peers: Box::new(message_lost::start), ..Parts::production() }
        }
        Some("unpooled-forwarding") => {
            Parts { peers: Box::new(unpooled_forwarding::start), ..Parts::production() }
        }
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
        Some("assignments-dropped") => {
            Parts { proposals: Box::new(assignments_dropped::proposals), ..Parts::production() }
        }
        Some("replicator-without-peers") => Parts {
            peers: Box::new(replicator_without_peers::start),
            proposals: Box::new(in_sync_for_ever::proposals),
            ..Parts::production()
        },
        Some("topic-creation-30s") => {
            Parts { proposals: Box::new(topic_creation::proposals), ..Parts::production() }
        }
        _ => Parts::production(),
    }
}

/// The process as the broker is to see it, where the old code stood between it and its clients.
pub fn backend(name: &str, process: &SimBackend) -> Option<SimBackend> {
    (name == "ack-despite-error").then(|| ack_despite_error::plant(process))
}

fn planted_in(mut parts: Parts<SimBackend>, plant: impl FnOnce(&mut Parts<SimBackend>)) -> Parts<SimBackend> {
    plant(&mut parts);
    parts
}

/// Nobody watched the old disk.
fn unwatched() -> Parts<SimBackend> {
    Parts { watch_stalls: false, ..Parts::production() }
}

/// Whose log it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Data,
    /// The metadata's log was one more partition of the same kind, and Raft waited for it.
    DataAndMetadata,
}

fn with_legacy_wal(options: DefectOptions, of: Of) -> Parts<SimBackend> {
    let door = Door::default();
    let mut parts = unwatched();
    parts.journal = opens(options, door.data.clone());
    if of == Of::DataAndMetadata {
        parts.raft_journal = opens(options, door.metadata.clone());
    }
    parts.admission = Box::new(move |_| Arc::new(door));
    parts
}

fn opens(options: DefectOptions, opened: Arc<OnceLock<Arc<LegacyWal>>>) -> OpenJournal<SimBackend> {
    Box::new(move |context| {
        Box::pin(async move {
            let (wal, journal) = legacy_wal::open(context, options).await?;
            let _ = opened.set(wal);
            Ok(journal)
        })
    })
}

/// Where requests waited: at the log's own mutexes, and for its workers.
#[derive(Default)]
struct Door {
    data: Arc<OnceLock<Arc<LegacyWal>>>,
    metadata: Arc<OnceLock<Arc<LegacyWal>>>,
}

impl Admission for Door {
    fn admit(&self, partition: PartitionId, _: usize) -> Admit {
        let wal = if partition == PartitionId::NODE { &self.metadata } else { &self.data };
        match wal.get() {
            Some(wal) => Admit::Wait(Box::pin(wal.clone().admit(partition))),
            None => Admit::Now,
        }
    }
}
