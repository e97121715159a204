//! Changes of configurations that clients ask for: checked here, each resource by itself, and proposed as one command.

use std::collections::BTreeSet;

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;

use super::changes::{Refusal, outcomes, propose, refused};
use crate::config::dynamic::{self, DynamicError, Overrides};
use crate::config::kafka::{self, Kind};
use crate::context::Context;
use crate::limits;
use crate::metadata::apply::check_name;
use crate::metadata::configs::{self, TopicSetting};
use crate::metadata::group_configs;
use crate::metadata::{
    AlteredConfigs, ConfigChange, ConfigOperation, ConfigResource, GROUP_CONFIGS_SINCE, MetadataCommand,
    MetadataImage, Outcome, altered,
};
use crate::routing::until_known;

/// Kafka's kinds of what has configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceType {
    Topic,
    Broker,
    BrokerLogger,
    ClientMetrics,
    Group,
}

impl ResourceType {
    pub fn of(code: i8) -> Option<ResourceType> {
        match code {
            2 => Some(ResourceType::Topic),
            4 => Some(ResourceType::Broker),
            8 => Some(ResourceType::BrokerLogger),
            16 => Some(ResourceType::ClientMetrics),
            32 => Some(ResourceType::Group),
            _ => None,
        }
    }

    pub fn code(self) -> i8 {
        match self {
            ResourceType::Topic => 2,
            ResourceType::Broker => 4,
            ResourceType::BrokerLogger => 8,
            ResourceType::ClientMetrics => 16,
            ResourceType::Group => 32,
        }
    }
}

/// What is said of a resource that has no configurations here.
pub fn no_such_resource(kind: Option<ResourceType>, code: i8) -> Refusal {
    let why = match kind {
        Some(ResourceType::BrokerLogger) => {
            "what is logged is set when the broker starts (CHRONIK_LOG)".to_owned()
        }
        Some(ResourceType::ClientMetrics) => "metrics are not taken from clients".to_owned(),
        Some(ResourceType::Topic | ResourceType::Broker | ResourceType::Group) | None => {
            format!("resources of type {code} have no configuration")
        }
    };
    (ResponseError::InvalidRequest, why)
}

/// A resource of a request, and what it asks for.
pub struct Asked<'a> {
    pub kind: i8,
    pub name: &'a str,
    pub change: Result<Vec<Wanted<'a>>, Refusal>,
    /// What is not named goes.
    pub replaces: bool,
}

pub struct Wanted<'a> {
    pub name: &'a str,
    pub verb: Verb,
    pub value: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Set,
    Delete,
    Append,
    Subtract,
}

