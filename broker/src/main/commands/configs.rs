//! `chronik configs`

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use serde_json::{Value, json};

use super::arguments::{Asking, Entry, entry};
use super::names::unknown;
use super::output::{NOTHING, Table, say, say_json, warn};
use crate::client::cluster::{Answer, text};
use crate::client::failure::check;
use crate::client::{Client, Failure};

#[derive(Args)]
pub struct Configs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum Command {
    /// What is configured, and where it comes from
    Describe {
        #[command(subcommand)]
        of: Of<All>,
    },
    /// Set values
    Set {
        #[command(subcommand)]
        of: Of<Entries>,
    },
    /// Go back to the defaults
    Unset {
        #[command(subcommand)]
        of: Of<Names>,
    },
}

/// Whose configuration, and what of it.
#[derive(Subcommand)]
enum Of<A: Args> {
    /// Of one topic
    Topic {
        topic: String,
        #[command(flatten)]
        what: A,
    },
    /// Of one group of consumers
    Group {
        group: String,
        #[command(flatten)]
        what: A,
    },
    /// Of one broker
    Broker {
        /// Its number: `chronik cluster nodes`
        id: i32,
        #[command(flatten)]
        what: A,
    },
    /// Of all brokers that have nothing of their own
    Cluster {
        #[command(flatten)]
        what: A,
    },
}

#[derive(Args)]
struct All {
    /// Also what is as by default
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
struct Entries {
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = entry)]
    entries: Vec<Entry>,
}

#[derive(Args)]
struct Names {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Topic(String),
    Group(String),
    Broker(i32),
    /// All brokers.
    Cluster,
}

/// Which of what is configured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// What somebody has set.
    Changed,
    All,
}

/// A configuration in effect.
pub struct Configured {
    pub name: String,
    /// None where it is secret, or not set.
    value: Option<String>,
    source: i8,
    is_sensitive: bool,
    is_read_only: bool,
}

impl<A: Args> Of<A> {
    fn parts(&self) -> (Resource, &A) {
        match self {
            Of::Topic { topic, what } => (Resource::Topic(topic.clone()), what),
            Of::Group { group, what } => (Resource::Group(group.clone()), what),
            Of::Broker { id, what } => (Resource::Broker(*id), what),
            Of::Cluster { what } => (Resource::Cluster, what),
        }
    }
}

impl Configs {
    pub fn run(&self) -> Result<(), Failure> {
        let mut client = self.asking.client();
        let json = self.asking.json();
        match &self.command {
            Command::Describe { of } => {
                let (resource, all) = of.parts();
                let shown = if all.all { Shown::All } else { Shown::Changed };
                describe(&mut client, resource, shown, json)
            }
            Command::Set { of } => {
                let (resource, Entries { entries }) = of.parts();
                set(&mut client, &resource, entries, json)
            }
            Command::Unset { of } => {
                let (resource, Names { names }) = of.parts();
                unset(&mut client, &resource, names, json)
            }
        }
    }
}

impl Resource {
    /// Kafka's number of the type, and its name.
    fn wire(&self) -> (i8, String) {
        match self {
            Resource::Topic(name) => (2, name.clone()),
            Resource::Group(id) => (32, id.clone()),
            Resource::Broker(id) => (4, id.to_string()),
            Resource::Cluster => (4, String::new()),
        }
    }

    /// As it is given on the command line.
    fn words(&self) -> String {
        match self {
            Resource::Cluster => "broker ID".to_owned(),
            _ => self.to_string(),
        }
    }

    fn of_wire(kind: i8, name: &str) -> Option<Resource> {
        match (kind, name) {
            (2, name) => Some(Resource::Topic(name.to_owned())),
            (32, id) => Some(Resource::Group(id.to_owned())),
            (4, "") => Some(Resource::Cluster),
            (4, id) => id.parse().ok().map(Resource::Broker),
            _ => None,
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Resource::Topic(name) => write!(f, "topic {name}"),
            Resource::Group(id) => write!(f, "group {id}"),
            Resource::Broker(id) => write!(f, "broker {id}"),
            Resource::Cluster => write!(f, "the cluster"),
        }
    }
}

