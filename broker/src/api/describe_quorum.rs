//! DescribeQuorum: who votes in the metadata group, who only follows it, and how far each is.

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_quorum_request;
use kafka_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::{ApiKey, BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, TopicName};

use super::authorization::{Needs, Operation};
use super::create_topics::METADATA_TOPIC;
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::error_codes;
use crate::ids;
use crate::limits;
use crate::metadata::{CLUSTER_LISTENER, MetadataImage, Quorum, QuorumMember};
use crate::wire::shape::{Bounds, I32, Kind, Shape, always, plain};
use crate::wire::{StrBytes, text};

/// What Kafka calls the listener of the metadata group; its tools show it.
const CONTROLLER_LISTENER: &str = "CONTROLLER";
/// Nothing is known.
const UNKNOWN: i64 = -1;

/// DescribeQuorum, key 55 (KIP-595; times: KIP-836; directories and addresses: KIP-853).
impl Api for DescribeQuorumRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::DescribeQuorum,
        versions: Versions::of(0, 2),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnCluster(Operation::Describe),
    };
    type Response = DescribeQuorumResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<DescribeQuorumResponse> {
        let (context, version) = (&call.context, call.head.version);
        if !is_of_metadata(&self.topics) {
            return elsewhere(&self.topics).into();
        }
        let deadline = Deadline::after(&context.backend, limits::ASK_DEADLINE);
        match context.metadata.quorum(deadline).await {
            Ok(quorum) => {
                let now_ms = context.backend.wall_ms();
                described(&quorum, &context.metadata.shown(), now_ms, version).into()
            }
            Err(error) => {
                let response = DescribeQuorumResponse::default();
                let response = response.with_error_code(error_codes::propose(&error).code());
                let message = (version >= MESSAGES_SINCE).then(|| text(&error));
                response.with_error_message(message).into()
            }
        }
    }

    fn errors(response: &DescribeQuorumResponse, each: &mut dyn FnMut(i16)) {
        each(response.error_code);
        response.topics.iter().flat_map(|topic| &topic.partitions).for_each(|one| each(one.error_code));
    }
}

static REQUEST: Shape = plain(&[always(Kind::Many(&Kind::Struct(&TOPIC)))]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(Kind::Many(&Kind::Struct(&PARTITION)))]);
static PARTITION: Shape = plain(&[always(I32)]);

/// Times that members were heard at are told from here on, and messages and directories.
const TIMES_SINCE: i16 = 1;
const MESSAGES_SINCE: i16 = 2;
const DIRECTORIES_SINCE: i16 = 2;

/// Kafka's log of metadata is one partition of one topic.
fn is_of_metadata(topics: &[describe_quorum_request::TopicData]) -> bool {
    let [topic] = topics else { return false };
    let is_first = |one: &describe_quorum_request::PartitionData| one.partition_index == 0;
    topic.topic_name.as_str() == METADATA_TOPIC
        && topic.partitions.len() == 1
        && is_first(&topic.partitions[0])
}

/// No other partition is a quorum's.
fn elsewhere(topics: &[describe_quorum_request::TopicData]) -> DescribeQuorumResponse {
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    let topics = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|one| {
            PartitionData::default()
                .with_partition_index(one.partition_index)
                .with_error_code(unknown)
                .with_error_message(None)
        });
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions.collect())
    });
    DescribeQuorumResponse::default().with_error_message(None).with_topics(topics.collect())
}

