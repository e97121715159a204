//! Our errors as Kafka's codes: the one place where they are mapped.
//!
//! Clients take `KAFKA_STORAGE_ERROR` and `NOT_LEADER_OR_FOLLOWER` for "not written, ask again", so these stand
//! only for what was never submitted. What was submitted and may still become durable is `REQUEST_TIMED_OUT`.

use kafka_protocol::ResponseError;

use crate::coordinator::classic::MemberError;
use crate::coordinator::consumer::ConsumerError;
use crate::coordinator::messages::CoordinatorError;
use crate::coordinator::shard::DeleteError;
use crate::fetch_sessions::SessionError;
use crate::journal::SubmitError;
use crate::log::validate::BatchError;
use crate::metadata::{
    BrokerError, ChangeError, PartitionError, ProducerIdError, ProposeError, RegistrationError, TopicError,
    VoterError,
};
use crate::partition::{AppendError, DeleteRecordsError, ReadError};

/// Kafka's "no error".
pub const NONE: i16 = 0;

/// For one partition of a produce.
pub fn append(error: &AppendError) -> ResponseError {
    match error {
        AppendError::NotLeader(_) => ResponseError::NotLeaderOrFollower,
        AppendError::Storage(submit) => self::submit(*submit),
        AppendError::Overloaded => ResponseError::KafkaStorageError,
        AppendError::NotEnoughReplicas => ResponseError::NotEnoughReplicas,
        AppendError::Unknown => ResponseError::RequestTimedOut,
        AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        AppendError::ProducerFenced { .. } => ResponseError::InvalidProducerEpoch,
        // Deleted, moved away or stopping: where it is now, if it is, the metadata say.
        AppendError::Gone => ResponseError::NotLeaderOrFollower,
    }
}

/// For a fetch of a session.
pub fn fetch_session(error: SessionError) -> ResponseError {
    match error {
        SessionError::Unknown => ResponseError::FetchSessionIdNotFound,
        SessionError::Epoch => ResponseError::InvalidFetchSessionEpoch,
        SessionError::TopicIds => ResponseError::FetchSessionTopicIdError,
    }
}

/// For what a journal did not take: never submitted, so it may be sent again.
pub fn submit(error: SubmitError) -> ResponseError {
    match error {
        SubmitError::TooLarge(_) => ResponseError::MessageTooLarge,
        SubmitError::Closed => ResponseError::NotLeaderOrFollower,
        SubmitError::Full
        | SubmitError::ShareExhausted
        | SubmitError::Stalled
        | SubmitError::NoRoom
        | SubmitError::DiskFull
        | SubmitError::Failed => ResponseError::KafkaStorageError,
    }
}

/// For one partition of a fetch, of ListOffsets and of OffsetForLeaderEpoch.
pub fn read(error: &ReadError) -> ResponseError {
    match error {
        ReadError::OutOfRange(..) => ResponseError::OffsetOutOfRange,
        ReadError::NotLeader => ResponseError::NotLeaderOrFollower,
        ReadError::NotYetKnown => ResponseError::OffsetNotAvailable,
        ReadError::FencedEpoch => ResponseError::FencedLeaderEpoch,
        ReadError::UnknownEpoch => ResponseError::UnknownLeaderEpoch,
        ReadError::Storage(_) => ResponseError::KafkaStorageError,
        ReadError::Corrupt(_) => ResponseError::CorruptMessage,
        // Deleted, moved away or stopping: where it is now, if it is, the metadata say.
        ReadError::Gone => ResponseError::NotLeaderOrFollower,
    }
}

/// For one partition of DeleteRecords.
pub fn delete_records(error: &DeleteRecordsError) -> ResponseError {
    match error {
        DeleteRecordsError::NotLeader => ResponseError::NotLeaderOrFollower,
        DeleteRecordsError::OutOfRange(..) => ResponseError::OffsetOutOfRange,
        DeleteRecordsError::NotYetKnown => ResponseError::OffsetNotAvailable,
        DeleteRecordsError::NotMoved(error) => append(error),
        DeleteRecordsError::TimedOut => ResponseError::RequestTimedOut,
        // Deleted, moved away or stopping: where it is now, if it is, the metadata say.
        DeleteRecordsError::Gone => ResponseError::NotLeaderOrFollower,
    }
}

