//! DescribeConfigs: what is in effect for a topic or for this broker, and where it comes from.

use std::collections::BTreeSet;

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{ApiKey, DescribeConfigsRequest};

use super::authorization::{Needs, Operation};
use super::changes::{Refusal, refused};
use super::config_changes::{ResourceType, check_group, no_such_resource};
use super::config_entries::{Entry, Known};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::context::Context;
use crate::metadata::apply::check_name;
use crate::routing::until_known;
use crate::wire::shape::{Bounds, I8, Kind, Shape, TEXTS, always, plain, since};
use crate::wire::text;

/// DescribeConfigs, key 32 (KIP-133; synonyms: KIP-226; documentation: KIP-569).
impl Api for DescribeConfigsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::DescribeConfigs,
        versions: Versions::of(1, 4),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnResources(Operation::DescribeConfigs),
    };
    type Response = DescribeConfigsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<DescribeConfigsResponse> {
        let (synonyms, documentation) = (self.include_synonyms, self.include_documentation);
        let known = Known::of(&call.context);
        let mut seen = BTreeSet::new();
        let mut resources = self.resources;
        // Each once: a broker named again and again would make an answer of any size.
        resources.retain(|resource| seen.insert((resource.resource_type, resource.resource_name.clone())));
        let is_topic =
            |one: &&DescribeConfigsResource| ResourceType::of(one.resource_type) == Some(ResourceType::Topic);
        let topics = || resources.iter().filter(is_topic);
        until_known(&call.context, |image| {
            topics().all(|topic| image.topics.contains_key(topic.resource_name.as_str()))
        })
        .await;
        let results = resources.into_iter().map(|resource| {
            let found = find(&call.context, &known, &resource);
            let result = DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_error_message(None);
            match found {
                Err((code, why)) => result.with_error_code(code.code()).with_error_message(Some(text(why))),
                Ok(entries) => {
                    let wanted = resource.configuration_keys.filter(|keys| !keys.is_empty());
                    let asked = |entry: &Entry| {
                        wanted.as_ref().is_none_or(|keys| keys.iter().any(|key| key.as_str() == entry.name))
                    };
                    let configs = entries.into_iter().filter(asked);
                    result.with_configs(
                        configs.map(|entry| described(entry, synonyms, documentation)).collect(),
                    )
                }
            }
        });
        DescribeConfigsResponse::default().with_results(results.collect()).into()
    }

    fn errors(response: &DescribeConfigsResponse, each: &mut dyn FnMut(i16)) {
        response.results.iter().for_each(|result| each(result.error_code));
    }
}

static REQUEST: Shape = plain(&[always(Kind::Many(&Kind::Struct(&RESOURCE))), always(I8), since(3, I8)]);
static RESOURCE: Shape = plain(&[always(I8), always(Kind::Text), always(TEXTS)]);

fn find<B: Backend>(
    context: &Context<B>,
    known: &Known,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Entry>, Refusal> {
    let name = resource.resource_name.as_str();
    let invalid = |why: String| Err((ResponseError::InvalidRequest, why));
    match ResourceType::of(resource.resource_type) {
        Some(ResourceType::Topic) => {
            check_name(name).map_err(refused)?;
            match context.metadata.shown().topics.get(name) {
                Some(topic) => Ok(known.of_topic(&topic.configs, topic.replication())),
                None => Err((
                    ResponseError::UnknownTopicOrPartition,
                    format!("The topic '{name}' does not exist."),
                )),
            }
        }
        // The empty name stands for all brokers.
        Some(ResourceType::Broker) if name.is_empty() => Ok(known.of_all_brokers()),
        Some(ResourceType::Broker) => match name.parse::<i32>() {
            Ok(id) if id == context.node.0 => Ok(known.of_broker()),
            Ok(_) => invalid(format!(
                "Unexpected broker id, expected {} or empty string, but received {name}",
                context.node
            )),
            Err(_) => invalid(format!("Broker id must be an integer, but it is: {name}")),
        },
        Some(ResourceType::Group) => {
            check_group(name)?;
            Ok(known.of_group(context.metadata.shown().group_configs(name)))
        }
        other => Err(no_such_resource(other, resource.resource_type)),
    }
}

fn described(entry: Entry, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let source = entry.source() as i8;
    let listed = entry.synonyms.into_iter().map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(text(synonym.name))
            .with_value(Some(text(synonym.value)))
            .with_source(synonym.source as i8)
    });
    let listed = if synonyms { listed.collect() } else { Vec::new() };
    DescribeConfigsResourceResult::default()
        .with_name(text(entry.name))
        .with_value(entry.value.map(text))
        .with_read_only(entry.read_only)
        .with_config_source(source)
        .with_synonyms(listed)
        .with_config_type(entry.kind)
        .with_documentation(documentation.then(|| text(entry.about)))
}
