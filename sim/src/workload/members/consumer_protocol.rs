//! What members of consumer groups (KIP-848) ask of their group's coordinator: everything is a heartbeat.

use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, TopicName};
use uuid::Uuid;

use super::super::connection::{CallError, Terms};
use super::coordinator::{Coordinator, MemberName, REBALANCE, WITHIN, text};

/// Partitions by the ids of their topics.
pub(super) type Partitions = Vec<(Uuid, Vec<i32>)>;

/// Since this version members give themselves their ids, and may read what an expression matches.
pub(super) const OWN_ID_SINCE: i16 = 1;

/// What a member reads, and how it wants that to be divided.
pub(super) struct Subscription<'a> {
    pub(super) topics: &'a [String],
    /// Instead of these.
    pub(super) pattern: Option<&'a str>,
    pub(super) assignor: Option<&'a str>,
}

/// What a member is told.
pub(super) struct Beaten {
    pub(super) epoch: i32,
    pub(super) interval: Duration,
    /// What it has from now on, where that is said.
    pub(super) given: Option<Partitions>,
}

impl<B: Backend> Coordinator<B> {
    /// Joins, goes, or says how the member is; all of it, with a `subscription`. Who has no id yet is told one.
    pub(super) async fn beat(
        &mut self,
        name: &mut MemberName,
        (version, epoch): (i16, i32),
        subscription: Option<Subscription<'_>>,
        owned: Option<Partitions>,
    ) -> Result<Result<Beaten, ResponseError>, CallError> {
        let mut request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_member_id(text(&name.id))
            .with_member_epoch(epoch)
            .with_instance_id(name.instance.as_deref().map(text))
            .with_rebalance_timeout_ms(-1)
            .with_topic_partitions(owned.map(|owned| {
                let topic = |(id, partitions)| {
                    TopicPartitions::default().with_topic_id(id).with_partitions(partitions)
                };
                owned.into_iter().map(topic).collect()
            }));
        if let Some(of) = subscription {
            let names = of.topics.iter().filter(|_| of.pattern.is_none()).map(|topic| TopicName(text(topic)));
            request = request
                .with_rebalance_timeout_ms(i32::try_from(REBALANCE.as_millis()).unwrap_or(i32::MAX))
                .with_subscribed_topic_names(Some(names.collect()))
                .with_subscribed_topic_regex(of.pattern.map(text))
                .with_server_assignor(of.assignor.map(text));
        }
        let terms = Terms::within(WITHIN);
        let (answer, error) = self.ask(&request, version, terms, |answer| answer.error_code).await?;
        if let Some(error) = error {
            return Ok(Err(error));
        }
        if let Some(id) = answer.member_id.filter(|_| name.id.is_empty()) {
            name.id = id.to_string();
        }
        let given = answer.assignment.map(|assignment| {
            let topics = assignment.topic_partitions.into_iter();
            topics.map(|topic| (topic.topic_id, topic.partitions)).collect()
        });
        let interval = Duration::from_millis(u64::try_from(answer.heartbeat_interval_ms).unwrap_or(0));
        Ok(Ok(Beaten { epoch: answer.member_epoch, interval, given }))
    }
}
