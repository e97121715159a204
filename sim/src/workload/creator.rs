//! The client that creates topics: those of the cluster at the start, and more while the run lasts.

use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::CreateTopicsRequest;

use super::client::Client;
use super::connection::back_off;
use super::lines::Lines;
use super::producer::not_timed_out;
use crate::history::{Change, Trade};
use crate::scenario::Cluster;

pub(super) fn start<B: Backend>(
    client: Client<B>,
    cluster: Cluster,
    every: Option<Duration>,
    within: Duration,
) {
    let creator = Creator { line: Lines::new(&client), client: client.clone(), cluster, within };
    client.begin("creator", creator.run(every));
}

/// One that reaches this node alone, and creates others.
pub(super) fn start_through<B: Backend>(
    client: Client<B>,
    node: u32,
    cluster: Cluster,
    every: Duration,
    within: Duration,
) {
    let line = Lines::new(&client).through(Some(node));
    let creator = Creator { line, client: client.clone(), cluster, within };
    client.begin("creator", creator.create_more(format!("through-{node}"), every));
}

struct Creator<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    cluster: Cluster,
    within: Duration,
}

impl<B: Backend> Creator<B> {
    async fn run(mut self, every: Option<Duration>) {
        let topics: Vec<String> = (0..self.cluster.topics).map(|n| format!("t{n}")).collect();
        let partitions = self.cluster.partitions;
        self.create(&topics, partitions).await;
        if let Some(every) = every {
            self.create_more("more".to_owned(), every).await;
        }
    }

    async fn create_more(mut self, prefix: String, every: Duration) {
        let mut number = 0;
        while self.client.next_turn(every).await {
            number += 1;
            let began = self.client.now();
            let made = self.create(&[format!("{prefix}-{number}")], 1 + number % 3).await;
            let made = made.then(|| self.client.now());
            let change = Change { node: self.line.asks(), began, made };
            self.client.field.notes.write().changes.push(change);
        }
    }

    /// Tries until the topics are there; false: they are not when it is over.
    async fn create(&mut self, names: &[String], partitions: i32) -> bool {
        let mut missing = names.to_vec();
        let mut failures = 0;
        while !missing.is_empty() && self.client.now() < self.client.field.schedule.give_up {
            let topics = missing.iter().map(|name| self.client.field.creatable(name, partitions)).collect();
            let request = CreateTopicsRequest::default()
                .with_topics(topics)
                .with_timeout_ms(i32::try_from(self.within.as_millis()).unwrap_or(i32::MAX));
            let decided = |answer: &kafka_protocol::messages::CreateTopicsResponse| {
                answer.topics.iter().all(|topic| not_timed_out(topic.error_code))
            };
            let sent = self.client.now();
            let answer = self.line.call(Trade::Change, &request, 5, self.within, decided).await;
            if let Ok(answer) = answer {
                for topic in &answer.topics {
                    self.client.complain(Trade::Change, None, topic.error_code, sent);
                }
                let mut notes = self.client.field.notes.write();
                for topic in &answer.topics {
                    let exists = ResponseError::TopicAlreadyExists.code();
                    if topic.error_code == 0 || topic.error_code == exists {
                        missing.retain(|name| name.as_str() != topic.name.as_str());
                        notes.count("topics-created");
                        notes.topics.insert(topic.name.to_string(), self.client.now());
                    }
                }
            }
            if !missing.is_empty() {
                failures += 1;
                back_off(&self.client.backend, failures).await;
            }
        }
        missing.is_empty()
    }
}
