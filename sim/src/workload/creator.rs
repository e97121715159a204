//! The client that creates topics: those of the cluster at the start, and more while the run lasts.

use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::CreateTopicsRequest;
use kafka_protocol::messages::create_topics_request::CreatableTopic;

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

/// One that creates this topic.
pub(super) fn start_of<B: Backend>(client: Client<B>, topic: CreatableTopic, within: Duration) {
    let mut line = Lines::new(&client);
    let own = client.clone();
    client.begin("creator", async move {
        create(&own, &mut line, vec![topic], within).await;
    });
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

    async fn create(&mut self, names: &[String], partitions: i32) -> bool {
        let topics = names.iter().map(|name| self.client.field.creatable(name, partitions)).collect();
        create(&self.client, &mut self.line, topics, self.within).await
    }
}

/// Tries until the topics are there; false: they are not when it is over.
async fn create<B: Backend>(
    client: &Client<B>,
    line: &mut Lines<B>,
    mut missing: Vec<CreatableTopic>,
    within: Duration,
) -> bool {
    let mut failures = 0;
    while !missing.is_empty() && client.now() < client.field.schedule.give_up {
        let request = CreateTopicsRequest::default()
            .with_topics(missing.clone())
            .with_timeout_ms(i32::try_from(within.as_millis()).unwrap_or(i32::MAX));
        let decided = |answer: &kafka_protocol::messages::CreateTopicsResponse| {
            answer.topics.iter().all(|topic| not_timed_out(topic.error_code))
        };
        let sent = client.now();
        let answer = line.call(Trade::Change, &request, 5, within, decided).await;
        if let Ok(answer) = answer {
            for topic in &answer.topics {
                client.complain(Trade::Change, None, topic.error_code, sent);
            }
            let mut notes = client.field.notes.write();
            for topic in &answer.topics {
                let exists = ResponseError::TopicAlreadyExists.code();
                if topic.error_code == 0 || topic.error_code == exists {
                    missing.retain(|wanted| wanted.name != topic.name);
                    notes.count("topics-created");
                    notes.topics.insert(topic.name.to_string(), client.now());
                }
            }
        }
        if !missing.is_empty() {
            failures += 1;
            back_off(&client.backend, failures).await;
        }
    }
    missing.is_empty()
}
