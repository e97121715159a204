//! Groups of consumers, of either protocol, as their coordinators tell of them.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerProtocolAssignment, DeleteGroupsRequest, DescribeClusterRequest,
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::Decodable;

use super::apis::Known;
use super::cluster::{Answer, Client, text, topic_name};
use super::failure::{Failure, check};
use super::offsets::TopicPartition;

pub struct Listed {
    pub group: String,
    /// `classic` or `consumer`; empty where a node is too old to say.
    pub kind: String,
    pub protocol_type: String,
    pub state: String,
    pub coordinator: i32,
}

pub struct Described {
    pub group: String,
    pub kind: &'static str,
    pub protocol_type: String,
    pub state: String,
    pub assignor: String,
    pub coordinator: i32,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug)]
pub struct Member {
    pub id: String,
    pub instance: Option<String>,
    pub client: String,
    pub host: String,
    /// In the order of topics and partitions.
    pub assignment: Vec<TopicPartition>,
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

/// What holds of an answer that says nothing about what was asked.
fn silent(doing: &str, node: &str) -> Failure {
    Failure::Malformed {
        doing: doing.into(),
        node: node.into(),
        why: "it says nothing about what was asked".into(),
    }
}

impl Client {
    /// Of all nodes; each tells of the groups that it coordinates. Those of a node that does not answer until the deadline are missing,
    /// and it is a failure.
    pub fn list_groups(&mut self) -> Result<(Vec<Listed>, Vec<Failure>), Failure> {
        let doing = "list groups";
        loop {
            // Only those that are alive: metadata may name others for as long as they are registered.
            let told = self.patiently(|client| {
                let request = DescribeClusterRequest::default();
                let Answer { message, node } = client.ask_any(doing, &request)?;
                check(message.error_code, doing, message.error_message.as_deref(), &node).map(|()| message)
            })?;
            for broker in &told.brokers {
                self.learn(broker.broker_id.0, &broker.host, broker.port);
            }
            let nodes: Vec<i32> = told.brokers.iter().map(|broker| broker.broker_id.0).collect();
            let (mut listed, mut failures) = (Vec::new(), Vec::new());
            for node in nodes {
                match self.groups_of(node, doing) {
                    Ok(groups) => listed.extend(groups),
                    Err(failure) => failures.push(failure),
                }
            }
            listed.sort_by(|one: &Listed, two| one.group.cmp(&two.group));
            // Where a node has just gone, others will have its groups.
            if self.deadline.is_over() || !failures.iter().any(Failure::is_passing) {
                return Ok((listed, failures));
            }
            self.settle();
        }
    }

    fn groups_of(&mut self, coordinator: i32, doing: &str) -> Result<Vec<Listed>, Failure> {
        let Answer { message, node } = self.ask_node(coordinator, doing, &ListGroupsRequest::default())?;
        check(message.error_code, doing, None, &node)?;
        let groups = message.groups.into_iter().map(|told| Listed {
            group: told.group_id.to_string(),
            kind: told.group_type.to_lowercase(),
            protocol_type: told.protocol_type.to_string(),
            state: told.group_state.to_string(),
            coordinator,
        });
        Ok(groups.collect())
    }

    /// Finds who coordinates the group, and asks there.
    fn ask_coordinator<R: Known>(
        &mut self,
        group: &str,
        doing: &str,
        request: &R,
    ) -> Result<(i32, Answer<R::Response>), Failure> {
        let coordinator = self.coordinator(group, doing)?;
        Ok((coordinator, self.ask_node(coordinator, doing, request)?))
    }

    fn coordinator(&mut self, group: &str, doing: &str) -> Result<i32, Failure> {
        let request =
            FindCoordinatorRequest::default().with_key_type(0).with_coordinator_keys(vec![text(group)]);
        let Answer { message, node } = self.ask_any(doing, &request)?;
        let told = message.coordinators.into_iter().next().ok_or_else(|| silent(doing, &node))?;
        let what = format!("coordinator of group {group}");
        check(told.error_code, &what, told.error_message.as_deref(), &node)?;
        self.learn(told.node_id.0, &told.host, told.port);
        Ok(told.node_id.0)
    }

