//! Which node leads which partition, as far as a client was told, and whom it asks about it. Decides, and does no I/O.
//!
//! Who is told that a node does not lead, or cannot reach it, asks the next node where the partitions are now, as real
//! clients do. A cluster of one node needs no asking.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::MetadataResponse;

use super::connection::ns;
use crate::history::{At, Place, wire_name};

/// Who was just told does not ask again at once: Kafka's `retry.backoff.ms`.
const ASKED_APART: Duration = Duration::from_millis(100);
/// librdkafka's timer for partitions that no broker serves.
const GIVEN_UP_FOR: Duration = Duration::from_secs(1);

pub(super) struct Routes {
    nodes: u32,
    /// All it reaches is this node, which passes on what others lead.
    through: Option<u32>,
    /// By topic and partition, by the names on the wire; of those with a leader, with its epoch.
    leaders: BTreeMap<String, BTreeMap<i32, (u32, i32)>>,
    /// What is known may be out of date.
    doubted: bool,
    /// Whom to ask next.
    asks: u32,
    not_before: At,
    /// Who told it what it knows.
    told_by: u32,
    /// When it heard what it knows, and when it had asked for that; and of all that it knew before: more than one answer may come
    /// while a fetch is parked, and one may lie there for long before it is heard.
    learned: Vec<(At, At)>,
}

impl Routes {
    /// `turn` spreads clients over the nodes.
    pub(super) fn new(nodes: u32, turn: u32) -> Routes {
        let asks = 1 + turn % nodes.max(1);
        Routes {
            nodes,
            through: None,
            leaders: BTreeMap::new(),
            doubted: nodes > 1,
            asks,
            not_before: 0,
            told_by: asks,
            learned: Vec::new(),
        }
    }

    /// Of a client that reaches this node alone.
    pub(super) fn through(self, node: u32) -> Routes {
        Routes { through: Some(node), asks: node, ..self }
    }

    /// Whom a request about the partition goes to.
    pub(super) fn leader(&self, place: &Place) -> Option<u32> {
        if self.nodes == 1 {
            return Some(1);
        }
        if self.through.is_some() {
            return self.through;
        }
        self.known(place).map(|(leader, _)| leader)
    }

    /// The epoch of the leader that is known.
    pub(super) fn leader_epoch(&self, place: &Place) -> Option<i32> {
        self.known(place).map(|(_, epoch)| epoch)
    }

    fn known(&self, place: &Place) -> Option<(u32, i32)> {
        self.leaders.get(wire_name(&place.topic))?.get(&place.partition).copied()
    }

    /// When it had asked for what it went by at that time.
    pub(super) fn learned_before(&self, sent: At) -> Option<At> {
        self.learned.iter().rev().find(|(heard, _)| *heard <= sent).map(|(_, asked)| *asked)
    }

    /// The node to ask about anything that every node can answer.
    pub(super) fn asks(&self) -> u32 {
        self.asks
    }

    /// As one who has not heard of the topic yet: what it was told of another one of that name says nothing, and it asks at once.
    pub(super) fn forget(&mut self, topic: &str) {
        self.leaders.remove(wire_name(topic));
        self.not_before = 0;
    }

    /// The node that was asked is not to be reached or does not answer.
    pub(super) fn turn_away(&mut self, from: u32) {
        if self.asks == from && self.through.is_none() {
            self.asks = from % self.nodes.max(1) + 1;
        }
    }

    /// A partition may have moved.
    pub(super) fn doubt(&mut self) {
        self.doubted = self.nodes > 1;
    }

    /// What an error code says of what is known.
    pub(super) fn told(&mut self, code: i16) {
        use ResponseError::*;
        let moved = ResponseError::try_from_code(code).is_some_and(|error| {
            matches!(
                error,
                NotLeaderOrFollower
                    | LeaderNotAvailable
                    | FencedLeaderEpoch
                    | UnknownLeaderEpoch
                    | UnknownTopicOrPartition
                    | UnknownTopicId
                    | KafkaStorageError
                    | NotController
            )
        });
        if moved {
            self.doubt();
            // What it said led nowhere: another one is asked, as clients do that ask any of those they know. Once, for however many partitions.
            self.turn_away(self.told_by);
        }
    }

    /// From when on to ask where the partitions are, if that is to be asked.
    pub(super) fn asks_from(&self) -> Option<At> {
        self.doubted.then_some(self.not_before)
    }

    /// An answer of the node that was asked then. While it does not name a leader for everything it knows of, the next one is asked.
    pub(super) fn learn(&mut self, from: u32, answer: &MetadataResponse, (asked, now): (At, At)) {
        self.learned.push((now, asked));
        self.told_by = from;
        self.not_before = now + ns(ASKED_APART);
        self.doubted = answer.topics.is_empty();
        // As librdkafka from 2.10 on: who is not named is given up, and what this answer moves away from there is asked for again by its
        // timer of a second only.
        let named: BTreeSet<u32> =
            answer.brokers.iter().filter_map(|broker| u32::try_from(broker.node_id.0).ok()).collect();
        let before = std::mem::take(&mut self.leaders);
        let given_up = |topic: &str, partition: i32| {
            let led = before.get(topic).and_then(|partitions| partitions.get(&partition));
            led.is_some_and(|(leader, _)| !named.contains(leader))
        };
        let mut lost = false;
        for topic in &answer.topics {
            let Some(name) = topic.name.as_ref() else { continue };
            let partitions = self.leaders.entry(name.to_string()).or_default();
            for partition in &topic.partitions {
                match u32::try_from(partition.leader_id.0) {
                    Ok(_) if given_up(name, partition.partition_index) => lost = true,
                    Ok(leader) if (1..=self.nodes).contains(&leader) => {
                        partitions.insert(partition.partition_index, (leader, partition.leader_epoch));
                    }
                    _ => self.doubted = true,
                }
            }
        }
        if lost {
            self.doubted = true;
            self.not_before = now + ns(GIVEN_UP_FOR);
        }
        if self.doubted {
            // One that is cut off from the leaders knows of none for as long as it is.
            self.turn_away(from);
        }
    }

