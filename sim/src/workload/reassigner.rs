//! A client that moves partitions: it has them kept by other nodes, under load, sometimes before the move before is over, and calls some of that off.

use std::time::Duration;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, BrokerId,
};

use super::client::Client;
use super::lines::Lines;
use super::lookups::topic_name;
use super::producer::not_timed_out;
use crate::history::Trade;
use crate::probe::Probe;
use crate::streams::Stream;

/// One of so many calls a move off.
const CALLED_OFF_ONE_IN: u64 = 5;

pub(super) fn start<B: Backend>(
    client: Client<B>,
    replication: i16,
    every: Duration,
    within: Duration,
    stream: Stream,
) {
    let line = Lines::new(&client);
    let copies = usize::try_from(replication).unwrap_or(1);
    let reassigner = Reassigner { line, client: client.clone(), copies, within, stream };
    client.begin("reassigner", reassigner.run(every));
}

struct Reassigner<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
    /// Of each partition.
    copies: usize,
    within: Duration,
    stream: Stream,
}

impl<B: Backend> Reassigner<B> {
    async fn run(mut self, every: Duration) {
        // No move is begun that could not end before everything has to be at rest.
        while self.client.next_turn(every).await && self.client.now() < self.client.field.schedule.healed {
            self.reassign().await;
        }
    }

    async fn reassign(&mut self) {
        let places = self.client.field.places.clone();
        let place = &places[self.stream.below(places.len() as u64) as usize];
        let replicas = match self.stream.below(CALLED_OFF_ONE_IN) {
            0 => None,
            _ => Some(self.replicas()),
        };
        let moves = replicas.is_some();
        let partition =
            ReassignablePartition::default().with_partition_index(place.partition).with_replicas(replicas);
        let topic =
            ReassignableTopic::default().with_name(topic_name(place)).with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(i32::try_from(self.within.as_millis()).unwrap_or(i32::MAX))
            .with_topics(vec![topic]);
        let code = |answer: &AlterPartitionReassignmentsResponse| {
            let of_partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
            of_partitions.map(|one| one.error_code).find(|code| *code != 0).unwrap_or(answer.error_code)
        };
        let decided = |answer: &AlterPartitionReassignmentsResponse| not_timed_out(code(answer));
        let sent = self.client.now();
        let answer = self.line.call(Trade::Change, &request, 0, self.within, decided).await;
        let Ok(answer) = answer else { return };
        let code = code(&answer);
        // What has ended, or never was, cannot be called off.
        if code == ResponseError::NoReassignmentInProgress.code() && !moves {
            return;
        }
        self.client.complain(Trade::Change, Some(place), code, sent);
        if code == 0 && moves {
            self.client.field.notes.write().count(Probe::PartitionsMoved.name());
        }
    }

    /// Some of the nodes, in any order.
    fn replicas(&mut self) -> Vec<BrokerId> {
        let mut nodes: Vec<i32> =
            (1..=self.client.field.nodes).filter_map(|node| i32::try_from(node).ok()).collect();
        let mut replicas = Vec::new();
        while replicas.len() < self.copies && !nodes.is_empty() {
            let nth = self.stream.below(nodes.len() as u64) as usize;
            replicas.push(BrokerId(nodes.swap_remove(nth)));
        }
        replicas
    }
}
