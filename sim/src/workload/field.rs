//! What all clients of a run share: where things are, when to stop, what is written down, and what is still owed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::protocol::StrBytes;

use super::Schedule;
use crate::history::{AckMode, Notes, Place};
use crate::scenario::Scenario;

#[derive(Clone)]
pub struct Field {
    /// Of the cluster; all of them are named to clients, as where to begin.
    pub nodes: u32,
    pub places: Arc<Vec<Place>>,
    /// Partitions of the compacted topic, where there is one.
    pub compacted: Arc<Vec<Place>>,
    replication: i16,
    min_insync_replicas: i16,
    /// So many answers wait in a connection of the broker before it reads another request.
    pub answers_queued: usize,
    /// Records are deleted while clients work.
    pub deletes: bool,
    pub schedule: Schedule,
    pub notes: Notes,
    pub(super) owed: PendingCounts,
    pub(super) lives: Lives,
    pub(super) running: Arc<AtomicUsize>,
}

impl Field {
    /// The name of the compacted topic.
    pub const COMPACTED: &str = "compacted";

    pub fn new(scenario: &Scenario, schedule: Schedule) -> Field {
        let cluster = &scenario.cluster;
        let places: Vec<Place> = (0..cluster.topics)
            .flat_map(|topic| {
                let topic: Arc<str> = format!("t{topic}").into();
                (0..cluster.partitions).map(move |partition| Place { topic: topic.clone(), partition })
            })
            .collect();
        let compacted: Arc<str> = Field::COMPACTED.into();
        let partitions = scenario.workload.compacted.iter().flat_map(|_| 0..cluster.partitions);
        let compacted = partitions.map(|partition| Place { topic: compacted.clone(), partition }).collect();
        Field {
            nodes: cluster.nodes,
            replication: cluster.replication,
            min_insync_replicas: cluster.min_insync_replicas,
            owed: PendingCounts::of(places.len()),
            places: Arc::new(places),
            compacted: Arc::new(compacted),
            answers_queued: usize::MAX,
            deletes: scenario.workload.falls_out,
            schedule,
            notes: Notes::default(),
            lives: Lives::default(),
            running: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Whether what was acknowledged so outlives the leader that acknowledged it.
    pub(super) fn promises(&self, acks: AckMode) -> bool {
        acks == AckMode::All || self.replication == 1
    }

    /// A topic as the scenario wants its topics.
    pub(super) fn creatable(&self, name: &str, partitions: i32) -> CreatableTopic {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.to_owned())))
            .with_num_partitions(partitions)
            .with_replication_factor(self.replication);
        if self.replication == 1 {
            return topic;
        }
        topic.with_configs(vec![
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str("min.insync.replicas"))
                .with_value(Some(StrBytes::from_string(self.min_insync_replicas.to_string()))),
        ])
    }

    /// Where clients reach a node.
    pub fn address(node: u32) -> String {
        format!("node{node}:9092")
    }

    /// How many partitions there surely are, of topics that last and of those that come and go.
    pub fn partitions(&self) -> usize {
        self.places.len() + self.compacted.len() + self.lives.places().len()
    }

    /// Whether every client has come to its end.
    pub fn is_done(&self) -> bool {
        self.running.load(Ordering::SeqCst) == 0
    }
}

/// What consumers have to see before they may leave: counted as it happens, since it is asked after every fetch.
#[derive(Clone)]
pub(super) struct PendingCounts(Arc<Mutex<Counts>>);

struct Counts {
    /// Batches of which it is not known yet whether they count.
    open: usize,
    /// Behind the last acknowledged record of each place.
    ends: Vec<i64>,
    /// Behind the last record that anybody has read there.
    read: Vec<i64>,
}

