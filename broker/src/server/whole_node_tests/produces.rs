//! What producers ask of a whole node.

use super::*;

#[test]
fn pipelined_produces_get_offsets_in_their_order() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let topic = create(&mut client, "orders").await;
        let all: Vec<u8> =
            (0..200).flat_map(|n| framed(n, ApiKey::Produce, PRODUCE, produce(topic, -1, 3))).collect();
        client.send_bytes(&all).await;
        for n in 0..200 {
            assert_eq!(produced(&mut client).await, (n, 0, i64::from(n) * 3));
        }
        client.send(1, ApiKey::Fetch, FETCH, fetch(topic, 0, 0, 1)).await;
        let (code, high_watermark, records) = fetched(&mut client).await;
        assert_eq!((code, high_watermark), (0, 600));
        let one = BatchSpec::records(3).build().len();
        assert_eq!(records.len(), one * 200, "every batch, byte for byte as long as it was sent");
    });
}

#[test]
fn what_a_vanished_client_sent_is_charged_until_the_partition_has_it() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let topic = create(&mut client, "orders").await;
        let mut silent = node.connect().await;
        for n in 0..50 {
            silent.send(n, ApiKey::Produce, PRODUCE, produce(topic, 0, 10)).await;
        }
        drop(silent);
        let metrics = &node.context.metrics;
        soon(node, "all is appended", || metrics.records_in.get() == 500).await;
        soon(node, "all is given back", || {
            metrics.request_bytes.get() == 0 && metrics.requests_in_flight.get() == 0
        })
        .await;
        client.send(1, ApiKey::Produce, PRODUCE, produce(topic, -1, 1)).await;
        assert_eq!(produced(&mut client).await, (1, 0, 500));
    });
}

#[test]
fn acks_0_that_fails_in_the_partition_closes_the_connection() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let topic = create(&mut client, "orders").await;
        let sequenced = |sequence| produce_batch(topic, 0, BatchSpec::records(1).producer(7, 0, sequence));
        let mut silent = node.connect().await;
        silent.send(1, ApiKey::Produce, PRODUCE, sequenced(0)).await;
        silent.send(2, ApiKey::ApiVersions, 3, ApiVersionsRequest::default().into()).await;
        assert!(silent.answer().await.is_some(), "all is well so far");
        // A hole in the sequence: only the partition's owner can tell.
        silent.send(3, ApiKey::Produce, PRODUCE, sequenced(5)).await;
        assert_eq!(silent.answer().await, None);
        client.send(4, ApiKey::Produce, PRODUCE, produce(topic, -1, 1)).await;
        assert_eq!(produced(&mut client).await, (4, 0, 1));
    });
}

#[test]
fn producer_ids_are_never_given_twice() {
    whole_node(async |node| {
        let mut ids = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let mut client = node.connect().await;
            for _ in 0..5 {
                let request = InitProducerIdRequest::default().with_transactional_id(None);
                match asked(&mut client, ApiKey::InitProducerId, 5, request.into()).await {
                    ResponseKind::InitProducerId(response) => assert!(ids.insert(response.producer_id.0)),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(ids.len(), 15);
    });
}
