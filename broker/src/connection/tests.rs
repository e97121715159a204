use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Buf;
use io_backend::{Clock, Deadline};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, FetchRequest, MetadataRequest, ProduceRequest,
    RequestKind, ResponseKind, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Connection;
use crate::api::Finished;
use crate::server::test_node::{Client, TestNode, framed, with_node};
use crate::session::Session;
use crate::wire::RequestHead;

fn api_versions() -> RequestKind {
    ApiVersionsRequest::default().into()
}

fn metadata_of(topics: usize) -> RequestKind {
    let topic = |n| {
        let name = TopicName(StrBytes::from_string(format!("topic-{n}-{}", "x".repeat(200))));
        MetadataRequestTopic::default().with_name(Some(name))
    };
    MetadataRequest::default()
        .with_topics(Some((0..topics).map(topic).collect()))
        .with_allow_auto_topic_creation(false)
        .into()
}

/// To a topic that is not there.
fn produce(acks: i16) -> RequestKind {
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str("nowhere")))
        .with_partition_data(vec![PartitionProduceData::default()]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1_000).with_topic_data(vec![topic]).into()
}

async fn is_served(node: &TestNode) -> bool {
    let mut client = node.connect().await;
    client.send(1, ApiKey::ApiVersions, 3, api_versions()).await;
    matches!(client.message(ApiKey::ApiVersions, 3).await, (1, ResponseKind::ApiVersions(_)))
}

async fn correlation(client: &mut Client) -> Option<i32> {
    client.answer().await.map(|mut answer| answer.get_i32())
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    with_node(
        |_| {},
        async |node| {
            let mut client = node.connect().await;
            let mut all = Vec::new();
            for n in 0..300 {
                all.extend(match n % 4 {
                    0 => framed(n, ApiKey::Metadata, 9, metadata_of(1)),
                    1 => framed(n, ApiKey::Produce, 9, produce(-1)),
                    2 => framed(n, ApiKey::Fetch, 12, FetchRequest::default().into()),
                    _ => framed(n, ApiKey::ApiVersions, 3, api_versions()),
                });
            }
            // In pieces that end anywhere.
            for piece in all.chunks(1_000) {
                client.send_bytes(piece).await;
            }
            for n in 0..300 {
                assert_eq!(correlation(&mut client).await, Some(n));
            }
        },
    );
}

#[test]
fn bytes_that_come_one_by_one_are_a_request_too() {
    with_node(
        |_| {},
        async |node| {
            let mut client = node.connect().await;
            for byte in framed(5, ApiKey::ApiVersions, 3, api_versions()) {
                client.send_bytes(&[byte]).await;
            }
            assert_eq!(correlation(&mut client).await, Some(5));
        },
    );
}

#[test]
fn garbage_closes_its_own_connection_and_no_other() {
    with_node(
        |_| {},
        async |node| {
            let mut good = node.connect().await;
            let garbage: Vec<Vec<u8>> = vec![
                b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                vec![0x16, 3, 1, 2, 0, 1, 0],
                (-1i32).to_be_bytes().to_vec(),
                0i32.to_be_bytes().to_vec(),
                i32::MAX.to_be_bytes().to_vec(),
                // A Metadata request whose array announces two billion topics.
                [
                    &22i32.to_be_bytes()[..],
                    &[0, 3, 0, 1, 0, 0, 0, 9, 0xff, 0xff],
                    &i32::MAX.to_be_bytes(),
                    &[0; 8],
                ]
                .concat(),
            ];
            for bytes in garbage {
                let mut bad = node.connect().await;
                bad.send_bytes(&bytes).await;
                assert_eq!(bad.answer().await, None, "{bytes:?}");
            }
            good.send(1, ApiKey::ApiVersions, 3, api_versions()).await;
            assert_eq!(correlation(&mut good).await, Some(1));
        },
    );
}

#[test]
fn what_is_answered_before_garbage_still_leaves() {
    with_node(
        |_| {},
        async |node| {
            let mut client = node.connect().await;
            let mut bytes = framed(1, ApiKey::ApiVersions, 3, api_versions());
            bytes.extend((-5i32).to_be_bytes());
            client.send_bytes(&bytes).await;
            assert_eq!(correlation(&mut client).await, Some(1));
            assert_eq!(correlation(&mut client).await, None);
        },
    );
}

