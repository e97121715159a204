//! Probes: situations that a sweep has to have seen, or its silence means nothing.
//!
//! Scenarios and records call them by name. One that nothing here knows is refused when a scenario is loaded, and is a
//! mistake of the code that counts it.

/// Every situation that is worth having been in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    AckedRecords,
    PowerLossWithUnsyncedBytes,
    PowerLossWithUnsyncedNames,
    TornTailCut,
    StallHitInFlight,
    RecordsRecovered,
    IdempotentRetry,
    RefusedInStall,
    ChangedInStall,
    NodeStartedAgain,
    SyncFailed,
    ConsumerStartedOver,
    FaultMetItsState,
    ClientLeft,
    TopicsDeleted,
    SequenceGap,
    EpochRaised,
    UnreadableBatch,
    SnapshotRecovered,
    PlacesTaken,
    ConfigsChanged,
    PartitionsAdded,
    RecordsDeleted,
    ConsumerFellOut,
    LogStartRecovered,
    LogBegunAnewRecovered,
    StartTold,
    DiskFull,
    WithoutOne,
    PartitionsMoved,
    GroupCommits,
    GroupJoined,
    MemberVanished,
    MemberPaused,
    ProtocolChanged,
    AssignedByCoordinator,
    RecordsCompacted,
    ReadWithGaps,
    StartMoved,
    TombstonesGone,
    CleanedSegments,
    KeylessRefused,
    ConsumerGroupJoined,
    PartitionsGivenUp,
    NothingNew,
    SessionNotKnown,
    SessionOvertaken,
    DeletionRefused,
}

impl Probe {
    pub const ALL: [Probe; 48] = [
        Probe::AckedRecords,
        Probe::PowerLossWithUnsyncedBytes,
        Probe::PowerLossWithUnsyncedNames,
        Probe::TornTailCut,
        Probe::StallHitInFlight,
        Probe::RecordsRecovered,
        Probe::IdempotentRetry,
        Probe::RefusedInStall,
        Probe::NodeStartedAgain,
        Probe::SyncFailed,
        Probe::ConsumerStartedOver,
        Probe::FaultMetItsState,
        Probe::ClientLeft,
        Probe::TopicsDeleted,
        Probe::SequenceGap,
        Probe::EpochRaised,
        Probe::UnreadableBatch,
        Probe::SnapshotRecovered,
        Probe::PlacesTaken,
        Probe::ConfigsChanged,
        Probe::PartitionsAdded,
        Probe::RecordsDeleted,
        Probe::ConsumerFellOut,
        Probe::LogStartRecovered,
        Probe::LogBegunAnewRecovered,
        Probe::StartTold,
        Probe::DiskFull,
        Probe::WithoutOne,
        Probe::PartitionsMoved,
        Probe::ChangedInStall,
        Probe::GroupCommits,
        Probe::GroupJoined,
        Probe::MemberVanished,
        Probe::MemberPaused,
        Probe::ProtocolChanged,
        Probe::AssignedByCoordinator,
        Probe::RecordsCompacted,
        Probe::ReadWithGaps,
        Probe::StartMoved,
        Probe::TombstonesGone,
        Probe::CleanedSegments,
        Probe::KeylessRefused,
        Probe::ConsumerGroupJoined,
        Probe::PartitionsGivenUp,
        Probe::NothingNew,
        Probe::SessionNotKnown,
        Probe::SessionOvertaken,
        Probe::DeletionRefused,
    ];

