//! What consumers that fetch in sessions see of a whole node.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::fetch_response::PartitionData;

use super::*;

/// A client with a topic of three partitions, and a session.
struct Fetcher {
    client: Client,
    topic: Uuid,
    id: i32,
    epoch: i32,
}

impl Fetcher {
    async fn new(node: &TestNode) -> Fetcher {
        let mut client = node.connect().await;
        let new = CreatableTopic::default()
            .with_name(name("orders"))
            .with_num_partitions(3)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(20_000);
        let ResponseKind::CreateTopics(created) =
            asked(&mut client, ApiKey::CreateTopics, 7, request.into()).await
        else {
            panic!("another answer")
        };
        Fetcher { client, topic: created.topics[0].topic_id, id: 0, epoch: 0 }
    }

    async fn produce(&mut self, index: i32) {
        let request = self.to_produce(index);
        asked(&mut self.client, ApiKey::Produce, PRODUCE, request).await;
    }

    fn to_produce(&self, index: i32) -> RequestKind {
        let data = PartitionProduceData::default()
            .with_index(index)
            .with_records(Some(BatchSpec::records(1).build()));
        let data = TopicProduceData::default().with_topic_id(self.topic).with_partition_data(vec![data]);
        ProduceRequest::default().with_acks(-1).with_timeout_ms(20_000).with_topic_data(vec![data]).into()
    }

    /// A fetch that names partitions with offsets, of the session as it is now.
    fn request(&self, from: &[(i32, i64)], max_wait_ms: i32) -> FetchRequest {
        let partition = |(index, from): &(i32, i64)| {
            FetchPartition::default()
                .with_partition(*index)
                .with_fetch_offset(*from)
                .with_partition_max_bytes(1 << 20)
                .with_current_leader_epoch(-1)
        };
        let topic = FetchTopic::default()
            .with_topic_id(self.topic)
            .with_partitions(from.iter().map(partition).collect());
        FetchRequest::default()
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_id(self.id)
            .with_session_epoch(self.epoch)
            .with_topics(if from.is_empty() { Vec::new() } else { vec![topic] })
    }

    async fn send(&mut self, request: FetchRequest) -> FetchResponse {
        match asked(&mut self.client, ApiKey::Fetch, FETCH, request.into()).await {
            ResponseKind::Fetch(response) => response,
            other => panic!("{other:?}"),
        }
    }

    /// Sends it and takes the answer as a client does.
    async fn fetch(&mut self, request: FetchRequest) -> Vec<PartitionData> {
        let response = self.send(request).await;
        assert_eq!(response.error_code, 0);
        if self.epoch == 0 {
            self.id = response.session_id;
        }
        assert_eq!(response.session_id, self.id);
        self.epoch += 1;
        response.responses.into_iter().flat_map(|topic| topic.partitions).collect()
    }
}

fn indexes(partitions: &[PartitionData]) -> Vec<i32> {
    partitions.iter().map(|partition| partition.partition_index).collect()
}

#[test]
fn all_is_told_at_first_and_then_what_is_new() {
    whole_node(async |node| {
        let mut fetcher = Fetcher::new(node).await;
        let all = fetcher.fetch(fetcher.request(&[(0, 0), (1, 0), (2, 0)], 10)).await;
        assert_eq!(indexes(&all), [0, 1, 2]);
        assert!(fetcher.id > 0);

        let began = node.backend().now();
        assert_eq!(fetcher.fetch(fetcher.request(&[], 50)).await, []);
        assert!(node.backend().now().since(began) >= Duration::from_millis(50), "it waits all the same");

        fetcher.produce(1).await;
        for _ in 0..2 {
            let new = fetcher.fetch(fetcher.request(&[], 20_000)).await;
            assert_eq!(indexes(&new), [1], "also where its answer did not arrive");
            assert!(new[0].high_watermark == 1 && new[0].records.as_ref().is_some_and(|r| !r.is_empty()));
        }
        assert_eq!(fetcher.fetch(fetcher.request(&[(1, 1)], 10)).await, []);
        let metrics = &node.context.metrics;
        assert_eq!((metrics.fetch_sessions.get(), metrics.fetch_session_partitions.get()), (1, 3));
        assert_eq!(metrics.fetches_incremental.get(), 4);

        let forgotten = ForgottenTopic::default().with_topic_id(fetcher.topic).with_partitions(vec![0, 1, 2]);
        let left = fetcher.request(&[], 20_000).with_forgotten_topics_data(vec![forgotten]);
        let answer = fetcher.send(left).await;
        assert_eq!((answer.error_code, answer.session_id, answer.responses.len()), (0, 0, 0));
        assert_eq!(metrics.fetch_sessions.get(), 0);
    });
}

#[test]
fn a_wait_ends_with_records_of_any_partition_of_the_session_and_with_errors() {
    whole_node(async |node| {
        let mut fetcher = Fetcher::new(node).await;
        fetcher.fetch(fetcher.request(&[(0, 0), (1, 0), (2, 0)], 10)).await;
        let waits = fetcher.request(&[], 20_000);
        fetcher.epoch += 1;
        fetcher.client.send(1, ApiKey::Fetch, FETCH, waits.into()).await;
        // Behind the fetch on the same connection is the produce that it waits for.
        let records = fetcher.to_produce(2);
        fetcher.client.send(2, ApiKey::Produce, PRODUCE, records).await;
        let ResponseKind::Fetch(waited) = fetcher.client.message(ApiKey::Fetch, FETCH).await.1 else {
            panic!("a fetch")
        };
        assert_eq!(indexes(&waited.responses[0].partitions), [2]);
        fetcher.client.message(ApiKey::Produce, PRODUCE).await;
        let wrong = fetcher.fetch(fetcher.request(&[(2, 1), (1, 44)], 20_000)).await;
        assert_eq!(indexes(&wrong), [1]);
        assert_eq!(wrong[0].error_code, ResponseError::OffsetOutOfRange.code());
        assert_eq!(
            indexes(&fetcher.fetch(fetcher.request(&[], 20_000)).await),
            [1],
            "errors are told each time"
        );
        assert_eq!(
            indexes(&fetcher.fetch(fetcher.request(&[(1, 0)], 10)).await),
            [1],
            "and that one is over"
        );
        assert_eq!(fetcher.fetch(fetcher.request(&[], 10)).await, []);
    });
}

