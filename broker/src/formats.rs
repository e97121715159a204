//! Versions of what is on disk, in one place: what a new one has to be told apart from, and who refuses it.
//!
//! Whoever reads a format compares what it finds with the constant here. A newer version is refused with a message that
//! says so, an older one is read or named; `docs/formats.md` has the same table, which a test compares.

/// `identity.json`: from 2 on the incarnation is in a file of its own, from 3 on there is a checksum, from 4 on there may be segments
/// that were cleaned, whose names older binaries do not know.
pub const IDENTITY: u32 = 4;
/// The two slots of `incarnation`.
pub const INCARNATION: &[u8; 8] = b"CHRINCAR";
/// `membership.json`.
pub const MEMBERSHIP: u32 = 1;
/// Header of a journal file.
pub const JOURNAL_FILE: &[u8; 8] = b"CHRONIKJ";
/// Of the journal as a whole, in the header of each file: groups, entries and their kinds.
pub const JOURNAL: u32 = 1;
/// What a commit group begins with.
pub const JOURNAL_GROUP: &[u8; 4] = b"CKGR";
/// A journal entry that says where replicas stand in their segments: from 2 on with high watermark, generation of the files
/// and number of truncations.
pub const CHECKPOINT_RECORD: u8 = 2;
/// A piece of a Raft snapshot, as a journal entry, from 2 on with the configuration of the group. Raft's entries and states
/// are its protobuf messages.
pub const RAFT_SNAPSHOT: u8 = 2;
/// The metadata image in a Raft snapshot, and each metadata command in the Raft log: the newest, from 2 on with
/// configurations of brokers and changes of configurations and partitions, from 3 on of several nodes, from
/// 4 on with configurations of groups.
pub const METADATA: u8 = 4;
/// Record batches of a segment: Kafka's magic.
pub const RECORD_BATCH: i8 = 2;
/// Producers and leader epochs beside the segments.
pub const PRODUCER_SNAPSHOT: &[u8; 8] = b"CHRSNAP2";
/// As it was before truncations were counted.
pub const PRODUCER_SNAPSHOT_1: &[u8; 8] = b"CHRSNAP1";
/// Entries of a replica that does not open, and its mark.
pub const RESCUED: &[u8; 8] = b"CHRRESC2";
/// With a mark as checkpoint records of version 1 have it.
pub const RESCUED_1: &[u8; 8] = b"CHRRESC1";

#[cfg(test)]
mod tests {
    use super::*;

    /// What, file, version, read by.
    fn table() -> Vec<[String; 4]> {
        let text = |magic: &[u8]| format!("`{}`", String::from_utf8_lossy(magic));
        let row = |what: &str, file: &str, version: String, by: &str| {
            [what.into(), format!("`{file}`"), version, format!("`{by}`")]
        };
        vec![
            row("identity", "identity.json", IDENTITY.to_string(), "identity.rs"),
            row("number of the start", "incarnation", text(INCARNATION), "identity.rs"),
            row("membership", "membership.json", MEMBERSHIP.to_string(), "metadata/membership.rs"),
            row("journal file", "journal/*.journal, raft/*.journal", text(JOURNAL_FILE), "journal/format.rs"),
            row("journal", "journal/*.journal, raft/*.journal", JOURNAL.to_string(), "journal/format.rs"),
            row(
                "commit group",
                "journal/*.journal, raft/*.journal",
                text(JOURNAL_GROUP),
                "journal/format.rs",
            ),
            row(
                "checkpoint record",
                "entry of journal/",
                CHECKPOINT_RECORD.to_string(),
                "replicas/recover.rs",
            ),
            row("Raft snapshot", "entry of raft/", RAFT_SNAPSHOT.to_string(), "raft/pieces.rs"),
            row("metadata image and commands", "in raft/", METADATA.to_string(), "metadata/snapshot.rs"),
            row("segment", "partitions/*/*.log", RECORD_BATCH.to_string(), "log/batch.rs"),
            row("offset and time index", "partitions/*/*.index, *.timeindex", "none".into(), "log/index.rs"),
            row("producer snapshot", "partitions/*/*.snapshot", text(PRODUCER_SNAPSHOT), "log/snapshot.rs"),
            row("rescued entries", "rescued/*.entries", text(RESCUED), "replicas/rescue.rs"),
        ]
    }

    #[test]
    fn the_document_has_the_same_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats.md");
        let document = std::fs::read_to_string(path).expect("docs/formats.md");
        let rows: Vec<[String; 4]> = document
            .lines()
            .skip_while(|line| !line.starts_with("|---"))
            .skip(1)
            .take_while(|line| line.starts_with('|'))
            .map(|line| {
                let cells: Vec<String> =
                    line.trim_matches('|').split('|').map(|cell| cell.trim().into()).collect();
                std::array::from_fn(|n| cells.get(n).cloned().unwrap_or_default())
            })
            .collect();
        assert_eq!(rows, table());
    }
}