#[test]
fn what_is_not_served_is_answered_where_the_client_can_read_it_and_closes_its_connection_elsewhere() {
    with_node(
        |_| {},
        async |node| {
            let mut good = node.connect().await;
            for (key, version, is_answered) in [
                (18i16, 77i16, true),
                (26, 3, false),
                (999, 0, false),
                (0, 2, false),
                (0, 99, false),
                (1, 3, false),
                (-1, -1, false),
            ] {
                let mut frame = 10i32.to_be_bytes().to_vec();
                frame.extend(key.to_be_bytes());
                frame.extend(version.to_be_bytes());
                frame.extend(77i32.to_be_bytes());
                frame.extend((-1i16).to_be_bytes());
                let mut own = node.connect().await;
                let client = if is_answered { &mut good } else { &mut own };
                client.send_bytes(&frame).await;
                let answered = correlation(client).await;
                assert_eq!(answered, is_answered.then_some(77), "key {key}, version {version}");
            }
        },
    );
}

#[test]
fn acks_0_is_never_answered_and_its_failure_closes_the_connection() {
    with_node(
        |_| {},
        async |node| {
            let mut client = node.connect().await;
            client.send(1, ApiKey::Produce, 9, produce(0)).await;
            assert_eq!(client.answer().await, None);
            assert!(is_served(&node).await);
        },
    );
}

/// The beginning of a Metadata request that announces `size` bytes.
fn announced(size: i32) -> Vec<u8> {
    [&size.to_be_bytes()[..], &[0, 3, 0, 9], &[0; 4]].concat()
}

#[test]
fn what_is_only_announced_takes_nobodys_room() {
    with_node(
        |config| {
            config.server.request_bytes = 1 << 20;
            config.server.request_bytes_in_flight = 2 << 20;
        },
        async |node| {
            let mut silent = Vec::new();
            for _ in 0..20 {
                let mut one = node.connect().await;
                one.send_bytes(&announced(1 << 20)).await;
                silent.push(one);
            }
            for n in 0..3 {
                let mut client = node.connect().await;
                client.send(n, ApiKey::Metadata, 9, metadata_of(3_000)).await;
                assert_eq!(correlation(&mut client).await, Some(n), "a request of 600 KiB");
            }
            assert!(node.context.metrics.request_bytes.get() <= 20 * (16 << 10));
        },
    );
}

#[test]
fn large_requests_that_stop_half_way_are_cut_off_for_those_who_wait() {
    with_node(
        |config| {
            config.server.request_bytes = 1 << 20;
            config.server.request_bytes_in_flight = 2 << 20;
        },
        async |node| {
            let mut stopped = Vec::new();
            for _ in 0..3 {
                let mut one = node.connect().await;
                one.send_bytes(&[announced(1 << 20), vec![0; 600 << 10]].concat()).await;
                stopped.push(one);
            }
            let mut small = node.connect().await;
            small.send(7, ApiKey::Metadata, 9, metadata_of(50)).await;
            assert_eq!(correlation(&mut small).await, Some(7), "small requests go on beside them");
            let mut client = node.connect().await;
            client.send(8, ApiKey::Metadata, 9, metadata_of(4_500)).await;
            assert_eq!(correlation(&mut client).await, Some(8));
            let mut cut = 0;
            for mut one in stopped {
                let soon = Deadline::after(node.backend(), Duration::from_millis(100));
                cut += usize::from(io_backend::within(node.backend(), soon, one.answer()).await == Ok(None));
            }
            assert!((1..=3).contains(&cut), "{cut} were cut off, as many as it takes");
        },
    );
}

#[test]
fn a_client_that_reads_nothing_costs_only_itself() {
    with_node(
        |config| config.server.responses_queued = 3,
        async |node| {
            let mut slow = node.connect().await;
            // Megabytes of answers: far more than the sockets' buffers hold.
            let request = framed(9, ApiKey::Metadata, 9, metadata_of(2_000));
            let mut sent = 0;
            while sent < 100 {
                let backend = node.backend();
                let soon = Deadline::after(backend, Duration::from_millis(200));
                if io_backend::within(backend, soon, slow.send_bytes(&request)).await.is_err() {
                    break;
                }
                sent += 1;
            }
            assert!(sent < 100, "the node went on reading from who reads nothing");
            assert!(is_served(&node).await);
            assert!(node.context.metrics.requests_in_flight.get() <= 5);
        },
    );
}

#[test]
fn above_the_limit_connections_are_closed_at_once() {
    with_node(
        |config| config.server.connections = 2,
        async |node| {
            let first = node.connect().await;
            let mut second = node.connect().await;
            second.send(1, ApiKey::ApiVersions, 3, api_versions()).await;
            assert_eq!(correlation(&mut second).await, Some(1));
            let mut third = node.connect().await;
            assert_eq!(third.answer().await, None);
            drop(first);
            while node.context.metrics.connections.get() == 2 {
                node.backend().sleep(Duration::from_millis(1)).await;
            }
            assert!(is_served(&node).await);
        },
    );
}