#[test]
fn with_a_bound_on_bytes_each_partition_has_its_turn() {
    whole_node(async |node| {
        let mut fetcher = Fetcher::new(node).await;
        let from = [(0, 0), (1, 0), (2, 0)];
        fetcher.fetch(fetcher.request(&from, 10)).await;
        for index in [0, 0, 1, 1, 2, 2] {
            fetcher.produce(index).await;
        }
        let gave = |answer: &[PartitionData]| {
            let some = answer.iter().filter(|one| one.records.as_ref().is_some_and(|r| !r.is_empty()));
            some.map(|one| one.partition_index).collect::<Vec<i32>>()
        };
        let mut order = Vec::new();
        for _ in 0..6 {
            let request = fetcher.request(&[], 20_000).with_max_bytes(1);
            order.extend(gave(&fetcher.fetch(request).await));
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    });
}

#[test]
fn requests_that_do_not_fit_their_session_are_told_why_and_change_nothing() {
    whole_node(async |node| {
        let mut fetcher = Fetcher::new(node).await;
        fetcher.fetch(fetcher.request(&[(0, 0)], 10)).await;
        let ok = fetcher.request(&[], 10);
        for (request, expected) in [
            (ok.clone().with_session_id(fetcher.id ^ 1), ResponseError::FetchSessionIdNotFound),
            (ok.clone().with_session_epoch(2), ResponseError::InvalidFetchSessionEpoch),
            (ok.clone().with_session_epoch(-2), ResponseError::InvalidFetchSessionEpoch),
        ] {
            assert_eq!(fetcher.send(request).await.error_code, expected.code());
        }
        let by_name = asked(&mut fetcher.client, ApiKey::Fetch, 12, ok.clone().into()).await;
        let ResponseKind::Fetch(by_name) = by_name else { panic!("{by_name:?}") };
        assert_eq!(by_name.error_code, ResponseError::FetchSessionTopicIdError.code());
        assert_eq!(fetcher.fetch(ok).await, []);
    });
}

#[test]
fn a_later_request_over_another_connection_ends_the_wait_of_the_one_before() {
    whole_node(async |node| {
        let mut fetcher = Fetcher::new(node).await;
        fetcher.fetch(fetcher.request(&[(0, 0)], 10)).await;
        let mut lost = node.connect().await;
        lost.send(1, ApiKey::Fetch, FETCH, fetcher.request(&[], 600_000).into()).await;
        soon(node, "it waits", || node.context.metrics.waiting_bytes.get() > 0).await;
        fetcher.epoch += 1;
        assert_eq!(fetcher.fetch(fetcher.request(&[], 10)).await, []);
        let ResponseKind::Fetch(told) = lost.message(ApiKey::Fetch, FETCH).await.1 else { panic!("a fetch") };
        assert_eq!(told.error_code, ResponseError::InvalidFetchSessionEpoch.code());
    });
}

#[test]
fn what_waits_in_a_session_is_charged_for_its_partitions_whatever_its_request_says() {
    whole_node(async |node| {
        let mut fetcher = Fetcher::new(node).await;
        let many: Vec<(i32, i64)> = (0..3).map(|index| (index, 0)).collect();
        fetcher.fetch(fetcher.request(&many, 10)).await;
        let waits = fetcher.request(&[], 600_000);
        fetcher.client.send(1, ApiKey::Fetch, FETCH, waits.into()).await;
        let metrics = &node.context.metrics;
        soon(node, "it waits", || metrics.waiting_bytes.get() > 0).await;
        let waiting = metrics.waiting_bytes.get();
        assert!((1024 + 3 * 200..1024 + 3 * 400).contains(&waiting), "{waiting}");
    });
}

#[test]
fn who_finds_no_room_to_look_at_its_session_hears_in_its_time_that_nothing_is_new_and_goes_on() {
    with_whole_node(
        |config| config.server.waiting_bytes = 1,
        async |node, _| {
            let mut fetcher = Fetcher::new(node).await;
            // Most of which there are not: it is told so each time.
            let many: Vec<(i32, i64)> = (0..600).map(|index| (index, 0)).collect();
            fetcher.fetch(fetcher.request(&many, 10)).await;
            let mut other = node.connect().await;
            let topic = create(&mut other, "other").await;
            // An account that is empty grants any wish, and then no other.
            other.send(1, ApiKey::Fetch, FETCH, fetch(topic, 0, 3_000, 1)).await;
            soon(node, "it waits", || node.context.metrics.waiting_bytes.get() > 0).await;
            let began = node.context.backend.now();
            assert_eq!(fetcher.fetch(fetcher.request(&[], 1_000)).await, []);
            let took = node.context.backend.now().since(began);
            assert!((Duration::from_secs(1)..Duration::from_secs(2)).contains(&took), "{took:?}");
            // Its epoch is taken, and when there is room again it is told.
            assert_eq!(fetcher.fetch(fetcher.request(&[], 10_000)).await.len(), 597);
        },
    );
}
