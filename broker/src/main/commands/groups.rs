//! `chronik groups`

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::json;

use super::arguments::{Asking, Selection, selection};
use super::lag;
use super::output::{NOTHING, Table, list, or_nothing, say, say_json};
use super::reset::Reset;
use crate::client::groups::{Described, Member};
use crate::client::{Client, Failure, TopicPartition};

#[derive(Args)]
pub struct Groups {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Command {
    /// All groups, of both protocols
    List,
    /// Members and what they read
    Describe { group: String },
    /// How far the group is, and how far behind the end
    Lag { group: String },
    /// Set the offsets of a group without members; shows what would be set unless --execute is there
    ResetOffsets(Reset),
    /// Delete groups without members, with all that they have committed
    Delete {
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// Delete what a group has committed of some topics
    DeleteOffsets {
        group: String,
        /// TOPIC, TOPIC:0,2 or TOPIC:4-7; may be given several times
        #[arg(long, value_name = "TOPIC", value_parser = selection, required = true)]
        topic: Vec<Selection>,
    },
}

impl Groups {
    pub fn run(&self) -> Result<(), Failure> {
        let mut client = self.asking.client();
        let json = self.asking.json();
        match &self.command {
            Command::List => list_all(&mut client, json),
            Command::Describe { group } => {
                let described = client.describe_group(group)?;
                describe(&client, &described, json)
            }
            Command::Lag { group } => lag::tell(&mut client, group, json),
            Command::ResetOffsets(reset) => reset.run(&mut client, json),
            Command::Delete { groups } => delete(&mut client, groups, json),
            Command::DeleteOffsets { group, topic } => delete_offsets(&mut client, group, topic, json),
        }
    }
}

fn list_all(client: &mut Client, json: bool) -> Result<(), Failure> {
    let (groups, failures) = client.list_groups()?;
    if json {
        let all = groups.iter().map(|one| {
            json!({
                "group": one.group,
                "type": one.kind,
                "protocol_type": one.protocol_type,
                "state": one.state,
                "coordinator": one.coordinator,
            })
        });
        say_json(&all.collect::<Vec<_>>())?;
    } else {
        let mut table = Table::new(&["GROUP", "TYPE", "PROTOCOL", "STATE", "COORDINATOR"]);
        for one in &groups {
            let coordinator = one.coordinator.to_string();
            let (kind, protocol) = (one.kind.clone(), one.protocol_type.clone());
            table.row(vec![one.group.clone(), kind, protocol, one.state.clone(), coordinator]);
        }
        say(&table.text())?;
    }
    Failure::of_all(failures)
}

/// By topic, its partitions: `orders:0,2`.
fn by_topic(assignment: &[TopicPartition]) -> BTreeMap<&str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for one in assignment {
        topics.entry(&one.topic).or_default().push(one.partition);
    }
    topics
}

fn assignment(member: &Member) -> String {
    let topics = by_topic(&member.assignment);
    let told: Vec<String> = topics.iter().map(|(topic, all)| format!("{topic}:{}", list(all))).collect();
    if told.is_empty() { NOTHING.to_owned() } else { told.join(" ") }
}

fn describe(client: &Client, group: &Described, json: bool) -> Result<(), Failure> {
    let address = client.nodes().get(&group.coordinator);
    if json {
        let members = group.members.iter().map(|member| {
            json!({
                "consumer_id": member.id,
                "instance_id": member.instance,
                "client_id": member.client,
                "host": member.host,
                "assignment": by_topic(&member.assignment),
            })
        });
        return say_json(&json!({
            "group": group.group,
            "type": group.kind,
            "protocol_type": group.protocol_type,
            "state": group.state,
            "assignor": group.assignor,
            "coordinator": { "id": group.coordinator, "address": address },
            "members": members.collect::<Vec<_>>(),
        }));
    }
    let mut summary =
        Table::new(&["GROUP", "TYPE", "PROTOCOL", "STATE", "ASSIGNOR", "MEMBERS", "COORDINATOR"]);
    summary.row(vec![
        group.group.clone(),
        group.kind.to_owned(),
        group.protocol_type.clone(),
        group.state.clone(),
        group.assignor.clone(),
        group.members.len().to_string(),
        format!("{} ({})", group.coordinator, or_nothing(address)),
    ]);
    let mut members = Table::new(&["CONSUMER-ID", "INSTANCE-ID", "HOST", "CLIENT-ID", "ASSIGNMENT"]);
    for member in &group.members {
        members.row(vec![
            member.id.clone(),
            or_nothing(member.instance.as_ref()),
            member.host.clone(),
            member.client.clone(),
            assignment(member),
        ]);
    }
    let between = if members.is_empty() { "" } else { "\n" };
    say(&format!("{}{between}{}", summary.text(), members.text()))
}

fn delete(client: &mut Client, groups: &[String], json: bool) -> Result<(), Failure> {
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for group in groups {
        match client.delete_group(group) {
            Ok(()) => done.push(group),
            Err(failure) => failures.push(failure),
        }
    }
    match json {
        true => say_json(&json!({ "deleted": done }))?,
        false => say(&done.iter().map(|group| format!("deleted {group}\n")).collect::<String>())?,
    }
    Failure::of_all(failures)
}

/// What the group has committed of these; a topic that is gone may still be named.
fn delete_offsets(client: &mut Client, group: &str, wanted: &[Selection], json: bool) -> Result<(), Failure> {
    let committed = client.committed(group)?;
    let is_wanted = |of: &&TopicPartition| {
        wanted.iter().any(|one| {
            one.topic == of.topic && one.partitions.as_ref().is_none_or(|all| all.contains(&of.partition))
        })
    };
    let all: Vec<TopicPartition> = committed.keys().filter(is_wanted).cloned().collect();
    if all.is_empty() {
        return Err(Failure::Input(format!(
            "delete offsets of group {group}: it has committed none of these. `chronik groups lag {group}` shows what it has"
        )));
    }
    client.delete_offsets(group, &all)?;
    if json {
        return say_json(&json!({ "group": group, "deleted": by_topic(&all) }));
    }
    say(&all.iter().map(|of| format!("deleted {of}\n")).collect::<String>())
}
