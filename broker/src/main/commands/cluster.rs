//! `chronik cluster`

use clap::{Args, Subcommand};
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_quorum_response::ReplicaState;
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeQuorumRequest, ListPartitionReassignmentsRequest,
};
use serde_json::json;

use super::arguments::{Asking, time_text};
use super::output::{NOTHING, Table, list, or_nothing, say, say_json, warn, warn_of_age};
use crate::client::cluster::{Answer, topic_name};
use crate::client::failure::check;
use crate::client::{Client, Failure};

/// Kafka's name of the log of metadata.
const METADATA_TOPIC: &str = "__cluster_metadata";

#[derive(Args)]
pub struct Cluster {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Command {
    /// The nodes that are alive, and which of them is the controller
    Nodes,
    /// Who votes on the metadata, who leads, and how far behind the others are
    Quorum,
    /// Partitions that are on their way to other nodes
    Reassignments,
}

impl Cluster {
    pub fn run(&self) -> Result<(), Failure> {
        let mut client = self.asking.client();
        let json = self.asking.json();
        match self.command {
            Command::Nodes => nodes(&mut client, json),
            Command::Quorum => quorum(&mut client, json),
            Command::Reassignments => reassignments(&mut client, json),
        }
    }
}

fn nodes(client: &mut Client, json: bool) -> Result<(), Failure> {
    let doing = "list nodes";
    let request = DescribeClusterRequest::default();
    let told = client.patiently(|client| {
        let Answer { message, node } = client.ask_any(doing, &request)?;
        check(message.error_code, doing, message.error_message.as_deref(), &node).map(|()| message)
    })?;
    let mut brokers = told.brokers;
    brokers.sort_by_key(|broker| broker.broker_id.0);
    let is_controller = |id: BrokerId| id == told.controller_id;
    warn_of_age(brokers.iter().any(|broker| is_controller(broker.broker_id)));
    if json {
        let all = brokers.iter().map(|broker| {
            json!({
                "id": broker.broker_id.0,
                "host": broker.host.as_str(),
                "port": broker.port,
                "rack": broker.rack.as_ref().map(|rack| rack.as_str()),
                "controller": is_controller(broker.broker_id),
            })
        });
        return say_json(
            &json!({ "cluster_id": told.cluster_id.as_str(), "nodes": all.collect::<Vec<_>>() }),
        );
    }
    let mut table = Table::new(&["NODE", "HOST", "PORT", "RACK", "CONTROLLER"]);
    for broker in &brokers {
        table.row(vec![
            broker.broker_id.0.to_string(),
            broker.host.to_string(),
            broker.port.to_string(),
            or_nothing(broker.rack.as_deref()),
            (if is_controller(broker.broker_id) { "yes" } else { NOTHING }).to_owned(),
        ]);
    }
    say(&table.text())
}

fn quorum(client: &mut Client, json: bool) -> Result<(), Failure> {
    let doing = "describe the quorum";
    let topic = TopicData::default()
        .with_topic_name(topic_name(METADATA_TOPIC))
        .with_partitions(vec![PartitionData::default().with_partition_index(0)]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    let told = client.patiently(|client| {
        let Answer { message, node } = client.ask_controller(doing, &request)?;
        check(message.error_code, doing, message.error_message.as_deref(), &node)?;
        let partition = message.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let partition = partition.ok_or_else(|| Failure::Malformed {
            doing: doing.into(),
            node: node.clone(),
            why: "it says nothing about the log of metadata".into(),
        })?;
        check(partition.error_code, doing, partition.error_message.as_deref(), &node).map(|()| partition)
    })?;
    let end = told.current_voters.iter().chain(&told.observers).map(|one| one.log_end_offset).max();
    let role = |one: &ReplicaState, votes: bool| match (one.replica_id == told.leader_id, votes) {
        (true, _) => "leader",
        (false, true) => "follower",
        (false, false) => "observer",
    };
    let voters = told.current_voters.iter().map(|one| (one, role(one, true)));
    let observers = told.observers.iter().map(|one| (one, role(one, false)));
    let mut members: Vec<(&ReplicaState, &str)> = voters.chain(observers).collect();
    members.sort_by_key(|(one, _)| one.replica_id.0);
    let lag = |one: &ReplicaState| end.map(|end| end - one.log_end_offset);
    let known = |ms: i64| Some(ms).filter(|ms| *ms >= 0);
    if json {
        let all = members.iter().map(|(one, role)| {
            json!({
                "id": one.replica_id.0,
                "role": role,
                "log_end_offset": one.log_end_offset,
                "lag": lag(one),
                "last_fetch_timestamp": known(one.last_fetch_timestamp),
                "last_caught_up_timestamp": known(one.last_caught_up_timestamp),
            })
        });
        return say_json(&json!({
            "leader": told.leader_id.0,
            "leader_epoch": told.leader_epoch,
            "high_watermark": told.high_watermark,
            "members": all.collect::<Vec<_>>(),
        }));
    }
    let mut table = Table::new(&["NODE", "ROLE", "LOG-END-OFFSET", "LAG", "LAST-FETCH", "LAST-CAUGHT-UP"]);
    for (one, role) in members {
        table.row(vec![
            one.replica_id.0.to_string(),
            role.to_owned(),
            one.log_end_offset.to_string(),
            or_nothing(lag(one)),
            or_nothing(time_text(one.last_fetch_timestamp)),
            or_nothing(time_text(one.last_caught_up_timestamp)),
        ]);
    }
    let (leader, epoch, committed) = (told.leader_id.0, told.leader_epoch, told.high_watermark);
    say(&format!("leader {leader}, epoch {epoch}, high watermark {committed}\n{}", table.text()))
}

fn reassignments(client: &mut Client, json: bool) -> Result<(), Failure> {
    let doing = "list reassignments";
    let told = client.patiently(|client| {
        let request = ListPartitionReassignmentsRequest::default()
            .with_timeout_ms(client.timeout_ms())
            .with_topics(None);
        let Answer { message, node } = client.ask_controller(doing, &request)?;
        check(message.error_code, doing, message.error_message.as_deref(), &node).map(|()| message)
    })?;
    warn_of_age(client.has_controller());
    let ids = |of: &[BrokerId]| of.iter().map(|id| id.0).collect::<Vec<i32>>();
    let mut rows: Vec<_> = told
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |one| (topic.name.to_string(), one)))
        .collect();
    rows.sort_by_key(|(topic, one)| (topic.clone(), one.partition_index));
    if json {
        let all = rows.iter().map(|(topic, one)| {
            json!({
                "topic": topic,
                "partition": one.partition_index,
                "replicas": ids(&one.replicas),
                "adding": ids(&one.adding_replicas),
                "removing": ids(&one.removing_replicas),
            })
        });
        return say_json(&all.collect::<Vec<_>>());
    }
    let mut table = Table::new(&["TOPIC", "PARTITION", "REPLICAS", "ADDING", "REMOVING"]);
    for (topic, one) in rows {
        let [replicas, adding, removing] =
            [&one.replicas, &one.adding_replicas, &one.removing_replicas].map(|of| list(&ids(of)));
        table.row(vec![topic, one.partition_index.to_string(), replicas, adding, removing]);
    }
    if table.is_empty() {
        warn("no partition is on its way");
    }
    say(&table.text())
}
