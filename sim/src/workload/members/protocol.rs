//! What a member asks of its group's coordinator, and how it finds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, FindCoordinatorRequest, GroupId,
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request as Api, StrBytes};

use super::super::client::Client;
use super::super::connection::{CallError, Terms};
use super::super::lines::Lines;
use super::progress::partition_of;
use crate::history::groups::GroupPosition;
use crate::history::{At, Place, Trade, wire_name};

/// What a member asks for: silent for so long, it is gone.
pub(super) const SESSION: Duration = Duration::from_secs(3);
pub(super) const HEARTBEAT_EVERY: Duration = Duration::from_millis(700);
/// What it needs at most to come back to a rebalance.
const REBALANCE: Duration = Duration::from_secs(6);
/// What the coordinator is granted for an answer that waits for nobody but disks.
const WITHIN: Duration = Duration::from_secs(12);
/// An empty group waits for more members; and those that come late begin another rebalance.
const INITIAL_DELAY: Duration = Duration::from_secs(3);
const FIND: i16 = 4;
const JOIN: i16 = 9;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const LEAVE: i16 = 5;
const COMMIT: i16 = 8;
const FETCH: i16 = 7;
/// Of the consumers' own protocol.
const CONSUMER: i16 = 0;
const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL: &str = "one-after-the-other";
/// Where groups are kept, and on how many partitions in the testbed.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
pub const OFFSETS_PARTITIONS: i32 = 3;

/// Who a member is to its group.
pub(super) struct MemberName {
    /// Empty until it has one.
    pub(super) id: String,
    pub(super) instance: Option<String>,
}

/// What a member hears when all have joined.
pub(super) struct Joined {
    pub(super) generation: i32,
    /// Of who assigns, the ids of all.
    pub(super) members: Vec<String>,
}

/// The way to a group's coordinator.
pub struct Coordinator<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    group: Arc<str>,
    /// As far as it is known, and since when.
    node: Option<(u32, At)>,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn encoded(message: &impl Encodable) -> Bytes {
    let mut bytes = BytesMut::from(&CONSUMER.to_be_bytes()[..]);
    message.encode(&mut bytes, CONSUMER).expect("a message of our own");
    bytes.freeze()
}

/// By topic, in their order.
fn by_topic<T>(places: impl Iterator<Item = (Place, T)>) -> BTreeMap<String, Vec<(i32, T)>> {
    let mut topics: BTreeMap<String, Vec<(i32, T)>> = BTreeMap::new();
    for (place, of) in places {
        topics.entry(wire_name(&place.topic).to_owned()).or_default().push((place.partition, of));
    }
    topics
}

impl<B: Backend> Coordinator<B> {
    pub fn new(client: &Client<B>, group: Arc<str>) -> Coordinator<B> {
        Coordinator { client: client.clone(), line: Lines::new(client), group, node: None }
    }

    fn group_id(&self) -> GroupId {
        GroupId(text(&self.group))
    }

    /// As who goes away without a word.
    pub(super) fn close(&mut self) {
        self.line.close_all();
        self.node = None;
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

    /// Only what says that the coordinator is not there is not part of a member's life.
    fn complain(&self, code: i16, sent: At) {
        let is_ordinary = matches!(
            ResponseError::try_from_code(code),
            None | Some(
                ResponseError::RebalanceInProgress
                    | ResponseError::UnknownMemberId
                    | ResponseError::IllegalGeneration
                    | ResponseError::FencedInstanceId
                    | ResponseError::MemberIdRequired
            )
        );
        if !is_ordinary {
            let partition = partition_of(&self.group, OFFSETS_PARTITIONS);
            let place = Place { topic: OFFSETS_TOPIC.into(), partition };
            let times = (sent, self.client.now());
            let found = self.node.map(|(_, found)| found);
            self.client.complain_as_routed(Trade::Group, Some(&place), code, times, found);
        }
    }

    /// The answer, and what it says instead of what was asked for.
    async fn ask<R: Api>(
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
        Ok((answer, error))
    }

    /// Until all others have joined as well. Who has no id yet is told one.
    pub(super) async fn join(
        &mut self,
        name: &mut MemberName,
        topics: &[String],
    ) -> Result<Result<Joined, ResponseError>, CallError> {
        let topics = topics.iter().map(|topic| text(topic)).collect();
        let subscription = ConsumerProtocolSubscription::default().with_topics(topics);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text(PROTOCOL))
            .with_metadata(encoded(&subscription));
        let ms = |span: Duration| i32::try_from(span.as_millis()).unwrap_or(i32::MAX);
        loop {
            let request = JoinGroupRequest::default()
                .with_group_id(self.group_id())
                .with_session_timeout_ms(ms(SESSION))
                .with_rebalance_timeout_ms(ms(REBALANCE))
                .with_member_id(text(&name.id))
                .with_group_instance_id(name.instance.as_deref().map(text))
                .with_protocol_type(text(PROTOCOL_TYPE))
                .with_protocols(vec![protocol.clone()]);
            // The last round may have to end first.
            let terms = Terms { wait: REBALANCE * 2 + SESSION + INITIAL_DELAY, within: WITHIN };
            let (joined, error) = self.ask(&request, JOIN, terms, |answer| answer.error_code).await?;
            match error {
                None => {}
                Some(ResponseError::MemberIdRequired) => {
                    name.id = joined.member_id.to_string();
                    continue;
                }
                Some(error) => return Ok(Err(error)),
            }
            name.id = joined.member_id.to_string();
            let leads = joined.leader == joined.member_id && !joined.skip_assignment;
            let members = joined.members.iter().filter(|_| leads).map(|one| one.member_id.to_string());
            return Ok(Ok(Joined { generation: joined.generation_id, members: members.collect() }));
        }
    }

