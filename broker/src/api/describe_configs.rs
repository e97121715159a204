//! DescribeConfigs: what is in effect for a topic or for this broker, and where it comes from.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{ApiKey, DescribeConfigsRequest};

use super::authorization::{Needs, Operation};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
#[cfg(test)]
use super::test_requests;
use crate::config::{Config, KEYS};
use crate::context::Context;
use crate::metadata::TopicImage;
use crate::metadata::configs::{SettingKind, TOPIC_SETTINGS, setting};
use crate::wire::shape::{Bounds, I8, Kind, Shape, TEXTS, always, plain, since};
use crate::wire::text;
#[cfg(test)]
use bytes::BytesMut;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a value comes from, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    Topic = 1,
    StaticBroker = 4,
    Default = 5,
}

/// One configuration in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub value: String,
    pub source: Source,
    pub read_only: bool,
    kind: i8,
    about: &'static str,
}

pub struct DescribeConfigs;

impl Api for DescribeConfigs {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::DescribeConfigs,
        versions: Versions::of(1, 4),
        bounds: Bounds::of_resources(&REQUEST),
        needs: Needs::OnResources(Operation::DescribeConfigs),
    };
    type Request = DescribeConfigsRequest;
    type Response = DescribeConfigsResponse;

    async fn handle<B: Backend>(
        call: Call<B>,
        request: DescribeConfigsRequest,
    ) -> Answer<DescribeConfigsResponse> {
        handle(&call.context, request).into()
    }

    fn errors(response: &DescribeConfigsResponse, each: &mut dyn FnMut(i16)) {
        response.results.iter().for_each(|result| each(result.error_code));
    }

    #[cfg(test)]
    fn filled(version: i16) -> BytesMut {
        test_requests::bytes(version, |_| {
            let resource = DescribeConfigsResource::default()
                .with_resource_name(test_requests::text())
                .with_configuration_keys(Some(vec![test_requests::text(), test_requests::text()]));
            DescribeConfigsRequest::default()
                .with_resources(vec![resource.clone(), resource.with_configuration_keys(None)])
        })
    }
}

static REQUEST: Shape = plain(&[always(Kind::Many(&Kind::Struct(&RESOURCE))), always(I8), since(3, I8)]);
static RESOURCE: Shape = plain(&[always(I8), always(Kind::Text), always(TEXTS)]);

fn handle<B: Backend>(context: &Context<B>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let synonyms = request.include_synonyms;
    let documentation = request.include_documentation;
    let results = request.resources.into_iter().map(|resource| {
        let found = find(context, &resource);
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_message(None);
        match found {
            Err((code, why)) => result.with_error_code(code.code()).with_error_message(Some(text(why))),
            Ok(entries) => {
                let wanted = resource.configuration_keys;
                let asked = |entry: &Entry| {
                    wanted.as_ref().is_none_or(|keys| keys.iter().any(|key| key.as_str() == entry.name))
                };
                let configs = entries.into_iter().filter(asked);
                result.with_configs(configs.map(|entry| described(entry, synonyms, documentation)).collect())
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn find<B: Backend>(
    context: &Context<B>,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Entry>, (ResponseError, String)> {
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC => match context.metadata.image().topics.get(name) {
            Some(topic) => Ok(of_topic(&context.config, topic)),
            None => Err((ResponseError::UnknownTopicOrPartition, format!("there is no topic '{name}'"))),
        },
        // The empty name is the cluster-wide default of all brokers.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER if name == context.node.to_string() => Ok(of_broker(&context.config)),
        BROKER => Err((
            ResponseError::InvalidRequest,
            format!("this is broker {}, ask broker '{name}' itself", context.node),
        )),
        other => {
            Err((ResponseError::InvalidRequest, format!("resources of type {other} have no configuration")))
        }
    }
}

/// All configurations of a topic, its own and the defaults.
pub fn of_topic(config: &Config, topic: &TopicImage) -> Vec<Entry> {
    let own =
        topic.configs.iter().filter(|(name, _)| !TOPIC_SETTINGS.iter().any(|known| known.name == *name));
    let own = own.filter_map(|(name, _)| setting(name));
    TOPIC_SETTINGS
        .iter()
        .chain(own)
        .map(|known| {
            let (value, source) = match topic.configs.get(known.name) {
                Some(value) => (value.clone(), Source::Topic),
                None => (known.default_value(config), Source::Default),
            };
            let kind = match known.kind {
                SettingKind::Boolean => 1,
                SettingKind::Text => 2,
                SettingKind::Int => 3,
                SettingKind::Long => 5,
                SettingKind::List => 7,
            };
            Entry { name: known.name.to_owned(), value, source, read_only: false, kind, about: known.doc }
        })
        .collect()
}

/// The broker's own keys. They are read at start, so clients cannot change them.
fn of_broker(config: &Config) -> Vec<Entry> {
    let defaults = Config::default();
    KEYS.iter()
        .map(|key| {
            let value = (key.show)(config);
            let source = if value == (key.show)(&defaults) { Source::Default } else { Source::StaticBroker };
            let kind = if value.parse::<bool>().is_ok() {
                1
            } else if value.parse::<i64>().is_ok() {
                5
            } else {
                2
            };
            Entry { name: key.path.to_owned(), value, source, read_only: true, kind, about: key.about }
        })
        .collect()
}

fn described(entry: Entry, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let synonym = DescribeConfigsSynonym::default()
        .with_name(text(&entry.name))
        .with_value(Some(text(&entry.value)))
        .with_source(entry.source as i8);
    DescribeConfigsResourceResult::default()
        .with_name(text(entry.name))
        .with_value(Some(text(entry.value)))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source as i8)
        .with_synonyms(if synonyms { vec![synonym] } else { Vec::new() })
        .with_config_type(entry.kind)
        .with_documentation(documentation.then(|| text(entry.about)))
}