    /// As scenarios require it.
    pub fn name(self) -> &'static str {
        match self {
            Probe::AckedRecords => "acked records",
            Probe::PowerLossWithUnsyncedBytes => "power loss with un-synced bytes in flight",
            Probe::PowerLossWithUnsyncedNames => "power loss with un-synced names",
            Probe::TornTailCut => "torn tail cut",
            Probe::StallHitInFlight => "stall hit an operation in flight",
            Probe::RecordsRecovered => "records recovered from a journal",
            Probe::IdempotentRetry => "idempotent retry of an unknown outcome",
            Probe::RefusedInStall => "refused while the storage stood still",
            Probe::NodeStartedAgain => "node started again",
            Probe::SyncFailed => "sync failed",
            Probe::ConsumerStartedOver => "consumer started over",
            Probe::FaultMetItsState => "fault met the state it waited for",
            Probe::ClientLeft => "a client left in the middle",
            Probe::TopicsDeleted => "topics deleted",
            Probe::SequenceGap => "sequence gap behind a failure",
            Probe::EpochRaised => "producer epoch raised",
            Probe::UnreadableBatch => "batch that cannot be opened",
            Probe::SnapshotRecovered => "metadata recovered from a snapshot",
            Probe::PlacesTaken => "all connections taken",
            Probe::ConfigsChanged => "configurations changed",
            Probe::PartitionsAdded => "partitions added",
            Probe::RecordsDeleted => "records deleted on request",
            Probe::ConsumerFellOut => "consumer fell out of range",
            Probe::LogStartRecovered => "log start recovered from a journal",
            Probe::LogBegunAnewRecovered => "log begun anew recovered from a journal",
            Probe::StartTold => "a start told how far it was",
            Probe::DiskFull => "a disk was written full",
            Probe::WithoutOne => "a node gone for good",
            Probe::PartitionsMoved => "partitions moved",
            Probe::ChangedInStall => "changed where the storage stood still",
            Probe::GroupCommits => "group commits",
            Probe::GroupJoined => "group generations joined",
            Probe::MemberVanished => "members that vanished",
            Probe::MemberPaused => "members that were paused",
            Probe::ProtocolChanged => "members that changed their protocol",
            Probe::AssignedByCoordinator => "classic members that a coordinator assigned to",
            Probe::RecordsCompacted => "records compacted away",
            Probe::CleanedSegments => "segments made by cleaning",
            Probe::ReadWithGaps => "compacted topic read with gaps",
            Probe::StartMoved => "compacted topic's start moved under its reader",
            Probe::TombstonesGone => "tombstones gone",
            Probe::KeylessRefused => "record without a key refused",
            Probe::ConsumerGroupJoined => "consumer groups joined",
            Probe::PartitionsGivenUp => "partitions given up to other members",
            Probe::NothingNew => "partition without news left out",
            Probe::SessionNotKnown => "fetch session not known",
            Probe::SessionOvertaken => "fetch session overtaken on another connection",
            Probe::DeletionRefused => "deletion from a topic that is compacted only refused",
        }
    }

    /// What it stands for.
    pub fn about(self) -> &'static str {
        match self {
            Probe::AckedRecords => "records acknowledged to producers",
            Probe::PowerLossWithUnsyncedBytes => {
                "what was being written to a journal could be kept, dropped or torn"
            }
            Probe::PowerLossWithUnsyncedNames => {
                "files made or renamed without a synced directory could vanish"
            }
            Probe::TornTailCut => "recovery found the last group of a journal damaged and cut it",
            Probe::StallHitInFlight => "a disk stopped in the middle of an operation",
            Probe::RecordsRecovered => "a start replayed record batches from the data journal",
            Probe::IdempotentRetry => "only the broker can tell whether it has the batch already",
            Probe::RefusedInStall => {
                "a producer was refused at once, and not kept waiting, while a disk fault held its journal"
            }
            Probe::NodeStartedAgain => "a node came back after it had ended",
            Probe::SyncFailed => "the kernel may have dropped what the sync should have covered",
            Probe::ConsumerStartedOver => {
                "a partition was read from its beginning again, older data included"
            }
            Probe::FaultMetItsState => {
                "a fault that is aimed at a recovery, a checkpoint or a commit began in it"
            }
            Probe::ClientLeft => "a client went away with requests on their way and answers not read",
            Probe::TopicsDeleted => "a topic was deleted, and its name was free again",
            Probe::SequenceGap => "an idempotent producer had more on its way when a batch failed",
            Probe::EpochRaised => "an idempotent producer began anew under its own id",
            Probe::UnreadableBatch => "a client sent a batch that is sound but for its records",
            Probe::RecordsDeleted => "a client asked for records to be deleted, and was told that they are",
            Probe::ConsumerFellOut => "a consumer was behind what was deleted, and began again",
            Probe::LogStartRecovered => {
                "a start found in the data journal that a log had begun to start later"
            }
            Probe::LogBegunAnewRecovered => {
                "a start found in the data journal that a follower's log had begun anew"
            }
            Probe::StartTold => "whoever asked a node that did not serve yet was told what it was doing",
            Probe::DiskFull => {
                "something did not fit on a disk any more, for what is on it and not for a fault"
            }
            Probe::PartitionsMoved => "a client had partitions kept by other nodes",
            Probe::ChangedInStall => {
                "a change of metadata was made for a client of a node whose disk stood still all the while"
            }
            Probe::GroupCommits => "offsets that members of groups were told are committed",
            Probe::GroupJoined => "members that were told what they are to read, once for each generation",
            Probe::MemberVanished => "members of groups that went away without a word",
            Probe::MemberPaused => "members of groups that did nothing for longer than their sessions last",
            Probe::ProtocolChanged => "a member of a group came anew, and spoke the other protocol",
            Probe::AssignedByCoordinator => {
                "members of the classic protocol that were told what they read in a consumer group"
            }
            Probe::CleanedSegments => "segments that lay on the disks in the end and were made of older ones",
            Probe::RecordsCompacted => {
                "offsets of compacted topics that somebody read whole and found no record at, at most"
            }
            Probe::ReadWithGaps => "somebody read a partition whole, and offsets had no records",
            Probe::StartMoved => "whoever read a compacted topic asked for what was deleted for its age",
            Probe::TombstonesGone => {
                "keys that were to be forgotten, and of which whoever read everything found nothing any more"
            }
            Probe::KeylessRefused => "a compacted topic takes no record that has no key",
            Probe::ConsumerGroupJoined => {
                "members of consumer groups (KIP-848) that were told what they have"
            }
            Probe::PartitionsGivenUp => "a member of a consumer group gave up what another one is to have",
            Probe::NothingNew => "an answer in a fetch session did not tell what its client knew",
            Probe::SessionNotKnown => {
                "a fetch session was given up for others, or ended with a node's process"
            }
            Probe::DeletionRefused => "records are deleted on request where the topic's policy deletes",
            Probe::SessionOvertaken => {
                "a request of a fetch session came on two connections, and one was refused"
            }
            Probe::WithoutOne => "a node was broken for good, and the others had to go on",
            Probe::PlacesTaken => "a node had as many client connections as it takes",
            Probe::ConfigsChanged => "a configuration of a topic or of brokers was changed while they ran",
            Probe::PartitionsAdded => "a topic got a partition more, which was written to at once",
            Probe::SnapshotRecovered => "a start found a snapshot of the metadata image in Raft's journal",
        }
    }

    pub fn of_name(name: &str) -> Option<Probe> {
        Probe::ALL.into_iter().find(|probe| probe.name() == name)
    }
}

pub fn is_known(name: &str) -> bool {
    Probe::of_name(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_has_a_name_of_its_own() {
        for probe in Probe::ALL {
            assert_eq!(Probe::of_name(probe.name()), Some(probe));
        }
        assert!(!is_known("unknown-outcomes"));
    }
}
