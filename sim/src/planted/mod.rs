//! Planted bugs: our own code made wrong in one place each, to see that the checkers see it.
//!
//! A part of the museum is a whole old component; these are the small slips that a change could bring in any
//! day. Each wraps the production part, so everything else is the code that ships.

pub(crate) mod submission;
pub(crate) mod answers;
mod checksums;
mod cleaning;
mod coordination;
mod beginnings;
mod early_ack;
mod empty_fetches;
mod fetch_sessions;
mod hashmap_order;
mod membership;
mod recovery;
mod reports;
mod truncations;

use broker::parts::Parts;

use crate::world::{SimBackend, SkippedSyncs};

/// In the name of a segment that was made by compaction.
const CLEANED: &str = ".c";
const HOUR_MS: i64 = 3_600_000;
/// Less than what records may be ahead of the clock.
const HALF_AN_HOUR_MS: i64 = HOUR_MS / 2;

/// A part that is wrong on purpose, by the name that `--part` takes.
pub struct Defect {
    pub name: &'static str,
    /// What is wrong with it, in a line.
    pub about: &'static str,
}

pub const BUGS: [Defect; 6] = [
    Defect { name: "ack-before-sync", about: "progress is told when entries are put in line" },
    Defect { name: "crc-unchecked", about: "recovery believes the last group whatever its checksums say" },
    Defect { name: "last-group-dropped", about: "recovery leaves out the last entry that it found" },
    Defect { name: "directory-not-synced", about: "names of new files are never made durable" },
    Defect { name: "sync-skipped", about: "a sync returns without having synced anything" },
    Defect { name: "producer-state-lost", about: "recovery forgets which producer sent what" },
];

/// Slips between nodes, for a cluster that loses power.
pub const REPLICATION: [Defect; 3] = [
    Defect {
        name: "truncation-skipped",
        about: "a follower cuts its log, and nothing of that is on its disk",
    },
    Defect {
        name: "unsynced-reported",
        about: "followers and leaders count what is in line for their disks as synced",
    },
    Defect {
        name: "vote-not-synced",
        about: "votes and entries of the metadata are told before they are durable",
    },
];

/// Slips between nodes of which some are behind others, and come back.
pub const OF_THE_ISR: [Defect; 2] = [
    Defect {
        name: "maximum-reported",
        about: "a follower reports the most that its disk ever had, also where its log was cut since",
    },
    Defect {
        name: "isr-unversioned",
        about: "a late copy of an addition to an ISR counts whatever has become of the partition since",
    },
];

/// A slip of who led, for a cluster whose nodes are cut off from one another and not from their clients.
pub const OF_SESSIONS: [Defect; 1] = [Defect {
    name: "stale-leader-serves",
    about: "a node whose heartbeats nobody answers goes on with what it led",
}];

/// Slips in the sessions of members. The next member that joins makes them good: what shows them is that time passes.
pub const OF_MEMBERS: [Defect; 1] =
    [Defect { name: "expired-member-owns", about: "a member that is silent keeps what it has" }];

/// Slips in coordinating groups of consumers.
pub const OF_GROUPS: [Defect; 4] = [
    Defect { name: "commit-before-durable", about: "a commit of a group is acknowledged before it is kept" },
    Defect {
        name: "generation-unchecked",
        about: "a commit of a generation that is over counts as one of the current",
    },
    Defect {
        name: "member-epoch-unchecked",
        about: "a commit of a member's epoch that is over counts as one of another member",
    },
    Defect {
        name: "revocation-not-awaited",
        about: "a partition is another member's before the one before has given it up",
    },
];

/// Slips in cleaning compacted logs.
pub const OF_CLEANING: [Defect; 4] = [
    Defect { name: "tombstone-dropped-early", about: "a tombstone goes before its time is over" },
    Defect { name: "last-value-dropped", about: "cleaning loses the last record of some keys" },
    Defect {
        name: "deleted-value-back",
        about: "cleaning keeps what a tombstone deletes, and not the tombstone",
    },
    Defect {
        name: "cleaning-not-durable",
        about: "what was cleaned takes the place of what it was made of, and was never synced",
    },
];

/// The same where nodes are away for long.
pub const OF_CLEANING_FOR_THE_ABSENT: [Defect; 1] = [Defect {
    name: "lacked-tombstone-dropped",
    about: "a tombstone goes when its time is over, although a replica lacks it",
}];

/// A slip in fetch sessions.
pub const OF_FETCH_SESSIONS: [Defect; 1] = [Defect {
    name: "news-left-out",
    about: "answers in a fetch session, after the first, leave out what is new",
}];

/// The same where records are deleted.
pub const OF_STARTS_IN_FETCH_SESSIONS: [Defect; 1] = [Defect {
    name: "start-left-out",
    about: "answers in a fetch session, after the first, leave out that a log begins later where there is no record to tell of",
}];

/// What concerns metadata and not records.
pub const OF_METADATA: [Defect; 1] =
    [Defect { name: "configs-misread", about: "recovery misreads the names of configurations" }];
