//! The last read: the whole of every partition, after everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use io_backend::Backend;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequest;

use super::administrator;
use super::client::Client;
use super::compacted::{self, Reading};
use super::connection::back_off;
use super::fetcher::{self, FetchTerms};
use super::lines::Lines;
use super::lookups::{self, Question};
use super::members::{Coordinator, kept_in, positions_of};
use crate::history::{At, ConfigKey, LookupQuery, Outcome, Place, Teller, Trade, Value};

/// Reads from the beginning to the high watermark, trying until `until`. Partitions that could not be read to
/// their end are left out. Done when the client's task is.
pub fn read_everything<B: Backend>(client: Client<B>, until: At) {
    let reader = Reader { line: Lines::new(&client), client: client.clone() };
    client.begin("last read", reader.run(until));
}

/// A leader that begins its epoch tells an older high watermark until its followers have told it what they have; what was
/// acknowledged or read before lies below that again by then, or is lost.
const HIGH_WATERMARK_WITHIN: At = 15_000_000_000;
/// Partitions that are read at a time.
const AT_ONCE: usize = 32;

struct Reader<B: Backend> {
    client: Client<B>,
    line: Lines<B>,
}

impl<B: Backend> Reader<B> {
    async fn run(mut self, until: At) {
        self.list_topics(until).await;
        self.ask_configs(until).await;
        self.ask_groups(until).await;
        // Whatever comes of it, the others are to have their time.
        let now = self.client.now();
        self.read_compacted(now + until.saturating_sub(now) / 2).await;
        let mut places: Vec<Place> = self.client.field.places.to_vec();
        places.extend(self.client.field.lives.places());
        let mut logs: BTreeMap<usize, Vec<(i64, Value)>> = BTreeMap::new();
        let mut epochs: BTreeMap<usize, Vec<(i64, i32)>> = BTreeMap::new();
        let mut positions: Vec<i64> = vec![0; places.len()];
        let mut starts: Vec<i64> = vec![0; places.len()];
        let mut done = vec![false; places.len()];
        let mut failures = 0;
        let ends = self.acknowledged_ends(&places);
        let began = self.client.now();
        while done.iter().any(|done| !done) && self.client.now() < until {
            let from: Vec<(usize, i64)> = (0..places.len())
                .filter(|index| !done[*index])
                .take(AT_ONCE)
                .map(|index| (index, positions[index]))
                .collect();
            let fetched = match fetcher::fetch(
                &self.client,
                &mut self.line,
                &places,
                &from,
                FetchTerms::soon(),
            )
            .await
            {
                Ok(fetched) => fetched,
                Err(_) => {
                    failures += 1;
                    back_off(&self.client.backend, failures).await;
                    continue;
                }
            };
            let (mut troubled, mut came) = (false, false);
            for mut fetch in fetched {
                let index = fetch.index;
                if fetch.error == Some(ResponseError::OffsetOutOfRange) && self.client.field.deletes {
                    // What was read of it is not all that there is any more.
                    if let Some(start) = self.start_of(&places[index]).await {
                        positions[index] = start;
                        starts[index] = start;
                        logs.remove(&index);
                        epochs.remove(&index);
                        came = true;
                    }
                    troubled = true;
                    continue;
                }
                if fetch.error.is_some() {
                    troubled = true;
                    continue;
                }
                if fetch.note_damages(&self.client, &places[index]) {
                    done[index] = true;
                }
                came |= !fetch.records.is_empty();
                let log = logs.entry(index).or_default();
                log.extend(fetch.records);
                epochs.entry(index).or_default().extend(fetch.epochs);
                if let Some((last, _)) = log.last() {
                    positions[index] = positions[index].max(last + 1);
                }
                let may_rise =
                    self.client.field.nodes > 1 && self.client.now() < began + HIGH_WATERMARK_WITHIN;
                let is_behind = positions[index] < ends[index];
                if positions[index] >= fetch.high_watermark && !(may_rise && is_behind) {
                    done[index] = true;
                }
            }
            // A partition that is not served does not hold up what there is of the others.
            if troubled && !came {
                failures += 1;
                back_off(&self.client.backend, failures).await;
            }
        }
        for (index, place) in places.iter().enumerate().filter(|(index, _)| done[*index]) {
            self.client.note_log_start(place, starts[index], Teller::Nobody, began);
        }
        let mut notes = self.client.field.notes.write();
        for (index, place) in places.into_iter().enumerate() {
            if done[index] {
                notes.epochs.insert(place.clone(), epochs.remove(&index).unwrap_or_default());
                notes.last_start.insert(place.clone(), starts[index]);
                notes.last_read.insert(place, logs.remove(&index).unwrap_or_default());
            } else {
                notes.unreadable.push(place);
            }
        }
    }

