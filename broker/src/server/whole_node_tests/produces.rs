//! What producers ask of a whole node.

use kafka_protocol::ResponseError;

use super::*;
use crate::ids::Offset;
use crate::log::batch::{self, BatchHeader, Batches, HEADER_BYTES};
use crate::log::encoder::{Method, compress};

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

/// A batch as a producer sends it that compresses so.
fn compressed(spec: BatchSpec, codec: i16) -> Bytes {
    let plain = spec.build();
    let header = BatchHeader::read(&plain).unwrap();
    let mut batch = plain[..HEADER_BYTES].to_vec();
    batch.extend(compress(Method::of(codec), &plain[HEADER_BYTES..]).unwrap());
    batch::close(&mut batch, codec, header.max_timestamp);
    batch.into()
}

#[test]
fn a_topic_with_a_codec_keeps_all_batches_in_it_and_a_retry_once() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        for (wanted, topic, config) in [
            (0, "plain", "uncompressed"),
            (1, "gz", "gzip"),
            (2, "sn", "snappy"),
            (3, "l4", "lz4"),
            (4, "zs", "zstd"),
        ] {
            let configs = [("compression.type", config), ("message.timestamp.type", "LogAppendTime")];
            let configs = if wanted == 2 { &configs[..] } else { &configs[..1] };
            let topic = create_with(&mut client, topic, configs).await;
            for codec in 0..=4 {
                let batch = compressed(BatchSpec::records(20).producer(9, 0, 20 * i32::from(codec)), codec);
                for _retry in 0..2 {
                    let request = produce_bytes(topic, -1, batch.clone());
                    client.send(1, ApiKey::Produce, PRODUCE, request).await;
                    assert_eq!(produced(&mut client).await, (1, 0, 20 * i64::from(codec)));
                }
            }
            client.send(1, ApiKey::Fetch, FETCH, fetch(topic, 0, 0, 1)).await;
            let (code, high_watermark, records) = fetched(&mut client).await;
            assert_eq!((code, high_watermark), (0, 100), "a retry is told from a new batch");
            let mut next = Offset(0);
            for found in Batches::new(&records) {
                let (at, header) = found.unwrap();
                assert_eq!((header.base_offset, header.compression()), (next, wanted));
                assert_eq!(batch::verify(&records[at..at + header.bytes]), Ok(()));
                assert_eq!(header.log_append_time(), wanted == 2);
                next = header.end();
            }
            assert_eq!(next, Offset(100));
        }
        soon(node, "all is given back", || node.context.metrics.opening_bytes.get() == 0).await;
    });
}

#[test]
fn what_a_topic_looks_into_is_refused_for_what_is_in_it() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let small = [("compression.type", "uncompressed"), ("max.message.bytes", "100000")];
        let small = create_with(&mut client, "small", &small).await;
        let compacted = create_with(&mut client, "compacted", &[("cleanup.policy", "compact")]).await;
        let orders = create(&mut client, "orders").await;
        let large = compressed(BatchSpec::keyed_many(2_000).value_bytes(100), 4);
        let mut noise = large.to_vec();
        noise[HEADER_BYTES..].fill(7);
        batch::close(&mut noise, 4, 1_000);
        let noise = Bytes::from(noise);
        let keyless = compressed(BatchSpec::records(5), 3);
        let bomb = compressed(BatchSpec::keyed_many(40).value_bytes(1 << 20), 1);
        let invalid = ResponseError::InvalidRecord.code();
        let too_large = ResponseError::MessageTooLarge.code();
        for (topic, batch, wanted) in [
            (small, &large, too_large),
            (small, &noise, invalid),
            (compacted, &large, 0),
            (compacted, &noise, invalid),
            (compacted, &keyless, invalid),
            (compacted, &bomb, too_large),
            (orders, &noise, 0),
            (orders, &keyless, 0),
            (orders, &bomb, 0),
        ] {
            client.send(1, ApiKey::Produce, PRODUCE, produce_bytes(topic, -1, batch.clone())).await;
            assert_eq!(produced(&mut client).await.1, wanted);
        }
        soon(node, "all is given back", || node.context.metrics.opening_bytes.get() == 0).await;
    });
}

#[test]
fn many_that_open_much_at_once_take_no_more_than_there_is() {
    let configure = |config: &mut Config| config.apply_memory(64 << 20);
    with_whole_node(configure, async |node, _| {
        let mut client = node.connect().await;
        let topic =
            create_with(&mut client, "zs", &[("compression.type", "zstd"), ("cleanup.policy", "compact")])
                .await;
        let batch = compressed(BatchSpec::keyed_many(2_000).value_bytes(1_000), 1);
        let mut clients = Vec::new();
        for _ in 0..40 {
            let mut client = node.connect().await;
            client.send(1, ApiKey::Produce, PRODUCE, produce_bytes(topic, -1, batch.clone())).await;
            clients.push(client);
        }
        let budget = &node.context.budget;
        let taken = &node.context.metrics.opening_bytes;
        // More than all of it where one alone takes more.
        let most = (budget.opening_little.limit() + budget.opening_much.limit().max(4 << 20)) as i64;
        let records = &node.context.metrics.records_in;
        soon(node, "all are appended", || {
            assert!(taken.get() <= most, "{}", taken.get());
            records.get() == 80_000
        })
        .await;
        for client in &mut clients {
            assert_eq!(produced(client).await.1, 0);
        }
        soon(node, "all is given back", || taken.get() == 0).await;
    });
}

#[test]
fn who_finds_no_room_to_open_a_batch_is_told_to_try_again() {
    whole_node(async |node| {
        let mut client = node.connect().await;
        let topic = create_with(&mut client, "compacted", &[("cleanup.policy", "compact")]).await;
        let budget = &node.context.budget;
        let all = [&budget.opening_little, &budget.opening_much].map(|account| account.take_anyway(1 << 30));
        let data = PartitionProduceData::default().with_records(Some(BatchSpec::keyed_many(2).build()));
        let data = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(50).with_topic_data(vec![data]);
        client.send(1, ApiKey::Produce, PRODUCE, request.into()).await;
        assert_eq!(produced(&mut client).await.1, ResponseError::KafkaStorageError.code());
        drop(all);
        client.send(2, ApiKey::Produce, PRODUCE, produce_batch(topic, -1, BatchSpec::keyed_many(2))).await;
        assert_eq!(produced(&mut client).await, (2, 0, 0));
    });
}
