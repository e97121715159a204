//! `chronik topics`

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
};
use serde_json::{Value, json};

use super::arguments::{Asking, Entry, From, Selection, datetime, entry, from, selection};
use super::configs::{Resource, Shown, configured};
use super::output::{NOTHING, Table, list, or_nothing, say, say_json, warn_of_age};
use crate::client::cluster::{Answer, text, topic_name};
use crate::client::failure::check;
use crate::client::offsets::{EARLIEST, LATEST};
use crate::client::{Client, Failure, Topic, TopicPartition};

#[derive(Args)]
pub struct Topics {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Command {
    /// All topics
    List {
        /// Also those of the cluster itself
        #[arg(long)]
        internal: bool,
    },
    /// Partitions, who leads them and where they are, and configurations that are not the default
    Describe {
        /// All that are not internal, where none is named
        topics: Vec<String>,
    },
    /// Create topics
    Create {
        #[arg(required = true)]
        topics: Vec<String>,
        /// How many partitions [default: what the cluster has configured]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// How many nodes each partition is on [default: what the cluster has configured]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
        replication_factor: Option<i16>,
        /// A configuration; may be given several times
        #[arg(long, value_name = "NAME=VALUE", value_parser = entry)]
        config: Vec<Entry>,
        /// A topic that is there already is as good as one that was created
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Delete topics, with all that is in them
    Delete {
        #[arg(required = true)]
        topics: Vec<String>,
        /// A topic that is not there is as good as one that was deleted
        #[arg(long)]
        if_exists: bool,
    },
    /// Give a topic more partitions
    AddPartitions {
        topic: String,
        /// How many it is to have in all
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
    },
    /// Delete the records of partitions up to an offset
    DeleteRecords {
        /// TOPIC, TOPIC:0,2 or TOPIC:4-7
        #[arg(value_parser = selection)]
        topic: Selection,
        /// The first offset that stays; `latest` for nothing to stay
        #[arg(long, value_name = "OFFSET", value_parser = before)]
        before: i64,
    },
    /// The first offset of each partition and the one after its last
    Offsets {
        /// TOPIC, TOPIC:0,2 or TOPIC:4-7
        #[arg(required = true, value_parser = selection)]
        topics: Vec<Selection>,
        /// Also the offset of the first record from this time on
        #[arg(long, value_name = "TIME", value_parser = datetime)]
        at: Option<i64>,
    },
}

fn before(text: &str) -> Result<i64, String> {
    match from(text) {
        Ok(From::Offset(offset)) => Ok(offset),
        Ok(From::Latest) => Ok(LATEST),
        _ => Err("it is an offset, or latest".to_owned()),
    }
}

impl Topics {
    pub fn run(&self) -> Result<(), Failure> {
        let mut client = self.asking.client();
        let json = self.asking.json();
        match &self.command {
            Command::List { internal } => list_all(&mut client, *internal, json),
            Command::Describe { topics } => describe(&mut client, topics, json),
            Command::Create { topics, partitions, replication_factor, config, if_not_exists } => {
                let asked = topics.iter().map(|name| {
                    let config = config.iter().map(|entry| {
                        CreatableTopicConfig::default()
                            .with_name(text(&entry.name))
                            .with_value(Some(text(&entry.value)))
                    });
                    CreatableTopic::default()
                        .with_name(topic_name(name))
                        .with_num_partitions(partitions.unwrap_or(-1))
                        .with_replication_factor(replication_factor.unwrap_or(-1))
                        .with_configs(config.collect())
                });
                create(&mut client, asked.collect(), *if_not_exists, json)
            }
            Command::Delete { topics, if_exists } => delete(&mut client, topics, *if_exists, json),
            Command::AddPartitions { topic, partitions } => {
                add_partitions(&mut client, topic, *partitions, json)
            }
            Command::DeleteRecords { topic, before } => delete_records(&mut client, topic, *before, json),
            Command::Offsets { topics, at } => offsets(&mut client, topics, *at, json),
        }
    }
}

fn list_all(client: &mut Client, internal: bool, json: bool) -> Result<(), Failure> {
    let mut topics = client.patiently(|client| client.metadata("list topics", None))?;
    warn_of_age(client.has_controller());
    topics.retain(|topic| internal || !topic.is_internal);
    let under = |topic: &Topic| topic.partitions.iter().filter(|one| one.is_under_replicated()).count();
    let replication = |topic: &Topic| topic.partitions.iter().map(|one| one.replicas.len()).max();
    if json {
        let all = topics.iter().map(|topic| {
            json!({
                "name": topic.name,
                "id": topic.id,
                "internal": topic.is_internal,
                "partitions": topic.partitions.len(),
                "replication_factor": replication(topic),
                "under_replicated_partitions": under(topic),
            })
        });
        return say_json(&all.collect::<Vec<_>>());
    }
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "REPLICAS", "UNDER-REPLICATED"]);
    for topic in &topics {
        let (partitions, under) = (topic.partitions.len().to_string(), under(topic).to_string());
        table.row(vec![topic.name.clone(), partitions, or_nothing(replication(topic)), under]);
    }
    say(&table.text())
}