/// Has changes made, or only checked; the outcome of each, in order.
pub async fn change<B: Backend>(
    context: &Context<B>,
    asked: &[Asked<'_>],
    validate_only: bool,
) -> Vec<Result<(), Refusal>> {
    let is_topic = |one: &&Asked<'_>| ResourceType::of(one.kind) == Some(ResourceType::Topic);
    let topics = || asked.iter().filter(is_topic);
    until_known(context, |image| topics().all(|topic| image.topics.contains_key(topic.name))).await;
    let image = context.metadata.shown();
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for one in asked {
        if !seen.insert((one.kind, one.name)) {
            twice.insert((one.kind, one.name));
        }
    }
    let plans: Vec<Result<AlteredConfigs, Refusal>> = asked
        .iter()
        .map(|one| match twice.contains(&(one.kind, one.name)) {
            true => Err((ResponseError::InvalidRequest, "Each resource must appear at most once.".into())),
            false => plan(context, &image, one),
        })
        .collect();
    let resources: Vec<AlteredConfigs> = plans.iter().flatten().cloned().collect();
    if validate_only || resources.is_empty() {
        return plans.into_iter().map(|plan| plan.map(drop)).collect();
    }
    let deadline = Deadline::after(&context.backend, limits::PROPOSE_DEADLINE);
    let count = resources.len();
    let command = MetadataCommand::AlterConfigs { resources };
    outcomes(plans, propose(context, command, count, deadline, of_resources).await)
}

fn of_resources(outcome: Outcome) -> Vec<Result<(), Refusal>> {
    match outcome {
        Outcome::Configs(outcomes) => outcomes.into_iter().map(|outcome| outcome.map_err(refused)).collect(),
        _ => Vec::new(),
    }
}

fn invalid_request<T>(why: String) -> Result<T, Refusal> {
    Err((ResponseError::InvalidRequest, why))
}

fn plan<B: Backend>(
    context: &Context<B>,
    image: &MetadataImage,
    asked: &Asked<'_>,
) -> Result<AlteredConfigs, Refusal> {
    let wanted = asked.change.as_ref().map_err(Clone::clone)?;
    let nulls: Vec<&str> = wanted
        .iter()
        .filter(|one| one.verb != Verb::Delete && one.value.is_none())
        .map(|one| one.name)
        .collect();
    if !nulls.is_empty() {
        return invalid_request(format!("Null value not supported for : {}", nulls.join(",")));
    }
    let names: BTreeSet<&str> = wanted.iter().map(|one| one.name).collect();
    if names.len() < wanted.len() {
        return invalid_request("Error due to duplicate config keys".to_owned());
    }
    match ResourceType::of(asked.kind) {
        Some(ResourceType::Topic) if asked.name.is_empty() => {
            invalid_request("Default topic resources are not allowed.".to_owned())
        }
        Some(ResourceType::Topic) => {
            check_name(asked.name).map_err(refused)?;
            let topic = image.topics.get(asked.name).ok_or_else(|| {
                let why = format!("The topic '{}' does not exist.", asked.name);
                (ResponseError::UnknownTopicOrPartition, why)
            })?;
            let config = context.metadata.config();
            let list = |name: &str| {
                let known = configs::setting(name);
                let default = known.map(|known| known.default_value(&config));
                known.is_some_and(|known| known.kind == Kind::List).then_some(default).flatten()
            };
            let change = operations(asked.replaces, wanted, list)?;
            for (name, value) in &altered_values(&topic.configs, &change, wanted) {
                let known: &TopicSetting = configs::known(name).map_err(refused)?;
                known.check(value, &config).map_err(refused)?;
            }
            if wanted.iter().any(|one| configs::is_lag(one.name)) {
                configs::check_lags(&altered(&topic.configs, &change), &config).map_err(refused)?;
            }
            Ok(AlteredConfigs { resource: ConfigResource::Topic(topic.id), change })
        }
        Some(ResourceType::Broker) => {
            let for_all = asked.name.is_empty();
            let resource = match asked.name.parse::<i32>() {
                _ if for_all => ConfigResource::AllBrokers,
                Ok(id) if id == context.node.0 => ConfigResource::Broker(context.node),
                Ok(_) => {
                    return invalid_request(format!(
                        "Unexpected broker id, expected {}, but received {}",
                        context.node, asked.name
                    ));
                }
                Err(_) => {
                    return invalid_request(format!("Node id must be an integer, but it is: {}", asked.name));
                }
            };
            let list = |name: &str| {
                let known = kafka::find(name).filter(|known| known.kind == Kind::List)?;
                known.show(&context.config)
            };
            let change = operations(asked.replaces, wanted, list)?;
            let none = Overrides::new();
            let current = match resource {
                ConfigResource::Broker(id) => image.broker_configs.of_one.get(&id).unwrap_or(&none),
                _ => &image.broker_configs.of_all,
            };
            let is_gone = |one: &&Wanted<'_>| one.verb == Verb::Delete && dynamic::is_throttle(one.name);
            for one in wanted.iter().filter(|one| !is_gone(one)) {
                dynamic::changeable(one.name, for_all).map_err(of_broker)?;
            }
            for (name, value) in &altered_values(current, &change, wanted) {
                if value.len() > limits::CONFIG_VALUE_BYTES_MAX {
                    let max = limits::CONFIG_VALUE_BYTES_MAX;
                    return invalid_request(format!("A value of {name} has more than {max} bytes"));
                }
                dynamic::check(&context.config, name, value, for_all).map_err(of_broker)?;
            }
            Ok(AlteredConfigs { resource, change })
        }
        Some(ResourceType::Group) => {
            check_group(asked.name)?;
            check_nodes(image)?;
            let change = operations(asked.replaces, wanted, |_| None)?;
            let none = Overrides::new();
            let after = altered(image.group_configs(asked.name).unwrap_or(&none), &change);
            group_configs::validate(&after, &context.metadata.config()).map_err(refused)?;
            Ok(AlteredConfigs { resource: ConfigResource::Group(asked.name.into()), change })
        }
        other => Err(no_such_resource(other, asked.kind)),
    }
}

/// Whether a group that is called so may have configurations.
pub fn check_group(name: &str) -> Result<(), Refusal> {
    let max = limits::CONFIGURED_GROUP_BYTES_MAX;
    match name.len() {
        0 => invalid_request("Default group resources are not allowed.".to_owned()),
        len if len > max => {
            invalid_request(format!("A group whose id has more than {max} bytes has no configurations"))
        }
        _ if name.chars().any(char::is_control) => {
            invalid_request("A group whose id has control characters has no configurations".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether all nodes read what is kept of groups' configurations.
fn check_nodes(image: &MetadataImage) -> Result<(), Refusal> {
    match image.who_does_not_read(GROUP_CONFIGS_SINCE) {
        None => Ok(()),
        Some(node) => invalid_request(format!(
            "Node {node} registered with a binary that does not read configurations of groups, and would stop: upgrade it first, or \
             unregister it if it is gone."
        )),
    }
}

/// What those that are named come to.
fn altered_values(current: &Overrides, change: &ConfigChange, wanted: &[Wanted<'_>]) -> Overrides {
    let mut after = altered(current, change);
    after.retain(|name, _| wanted.iter().any(|one| one.name == name));
    after
}

fn of_broker(error: DynamicError) -> Refusal {
    let code = match error {
        DynamicError::ReadOnly(_) | DynamicError::PerBroker(_) | DynamicError::Invalid { .. } => {
            ResponseError::InvalidRequest
        }
        DynamicError::Unknown { .. } | DynamicError::Refused { .. } | DynamicError::Inconsistent(_) => {
            ResponseError::InvalidConfig
        }
    };
    (code, error.to_string())
}

/// The change as it is proposed; `list` gives the default of what is a list.
fn operations(
    replaces: bool,
    wanted: &[Wanted<'_>],
    list: impl Fn(&str) -> Option<String>,
) -> Result<ConfigChange, Refusal> {
    let value = |one: &Wanted<'_>| one.value.unwrap_or_default().to_owned();
    if replaces {
        return Ok(ConfigChange::Replace(
            wanted.iter().map(|one| (one.name.to_owned(), value(one))).collect(),
        ));
    }
    let mut operations = Vec::with_capacity(wanted.len());
    for one in wanted {
        let of_list = |verb: &str| {
            list(one.name).ok_or_else(|| {
                let why = format!("Can't {verb} to key {} because its type is not LIST.", one.name);
                (ResponseError::InvalidConfig, why)
            })
        };
        let operation = match one.verb {
            Verb::Set => ConfigOperation::Set(value(one)),
            Verb::Delete => ConfigOperation::Delete,
            Verb::Append => ConfigOperation::Append { value: value(one), default: of_list("APPEND")? },
            Verb::Subtract => ConfigOperation::Subtract { value: value(one), default: of_list("SUBTRACT")? },
        };
        operations.push((one.name.to_owned(), operation));
    }
    Ok(ConfigChange::Alter(operations))
}