    /// The compacted topic, if it was ever there.
    async fn read_compacted(&mut self, until: At) {
        for place in self.client.field.compacted.clone().iter() {
            let was_created = self.client.field.notes.write().topics.contains_key(&*place.topic);
            let reading = Reading::last(until);
            if was_created && !compacted::whole(&self.client, &mut self.line, place, reading).await {
                self.client.field.notes.write().unreadable.push(place.clone());
            }
        }
    }

    /// Behind the last record of each place that was acknowledged or read.
    fn acknowledged_ends(&self, places: &[Place]) -> Vec<i64> {
        let mut ends: BTreeMap<Place, i64> = BTreeMap::new();
        for send in &self.client.field.notes.write().sends {
            if let Outcome::Acked { base: Some(base), .. } = send.outcome {
                let end = ends.entry(send.place.clone()).or_default();
                *end = (*end).max(base + i64::from(send.count));
            }
        }
        let end =
            |(index, place)| ends.get(place).copied().unwrap_or(0).max(self.client.field.owed.end(index));
        places.iter().enumerate().map(end).collect()
    }

    /// What is set in the end of all that was changed.
    async fn ask_configs(&mut self, until: At) {
        let mut keys: Vec<ConfigKey> = {
            let notes = self.client.field.notes.write();
            notes.config_changes.iter().map(|change| change.key.clone()).collect()
        };
        keys.sort();
        keys.dedup();
        let mut failures = 0;
        while !keys.is_empty() && self.client.now() < until {
            let within = std::time::Duration::from_secs(10);
            if administrator::ask(&self.client, &mut self.line, &keys, within).await {
                return;
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
    }

    /// How far groups are in the end.
    async fn ask_groups(&mut self, until: At) {
        let groups: BTreeSet<Arc<str>> = {
            let notes = self.client.field.notes.write();
            notes.groups.commits.iter().map(|commit| commit.group.clone()).collect()
        };
        let places = self.client.field.places.clone();
        for group in groups {
            let mut coordinator = Coordinator::new(&self.client, group.clone());
            let mut failures = 0;
            while !matches!(positions_of(&self.client, &mut coordinator, &places).await, Ok(Ok(_))) {
                if self.client.now() >= until {
                    let untold = (group.clone(), kept_in(&group));
                    self.client.field.notes.write().groups.untold.push(untold);
                    break;
                }
                failures += 1;
                back_off(&self.client.backend, failures).await;
            }
        }
    }

    /// Where a log starts, if it was told.
    async fn start_of(&mut self, place: &Place) -> Option<i64> {
        let question = Question { place, query: LookupQuery::Earliest, epoch: None };
        let found = lookups::find(&self.client, &mut self.line, question, lookups::WITHIN).await.ok()??;
        Some(found.offset)
    }

    /// Which topics are there in the end.
    async fn list_topics(&mut self, until: At) {
        let mut failures = 0;
        while self.client.now() < until {
            let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
            let within = std::time::Duration::from_secs(10);
            if let Ok(answer) = self.line.call(Trade::Look, &request, 9, within, |_| true).await {
                let names = answer.topics.iter().filter_map(|topic| topic.name.as_ref());
                let names = names.map(|name| self.client.field.lives.current(name)).collect();
                self.client.field.notes.write().topics_in_the_end = Some(names);
                return;
            }
            failures += 1;
            back_off(&self.client.backend, failures).await;
        }
    }
}