impl PendingCounts {
    fn of(places: usize) -> PendingCounts {
        PendingCounts(Arc::new(Mutex::new(Counts { open: 0, ends: vec![0; places], read: vec![0; places] })))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn began(&self) {
        self.counts().open += 1;
    }

    /// A batch is done with; the place where it was acknowledged, and the offset behind it.
    pub(super) fn settled(&self, acked: Option<(usize, i64)>) {
        let mut counts = self.counts();
        counts.open = counts.open.saturating_sub(1);
        if let Some((place, end)) = acked {
            counts.ends[place] = counts.ends[place].max(end);
        }
    }

    /// Somebody has read up to `end`.
    pub(super) fn read(&self, place: usize, end: i64) {
        let mut counts = self.counts();
        counts.read[place] = counts.read[place].max(end);
    }

    /// Behind the last record of a place that was acknowledged or read; of those that come and go it is not kept.
    pub(super) fn end(&self, place: usize) -> i64 {
        let counts = self.counts();
        let of = |ends: &[i64]| ends.get(place).copied().unwrap_or(0);
        of(&counts.ends).max(of(&counts.read))
    }

    /// Nothing is on its way any more, and all that was acknowledged lies before `positions`.
    pub(super) fn is_seen(&self, positions: &[i64]) -> bool {
        let counts = self.counts();
        counts.open == 0 && counts.ends.iter().zip(positions).all(|(end, position)| position >= end)
    }
}

/// Topics that are created, deleted and created again under one name.
#[derive(Clone, Default)]
pub(super) struct Lives(Arc<Mutex<BTreeMap<String, Life>>>);

#[derive(Clone, Copy)]
struct Life {
    number: u32,
    /// How many, while the topic is surely there.
    partitions: Option<i32>,
}

impl Lives {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Life>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A topic is about to be created: what its life is called.
    pub(super) fn begin(&self, name: &str) -> Arc<str> {
        let mut all = self.all();
        let life = all.entry(name.to_owned()).or_insert(Life { number: 0, partitions: None });
        life.number += 1;
        called(name, life.number).into()
    }

    pub(super) fn created(&self, name: &str, partitions: i32) {
        if let Some(life) = self.all().get_mut(name) {
            life.partitions = Some(partitions);
        }
    }

    /// It is to be deleted, and from now on nobody knows whether it is there.
    pub(super) fn ends(&self, name: &str) {
        if let Some(life) = self.all().get_mut(name) {
            life.partitions = None;
        }
    }

    /// What the present life of a topic is called.
    pub(super) fn current(&self, name: &str) -> String {
        called(name, self.all().get(name).map_or(1, |life| life.number))
    }

    /// Partitions of all that are surely there.
    pub(super) fn places(&self) -> Vec<Place> {
        let all = self.all();
        all.iter()
            .filter_map(|(name, life)| Some((called(name, life.number), life.partitions?)))
            .flat_map(|(topic, partitions)| {
                let topic: Arc<str> = topic.into();
                (0..partitions).map(move |partition| Place { topic: topic.clone(), partition })
            })
            .collect()
    }
}

/// A second life has another name in the history, and the same on the wire.
fn called(name: &str, life: u32) -> String {
    if life <= 1 { name.to_owned() } else { format!("{name}#{life}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_may_leave_when_nothing_is_open_and_all_is_behind_it() {
        let owed = PendingCounts::of(2);
        owed.began();
        assert!(!owed.is_seen(&[9, 9]));
        owed.settled(Some((1, 5)));
        assert!(owed.is_seen(&[0, 5]));
        assert!(!owed.is_seen(&[9, 4]));
    }

    #[test]
    fn the_last_read_goes_to_where_anybody_has_read_and_consumers_need_not() {
        let owed = PendingCounts::of(2);
        owed.began();
        owed.settled(Some((1, 5)));
        owed.read(1, 3);
        assert_eq!((owed.end(0), owed.end(1), owed.end(7)), (0, 5, 0));
        owed.read(1, 8);
        assert_eq!(owed.end(1), 8);
        assert!(owed.is_seen(&[0, 5]));
    }

    #[test]
    fn each_life_of_a_topic_has_a_name_of_its_own() {
        let lives = Lives::default();
        assert_eq!(&*lives.begin("a"), "a");
        lives.created("a", 1);
        assert_eq!(lives.places().len(), 1);
        lives.ends("a");
        assert_eq!(lives.places(), []);
        assert_eq!(&*lives.begin("a"), "a#2");
        lives.created("a", 2);
        assert_eq!(lives.places()[1].to_string(), "a#2-1");
        assert_eq!((lives.current("a").as_str(), lives.current("b").as_str()), ("a#2", "b"));
        let wire_name = crate::history::wire_name;
        assert_eq!((wire_name("a#2"), wire_name("b")), ("a", "b"));
    }
}