/// Slips in deleting records, for a scenario in which records are deleted.
pub const DELETIONS: [Defect; 3] = [
    Defect {
        name: "log-start-not-durable",
        about: "files go although nothing of the new log start is on the disk",
    },
    Defect { name: "log-start-forgotten", about: "recovery leaves out where logs start" },
    Defect { name: "expired-too-early", about: "records are an hour older for retention than they are" },
];

/// The same between nodes.
pub const DELETIONS_ON_REPLICAS: [Defect; 1] = [Defect {
    name: "deletion-told-early",
    about: "followers report that their logs start later than they do: a deletion is acknowledged once the leader has it",
}];

/// What leaves records where nobody asks for their deletion.
pub const RETENTION: [Defect; 1] = [Defect {
    name: "expired-too-late",
    about: "records are half an hour younger for retention than they are",
}];

/// What a client can ask for and never gets, without end: for the budget of events.
pub const SPINNING: [Defect; 1] =
    [Defect { name: "fetch-answers-nothing", about: "every fetch is answered at once and brings nothing" }];

/// What no checker sees, for `check-determinism` to find.
pub const NONDETERMINISM: [Defect; 1] =
    [Defect { name: "hashmap-order", about: "a message's bytes follow the order of a std hash map" }];

/// Before a world with this part begins, and outside of it: what is planted may need what worlds do not have.
pub fn prepare(name: &str) {
    if name == "hashmap-order" {
        hashmap_order::stir();
    }
}

/// The production parts with this bug in them; none if it is no planted bug, or one of the disk.
pub fn parts(name: &str) -> Option<Parts<SimBackend>> {
    let mut parts = Parts::production();
    match name {
        "ack-before-sync" | "unsynced-reported" => early_ack::plant(&mut parts),
        "vote-not-synced" => early_ack::plant_in_raft(&mut parts),
        "isr-unversioned" => membership::plant(&mut parts),
        "maximum-reported" => reports::plant_the_most(&mut parts),
        "deletion-told-early" => reports::plant_all_deleted(&mut parts),
        "commit-before-durable" => coordination::plant_early_commit(&mut parts),
        "generation-unchecked" => coordination::plant_unchecked_generation(&mut parts),
        "expired-member-owns" => coordination::plant_endless_sessions(&mut parts),
        "tombstone-dropped-early" => cleaning::plant_early_drop(&mut parts),
        "lacked-tombstone-dropped" => cleaning::plant_unseen_drop(&mut parts),
        "last-value-dropped" => cleaning::plant_lost_last(&mut parts),
        "deleted-value-back" => cleaning::plant_stale_values(&mut parts),
        "member-epoch-unchecked" => coordination::plant_unchecked_member_epoch(&mut parts),
        "revocation-not-awaited" => coordination::plant_no_time_to_give_up(&mut parts),
        "stale-leader-serves" => parts.heed_contact = false,
        "truncation-skipped" => truncations::plant(&mut parts),
        "crc-unchecked" => checksums::plant(&mut parts),
        "hashmap-order" => hashmap_order::plant(&mut parts),
        "log-start-not-durable" => beginnings::plant(&mut parts),
        "log-start-forgotten" => recovery::plant(&mut parts, recovery::Mutation::ForgetsLogStarts),
        "last-group-dropped" => recovery::plant(&mut parts, recovery::Mutation::DropsLast),
        "producer-state-lost" => recovery::plant(&mut parts, recovery::Mutation::ForgetsProducers),
        "configs-misread" => recovery::plant_in_metadata(&mut parts),
        _ => return None,
    }
    Some(parts)
}

/// The process as the broker is to see it: with a bug between it and its disk or network where that is what is planted.
pub fn backend(name: &str, process: &SimBackend) -> Option<SimBackend> {
    match name {
        "directory-not-synced" => Some(process.skipping(SkippedSyncs::OfDirectories)),
        "cleaning-not-durable" => Some(process.skipping(SkippedSyncs::OfFilesNamed(CLEANED))),
        "sync-skipped" => Some(process.skipping(SkippedSyncs::All)),
        "news-left-out" => Some(fetch_sessions::news_left_out(process)),
        "start-left-out" => Some(fetch_sessions::start_left_out(process)),
        "fetch-answers-nothing" => Some(empty_fetches::plant(process)),
        "expired-too-early" => Some(process.with_clock_ahead(HOUR_MS)),
        "expired-too-late" => Some(process.with_clock_ahead(-HALF_AN_HOUR_MS)),
        _ => None,
    }
}

/// Everything that is planted.
pub fn all() -> impl Iterator<Item = &'static Defect> {
    BUGS.iter()
        .chain(&REPLICATION)
        .chain(&OF_THE_ISR)
        .chain(&OF_SESSIONS)
        .chain(&OF_GROUPS)
        .chain(&OF_MEMBERS)
        .chain(&OF_CLEANING)
        .chain(&OF_CLEANING_FOR_THE_ABSENT)
        .chain(&OF_FETCH_SESSIONS)
        .chain(&OF_STARTS_IN_FETCH_SESSIONS)
        .chain(&OF_METADATA)
        .chain(&DELETIONS)
        .chain(&DELETIONS_ON_REPLICAS)
        .chain(&RETENTION)
        .chain(&SPINNING)
        .chain(&NONDETERMINISM)
}