fn describe(client: &mut Client, names: &[String], json: bool) -> Result<(), Failure> {
    let wanted = Some(names).filter(|names| !names.is_empty());
    let mut topics = client.patiently(|client| client.metadata("describe topics", wanted))?;
    warn_of_age(client.has_controller());
    topics.retain(|topic| wanted.is_some() || !topic.is_internal);
    let resources: Vec<Resource> = topics.iter().map(|topic| Resource::Topic(topic.name.clone())).collect();
    let configs = configured(client, &resources, Shown::Changed)?;
    let mut documents = Vec::new();
    let mut said = String::new();
    for topic in &topics {
        let configs = configs.get(&Resource::Topic(topic.name.clone())).map_or(&[][..], |all| all);
        if json {
            let values: BTreeMap<&String, Value> =
                configs.iter().map(|one| (&one.name, one.json())).collect();
            documents.push(json!({
                "name": topic.name,
                "id": topic.id,
                "internal": topic.is_internal,
                "partitions": topic.partitions.iter().map(|one| json!({
                    "partition": one.partition,
                    "leader": one.leader,
                    "leader_epoch": one.leader_epoch,
                    "replicas": one.replicas,
                    "isr": one.isr,
                    "offline": one.offline,
                })).collect::<Vec<_>>(),
                "configs": values,
            }));
            continue;
        }
        if !said.is_empty() {
            said.push('\n');
        }
        said.push_str(&format!("topic {}, id {}\n", topic.name, topic.id));
        let mut table = Table::new(&["PARTITION", "LEADER", "REPLICAS", "ISR", "OFFLINE"]);
        for one in &topic.partitions {
            let leader = one.leader.map_or("none".to_owned(), |leader| leader.to_string());
            let number = one.partition.to_string();
            table.row(vec![number, leader, list(&one.replicas), list(&one.isr), list(&one.offline)]);
        }
        said.push_str(&table.text());
        let mut table = Table::new(&["CONFIGURATION", "VALUE", "SOURCE"]);
        for one in configs {
            table.row(vec![one.name.clone(), one.shown(), one.source().to_owned()]);
        }
        said.push_str(&table.text());
    }
    if json { say_json(&documents) } else { say(&said) }
}

/// Tells what was done, and fails with what was not.
fn tell(done: &[String], word: &str, failures: Vec<Failure>, json: bool) -> Result<(), Failure> {
    match json {
        true => say_json(&json!({ word: done }))?,
        false => say(&done.iter().map(|name| format!("{word} {name}\n")).collect::<String>())?,
    }
    Failure::of_all(failures)
}

fn create(
    client: &mut Client,
    mut topics: Vec<CreatableTopic>,
    if_not_exists: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    topics.retain(|topic| seen.insert(topic.name.clone()));
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    // Each by itself: what is asked again has then not been created by the time before.
    for topic in topics {
        let name = topic.name.to_string();
        let created = client.patiently(|client| {
            let request = CreateTopicsRequest::default()
                .with_topics(vec![topic.clone()])
                .with_timeout_ms(client.timeout_ms());
            let doing = format!("create topic {name}");
            let Answer { message, node } = client.ask_controller(&doing, &request)?;
            message
                .topics
                .iter()
                .try_for_each(|told| check(told.error_code, &doing, told.error_message.as_deref(), &node))
        });
        match created {
            Ok(()) => done.push(name),
            Err(failure) if if_not_exists && failure.code() == Some(ResponseError::TopicAlreadyExists) => {}
            Err(failure) => failures.push(failure),
        }
    }
    tell(&done, "created", failures, json)
}

fn delete(client: &mut Client, topics: &[String], if_exists: bool, json: bool) -> Result<(), Failure> {
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for name in topics.iter().collect::<BTreeSet<_>>() {
        let deleted = client.patiently(|client| {
            let request = DeleteTopicsRequest::default()
                .with_topic_names(vec![topic_name(name)])
                .with_timeout_ms(client.timeout_ms());
            let doing = format!("delete topic {name}");
            let Answer { message, node } = client.ask_controller(&doing, &request)?;
            message
                .responses
                .iter()
                .try_for_each(|told| check(told.error_code, &doing, told.error_message.as_deref(), &node))
        });
        match deleted {
            Ok(()) => done.push(name.clone()),
            Err(failure) if if_exists && failure.code() == Some(ResponseError::UnknownTopicOrPartition) => {}
            Err(failure) => failures.push(failure),
        }
    }
    tell(&done, "deleted", failures, json)
}

fn add_partitions(client: &mut Client, topic: &str, count: i32, json: bool) -> Result<(), Failure> {
    let doing = format!("give topic {topic} {count} partitions");
    client.patiently(|client| {
        let asked = CreatePartitionsTopic::default()
            .with_name(topic_name(topic))
            .with_count(count)
            .with_assignments(None);
        let request =
            CreatePartitionsRequest::default().with_topics(vec![asked]).with_timeout_ms(client.timeout_ms());
        let Answer { message, node } = client.ask_controller(&doing, &request)?;
        message
            .results
            .iter()
            .try_for_each(|told| check(told.error_code, &doing, told.error_message.as_deref(), &node))
    })?;
    match json {
        true => say_json(&json!({ "topic": topic, "partitions": count })),
        false => say(&format!("topic {topic} has {count} partitions\n")),
    }
}

