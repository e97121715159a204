//! IncrementalAlterConfigs: changes of single configurations of topics, brokers and groups.

use io_backend::Backend;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::authorization::{Needs, Operation};
use super::changes::code_and_message;
use super::config_changes::{Asked, Verb, Wanted, change};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::wire::shape::{Bounds, I8, Kind, Shape, always, plain};

/// IncrementalAlterConfigs, key 44 (KIP-339).
impl Api for IncrementalAlterConfigsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::IncrementalAlterConfigs,
        versions: Versions::of(0, 1),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnResources(Operation::AlterConfigs),
    };
    type Response = IncrementalAlterConfigsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<IncrementalAlterConfigsResponse> {
        let asked: Vec<Asked<'_>> = self
            .resources
            .iter()
            .map(|resource| Asked {
                kind: resource.resource_type,
                name: resource.resource_name.as_str(),
                replaces: false,
                change: resource
                    .configs
                    .iter()
                    .map(|config| {
                        let verb = match config.config_operation {
                            0 => Verb::Set,
                            1 => Verb::Delete,
                            2 => Verb::Append,
                            3 => Verb::Subtract,
                            other => {
                                let why = format!("Unknown operation {other} for {}", config.name);
                                return Err((ResponseError::InvalidRequest, why));
                            }
                        };
                        Ok(Wanted { name: config.name.as_str(), verb, value: config.value.as_deref() })
                    })
                    .collect(),
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
        IncrementalAlterConfigsResponse::default().with_responses(responses.collect()).into()
    }

    fn errors(response: &IncrementalAlterConfigsResponse, each: &mut dyn FnMut(i16)) {
        response.responses.iter().for_each(|resource| each(resource.error_code));
    }
}

static REQUEST: Shape = plain(&[always(Kind::Many(&Kind::Struct(&RESOURCE))), always(I8)]);
static RESOURCE: Shape = plain(&[always(I8), always(Kind::Text), always(Kind::Many(&Kind::Struct(&CONFIG)))]);
static CONFIG: Shape = plain(&[always(Kind::Text), always(I8), always(Kind::Text)]);
