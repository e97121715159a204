//! Offsets of partitions by their time: the first, the last, or that of the first record from a moment on.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest};

use super::cluster::{Answer, Client, Topic, topic_name};
use super::failure::{Failure, check};

/// In place of a time: the offset after the last record.
pub const LATEST: i64 = -1;
/// In place of a time: the offset of the first record.
pub const EARLIEST: i64 = -2;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: String,
    pub partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// What was found until the deadline, and why the rest was not.
#[derive(Debug, Default)]
pub struct Found {
    pub offsets: BTreeMap<TopicPartition, i64>,
    pub failures: Vec<Failure>,
}

impl Found {
    /// All or nothing.
    pub fn whole(self) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
        Failure::of_all(self.failures).map(|()| self.offsets)
    }
}

/// All partitions of a topic.
pub fn partitions(topic: &Topic) -> impl Iterator<Item = TopicPartition> {
    topic.partitions.iter().map(|one| TopicPartition { topic: topic.name.clone(), partition: one.partition })
}

impl Client {
    /// The offset of each partition at this time: milliseconds since 1970, [`EARLIEST`] or [`LATEST`]. Where no record is so late, the
    /// partition is not among those found.
    pub fn offsets(&mut self, wanted: &BTreeSet<TopicPartition>, time: i64) -> Result<Found, Failure> {
        let mut found = Found::default();
        let mut left = wanted.clone();
        while !left.is_empty() {
            // What is to be asked again, and the last reason for it.
            let (mut again, mut passing) = (BTreeSet::new(), None);
            let leaders = self.leaders(&left, &mut found, &mut again, &mut passing)?;
            for (leader, asked) in leaders {
                match self.offsets_of(leader, &asked, time) {
                    Ok(answered) => {
                        for (one, answer) in answered {
                            match answer {
                                Ok(Some(offset)) => drop(found.offsets.insert(one, offset)),
                                Ok(None) => {}
                                Err(failure) if failure.is_passing() => {
                                    again.insert(one);
                                    passing = Some(failure);
                                }
                                Err(failure) => found.failures.push(failure),
                            }
                        }
                    }
                    Err(failure) if failure.is_passing() => {
                        again.extend(asked);
                        passing = Some(failure);
                    }
                    Err(failure) => found.failures.push(failure),
                }
            }
            left = again;
            let Some(failure) = passing else { break };
            if let Err(failure) = self.wait_after(failure) {
                found.failures.push(failure);
                break;
            }
        }
        Ok(found)
    }

    /// By leader; those that have none are to be asked for again.
    fn leaders(
        &mut self,
        wanted: &BTreeSet<TopicPartition>,
        found: &mut Found,
        again: &mut BTreeSet<TopicPartition>,
        passing: &mut Option<Failure>,
    ) -> Result<BTreeMap<i32, Vec<TopicPartition>>, Failure> {
        let doing = "list offsets";
        let names: BTreeSet<&String> = wanted.iter().map(|one| &one.topic).collect();
        let names: Vec<String> = names.into_iter().cloned().collect();
        let topics = self.patiently(|client| client.metadata(doing, Some(&names)))?;
        let mut leaders: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        for one in wanted {
            let topic = topics.iter().find(|topic| topic.name == one.topic);
            let refused = |code: ResponseError| Failure::Refused {
                what: format!("partition {one}"),
                code,
                message: String::new(),
                node: "the metadata".to_owned(),
            };
            match topic.and_then(|topic| topic.partition(one.partition)) {
                None => found.failures.push(refused(ResponseError::UnknownTopicOrPartition)),
                Some(known) => match known.leader {
                    Some(leader) => leaders.entry(leader).or_default().push(one.clone()),
                    None => {
                        again.insert(one.clone());
                        *passing = Some(refused(ResponseError::LeaderNotAvailable));
                    }
                },
            }
        }
        Ok(leaders)
    }

    #[allow(clippy::type_complexity, reason = "each partition has an answer of its own")]
    fn offsets_of(
        &mut self,
        leader: i32,
        asked: &[TopicPartition],
        time: i64,
    ) -> Result<Vec<(TopicPartition, Result<Option<i64>, Failure>)>, Failure> {
        let mut topics: BTreeMap<&String, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for one in asked {
            let partition = ListOffsetsPartition::default()
                .with_partition_index(one.partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(time);
            topics.entry(&one.topic).or_default().push(partition);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(partitions)
        });
        let request =
            ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect());
        let Answer { message, node } = self.ask_node(leader, "list offsets", &request)?;
        let mut answered = Vec::new();
        for topic in message.topics {
            for told in topic.partitions {
                let one = TopicPartition { topic: topic.name.to_string(), partition: told.partition_index };
                let what = format!("offsets of partition {one}");
                let offset = Some(told.offset).filter(|offset| *offset >= 0);
                answered.push((one, check(told.error_code, &what, None, &node).map(|()| offset)));
            }
        }
        Ok(answered)
    }
}
