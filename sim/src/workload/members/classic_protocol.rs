//! What members of the classic protocol ask of their group's coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::super::connection::{CallError, Terms};
use super::coordinator::{Coordinator, MemberName, REBALANCE, SESSION, WITHIN, by_topic, text};
use crate::history::Place;

/// An empty group waits for more members; and those that come late begin another rebalance.
const INITIAL_DELAY: Duration = Duration::from_secs(3);
const JOIN: i16 = 9;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const LEAVE: i16 = 5;
/// Of the consumers' own protocol.
const CONSUMER: i16 = 0;
const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL: &str = "one-after-the-other";

/// What a member hears when all have joined.
pub(super) struct Joined {
    pub(super) generation: i32,
    /// Of who assigns, the ids of all.
    pub(super) members: Vec<String>,
    /// None of the members assigns.
    pub(super) by_coordinator: bool,
}

fn encoded(message: &impl Encodable) -> Bytes {
    let mut bytes = BytesMut::from(&CONSUMER.to_be_bytes()[..]);
    message.encode(&mut bytes, CONSUMER).expect("a message of our own");
    bytes.freeze()
}

impl<B: Backend> Coordinator<B> {
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
            return Ok(Ok(Joined {
                generation: joined.generation_id,
                members: members.collect(),
                by_coordinator: joined.leader.is_empty(),
            }));
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
}
