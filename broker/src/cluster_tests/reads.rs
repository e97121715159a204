//! What clients are told by each of three nodes about a partition that one of them leads.

use io_backend::Published;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{NodeEndpoint, PartitionData};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::log::test_batches::BatchSpec;
use crate::server::test_node::TestNode;

const NOT_LEADER: i16 = 6;
const FENCED: i16 = 74;
const UNKNOWN_EPOCH: i16 = 75;

fn door(node: &Node<RealBackend>) -> TestNode {
    TestNode {
        context: node.context().clone(),
        stop: Published::new("unused", false),
        address: node.kafka_address().to_owned(),
        served: Published::new("unused", false),
    }
}

async fn asked(node: &Node<RealBackend>, key: ApiKey, version: i16, request: RequestKind) -> ResponseKind {
    let mut client = door(node).connect().await;
    client.send(1, key, version, request).await;
    client.message(key, version).await.1
}

async fn produce(node: &Node<RealBackend>, topic: TopicId) -> produce_response::ProduceResponse {
    let data = PartitionProduceData::default().with_records(Some(BatchSpec::records(3).build()));
    let topic = TopicProduceData::default().with_topic_id(topic.0).with_partition_data(vec![data]);
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![topic]);
    match asked(node, ApiKey::Produce, 13, request.into()).await {
        ResponseKind::Produce(response) => response,
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Copy)]
struct Reader {
    version: i16,
    rack: &'static str,
    epoch: i32,
}

/// What it is told of the first partition, which it reads from its beginning, and of who is where.
async fn fetch(
    node: &Node<RealBackend>,
    topic: TopicId,
    reader: Reader,
) -> (PartitionData, Vec<NodeEndpoint>) {
    let partition =
        FetchPartition::default().with_partition_max_bytes(1 << 20).with_current_leader_epoch(reader.epoch);
    let mut topic = FetchTopic::default().with_topic_id(topic.0).with_partitions(vec![partition]);
    if reader.version < 13 {
        topic = topic.with_topic_id(Uuid::nil()).with_topic(TopicName(StrBytes::from_static_str("orders")));
    }
    let mut request = FetchRequest::default()
        .with_max_wait_ms(20_000)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    if reader.version >= 11 {
        request.rack_id = StrBytes::from_static_str(reader.rack);
    }
    match asked(node, ApiKey::Fetch, reader.version, request.into()).await {
        ResponseKind::Fetch(response) => {
            (response.responses[0].partitions[0].clone(), response.node_endpoints)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_follower_serves_consumers_what_is_committed_and_tells_others_who_leads() {
    with_cluster(async |mut cluster| {
        cluster.start(&NODES).await;
        cluster.all(|image| image.alive_brokers().count() == 3).await;
        cluster.create_with(1, "orders", &[2, 3, 1]).await;
        cluster.all(|image| image.topics.contains_key("orders")).await;
        let topic = cluster.image(1).topics["orders"].clone();
        let until = cluster.backend.now() + Duration::from_secs(60);
        let leader = &cluster.nodes[&2];
        assert!(crate::routing::until_led(leader.context(), std::slice::from_ref(&topic), until).await);
        let produced = produce(leader, topic.id).await;
        assert_eq!(produced.responses[0].partition_responses[0].error_code, 0, "{produced:?}");

        // Of a consumer in its own rack, the leader knows somebody nearer; not of one in its rack, or in none.
        let latest = Reader { version: 18, rack: "rack-3", epoch: -1 };
        let (sent_away, _) = fetch(leader, topic.id, latest).await;
        assert_eq!((sent_away.error_code, sent_away.preferred_read_replica.0), (0, 3));
        assert!(sent_away.records.unwrap().is_empty());
        for rack in ["rack-2", "", "elsewhere"] {
            let (read, _) = fetch(leader, topic.id, Reader { rack, ..latest }).await;
            assert_eq!((read.error_code, read.preferred_read_replica.0), (0, -1), "{rack}");
            assert!(!read.records.unwrap().is_empty(), "{rack}");
        }

        // The fetch waits until the follower knows that there is something committed.
        let follower = &cluster.nodes[&3];
        let (read, _) = fetch(follower, topic.id, latest).await;
        assert_eq!((read.error_code, read.high_watermark), (0, 3));
        assert!(!read.records.unwrap().is_empty());
        let epoch = topic.partitions[0].leader_epoch.0;
        let in_epoch = async |epoch| fetch(follower, topic.id, Reader { epoch, ..latest }).await.0.error_code;
        assert_eq!([in_epoch(epoch).await, in_epoch(epoch + 1).await], [0, UNKNOWN_EPOCH]);
        if epoch > 0 {
            assert_eq!(in_epoch(epoch - 1).await, FENCED);
        }

        // Who does not know of followers, and who produces, is told who leads and where.
        let (refused, _) = fetch(follower, topic.id, Reader { version: 10, ..latest }).await;
        assert_eq!(refused.error_code, NOT_LEADER);
        let refused = produce(follower, topic.id).await;
        let partition = &refused.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.current_leader.leader_id.0), (NOT_LEADER, 2));
        let endpoints: Vec<_> = refused.node_endpoints.iter().map(|one| (one.node_id.0, one.port)).collect();
        let port = leader.kafka_address().rsplit_once(':').unwrap().1.parse().unwrap();
        assert_eq!(endpoints, [(2, port)]);
    });
}