    /// What the member is to read; who assigns says so for all.
    pub(super) async fn sync(
        &mut self,
        name: &MemberName,
        generation: i32,
        assignments: BTreeMap<String, Vec<Place>>,
    ) -> Result<Result<Vec<Place>, ResponseError>, CallError> {
        let assignments = assignments.into_iter().map(|(member, places)| {
            let topics = by_topic(places.into_iter().map(|place| (place, ()))).into_iter();
            let topics = topics.map(|(topic, partitions)| {
                TopicPartition::default()
                    .with_topic(TopicName(text(&topic)))
                    .with_partitions(partitions.into_iter().map(|(partition, ())| partition).collect())
            });
            let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect());
            SyncGroupRequestAssignment::default()
                .with_member_id(text(&member))
                .with_assignment(encoded(&assignment))
        });
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(generation)
            .with_member_id(text(&name.id))
            .with_group_instance_id(name.instance.as_deref().map(text))
            .with_protocol_type(Some(text(PROTOCOL_TYPE)))
            .with_protocol_name(Some(text(PROTOCOL)))
            .with_assignments(assignments.collect());
        let terms = Terms { wait: REBALANCE, within: WITHIN };
        let (synced, error) = self.ask(&request, SYNC, terms, |answer| answer.error_code).await?;
        if let Some(error) = error {
            return Ok(Err(error));
        }
        // Who was left out is assigned nothing.
        let mut bytes = synced.assignment.slice(2.min(synced.assignment.len())..);
        if bytes.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let assignment = ConsumerProtocolAssignment::decode(&mut bytes, CONSUMER)
            .map_err(|error| CallError::Unreadable(format!("an assignment: {error}")))?;
        let places = assignment.assigned_partitions.iter().flat_map(|topic| {
            let name: Arc<str> = topic.topic.as_str().into();
            topic.partitions.iter().map(move |partition| Place { topic: name.clone(), partition: *partition })
        });
        Ok(Ok(places.collect()))
    }

    pub(super) async fn heartbeat(
        &mut self,
        name: &MemberName,
        generation: i32,
    ) -> Result<Result<(), ResponseError>, CallError> {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(generation)
            .with_member_id(text(&name.id))
            .with_group_instance_id(name.instance.as_deref().map(text));
        let (_, error) =
            self.ask(&request, HEARTBEAT, Terms::within(WITHIN), |answer| answer.error_code).await?;
        Ok(error.map_or(Ok(()), Err))
    }

    /// A static member stays in its group when its process ends.
    pub(super) async fn leave(&mut self, name: &MemberName) -> Result<(), CallError> {
        if name.id.is_empty() || name.instance.is_some() {
            return Ok(());
        }
        let member = MemberIdentity::default().with_member_id(text(&name.id));
        let request = LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![member]);
        self.ask(&request, LEAVE, Terms::within(WITHIN), |answer| answer.error_code).await?;
        Ok(())
    }

    /// Says how far the group is; what is wrong with that, if anything.
    pub(super) async fn commit(
        &mut self,
        name: &MemberName,
        generation: i32,
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
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(text(&name.id))
            .with_group_instance_id(name.instance.as_deref().map(text))
            .with_topics(topics.collect());
        let worst = |answer: &<OffsetCommitRequest as Api>::Response| {
            let all = answer.topics.iter().flat_map(|topic| &topic.partitions);
            all.map(|partition| partition.error_code).find(|code| *code != 0).unwrap_or(0)
        };
        Ok(self.ask(&request, COMMIT, Terms::within(WITHIN), worst).await?.1)
    }
}

/// How far a group is in these, as its coordinator says; -1 where it is nowhere. It is written down.
pub async fn positions_of<B: Backend>(
    client: &Client<B>,
    coordinator: &mut Coordinator<B>,
    places: &[Place],
) -> Result<Result<BTreeMap<Place, i64>, ResponseError>, CallError> {
    let topics = by_topic(places.iter().map(|place| (place.clone(), ()))).into_iter();
    let topics = topics.map(|(topic, partitions)| {
        OffsetFetchRequestTopic::default()
            .with_name(TopicName(text(&topic)))
            .with_partition_indexes(partitions.into_iter().map(|(partition, ())| partition).collect())
    });
    let request = OffsetFetchRequest::default()
        .with_group_id(coordinator.group_id())
        .with_topics(Some(topics.collect()))
        .with_require_stable(true);
    let sent = client.now();
    let (answer, error) =
        coordinator.ask(&request, FETCH, Terms::within(WITHIN), |answer| answer.error_code).await?;
    if let Some(error) = error {
        return Ok(Err(error));
    }
    let at = client.now();
    let mut positions = BTreeMap::new();
    for topic in answer.topics {
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
