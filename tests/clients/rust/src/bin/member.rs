//! The rdkafka crate: a member of a group, which says what it is assigned, reads and commits.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;

fn main() -> KafkaResult<()> {
    let options = rdkafka_clients::options();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options["bootstrap"])
        .set("group.id", &options["group"])
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false");
    match options["mode"].as_str() {
        "consumer" => config.set("group.protocol", "consumer"),
        mode => config
            .set(
                "partition.assignment.strategy",
                if mode == "cooperative" { "cooperative-sticky" } else { "range" },
            )
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1000"),
    };
    if let Some(instance) = options.get("instance") {
        config.set("group.instance.id", instance);
    }
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&[&options["topic"]])?;
    let leaving = leaving();
    let mut told = None;
    while !leaving.load(Ordering::Relaxed) {
        let record = consumer.poll(Duration::from_millis(200));
        let mut now: Vec<i32> = consumer.assignment()?.elements().iter().map(|one| one.partition()).collect();
        now.sort_unstable();
        if told.as_ref() != Some(&now) {
            let now: Vec<String> = now.iter().map(i32::to_string).collect();
            println!("A {}", now.join(","));
        }
        told = Some(now);
        if let Some(Ok(record)) = record {
            println!("R {} {}", record.partition(), record.offset());
            // Somebody else has it by now, or the coordinator is away: it is read again, or committed with the next.
            if consumer.commit_message(&record, CommitMode::Sync).is_ok() {
                println!("C");
            }
        }
    }
    Ok(())
}

/// True once standard input has ended.
fn leaving() -> Arc<AtomicBool> {
    let leaving = Arc::new(AtomicBool::new(false));
    let told = leaving.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    leaving
}
