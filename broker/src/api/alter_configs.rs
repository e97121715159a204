//! AlterConfigs: all configurations of a topic or broker at once. What is not named goes back to its default.

use io_backend::Backend;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse, ApiKey};

use super::authorization::{Needs, Operation};
use super::changes::code_and_message;
use super::config_changes::{Asked, Verb, Wanted, change};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::wire::shape::{Bounds, I8, Kind, Shape, always, plain};

/// AlterConfigs, key 33 (KIP-133). IncrementalAlterConfigs took its place (KIP-339); old tools still ask in
/// this way.
impl Api for AlterConfigsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::AlterConfigs,
        versions: Versions::of(0, 2),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnResources(Operation::AlterConfigs),
    };
    type Response = AlterConfigsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<AlterConfigsResponse> {
        let asked: Vec<Asked<'_>> = self
            .resources
            .iter()
            .map(|resource| {
                let set = resource.configs.iter().map(|config| Wanted {
                    name: config.name.as_str(),
                    verb: Verb::Set,
                    value: config.value.as_deref(),
                });
                Asked {
                    kind: resource.resource_type,
                    name: resource.resource_name.as_str(),
                    replaces: true,
                    change: Ok(set.collect()),
                }
            })
            .collect();
        let outcomes = change(&call.context, &asked, self.validate_only).await;
        let responses = self.resources.iter().zip(outcomes).map(|(resource, outcome)| {
            let (code, message) = code_and_message(outcome);
            AlterConfigsResourceResponse::default()
                .with_error_code(code)
                .with_error_message(message)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
        });
        AlterConfigsResponse::default().with_responses(responses.collect()).into()
    }

    fn errors(response: &AlterConfigsResponse, each: &mut dyn FnMut(i16)) {
        response.responses.iter().for_each(|resource| each(resource.error_code));
    }
}

static REQUEST: Shape = plain(&[always(Kind::Many(&Kind::Struct(&RESOURCE))), always(I8)]);
static RESOURCE: Shape = plain(&[always(I8), always(Kind::Text), always(Kind::Many(&Kind::Struct(&CONFIG)))]);
static CONFIG: Shape = plain(&[always(Kind::Text), always(Kind::Text)]);
