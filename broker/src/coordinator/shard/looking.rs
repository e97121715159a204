//! What administrators see of the groups of a partition, and what they take away.

use std::sync::Arc;

use super::super::classic::ClassicDescription;
use super::super::consumer::ConsumerDescription;
use super::super::consumer_protocol::PROTOCOL_TYPE;
use super::super::ids::GroupId;
use super::super::progress::{GroupProgress, Progress};
use super::{DeleteError, Members, Shard};

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub group: GroupId,
    /// What it is for; none where nobody ever said.
    pub protocol_type: Option<Arc<str>>,
    /// Kafka's name of its state.
    pub state: &'static str,
    /// By which protocol its members speak.
    pub kind: GroupKind,
}

/// By which protocol the members of a group speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// They assign partitions among themselves.
    Classic,
    /// The coordinator assigns.
    Consumer,
}

impl GroupKind {
    /// Kafka's word for it.
    pub fn name(self) -> &'static str {
        match self {
            GroupKind::Classic => "Classic",
            GroupKind::Consumer => "Consumer",
        }
    }
}

/// Why nothing is told of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDescribed {
    /// No group has this name.
    #[error("there is no such group")]
    NotFound,
    /// Its members speak the other protocol.
    #[error("the group is of the other protocol")]
    OtherKind,
}

/// Why the offsets of a group stay, in one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffsetsStay {
    /// Its members read it.
    #[error("the group's members read the topic")]
    Subscribed,
}

impl<T> Shard<T> {
    /// All groups, in the order of their names.
    pub fn list(&self) -> Vec<Listed> {
        let groups = self.groups.iter().map(|(id, group)| match &group.members {
            Members::Classic(members) => Listed {
                group: id.clone(),
                protocol_type: members.protocol_type().cloned(),
                state: members.state_name(),
                kind: GroupKind::Classic,
            },
            Members::Consumer(members) => Listed {
                group: id.clone(),
                protocol_type: Some(Arc::from(PROTOCOL_TYPE)),
                state: members.state_name(),
                kind: GroupKind::Consumer,
            },
        });
        groups.collect()
    }

    /// How far all groups are; `most` partitions at most.
    pub fn progress(&self, most: usize) -> Progress {
        let all = self.groups.iter().flat_map(|(group, of)| {
            of.offsets.iter().map(move |(topic, partition, committed)| (group, topic, partition, committed))
        });
        let told = all.take(most).map(|(group, topic, partition, committed)| GroupProgress {
            group: group.clone(),
            topic: topic.clone(),
            partition,
            offset: committed.offset,
        });
        let committed: Vec<GroupProgress> = told.collect();
        let all: usize = self.groups.values().map(|of| of.offsets.partitions()).sum();
        Progress { left_out: all - committed.len(), committed }
    }

    /// A classic group.
    ///
    /// # Errors
    /// There is no such group, or it is of the other kind.
    pub fn describe(&self, id: &GroupId) -> Result<ClassicDescription, NotDescribed> {
        match &self.groups.get(id).ok_or(NotDescribed::NotFound)?.members {
            Members::Classic(group) => Ok(group.description()),
            Members::Consumer(_) => Err(NotDescribed::OtherKind),
        }
    }

    /// A consumer group.
    ///
    /// # Errors
    /// There is no such group, or it is of the other kind.
    pub fn describe_consumer(&self, id: &GroupId) -> Result<ConsumerDescription, NotDescribed> {
        match &self.groups.get(id).ok_or(NotDescribed::NotFound)?.members {
            Members::Consumer(group) => Ok(group.description()),
            Members::Classic(_) => Err(NotDescribed::OtherKind),
        }
    }

    /// Forgets how far a group is in these partitions. Answers stand in their order.
    ///
    /// # Errors
    /// There is no such group, or its members are no consumers, so that nobody knows what they read.
    pub fn delete_offsets(
        &mut self,
        id: &GroupId,
        of: &[(Arc<str>, i32)],
    ) -> Result<Vec<Result<(), OffsetsStay>>, DeleteError> {
        let group = self.groups.get(id).ok_or(DeleteError::NotFound)?;
        let is_read = |topic: &str| match &group.members {
            members if members.is_empty() => false,
            Members::Classic(members) => members.reads(topic),
            Members::Consumer(members) => {
                members.subscribed_names().is_none_or(|names| names.iter().any(|name| &**name == topic))
            }
        };
        if let Members::Classic(members) = &group.members
            && !members.is_empty()
            && members.protocol_type().map(|kind| &**kind) != Some(PROTOCOL_TYPE)
        {
            return Err(DeleteError::NotEmpty);
        }
        let read: Vec<bool> = of.iter().map(|(topic, _)| is_read(topic)).collect();
        let over = of.iter().zip(&read).filter(|(_, read)| !**read).map(|(of, _)| of.clone());
        let over = over.filter(|(topic, partition)| group.offsets.get(topic, *partition).is_some()).collect();
        self.forget_offsets(id, over);
        self.drop_if_unused(id);
        Ok(read.into_iter().map(|read| if read { Err(OffsetsStay::Subscribed) } else { Ok(()) }).collect())
    }
}