    pub fn describe_group(&mut self, group: &str) -> Result<Described, Failure> {
        let doing = format!("describe group {group}");
        self.patiently(|client| {
            let coordinator = client.coordinator(group, &doing)?;
            if client.serves::<ConsumerGroupDescribeRequest>(coordinator, &doing)?
                && let Some(described) = client.describe_consumer(group, &doing)?
            {
                return Ok(described);
            }
            client.describe_classic(group, &doing)
        })
    }

    /// None where it is no group of KIP-848.
    fn describe_consumer(&mut self, group: &str, doing: &str) -> Result<Option<Described>, Failure> {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
        let (coordinator, Answer { message, node }) = self.ask_coordinator(group, doing, &request)?;
        let told = message.groups.into_iter().next().ok_or_else(|| silent(doing, &node))?;
        if told.error_code == ResponseError::GroupIdNotFound.code() {
            return Ok(None);
        }
        check(told.error_code, doing, told.error_message.as_deref(), &node)?;
        let members = told.members.into_iter().map(|member| {
            let topics = member.assignment.topic_partitions.into_iter();
            Member {
                id: member.member_id.to_string(),
                instance: member.instance_id.map(|id| id.to_string()),
                client: member.client_id.to_string(),
                host: member.client_host.to_string(),
                assignment: flat(topics.map(|topic| (topic.topic_name.to_string(), topic.partitions))),
            }
        });
        Ok(Some(Described {
            group: group.to_owned(),
            kind: "consumer",
            protocol_type: "consumer".to_owned(),
            state: told.group_state.to_string(),
            assignor: told.assignor_name.to_string(),
            coordinator,
            members: members.collect(),
        }))
    }

    fn describe_classic(&mut self, group: &str, doing: &str) -> Result<Described, Failure> {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
        let (coordinator, Answer { message, node }) = self.ask_coordinator(group, doing, &request)?;
        let told = message.groups.into_iter().next().ok_or_else(|| silent(doing, &node))?;
        check(told.error_code, doing, told.error_message.as_deref(), &node)?;
        if told.group_state.as_str() == "Dead" {
            check(ResponseError::GroupIdNotFound.code(), doing, None, &node)?;
        }
        let is_consumer = told.protocol_type.as_str() == "consumer";
        let members = told.members.into_iter().map(|member| Member {
            id: member.member_id.to_string(),
            instance: member.group_instance_id.map(|id| id.to_string()),
            client: member.client_id.to_string(),
            host: member.client_host.to_string(),
            assignment: if is_consumer { assigned(member.member_assignment) } else { Vec::new() },
        });
        Ok(Described {
            group: group.to_owned(),
            kind: "classic",
            protocol_type: told.protocol_type.to_string(),
            state: told.group_state.to_string(),
            assignor: told.protocol_data.to_string(),
            coordinator,
            members: members.collect(),
        })
    }

    /// What the group has committed, by partition.
    pub fn committed(&mut self, group: &str) -> Result<BTreeMap<TopicPartition, i64>, Failure> {
        let doing = format!("offsets of group {group}");
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(group_id(group))
            .with_member_id(None)
            .with_member_epoch(-1)
            .with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        self.patiently(|client| {
            let (_, Answer { message, node }) = client.ask_coordinator(group, &doing, &request)?;
            let told = message.groups.into_iter().next().ok_or_else(|| silent(&doing, &node))?;
            check(told.error_code, &doing, None, &node)?;
            let mut committed = BTreeMap::new();
            for topic in told.topics {
                for one in topic.partitions {
                    check(one.error_code, &doing, None, &node)?;
                    if one.committed_offset >= 0 {
                        let of =
                            TopicPartition { topic: topic.name.to_string(), partition: one.partition_index };
                        committed.insert(of, one.committed_offset);
                    }
                }
            }
            Ok(committed)
        })
    }

