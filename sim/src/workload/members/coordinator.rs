//! The way to a group's coordinator: how it is found, and what members of both protocols ask it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    ApiKey, FindCoordinatorRequest, GroupId, OffsetCommitRequest, OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::{Request as Api, StrBytes};

use super::super::client::Client;
use super::super::connection::{CallError, Terms, ns};
use super::super::lines::Lines;
use super::progress::partition_of;
use crate::history::groups::GroupPosition;
use crate::history::{At, Place, Trade, wire_name};

/// Silent for so long, a member is gone: what classic ones ask for, and what the testbed's brokers grant to the others.
pub const SESSION: Duration = Duration::from_secs(3);
/// How often members are to be heard of.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(700);
/// What a member needs at most to come back to a rebalance, or to give up a partition.
pub(super) const REBALANCE: Duration = Duration::from_secs(6);
/// What the coordinator is granted for an answer that waits for nobody but disks.
pub(super) const WITHIN: Duration = Duration::from_secs(12);
const FIND: i16 = 4;
/// Since this version OffsetCommit and OffsetFetch know of members' epochs (KIP-848), and the latter of several groups.
const OF_EPOCHS: i16 = 9;
/// The versions that classic members speak.
const COMMIT: i16 = 8;
const FETCH: i16 = 8;
/// Where groups are kept, and on how many partitions in the testbed.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
pub const OFFSETS_PARTITIONS: i32 = 3;

/// The partition that keeps a group.
pub(crate) fn kept_in(group: &str) -> Place {
    Place { topic: OFFSETS_TOPIC.into(), partition: partition_of(group, OFFSETS_PARTITIONS) }
}

/// Who a member is to its group.
pub(super) struct MemberName {
    /// Empty until it has one.
    pub(super) id: String,
    pub(super) instance: Option<String>,
}

/// In whose name a group's progress is told.
#[derive(Clone, Copy)]
pub(super) enum As<'a> {
    Classic(&'a MemberName, i32),
    /// In its epoch.
    Consumer(&'a MemberName, i32),
}

/// The way to a group's coordinator.
pub struct Coordinator<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    group: Arc<str>,
    /// As far as it is known, and since when.
    node: Option<(u32, At)>,
    /// Since when the coordinator surely has heard of the member, which was then told that all is well.
    in_touch: Option<At>,
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// By topic, in their order.
pub(super) fn by_topic<T>(places: impl Iterator<Item = (Place, T)>) -> BTreeMap<String, Vec<(i32, T)>> {
    let mut topics: BTreeMap<String, Vec<(i32, T)>> = BTreeMap::new();
    for (place, of) in places {
        topics.entry(wire_name(&place.topic).to_owned()).or_default().push((place.partition, of));
    }
    topics
}

/// What an error says of who asked.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Standing {
    /// It is to do something: part of a member's life.
    Asked,
    /// It is not what it believes to be.
    Lost,
    /// Who answers does not coordinate the group, or not yet.
    Away,
}

pub(super) fn standing(error: ResponseError) -> Standing {
    use ResponseError::*;
    match error {
        RebalanceInProgress | MemberIdRequired => Standing::Asked,
        UnknownMemberId | IllegalGeneration | FencedInstanceId | FencedMemberEpoch | StaleMemberEpoch
        | UnreleasedInstanceId => Standing::Lost,
        _ => Standing::Away,
    }
}

impl<B: Backend> Coordinator<B> {
    pub fn new(client: &Client<B>, group: Arc<str>) -> Coordinator<B> {
        Coordinator { client: client.clone(), line: Lines::new(client), group, node: None, in_touch: None }
    }

    pub(super) fn group_id(&self) -> GroupId {
        GroupId(text(&self.group))
    }

    /// As who goes away without a word.
    pub(super) fn close(&mut self) {
        self.line.close_all();
        self.node = None;
        self.in_touch = None;
    }

    /// Whatever it was, the member is that no more.
    pub(super) fn forget_member(&mut self) {
        self.in_touch = None;
    }