fn delete_records(client: &mut Client, wanted: &Selection, before: i64, json: bool) -> Result<(), Failure> {
    let doing = format!("delete records of topic {}", wanted.topic);
    let names = [wanted.topic.clone()];
    let mut firsts: BTreeMap<i32, i64> = BTreeMap::new();
    let mut failures = Vec::new();
    let topics = client.patiently(|client| client.metadata(&doing, Some(&names)))?;
    let partitions: Vec<TopicPartition> = topics
        .iter()
        .map(|topic| wanted.of(topic))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect();
    for one in partitions {
        let what = format!("{doing}, partition {}", one.partition);
        let deleted = client.patiently(|client| {
            let topics = client.metadata(&doing, Some(&names))?;
            let leader = topics.iter().find_map(|topic| topic.partition(one.partition)?.leader);
            let no_leader = || check(ResponseError::LeaderNotAvailable.code(), &what, None, "the metadata");
            let Some(leader) = leader else { return no_leader().map(|()| -1) };
            let partition =
                DeleteRecordsPartition::default().with_partition_index(one.partition).with_offset(before);
            let topic = DeleteRecordsTopic::default()
                .with_name(topic_name(&one.topic))
                .with_partitions(vec![partition]);
            let request =
                DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(client.timeout_ms());
            let Answer { message, node } = client.ask_node(leader, &what, &request)?;
            let told = message.topics.into_iter().flat_map(|topic| topic.partitions).next();
            let told = told.ok_or_else(|| Failure::Malformed {
                doing: what.clone(),
                node: node.clone(),
                why: "it says nothing about the partition".into(),
            })?;
            check(told.error_code, &what, None, &node).map(|()| told.low_watermark)
        });
        match deleted {
            Ok(first) => drop(firsts.insert(one.partition, first)),
            Err(failure) => failures.push(failure),
        }
    }
    if json {
        let all =
            firsts.iter().map(|(partition, first)| json!({ "partition": partition, "earliest": first }));
        say_json(&json!({ "topic": wanted.topic, "partitions": all.collect::<Vec<_>>() }))?;
    } else {
        let mut table = Table::new(&["TOPIC", "PARTITION", "EARLIEST"]);
        for (partition, first) in &firsts {
            table.row(vec![wanted.topic.clone(), partition.to_string(), first.to_string()]);
        }
        say(&table.text())?;
    }
    Failure::of_all(failures)
}

fn offsets(client: &mut Client, wanted: &[Selection], at: Option<i64>, json: bool) -> Result<(), Failure> {
    let names: BTreeSet<&String> = wanted.iter().map(|one| &one.topic).collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let topics = client.patiently(|client| client.metadata("list offsets", Some(&names)))?;
    let mut selected = BTreeSet::new();
    for topic in &topics {
        for selection in wanted.iter().filter(|one| one.topic == topic.name) {
            selected.extend(selection.of(topic)?);
        }
    }
    let earliest = client.offsets(&selected, EARLIEST)?;
    let latest = client.offsets(&selected, LATEST)?;
    let timed = at.map(|time| client.offsets(&selected, time)).transpose()?;
    let of = |one: &TopicPartition| {
        let earliest = earliest.offsets.get(one).copied();
        let latest = latest.offsets.get(one).copied();
        let timed = timed.as_ref().and_then(|found| found.offsets.get(one).copied());
        (earliest, latest, timed)
    };
    if json {
        let all = selected.iter().map(|one| {
            let (earliest, latest, timed) = of(one);
            let mut row = json!({
                "topic": one.topic,
                "partition": one.partition,
                "earliest": earliest,
                "latest": latest,
            });
            if at.is_some() {
                row["at"] = json!(timed);
            }
            row
        });
        say_json(&all.collect::<Vec<_>>())?;
    } else {
        let mut headers = vec!["TOPIC", "PARTITION", "EARLIEST", "LATEST", "OFFSETS"];
        headers.extend(at.map(|_| "AT"));
        let mut table = Table::new(&headers);
        for one in &selected {
            let (earliest, latest, timed) = of(one);
            let between = earliest.zip(latest).map(|(earliest, latest)| latest - earliest);
            let mut row = vec![one.topic.clone(), one.partition.to_string()];
            row.extend([or_nothing(earliest), or_nothing(latest), or_nothing(between)]);
            if at.is_some() {
                row.push(timed.map_or(NOTHING.to_owned(), |offset| offset.to_string()));
            }
            table.row(row);
        }
        say(&table.text())?;
    }
    let failures = [Some(earliest), Some(latest), timed].into_iter().flatten();
    Failure::of_all(failures.flat_map(|found| found.failures).collect())
}
