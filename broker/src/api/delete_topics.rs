//! DeleteTopics, by name or by id.

use std::collections::BTreeSet;

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
use kafka_protocol::messages::{ApiKey, DeleteTopicsRequest, TopicName};

use super::authorization::{Needs, Operation};
use super::changes::{Refusal, of_topics, patience, propose};
use super::declaration::{Answer, Api, Call, Declaration, Versions};
use crate::ids::TopicId;
use crate::metadata::MetadataCommand;
use crate::routing::{RoutingView, TopicKey, until_known};
use crate::wire::shape::{Bounds, I32, Kind, Shape, TEXTS, UUID, always, plain, since, until};
use crate::wire::text;

/// One topic of the request: as it was named, and what it is.
struct Wanted {
    name: Option<TopicName>,
    id: TopicId,
    outcome: Result<(), Refusal>,
}

/// DeleteTopics, key 20 (KIP-4; by id: KIP-516).
impl Api for DeleteTopicsRequest {
    const DECLARATION: Declaration = Declaration {
        key: ApiKey::DeleteTopics,
        versions: Versions::of(1, 6),
        bounds: Bounds::of_topics(&REQUEST),
        needs: Needs::OnTopics(Operation::Delete),
    };
    type Response = DeleteTopicsResponse;

    async fn answer<B: Backend>(self, call: Call<B>) -> Answer<DeleteTopicsResponse> {
        let names = self.topic_names.into_iter().map(|name| (Some(name), TopicId::NIL));
        let topics = self.topics.into_iter().map(|topic| (topic.name, TopicId(topic.topic_id)));
        let asked: Vec<_> = names.chain(topics).collect();
        until_known(&call.context, |image| {
            asked.iter().all(|(name, id)| key(name.as_ref(), *id).of(image).is_some())
        })
        .await;
        let routing = RoutingView::now(&call.context);
        let mut wanted: Vec<Wanted> =
            asked.into_iter().map(|(name, id)| resolve(&routing, name, id)).collect();
        refuse_doubles(&mut wanted);

        let topics: Vec<TopicId> =
            wanted.iter().filter(|topic| topic.outcome.is_ok()).map(|topic| topic.id).collect();
        let (count, deadline) =
            (topics.len(), Deadline::after(&call.context.backend, patience(self.timeout_ms)));
        let command = MetadataCommand::DeleteTopics { topics };
        let decided = propose(&call.context, command, count, deadline, of_topics).await;
        for (topic, outcome) in wanted.iter_mut().filter(|topic| topic.outcome.is_ok()).zip(decided) {
            topic.outcome = outcome.map(drop);
        }

        let responses = wanted.into_iter().map(|topic| {
            let mut result = DeletableTopicResult::default().with_name(topic.name);
            if call.head.version >= 6 {
                result.topic_id = topic.id.0;
            }
            if let Err((code, message)) = topic.outcome {
                result.error_code = code.code();
                result.error_message = (call.head.version >= 5).then(|| text(message));
            }
            result
        });
        DeleteTopicsResponse::default().with_responses(responses.collect()).into()
    }

    fn errors(response: &DeleteTopicsResponse, each: &mut dyn FnMut(i16)) {
        response.responses.iter().for_each(|topic| each(topic.error_code));
    }
}

static REQUEST: Shape = plain(&[since(6, Kind::Many(&Kind::Struct(&TOPIC))), until(5, TEXTS), always(I32)]);
static TOPIC: Shape = plain(&[always(Kind::Text), always(UUID)]);

fn key(name: Option<&TopicName>, id: TopicId) -> TopicKey<'_> {
    name.map_or(TopicKey::Id(id), |name| TopicKey::Name(name.as_str()))
}

/// What is named twice, by name, by id or by one of each, is not deleted.
fn refuse_doubles(wanted: &mut [Wanted]) {
    let found = wanted.iter().filter(|topic| topic.outcome.is_ok()).map(|topic| topic.id);
    let mut seen = BTreeSet::new();
    let duplicates: BTreeSet<TopicId> = found.filter(|id| !seen.insert(*id)).collect();
    for topic in wanted.iter_mut().filter(|topic| topic.outcome.is_ok() && duplicates.contains(&topic.id)) {
        let why = "The topic is named more than once.".to_owned();
        topic.outcome = Err((ResponseError::InvalidRequest, why));
    }
}

fn resolve<B: Backend>(routing: &RoutingView<B>, name: Option<TopicName>, id: TopicId) -> Wanted {
    let wrong = match (&name, id == TopicId::NIL) {
        (Some(_), false) => Some("You may not specify both topic name and topic id."),
        (None, true) => Some("Neither topic name nor id were specified."),
        _ => None,
    };
    if let Some(why) = wrong {
        return Wanted { name, id, outcome: Err((ResponseError::InvalidRequest, why.to_owned())) };
    }
    match routing.topic(key(name.as_ref(), id)) {
        Ok(topic) => {
            let name = name.unwrap_or_else(|| TopicName(text(&topic.name)));
            Wanted { name: Some(name), id: topic.id, outcome: Ok(()) }
        }
        Err(code) => Wanted { name, id, outcome: Err((code, "there is no such topic".into())) },
    }
}
