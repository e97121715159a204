//! What the coordinator of a partition's groups is asked, and what it answers.

use std::sync::Arc;

use io_backend::Replier;

use super::classic::{ClassicDescription, Join, Joined, MemberError, Sync, Synced};
use super::consumer::{Beat, ConsumerDescription, ConsumerError, Epoch, Heartbeat};
use super::ids::{Generation, GroupId, InstanceId, MemberId};
use super::offsets::Committed;
use super::shard::{CommittedOffsets, Committer, DeleteError, GroupError, Listed, NotDescribed, OffsetsStay};

/// Why the coordinator of a group does nothing for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    /// Another node leads the group's partition, or none does.
    #[error("this node does not coordinate the group")]
    NotCoordinator,
    /// What is known of the group is not read yet.
    #[error("the groups are being loaded")]
    Loading,
    /// What was to be kept was not, or nobody knows: it may be asked for again.
    #[error("it could not be made durable in time")]
    NotKept,
    /// A classic group says no.
    #[error("{0}")]
    Member(#[from] MemberError),
    /// A consumer group says no.
    #[error("{0}")]
    Consumer(#[from] ConsumerError),
    /// The group stays.
    #[error("{0}")]
    Delete(#[from] DeleteError),
}

impl From<GroupError> for CoordinatorError {
    fn from(error: GroupError) -> CoordinatorError {
        match error {
            GroupError::Classic(error) => CoordinatorError::Member(error),
            GroupError::Consumer(error) => CoordinatorError::Consumer(error),
        }
    }
}

/// An answer of the coordinator.
pub type Answered<A> = Result<A, CoordinatorError>;

/// A member that waits for others.
pub enum Waiting {
    /// For the end of the join phase.
    Join(Replier<Answered<Joined>>),
    /// For its assignment.
    Sync(Replier<Answered<Synced>>),
}

/// A question, and who is answered.
pub enum CoordinatorInput {
    /// A member joins; its ticket is who is answered.
    Join {
        /// Which group.
        group: GroupId,
        /// The member's request.
        join: Box<Join<Waiting>>,
        /// The id that it gets, should it need one.
        fresh: MemberId,
    },
    /// A member asks for its assignment; its ticket is who is answered.
    Sync {
        /// Which group.
        group: GroupId,
        /// The member's request.
        sync: Box<Sync<Waiting>>,
    },
    /// A member says that it is there.
    Heartbeat {
        /// Which group.
        group: GroupId,
        /// Who.
        member: MemberId,
        /// What it is called by its operator, of a static member.
        instance: Option<InstanceId>,
        /// What it believes to be a member of.
        generation: Generation,
        /// Who is answered.
        reply: Replier<Answered<()>>,
    },
    /// Members leave.
    Leave {
        /// Which group.
        group: GroupId,
        /// By their own ids or, by an administrator, by those of their operators.
        leaving: Vec<(Option<MemberId>, Option<InstanceId>)>,
        /// Who is answered, for each that was named.
        reply: Replier<Answered<Vec<Result<(), MemberError>>>>,
    },
    /// A member of a consumer group joins, or says how it is.
    ConsumerHeartbeat {
        /// Which group.
        group: GroupId,
        /// What it says.
        beat: Box<Heartbeat>,
        /// Who is answered.
        reply: Replier<Answered<Beat>>,
    },
    /// A member of a consumer group goes.
    ConsumerLeave {
        /// Which group.
        group: GroupId,
        /// Who.
        member: MemberId,
        /// What it is called by its operator, of a static member.
        instance: Option<InstanceId>,
        /// A static member that comes back.
        comes_back: bool,
        /// Who is answered.
        reply: Replier<Answered<()>>,
    },
    /// A group is this far from now on.
    Commit {
        /// Which group.
        group: GroupId,
        /// In whose name.
        by: Committer,
        /// How far.
        offsets: Vec<(Arc<str>, i32, Committed)>,
        /// Who is answered.
        reply: Replier<Answered<()>>,
    },
    /// How far a group is.
    Offsets {
        /// Which group.
        group: GroupId,
        /// Who asks, where it says so: a member of a consumer group is told in its own epoch only.
        by: Option<(MemberId, Epoch)>,
        /// In which partitions; none: wherever it is.
        of: Option<Vec<(Arc<str>, i32)>>,
        /// Who is answered.
        reply: Replier<Answered<CommittedOffsets>>,
    },
    /// A group is to be forgotten.
    Delete {
        /// Which group.
        group: GroupId,
        /// Who is answered.
        reply: Replier<Answered<()>>,
    },
    /// How far a group is in these partitions is to be forgotten.
    DeleteOffsets {
        /// Which group.
        group: GroupId,
        /// Which partitions.
        of: Vec<(Arc<str>, i32)>,
        /// Who is answered, for each partition.
        reply: Replier<Answered<Vec<Result<(), OffsetsStay>>>>,
    },
    /// Which groups there are.
    List {
        /// Who is answered.
        reply: Replier<Answered<Vec<Listed>>>,
    },
    /// How a classic group is.
    Describe {
        /// Which group.
        group: GroupId,
        /// Who is answered.
        reply: Replier<Answered<Result<ClassicDescription, NotDescribed>>>,
    },
    /// How a consumer group is.
    DescribeConsumer {
        /// Which group.
        group: GroupId,
        /// Who is answered.
        reply: Replier<Answered<Result<ConsumerDescription, NotDescribed>>>,
    },
    /// A topic is no more.
    TopicDeleted {
        /// Its name.
        topic: Arc<str>,
        /// When that was seen here, by the wall clock: what is committed later is of another topic of the name.
        seen_ms: i64,
    },
}

impl CoordinatorInput {
    /// Nothing is done for it.
    pub fn refuse(self, error: CoordinatorError) {
        match self {
            CoordinatorInput::Join { join, .. } => join.ticket.refuse(error),
            CoordinatorInput::Sync { sync, .. } => sync.ticket.refuse(error),
            CoordinatorInput::Heartbeat { reply, .. }
            | CoordinatorInput::ConsumerLeave { reply, .. }
            | CoordinatorInput::Commit { reply, .. }
            | CoordinatorInput::Delete { reply, .. } => reply.answer(Err(error)),
            CoordinatorInput::Leave { reply, .. } => reply.answer(Err(error)),
            CoordinatorInput::Offsets { reply, .. } => reply.answer(Err(error)),
            CoordinatorInput::DeleteOffsets { reply, .. } => reply.answer(Err(error)),
            CoordinatorInput::List { reply } => reply.answer(Err(error)),
            CoordinatorInput::Describe { reply, .. } => reply.answer(Err(error)),
            CoordinatorInput::DescribeConsumer { reply, .. } => reply.answer(Err(error)),
            CoordinatorInput::ConsumerHeartbeat { reply, .. } => reply.answer(Err(error)),
            CoordinatorInput::TopicDeleted { .. } => {}
        }
    }
}

impl Waiting {
    /// What it waits for does not come.
    pub fn refuse(self, error: CoordinatorError) {
        match self {
            Waiting::Join(reply) => reply.answer(Err(error)),
            Waiting::Sync(reply) => reply.answer(Err(error)),
        }
    }
}