/// Where a configuration comes from, in Kafka's numbers.
const OF_TOPIC: i8 = 1;
const OF_BROKER: i8 = 2;
const OF_CLUSTER: i8 = 3;
const STATIC: i8 = 4;
const DEFAULT: i8 = 5;
const OF_GROUP: i8 = 8;

impl Configured {
    fn of(told: DescribeConfigsResourceResult) -> Configured {
        Configured {
            name: told.name.to_string(),
            value: told.value.map(|value| value.to_string()),
            source: told.config_source,
            is_sensitive: told.is_sensitive,
            is_read_only: told.read_only,
        }
    }

    /// Whether it was set there, and is not what something else has.
    fn is_set_on(&self, of: &Resource) -> bool {
        let of_its_own = match of {
            Resource::Topic(_) => OF_TOPIC,
            Resource::Group(_) => OF_GROUP,
            Resource::Broker(_) => OF_BROKER,
            Resource::Cluster => OF_CLUSTER,
        };
        self.source == of_its_own
    }

    /// As Kafka names it.
    pub fn source(&self) -> &'static str {
        match self.source {
            OF_TOPIC => "DYNAMIC_TOPIC_CONFIG",
            OF_BROKER => "DYNAMIC_BROKER_CONFIG",
            OF_CLUSTER => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            STATIC => "STATIC_BROKER_CONFIG",
            DEFAULT => "DEFAULT_CONFIG",
            OF_GROUP => "DYNAMIC_GROUP_CONFIG",
            _ => "UNKNOWN",
        }
    }

    pub fn shown(&self) -> String {
        match &self.value {
            None if self.is_sensitive => "(hidden)".to_owned(),
            None => NOTHING.to_owned(),
            Some(value) => value.clone(),
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "value": self.value,
            "source": self.source(),
            "read_only": self.is_read_only,
            "sensitive": self.is_sensitive,
        })
    }

    fn is_shown(&self, of: &Resource, shown: Shown) -> bool {
        // What a topic or a group has from its broker is no difference of its own.
        let is_own = self.source != DEFAULT
            && match of {
                Resource::Topic(_) | Resource::Group(_) => {
                    !matches!(self.source, OF_BROKER | OF_CLUSTER | STATIC)
                }
                Resource::Broker(_) | Resource::Cluster => true,
            };
        shown == Shown::All || is_own
    }
}

/// What each has configured. Only a broker knows its own; the rest any node tells.
pub fn configured(
    client: &mut Client,
    of: &[Resource],
    shown: Shown,
) -> Result<BTreeMap<Resource, Vec<Configured>>, Failure> {
    let mut found = BTreeMap::new();
    if of.is_empty() {
        return Ok(found);
    }
    let doing = "describe configurations";
    let resources = of.iter().map(|resource| {
        let (kind, name) = resource.wire();
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(&name))
            .with_configuration_keys(None)
    });
    let request = DescribeConfigsRequest::default().with_resources(resources.collect());
    let broker = of.iter().find_map(|one| if let Resource::Broker(id) = one { Some(*id) } else { None });
    let Answer { message, node } = client.patiently(|client| match broker {
        Some(id) => client.ask_named(id, doing, &request),
        None => client.ask_any(doing, &request),
    })?;
    for told in message.results {
        let Some(resource) = Resource::of_wire(told.resource_type, &told.resource_name) else { continue };
        let what = format!("configuration of {resource}");
        check(told.error_code, &what, told.error_message.as_deref(), &node)?;
        let mut configs: Vec<Configured> = told.configs.into_iter().map(Configured::of).collect();
        configs.retain(|one| one.is_shown(&resource, shown));
        configs.sort_by(|one, two| one.name.cmp(&two.name));
        found.insert(resource, configs);
    }
    Ok(found)
}