    /// Nobody answered; whoever is next is asked after a pause.
    pub(super) fn unanswered(&mut self, now: At) {
        self.not_before = now + ns(ASKED_APART);
        self.turn_away(self.asks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::{BrokerId, TopicName};
    use kafka_protocol::protocol::StrBytes;

    fn place(partition: i32) -> Place {
        Place { topic: "orders#2".into(), partition }
    }

    fn answer(leaders: &[i32]) -> MetadataResponse {
        let partition = |(index, leader): (usize, &i32)| {
            MetadataResponsePartition::default()
                .with_partition_index(index as i32)
                .with_leader_id(BrokerId(*leader))
                .with_leader_epoch(7)
        };
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("orders"))))
            .with_partitions(leaders.iter().enumerate().map(partition).collect());
        let broker = |id: i32| MetadataResponseBroker::default().with_node_id(id.into());
        MetadataResponse::default().with_topics(vec![topic]).with_brokers((1..=3).map(broker).collect())
    }

    #[test]
    fn on_one_node_there_is_nothing_to_ask() {
        let mut routes = Routes::new(1, 7);
        routes.told(ResponseError::NotLeaderOrFollower.code());
        assert_eq!((routes.leader(&place(3)), routes.asks_from(), routes.asks()), (Some(1), None, 1));
    }

    #[test]
    fn a_partition_is_asked_for_where_it_was_told_to_be_until_an_error_says_otherwise() {
        let mut routes = Routes::new(3, 0);
        assert_eq!((routes.leader(&place(0)), routes.asks_from()), (None, Some(0)));
        routes.learn(routes.asks(), &answer(&[2, 3]), (0, 0));
        assert_eq!((routes.leader(&place(0)), routes.leader(&place(1))), (Some(2), Some(3)));
        assert_eq!((routes.leader_epoch(&place(0)), routes.leader_epoch(&place(9))), (Some(7), None));
        routes.told(ResponseError::NotEnoughReplicas.code());
        assert_eq!(routes.asks_from(), None, "it is still the leader that says so");
        routes.told(ResponseError::NotLeaderOrFollower.code());
        assert_eq!(routes.asks_from(), Some(100_000_000));
        assert_eq!(routes.leader(&place(0)), Some(2), "until it knows better it goes where it went");
    }

    #[test]
    fn a_partition_without_a_leader_is_asked_for_again_elsewhere() {
        let mut routes = Routes::new(3, 0);
        routes.learn(routes.asks(), &answer(&[2, -1]), (5, 5));
        assert_eq!(routes.asks(), 2);
        assert_eq!((routes.learned_before(4), routes.learned_before(6)), (None, Some(5)));
        routes.learn(routes.asks(), &answer(&[2, -1]), (5, 5));
        assert_eq!((routes.leader(&place(1)), routes.asks_from()), (None, Some(100_000_005)));
        [7, 9].into_iter().for_each(|at| routes.learn(routes.asks(), &answer(&[2, 3]), (6, at)));
        assert_eq!(routes.learned_before(6), Some(5), "by which a fetch went that is answered now");
        assert_eq!(routes.learned_before(8), Some(6), "what was asked for then may be of then");
    }

    #[test]
    fn what_moves_away_from_a_broker_that_is_not_named_is_asked_for_after_a_second() {
        let mut routes = Routes::new(3, 0);
        routes.learn(1, &answer(&[2, 3]), (0, 0));
        let mut moved = answer(&[1, 3]);
        moved.brokers.retain(|broker| broker.node_id.0 != 2);
        routes.learn(1, &moved, (5, 5));
        assert_eq!((routes.leader(&place(0)), routes.leader(&place(1))), (None, Some(3)));
        assert_eq!(routes.asks_from(), Some(1_000_000_005));
        routes.learn(1, &moved, (7, 7));
        assert_eq!((routes.leader(&place(0)), routes.asks_from()), (Some(1), None));
    }

    #[test]
    fn errors_about_many_partitions_turn_away_from_who_told_where_they_are_once() {
        let mut routes = Routes::new(3, 2);
        routes.learn(3, &answer(&[3, 3]), (0, 0));
        for _ in 0..3 {
            routes.told(ResponseError::NotLeaderOrFollower.code());
        }
        assert_eq!(routes.asks(), 1, "three steps of three lead back to where it was");
    }

    #[test]
    fn the_next_node_is_asked_when_one_does_not_answer() {
        let mut routes = Routes::new(3, 1);
        let mut asked = Vec::new();
        for now in 0..4 {
            asked.push(routes.asks());
            routes.unanswered(now);
        }
        assert_eq!(asked, [2, 3, 1, 2]);
        routes.turn_away(1);
        assert_eq!(routes.asks(), 3, "it is somebody else who is not to be reached");
    }
}
