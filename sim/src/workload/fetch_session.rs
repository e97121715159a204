//! A consumer's side of a fetch session (KIP-227): what the node is believed to keep, and so what it need not be told again.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::fetcher::{self, FetchTerms, Ids};
use crate::history::{Place, wire_name};

/// A session with one node, or the wish for one.
#[derive(Default)]
pub(super) struct FetchSession {
    id: i32,
    /// Of the next request; 0: all is said, and a session begins.
    epoch: i32,
    /// Places with the terms on which they were last asked for.
    kept: BTreeMap<usize, (i64, Option<i32>, i32)>,
    ids: Option<Arc<Ids>>,
    /// A request of it was sent on another connection too: whichever comes second is not the one that is due.
    doubled: bool,
}

/// What an answer says of the session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Standing {
    /// Of all that was asked for it tells everything.
    Full,
    /// What it does not tell of is as it was.
    Incremental,
    /// The node knows no such session; whoever asks again begins a new one.
    Unknown,
    /// What was asked for was answered on another connection.
    Overtaken,
}

impl FetchSession {
    /// A request for exactly these places, from `(index, offset)` on.
    pub(super) fn request(
        &mut self,
        places: &[Place],
        from: &[(usize, i64)],
        terms: FetchTerms,
        ids: Option<&Arc<Ids>>,
        leader_epoch: impl Fn(&Place) -> Option<i32>,
    ) -> FetchRequest {
        if self.ids.as_ref() != ids {
            // A topic is another one: of a session, that is as if another one were named.
            self.begin_again();
            self.ids = ids.cloned();
        }
        let wanted: BTreeMap<usize, (i64, Option<i32>, i32)> = from
            .iter()
            .map(|(index, offset)| (*index, (*offset, leader_epoch(&places[*index]), terms.partition_bytes)))
            .collect();
        let is_new = |index: &usize| self.epoch == 0 || self.kept.get(index) != wanted.get(index);
        let said: Vec<(usize, i64)> = from.iter().filter(|(index, _)| is_new(index)).copied().collect();
        let gone = self.kept.keys().filter(|index| self.epoch != 0 && !wanted.contains_key(index));
        let forgotten = gone.map(|index| {
            let place = &places[*index];
            let name = wire_name(&place.topic);
            let topic = ForgottenTopic::default().with_partitions(vec![place.partition]);
            match ids {
                Some(ids) => topic.with_topic_id(ids.get(name).copied().unwrap_or_default()),
                None => topic.with_topic(TopicName(StrBytes::from_string(name.to_owned()))),
            }
        });
        let request = fetcher::request(places, &said, terms, ids.map(|ids| &**ids), leader_epoch)
            .with_session_id(self.id)
            .with_session_epoch(self.epoch)
            .with_forgotten_topics_data(forgotten.collect());
        self.kept = wanted;
        request
    }

    /// Takes over what the answer says of the session.
    pub(super) fn answered(&mut self, answer: &FetchResponse) -> Standing {
        if answer.error_code != 0 {
            let doubled = self.doubled;
            self.begin_again();
            if doubled && answer.error_code == ResponseError::InvalidFetchSessionEpoch.code() {
                return Standing::Overtaken;
            }
            if answer.error_code == ResponseError::FetchSessionIdNotFound.code() {
                self.id = 0;
                return Standing::Unknown;
            }
            return Standing::Full;
        }
        self.doubled = false;
        let standing =
            if self.epoch == 0 || answer.session_id == 0 { Standing::Full } else { Standing::Incremental };
        self.epoch = if answer.session_id == 0 { 0 } else { self.epoch.checked_add(1).unwrap_or(1) };
        self.id = answer.session_id;
        standing
    }

    /// Its last request is sent on another connection too.
    pub(super) fn double(&mut self) {
        self.doubled = true;
    }

    /// Nobody knows what became of the last request. Whoever begins anew names the session that is to end.
    pub(super) fn begin_again(&mut self) {
        self.epoch = 0;
        self.doubled = false;
    }
}