fn describe(client: &mut Client, of: Resource, shown: Shown, json: bool) -> Result<(), Failure> {
    let configs = configured(client, std::slice::from_ref(&of), shown)?.remove(&of).unwrap_or_default();
    if json {
        let values: BTreeMap<&String, Value> = configs.iter().map(|one| (&one.name, one.json())).collect();
        return say_json(&values);
    }
    let mut table = Table::new(&["CONFIGURATION", "VALUE", "SOURCE"]);
    for one in &configs {
        table.row(vec![one.name.clone(), one.shown(), one.source().to_owned()]);
    }
    if table.is_empty() && shown == Shown::Changed {
        warn(&format!("{of} has nothing but defaults; --all shows them"));
    }
    say(&table.text())
}

const SET: i8 = 0;
const DELETE: i8 = 1;

fn set(client: &mut Client, of: &Resource, entries: &[Entry], json: bool) -> Result<(), Failure> {
    let changes: Vec<_> = entries.iter().map(|entry| (&entry.name, Some(&entry.value))).collect();
    alter(client, of, &changes)?;
    if json {
        return say_json(&changes.into_iter().collect::<BTreeMap<_, _>>());
    }
    let said = entries.iter().map(|Entry { name, value }| format!("{of}: {name} = {value}\n"));
    say(&said.collect::<String>())
}

/// A node takes away what is not there without a word, so it is looked at before.
fn unset(client: &mut Client, of: &Resource, names: &[String], json: bool) -> Result<(), Failure> {
    let had = known(client, of)?;
    let known: Vec<&str> = had.iter().map(|one| one.name.as_str()).collect();
    if let Some(why) = unknown(names, &known) {
        let whose = of.words();
        return Err(Failure::Input(format!(
            "configure {of}: {why}. Nothing was changed; `chronik configs describe {whose} --all` shows what there is"
        )));
    }
    let changes: Vec<_> = names.iter().map(|name| (name, None)).collect();
    alter(client, of, &changes)?;
    if json {
        return say_json(&changes.into_iter().collect::<BTreeMap<_, _>>());
    }
    let was_set = |name: &String| had.iter().any(|one| one.name == *name && one.is_set_on(of));
    let said = names.iter().map(|name| match was_set(name) {
        true => format!("{of}: {name} is as by default\n"),
        false => format!("{of}: {name} was not set\n"),
    });
    say(&said.collect::<String>())
}

/// All that it may have. Of the cluster only what was set is told, and what else there is by any broker.
fn known(client: &mut Client, of: &Resource) -> Result<Vec<Configured>, Failure> {
    let mut known = configured(client, std::slice::from_ref(of), Shown::All)?.remove(of).unwrap_or_default();
    if *of == Resource::Cluster {
        client.patiently(|client| client.metadata("describe configurations", Some(&[])))?;
        let broker = client.nodes().keys().next().map(|id| Resource::Broker(*id));
        let of_broker = configured(client, broker.as_slice(), Shown::All)?.into_values().flatten();
        // What that broker has of its own says nothing about the cluster.
        let rest: Vec<Configured> =
            of_broker.filter(|one| known.iter().all(|known| known.name != one.name)).collect();
        known.extend(rest);
    }
    Ok(known)
}

/// None for a value takes away what was set.
fn alter(client: &mut Client, of: &Resource, changes: &[(&String, Option<&String>)]) -> Result<(), Failure> {
    let (kind, name) = of.wire();
    let configs = changes.iter().map(|(name, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(if value.is_some() { SET } else { DELETE })
            .with_value(value.map(|value| text(value)))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(&name))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let doing = format!("configure {of}");
    client.patiently(|client| {
        let Answer { message, node } = match of {
            Resource::Broker(id) => client.ask_named(*id, &doing, &request)?,
            Resource::Topic(_) | Resource::Group(_) | Resource::Cluster => {
                client.ask_controller(&doing, &request)?
            }
        };
        message
            .responses
            .iter()
            .try_for_each(|told| check(told.error_code, &doing, told.error_message.as_deref(), &node))
    })
}