/// For a change of metadata that was not decided.
pub fn propose(error: &ProposeError) -> ResponseError {
    match error {
        // The admin clients look the controller up again and retry.
        ProposeError::DiskFull => ResponseError::KafkaStorageError,
        ProposeError::NoController | ProposeError::Overloaded | ProposeError::Closed(_) => {
            ResponseError::NotController
        }
        ProposeError::TimedOut => ResponseError::RequestTimedOut,
        ProposeError::TooLarge { .. } => ResponseError::InvalidRequest,
    }
}

/// For a registration.
#[allow(dead_code, reason = "for the API by which other nodes register")]
pub fn registration(error: &RegistrationError) -> ResponseError {
    match error {
        RegistrationError::Copy { .. }
        | RegistrationError::Behind { .. }
        | RegistrationError::Duplicate(_) => ResponseError::DuplicateBrokerRegistration,
    }
}

/// For what a broker asks, or somebody on its behalf.
pub fn broker(error: &BrokerError) -> ResponseError {
    match error {
        BrokerError::NotRegistered(_) => ResponseError::BrokerIdNotRegistered,
        BrokerError::StaleEpoch { .. } => ResponseError::StaleBrokerEpoch,
    }
}

/// For AddRaftVoter and RemoveRaftVoter.
pub fn voter(error: &VoterError) -> ResponseError {
    match error {
        VoterError::Duplicate(_) => ResponseError::DuplicateVoter,
        VoterError::NotFound(..) => ResponseError::VoterNotFound,
        VoterError::Unregistered(_) | VoterError::OtherDirectory(..) | VoterError::LastVoter(_) => {
            ResponseError::InvalidRequest
        }
        VoterError::Undecided(error) => propose(error),
    }
}

/// For one partition of AlterPartition, ElectLeaders and AlterPartitionReassignments.
pub fn partition(error: &PartitionError) -> ResponseError {
    match error {
        PartitionError::UnknownTopic => ResponseError::UnknownTopicId,
        PartitionError::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        PartitionError::Broker(error) => broker(error),
        PartitionError::NotController => ResponseError::NotController,
        PartitionError::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
        PartitionError::InvalidUpdateVersion => ResponseError::InvalidUpdateVersion,
        PartitionError::InvalidRequest(_) | PartitionError::LastReplica | PartitionError::NoSuchReplica => {
            ResponseError::InvalidRequest
        }
        PartitionError::IneligibleReplica(_) => ResponseError::IneligibleReplica,
        PartitionError::NewLeaderElected => ResponseError::NewLeaderElected,
        PartitionError::ElectionNotNeeded => ResponseError::ElectionNotNeeded,
        PartitionError::PreferredLeaderNotAvailable => ResponseError::PreferredLeaderNotAvailable,
        PartitionError::EligibleLeadersNotAvailable => ResponseError::EligibleLeadersNotAvailable,
        PartitionError::NoReassignmentInProgress => ResponseError::NoReassignmentInProgress,
        PartitionError::InvalidReplicaAssignment(_) => ResponseError::InvalidReplicaAssignment,
    }
}

/// For a change of metadata that a client asked for.
pub fn change(error: &ChangeError) -> ResponseError {
    match error {
        ChangeError::Refused(error) => submit(*error),
        ChangeError::Proposal(error) => propose(error),
    }
}

/// For InitProducerId.
pub fn producer_id(error: &ProducerIdError) -> ResponseError {
    match error {
        ProducerIdError::Busy => ResponseError::CoordinatorNotAvailable,
        // Not the controller's business for this client: it asks again.
        ProducerIdError::Change(error) => match change(error) {
            ResponseError::NotController => ResponseError::CoordinatorNotAvailable,
            other => other,
        },
        ProducerIdError::Answer(_) => ResponseError::UnknownServerError,
    }
}

/// For a question about a group. What was not kept, or may not have been, is asked again, of whoever coordinates then.
pub fn coordinator(error: &CoordinatorError) -> ResponseError {
    match error {
        CoordinatorError::NotCoordinator => ResponseError::NotCoordinator,
        CoordinatorError::Loading => ResponseError::CoordinatorLoadInProgress,
        CoordinatorError::NotKept => ResponseError::CoordinatorNotAvailable,
        CoordinatorError::Member(error) => member(error),
        CoordinatorError::Consumer(error) => consumer(error),
        CoordinatorError::Delete(DeleteError::NotFound) => ResponseError::GroupIdNotFound,
        CoordinatorError::Delete(DeleteError::NotEmpty) => ResponseError::NonEmptyGroup,
    }
}

