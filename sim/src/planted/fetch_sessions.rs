//! A network on which answers in fetch sessions leave something out after the first: what a broker looks like from outside
//! that believes that its client knows already.

use std::collections::BTreeSet;

use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::FetchableTopicResponse;

use super::answers::Answers;
use super::empty_fetches::{FETCH, rewritten};
use crate::world::{Rewrite, SimBackend};

pub(super) fn news_left_out(backend: &SimBackend) -> SimBackend {
    backend.rewriting(|| after_the_first(|response| response.responses.clear()))
}

/// What there is to tell of a partition without records.
pub(super) fn start_left_out(backend: &SimBackend) -> SimBackend {
    backend
        .rewriting(|| after_the_first(|response| response.responses.iter_mut().for_each(without_the_empty)))
}

fn after_the_first(slip: fn(&mut FetchResponse)) -> Box<dyn Rewrite> {
    // Sessions whose first answer, which tells of everything, has been given on this connection.
    let mut begun = BTreeSet::new();
    Box::new(Answers::to(FETCH, move |answer, version| {
        rewritten(answer, version, |response| {
            if response.session_id != 0 && !begun.insert(response.session_id) {
                slip(response);
            }
        })
    }))
}

fn without_the_empty(topic: &mut FetchableTopicResponse) {
    topic.partitions.retain(|partition| {
        partition.error_code != 0 || partition.records.as_ref().is_some_and(|records| !records.is_empty())
    });
}