#[test]
fn with_one_request_in_flight_allowed_everybody_is_served_in_turn() {
    with_node(
        |config| config.server.requests_in_flight = 1,
        async |node| {
            let mut clients = Vec::new();
            for n in 0..20 {
                let mut client = node.connect().await;
                client.send(n, ApiKey::Metadata, 9, metadata_of(3)).await;
                clients.push(client);
            }
            for (client, n) in clients.iter_mut().zip(0..) {
                assert_eq!(correlation(client).await, Some(n));
            }
            assert_eq!(node.context.metrics.requests_in_flight.get(), 0);
        },
    );
}

#[test]
fn a_stop_answers_what_was_asked_and_closes() {
    with_node(
        |_| {},
        async |node| {
            let mut client = node.connect().await;
            client.send(1, ApiKey::Metadata, 9, metadata_of(3)).await;
            assert_eq!(correlation(&mut client).await, Some(1));
            node.stop.publish(true);
            assert_eq!(client.answer().await, None);
            let soon = Deadline::after(node.backend(), Duration::from_secs(30));
            assert!(node.served.until(node.backend(), soon, |served| *served).await.is_ok());
            assert_eq!(node.context.metrics.connections.get(), 0);
        },
    );
}

#[test]
fn a_connection_on_which_nothing_is_asked_is_closed_in_time() {
    with_node(
        |config| config.server.idle_timeout = Duration::from_millis(300),
        async |node| {
            let mut idle = node.connect().await;
            idle.send(1, ApiKey::ApiVersions, 3, api_versions()).await;
            assert_eq!(correlation(&mut idle).await, Some(1));
            assert_eq!(idle.answer().await, None);
            let mut silent = node.connect().await;
            assert_eq!(silent.answer().await, None);
        },
    );
}

/// A stream that is no socket, as TLS would put one over it.
struct InMemory(tokio::io::DuplexStream);

impl io_backend::network::Unread for InMemory {
    fn unread(&self) -> usize {
        0
    }
}

impl tokio::io::AsyncRead for InMemory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl tokio::io::AsyncWrite for InMemory {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn session() -> Session {
    Session::new("client:1".into(), "PLAINTEXT", Arc::default())
}

#[test]
fn a_client_is_served_over_any_stream() {
    with_node(
        |_| {},
        async |node| {
            let (mut client, own) = tokio::io::duplex(4096);
            let served = super::run(node.context.clone(), InMemory(own), session());
            let asked = async {
                client.write_all(&framed(5, ApiKey::ApiVersions, 3, api_versions())).await.unwrap();
                client.read_i32().await.unwrap();
                assert_eq!(client.read_i32().await.unwrap(), 5);
                drop(client);
            };
            tokio::join!(served, asked);
        },
    );
}

#[test]
fn an_answer_with_a_throttle_mutes_its_connection_for_that_time_and_no_longer() {
    with_node(
        |_| {},
        async |node| {
            let throttle = Duration::from_millis(50);
            let (_client, own) = tokio::io::duplex(4096);
            let mut connection = Connection::new(&node.context, InMemory(own), session());
            let muted = async |connection: &mut Connection<'_, _, _>| {
                std::future::poll_fn(|cx| Poll::Ready(connection.is_muted(cx))).await
            };
            assert!(!muted(&mut connection).await);
            let head = RequestHead { key: 18, version: 0, correlation: 1 };
            let answer = ApiVersionsResponse::default();
            let response = crate::wire::Response::to(head, answer);
            connection.put(Finished::Answer { response, room: None, throttle });
            assert!(!connection.out.is_empty(), "the answer itself leaves at once");
            assert!(muted(&mut connection).await);
            node.backend().sleep(throttle).await;
            let until = node.backend().now() + Duration::from_secs(10);
            while muted(&mut connection).await {
                assert!(node.backend().now() < until, "it stays muted");
                node.backend().sleep(Duration::from_millis(1)).await;
            }
        },
    );
}

#[test]
fn a_session_knows_what_its_client_says_of_itself() {
    with_node(
        |_| {},
        async |node| {
            let (_client, own) = tokio::io::duplex(4096);
            let mut connection = Connection::new(&node.context, InMemory(own), session());
            let request = ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str("librdkafka"))
                .with_client_software_version(StrBytes::from_static_str("2.16.0"));
            let frame = framed(1, ApiKey::ApiVersions, 3, request.into()).split_off(4);
            connection.decode(frame.into()).unwrap();
            let session = connection.session.clone();
            let software = session.software().map(|of| (of.name.as_str(), of.version.as_str()));
            assert_eq!((&*session.client_id, software), ("test", Some(("librdkafka", "2.16.0"))));
        },
    );
}