    /// As nobody's member: a group that has some refuses it.
    pub fn commit(&mut self, group: &str, offsets: &BTreeMap<TopicPartition, i64>) -> Result<(), Failure> {
        let doing = format!("set offsets of group {group}");
        let mut topics: BTreeMap<&String, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (one, offset) in offsets {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(one.partition)
                .with_committed_offset(*offset)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(Some(text("")));
            topics.entry(&one.topic).or_default().push(partition);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
        });
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics.collect());
        self.patiently(|client| {
            let (_, Answer { message, node }) = client.ask_coordinator(group, &doing, &request)?;
            for topic in message.topics {
                for one in topic.partitions {
                    let what = format!("{doing}, partition {}-{}", topic.name.as_str(), one.partition_index);
                    check(one.error_code, &what, None, &node)?;
                }
            }
            Ok(())
        })
    }

    pub fn delete_group(&mut self, group: &str) -> Result<(), Failure> {
        let doing = format!("delete group {group}");
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
        self.patiently(|client| {
            let (_, Answer { message, node }) = client.ask_coordinator(group, &doing, &request)?;
            let told = message.results.into_iter().next().ok_or_else(|| silent(&doing, &node))?;
            check(told.error_code, &doing, None, &node)
        })
    }

    pub fn delete_offsets(&mut self, group: &str, of: &[TopicPartition]) -> Result<(), Failure> {
        let doing = format!("delete offsets of group {group}");
        let mut topics: BTreeMap<&String, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for one in of {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(one.partition);
            topics.entry(&one.topic).or_default().push(partition);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            OffsetDeleteRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
        });
        let request =
            OffsetDeleteRequest::default().with_group_id(group_id(group)).with_topics(topics.collect());
        self.patiently(|client| {
            let (_, Answer { message, node }) = client.ask_coordinator(group, &doing, &request)?;
            check(message.error_code, &doing, None, &node)?;
            for topic in message.topics {
                for one in topic.partitions {
                    let what = format!("{doing}, partition {}-{}", topic.name.as_str(), one.partition_index);
                    check(one.error_code, &what, None, &node)?;
                }
            }
            Ok(())
        })
    }
}

fn flat(topics: impl Iterator<Item = (String, Vec<i32>)>) -> Vec<TopicPartition> {
    let of_topic = |(topic, partitions): (String, Vec<i32>)| {
        partitions.into_iter().map(move |partition| TopicPartition { topic: topic.clone(), partition })
    };
    let mut all: Vec<TopicPartition> = topics.flat_map(of_topic).collect();
    all.sort();
    all
}

/// What members of the classic protocol are told by their leader; bytes that are none of it assign nothing that can be shown.
fn assigned(mut bytes: Bytes) -> Vec<TopicPartition> {
    if bytes.len() < 2 {
        return Vec::new();
    }
    // Later versions add to the end.
    let version = bytes.get_i16().clamp(0, 3);
    let Ok(assignment) = ConsumerProtocolAssignment::decode(&mut bytes, version) else { return Vec::new() };
    flat(assignment.assigned_partitions.into_iter().map(|one| (one.topic.to_string(), one.partitions)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_of_the_classic_protocol_is_read_and_damage_is_none() {
        let bytes: &[u8] = b"\0\x01\0\0\0\x01\0\x06orders\0\0\0\x02\0\0\0\x02\0\0\0\0\xff\xff\xff\xff";
        let at = |partition| TopicPartition { topic: "orders".into(), partition };
        assert_eq!(assigned(Bytes::from_static(bytes)), [at(0), at(2)]);
        for cut in 0..bytes.len() - 4 {
            assert_eq!(assigned(Bytes::copy_from_slice(&bytes[..cut])), [], "{cut} bytes");
        }
    }
}