/// For a member of a classic group.
pub fn member(error: &MemberError) -> ResponseError {
    match error {
        MemberError::UnknownMember => ResponseError::UnknownMemberId,
        MemberError::FencedInstance => ResponseError::FencedInstanceId,
        MemberError::IllegalGeneration(_) => ResponseError::IllegalGeneration,
        MemberError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        MemberError::InconsistentProtocol => ResponseError::InconsistentGroupProtocol,
        MemberError::IdRequired(_) => ResponseError::MemberIdRequired,
        MemberError::TooLarge => ResponseError::UnknownServerError,
        MemberError::Full => ResponseError::GroupMaxSizeReached,
        MemberError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
    }
}

/// For a member of a consumer group (KIP-848).
pub fn consumer(error: &ConsumerError) -> ResponseError {
    match error {
        ConsumerError::UnknownMember => ResponseError::UnknownMemberId,
        ConsumerError::FencedEpoch => ResponseError::FencedMemberEpoch,
        ConsumerError::StaleEpoch => ResponseError::StaleMemberEpoch,
        ConsumerError::FencedInstance => ResponseError::FencedInstanceId,
        ConsumerError::UnreleasedInstance => ResponseError::UnreleasedInstanceId,
        ConsumerError::OtherKind => ResponseError::GroupIdNotFound,
        ConsumerError::Full => ResponseError::GroupMaxSizeReached,
        ConsumerError::InvalidPattern => ResponseError::InvalidRegularExpression,
    }
}

/// For one topic, or one resource, of a change of metadata.
pub fn topic(error: &TopicError) -> ResponseError {
    match error {
        TopicError::AlreadyExists(_) => ResponseError::TopicAlreadyExists,
        TopicError::Unknown => ResponseError::UnknownTopicOrPartition,
        TopicError::InvalidName(_) => ResponseError::InvalidTopicException,
        TopicError::InvalidPartitions(_) => ResponseError::InvalidPartitions,
        TopicError::InvalidAssignment(_) => ResponseError::InvalidReplicaAssignment,
        TopicError::InvalidConfig(_) => ResponseError::InvalidConfig,
    }
}

/// For a batch that was not taken to its partition.
pub fn batch(error: &BatchError) -> ResponseError {
    match error {
        // Java's producers split the batch then, which opens to less.
        BatchError::TooLarge { .. } | BatchError::OpensToTooMuch { .. } => ResponseError::MessageTooLarge,
        BatchError::Truncated { .. } | BatchError::Length { .. } | BatchError::Crc { .. } => {
            ResponseError::CorruptMessage
        }
        BatchError::Codec(_) | BatchError::CodecTooNew => ResponseError::UnsupportedCompressionType,
        BatchError::Timestamp { .. } | BatchError::TimestampOutOfRange { .. } | BatchError::TimestampType => {
            ResponseError::InvalidTimestamp
        }
        BatchError::Transactional => ResponseError::InvalidTxnState,
        BatchError::Missing
        | BatchError::NoKey
        | BatchError::Magic(_)
        | BatchError::SeveralBatches
        | BatchError::Control
        | BatchError::Count { .. }
        // It comes as it was made: its producer is not to try again.
        | BatchError::Framing { .. }
        | BatchError::Unopenable { .. }
        | BatchError::Producer { .. } => ResponseError::InvalidRecord,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PartitionId;

    #[test]
    fn only_what_was_never_submitted_is_called_not_persisted() {
        let not_persisted = [ResponseError::KafkaStorageError, ResponseError::NotLeaderOrFollower];
        assert!(not_persisted.contains(&append(&AppendError::NotLeader(PartitionId::NODE))));
        for error in [SubmitError::Full, SubmitError::Stalled, SubmitError::DiskFull, SubmitError::Closed] {
            assert!(not_persisted.contains(&append(&AppendError::Storage(error))), "{error}");
        }
        assert_eq!(append(&AppendError::Unknown), ResponseError::RequestTimedOut);
    }

    #[test]
    fn an_error_is_never_success() {
        assert_ne!(append(&AppendError::Unknown).code(), NONE);
        assert_ne!(read(&ReadError::Corrupt(String::new())).code(), NONE);
        assert_ne!(propose(&ProposeError::TimedOut).code(), NONE);
    }
}