    async fn find(&mut self) -> Result<u32, CallError> {
        if let Some((node, _)) = self.node {
            return Ok(node);
        }
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(&self.group)]);
        let sent = self.client.now();
        let answer = self.line.call(Trade::Group, &request, FIND, WITHIN, |_| true).await?;
        let found = answer.coordinators.first();
        let code = found.map_or(0, |found| found.error_code);
        self.complain(code, sent);
        let node = found.filter(|found| found.error_code == 0);
        let node = node.and_then(|found| u32::try_from(found.node_id.0).ok());
        let now = self.client.now();
        self.node = node.map(|node| (node, now));
        let mut notes = self.client.field.notes.write();
        if node.is_some() {
            // From now on it is to be there.
            notes.topics.entry(OFFSETS_TOPIC.to_owned()).or_insert(now);
        }
        drop(notes);
        if node.is_none() {
            self.line.turn_away();
        }
        node.ok_or_else(|| CallError::Unreadable(format!("no coordinator: error {code}")))
    }

    /// What is no part of a member's life: the coordinator is not there, or takes a member for gone that it has heard of in time.
    fn complain(&self, code: i16, sent: At) {
        let now = self.client.now();
        let Some(error) = ResponseError::try_from_code(code) else { return };
        let known = match standing(error) {
            Standing::Asked => return,
            Standing::Lost => match self.in_touch.filter(|since| now < since + ns(SESSION)) {
                None => return,
                since => since,
            },
            Standing::Away => self.node.map(|(_, found)| found),
        };
        let place = kept_in(&self.group);
        self.client.complain_as_routed(Trade::Group, Some(&place), code, (sent, now), known);
    }

    /// The answer, and what it says instead of what was asked for.
    pub(super) async fn ask<R: Api>(
        &mut self,
        request: &R,
        version: i16,
        terms: Terms,
        code: impl Fn(&R::Response) -> i16,
    ) -> Result<(R::Response, Option<ResponseError>), CallError> {
        let node = self.find().await?;
        let sent = self.client.now();
        let answer = match self.line.call_node(node, Trade::Group, request, version, terms, |_| true).await {
            Ok(answer) => answer,
            Err(error) => {
                self.node = None;
                return Err(error);
            }
        };
        let code = code(&answer);
        self.complain(code, sent);
        let error = ResponseError::try_from_code(code);
        if matches!(error, Some(ResponseError::NotCoordinator | ResponseError::CoordinatorNotAvailable)) {
            self.node = None;
            self.line.turn_away();
        }
        self.heard_of::<R>(error, sent, terms);
        Ok((answer, error))
    }

    /// Who waited for others was heard of in the end.
    fn heard_of<R: Api>(&mut self, error: Option<ResponseError>, sent: At, terms: Terms) {
        let of_members =
            [ApiKey::JoinGroup, ApiKey::SyncGroup, ApiKey::Heartbeat, ApiKey::ConsumerGroupHeartbeat];
        if error.is_none() && of_members.iter().any(|key| *key as i16 == R::KEY) {
            self.in_touch = Some(if terms.wait.is_zero() { sent } else { self.client.now() });
        }
    }

    /// Says how far the group is; what is wrong with that, if anything.
    pub(super) async fn commit(
        &mut self,
        by: As<'_>,
        offsets: &[(Place, i64)],
    ) -> Result<Option<ResponseError>, CallError> {
        let topics = by_topic(offsets.iter().cloned()).into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|(partition, offset)| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition)
                    .with_committed_offset(offset)
                    .with_committed_metadata(Some(text("")))
            });
            OffsetCommitRequestTopic::default()
                .with_name(TopicName(text(&topic)))
                .with_partitions(partitions.collect())
        });
        let (As::Classic(name, epoch) | As::Consumer(name, epoch)) = by;
        let version = if matches!(by, As::Consumer(..)) { OF_EPOCHS } else { COMMIT };
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(epoch)
            .with_member_id(text(&name.id))
            .with_group_instance_id(name.instance.as_deref().map(text))
            .with_topics(topics.collect());
        let worst = |answer: &<OffsetCommitRequest as Api>::Response| {
            let all = answer.topics.iter().flat_map(|topic| &topic.partitions);
            all.map(|partition| partition.error_code).find(|code| *code != 0).unwrap_or(0)
        };
        Ok(self.ask(&request, version, Terms::within(WITHIN), worst).await?.1)
    }
}

/// How far a group is in these, as its coordinator says; -1 where it is nowhere. It is written down.
pub(crate) async fn positions_of<B: Backend>(
    client: &Client<B>,
    coordinator: &mut Coordinator<B>,
    places: &[Place],
) -> Result<Result<BTreeMap<Place, i64>, ResponseError>, CallError> {
    positions_as(client, coordinator, places, None).await
}

/// ... as it says to a member of a consumer group: to no other, where one is named.
pub(super) async fn positions_as<B: Backend>(
    client: &Client<B>,
    coordinator: &mut Coordinator<B>,
    places: &[Place],
    member: Option<(&MemberName, i32)>,
) -> Result<Result<BTreeMap<Place, i64>, ResponseError>, CallError> {
    let topics = by_topic(places.iter().map(|place| (place.clone(), ()))).into_iter();
    let topics = topics.map(|(topic, partitions)| {
        OffsetFetchRequestTopics::default()
            .with_name(TopicName(text(&topic)))
            .with_partition_indexes(partitions.into_iter().map(|(partition, ())| partition).collect())
    });
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(coordinator.group_id())
        .with_topics(Some(topics.collect()));
    let (group, version) = match member {
        Some((name, epoch)) => {
            (group.with_member_id(Some(text(&name.id))).with_member_epoch(epoch), OF_EPOCHS)
        }
        None => (group, FETCH),
    };
    let request = OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(true);
    let sent = client.now();
    let code = |answer: &<OffsetFetchRequest as Api>::Response| {
        answer.groups.first().map_or(answer.error_code, |group| group.error_code)
    };
    let (answer, error) = coordinator.ask(&request, version, Terms::within(WITHIN), code).await?;
    if let Some(error) = error {
        return Ok(Err(error));
    }
    let at = client.now();
    let mut positions = BTreeMap::new();
    for topic in answer.groups.into_iter().flat_map(|group| group.topics) {
        for partition in topic.partitions {
            let is_it = |place: &&Place| {
                *wire_name(&place.topic) == *topic.name.as_str()
                    && place.partition == partition.partition_index
            };
            let Some(place) = places.iter().find(is_it) else { continue };
            positions.insert(place.clone(), partition.committed_offset);
            client.field.notes.write().groups.positions.push(GroupPosition {
                client: client.name.clone(),
                group: coordinator.group.clone(),
                place: place.clone(),
                offset: partition.committed_offset,
                sent,
                at,
            });
        }
    }
    Ok(Ok(positions))
}