fn described(quorum: &Quorum, image: &MetadataImage, now_ms: i64, version: i16) -> DescribeQuorumResponse {
    let replica = |member: &QuorumMember| {
        let mut replica = ReplicaState::default()
            .with_replica_id(BrokerId(member.node.0))
            .with_log_end_offset(i64::try_from(member.end).unwrap_or(i64::MAX));
        if version >= DIRECTORIES_SINCE
            && let Some(broker) = image.brokers.get(&member.node)
        {
            replica.replica_directory_id = broker.registration.storage.0;
        }
        if version >= TIMES_SINCE {
            let ago = member.heard_ms.and_then(|ago| i64::try_from(ago).ok());
            replica.last_fetch_timestamp = ago.map_or(UNKNOWN, |ago| now_ms - ago);
            let has_all = member.end >= quorum.high_watermark;
            replica.last_caught_up_timestamp = if has_all { replica.last_fetch_timestamp } else { UNKNOWN };
        }
        replica
    };
    let those = |votes: bool| {
        quorum.members.iter().filter(|member| member.votes == votes).map(replica).collect::<Vec<_>>()
    };
    let partition = PartitionData::default()
        .with_error_message(None)
        .with_leader_id(BrokerId(quorum.leader.0))
        .with_leader_epoch(i32::try_from(quorum.term).unwrap_or(i32::MAX))
        .with_high_watermark(i64::try_from(quorum.high_watermark).unwrap_or(i64::MAX))
        .with_current_voters(those(true))
        .with_observers(those(false));
    let topic = TopicData::default()
        .with_topic_name(TopicName(StrBytes::from_static_str(METADATA_TOPIC)))
        .with_partitions(vec![partition]);
    let mut response = DescribeQuorumResponse::default().with_error_message(None).with_topics(vec![topic]);
    if version >= DIRECTORIES_SINCE {
        let voters = quorum.members.iter().filter(|member| member.votes);
        response.nodes = voters.filter_map(|member| node(image, member.node)).collect();
    }
    response
}

/// Where a node is reached by the others; alone it listens to nobody.
fn node(image: &MetadataImage, id: ids::BrokerId) -> Option<Node> {
    let endpoint = image.brokers.get(&id)?.registration.listener(CLUSTER_LISTENER);
    let listeners = endpoint.map(|endpoint| {
        Listener::default()
            .with_name(StrBytes::from_static_str(CONTROLLER_LISTENER))
            .with_host(text(&endpoint.host))
            .with_port(endpoint.port)
    });
    Some(Node::default().with_node_id(BrokerId(id.0)).with_listeners(listeners.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::cluster;

    #[test]
    fn voters_and_observers_are_told_with_what_is_known_of_them() {
        let member =
            |id, votes, end, heard_ms| QuorumMember { node: ids::BrokerId(id), votes, end, heard_ms };
        let members =
            vec![member(1, true, 12, Some(0)), member(2, true, 9, Some(70)), member(3, false, 0, None)];
        let quorum = Quorum { leader: ids::BrokerId(1), term: 4, high_watermark: 10, members };
        let response = described(&quorum, &cluster(2), 1_000, 2);
        let partition = &response.topics[0].partitions[0];
        let (leader, epoch, committed) =
            (partition.leader_id.0, partition.leader_epoch, partition.high_watermark);
        assert_eq!((leader, epoch, committed), (1, 4, 10));
        let told = |replica: &ReplicaState| {
            let directory = replica.replica_directory_id.as_u128();
            let (fetched, caught_up) = (replica.last_fetch_timestamp, replica.last_caught_up_timestamp);
            (replica.replica_id.0, directory, replica.log_end_offset, fetched, caught_up)
        };
        let voters: Vec<_> = partition.current_voters.iter().map(told).collect();
        assert_eq!(voters, [(1, 1, 12, 1_000, 1_000), (2, 2, 9, 930, -1)]);
        let observers: Vec<_> = partition.observers.iter().map(told).collect();
        assert_eq!(observers, [(3, 0, 0, -1, -1)], "one that has not registered has no directory");
        assert_eq!(response.nodes.len(), 2);
    }

    #[test]
    fn no_other_partition_is_a_quorums() {
        let topic = |name: &'static str, indexes: &[i32]| {
            let partition =
                |index: &i32| describe_quorum_request::PartitionData::default().with_partition_index(*index);
            describe_quorum_request::TopicData::default()
                .with_topic_name(TopicName(StrBytes::from_static_str(name)))
                .with_partitions(indexes.iter().map(partition).collect())
        };
        assert!(is_of_metadata(&[topic(METADATA_TOPIC, &[0])]));
        for other in [vec![], vec![topic("orders", &[0])], vec![topic(METADATA_TOPIC, &[0, 1])]] {
            assert!(!is_of_metadata(&other), "{other:?}");
            let codes = elsewhere(&other).topics.into_iter().flat_map(|topic| topic.partitions);
            assert!(codes.map(|one| one.error_code).all(|code| code == 3));
        }
    }
}
