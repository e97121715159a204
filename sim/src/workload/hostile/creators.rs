//! Clients that ask whether topics of thousands of partitions could be created, and hang up: fifty bytes that a broker has to make a great deal of.

use std::time::Duration;

use bytes::BytesMut;
use io_backend::Backend;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{CreateTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::super::client::Client;
use super::super::connection::frame;
use super::raw::Raw;
use crate::history::At;

const EVERY: Duration = Duration::from_millis(100);
/// Long enough for what was sent to be taken.
const STAY: Duration = Duration::from_millis(20);
const REQUESTS: i32 = 12;
const PARTITIONS: i32 = 2_000;
const WITHIN_MS: i32 = 1_000;

pub(super) fn start<B: Backend>(client: Client<B>, window: (At, At)) {
    client.begin("hostile", ask(client.clone(), window));
}

async fn ask<B: Backend>(client: Client<B>, (from, until): (At, At)) {
    let backend = client.backend.clone();
    backend.sleep(Duration::from_nanos(from.saturating_sub(client.now()))).await;
    let requests = requests(&client.name);
    while client.now() < until {
        if let Ok(mut raw) = Raw::connect(&client).await
            && raw.say(&requests, until).await.is_ok()
        {
            backend.sleep(STAY).await;
            client.field.notes.write().count("large topics asked about");
        }
        backend.sleep(EVERY).await;
    }
}

fn requests(client: &str) -> BytesMut {
    let mut bytes = BytesMut::new();
    for number in 0..REQUESTS {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_string(format!("large-{number}"))))
            .with_num_partitions(PARTITIONS)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(WITHIN_MS)
            .with_validate_only(true);
        // What cannot be encoded is not said.
        let _ = frame(client, number, &request, 5, &mut bytes);
    }
    bytes
}
