//! The rdkafka crate: create, produce, read back, seek by timestamp. What is written and what must come back is what
//! `../python/roundtrip.py` says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

const PARTITIONS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error>;

struct Wanted {
    bootstrap: String,
    topic: String,
    records: usize,
    codec: String,
    base_ms: i64,
    idempotent: bool,
}

fn value(i: usize) -> Vec<u8> {
    let mut value = format!("{i:010}:").into_bytes();
    value.extend((0..89).map(|j| b'a' + u8::try_from((i + j) % 26).unwrap_or(0)));
    value
}

/// Ends the program where a record is not acknowledged.
struct Acknowledged;

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            println!("FAILED: produce: {error}");
            std::process::exit(1);
        }
    }
}

fn create(wanted: &Wanted) -> Result<(), Failure> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &wanted.bootstrap).create()?;
    let topic = NewTopic::new(&wanted.topic, PARTITIONS, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    for created in block_on(admin.create_topics([&topic], &options))? {
        created.map_err(|(topic, error)| format!("create {topic}: {error}"))?;
    }
    Ok(())
}

fn produce(wanted: &Wanted) -> Result<(), Failure> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &wanted.bootstrap)
        .set("compression.type", &wanted.codec)
        .set("enable.idempotence", if wanted.idempotent { "true" } else { "false" });
    let producer: ThreadedProducer<Acknowledged> = config.create_with_context(Acknowledged)?;
    for i in 0..wanted.records {
        let (key, value) = (format!("k{i}"), value(i));
        let timestamp = wanted.base_ms + i64::try_from(i)?;
        let mut record = BaseRecord::to(&wanted.topic).key(&key).payload(&value).timestamp(timestamp);
        while let Err((error, back)) = producer.send(record) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(50));
            record = back;
        }
    }
    Ok(producer.flush(PATIENCE)?)
}

fn read_back(wanted: &Wanted) -> Result<String, Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &wanted.bootstrap)
        // librdkafka wants a group's name even where partitions are assigned by hand and nothing is committed.
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut places = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        places.add_partition_offset(&wanted.topic, partition, Offset::Offset(0))?;
    }
    consumer.assign(&places)?;
    // The numbers of the records, by partition, in the order in which they came.
    let mut read: BTreeMap<i32, Vec<usize>> =
        (0..PARTITIONS).map(|partition| (partition, Vec::new())).collect();
    let mut seen = vec![false; wanted.records];
    let until = Instant::now() + 2 * PATIENCE;
    while seen.contains(&false) {
        if Instant::now() > until {
            return Err(format!("{} records missing", seen.iter().filter(|seen| !**seen).count()).into());
        }
        let Some(record) = consumer.poll(Duration::from_millis(200)) else { continue };
        let record = record?;
        let (partition, offset) = (record.partition(), record.offset());
        let key = std::str::from_utf8(record.key().ok_or("a record without its key")?)?;
        let i: usize = key.trim_start_matches('k').parse()?;
        let before = read.get_mut(&partition).ok_or("a partition that was not asked for")?;
        if offset != i64::try_from(before.len())? {
            return Err(
                format!("partition {partition}: offset {offset} where {} was due", before.len()).into()
            );
        }
        if before.last().is_some_and(|last| *last >= i) || seen[i] {
            return Err(format!("partition {partition}: record {i} after {:?}", before.last()).into());
        }
        if record.payload() != Some(&value(i))
            || record.timestamp().to_millis() != Some(wanted.base_ms + i64::try_from(i)?)
        {
            return Err(format!("record {i}: its content or its timestamp differs").into());
        }
        seen[i] = true;
        before.push(i);
    }
    seek(wanted, &consumer, &read)?;
    let spread: Vec<String> = read.values().map(|records| records.len().to_string()).collect();
    Ok(format!("{} records ({})", wanted.records, spread.join("/")))
}

fn seek(wanted: &Wanted, consumer: &BaseConsumer, read: &BTreeMap<i32, Vec<usize>>) -> Result<(), Failure> {
    let half = wanted.records / 2;
    let mut times = TopicPartitionList::new();
    for partition in read.keys() {
        let target = Offset::Offset(wanted.base_ms + i64::try_from(half)?);
        times.add_partition_offset(&wanted.topic, *partition, target)?;
    }
    let answered = consumer.offsets_for_times(times, PATIENCE)?;
    if answered.count() != read.len() {
        return Err(format!(
            "times were asked for in {} partitions, and told in {}",
            read.len(),
            answered.count()
        )
        .into());
    }
    for found in answered.elements() {
        let records = &read[&found.partition()];
        let due = match records.iter().position(|i| *i >= half) {
            Some(offset) => Offset::Offset(i64::try_from(offset)?),
            None => Offset::End,
        };
        if found.offset() != due {
            return Err(format!(
                "partition {}: seek gave {:?}, due was {due:?}",
                found.partition(),
                found.offset()
            )
            .into());
        }
        let marks = consumer.fetch_watermarks(&wanted.topic, found.partition(), PATIENCE)?;
        if marks != (0, i64::try_from(records.len())?) {
            return Err(format!("partition {}: watermarks {marks:?}", found.partition()).into());
        }
    }
    Ok(())
}

fn main() {
    let options = rdkafka_clients::options();
    let option = |name: &str| options.get(name).cloned().unwrap_or_default();
    let wanted = Wanted {
        bootstrap: option("bootstrap"),
        topic: option("topic"),
        records: option("records").parse().unwrap_or(0),
        codec: option("codec"),
        base_ms: option("base-ms").parse().unwrap_or(0),
        idempotent: option("idempotence") == "on",
    };
    if wanted.records == 0 || wanted.base_ms == 0 {
        println!("FAILED: --records and --base-ms are numbers above 0");
        std::process::exit(2);
    }
    match create(&wanted).and_then(|()| produce(&wanted)).and_then(|()| read_back(&wanted)) {
        Ok(text) => println!("ok: {text}"),
        Err(failure) => {
            println!("FAILED: {failure}");
            std::process::exit(1);
        }
    }
}
