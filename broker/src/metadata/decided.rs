//! What became of proposals: whoever leads tells where the entry stands in the log, and what it came to is found where it is
//! applied, here or, while this node's own metadata stand still, by asking another node.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::image::{MetadataImage, TopicImage};
use super::outcome::Outcome;
use crate::limits::OUTCOMES_KEPT;
use crate::raft::Place;

/// What is known of a proposal that was to stand somewhere in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// It is committed, and came to this.
    Outcome(Outcome),
    /// Another entry stands there, or a later term has begun before it: nothing has come of it, and never will.
    Overwritten,
    /// What stands there is not applied yet.
    NotYet,
    /// It was part of a snapshot, or is too long ago.
    Gone,
}

impl Found {
    /// As it goes to another node, which has the partitions of topics in its image: they may be many.
    pub(super) fn to_send(&self) -> Found {
        let without = |topic: &Arc<TopicImage>| {
            Arc::new(TopicImage { partitions: Vec::new(), ..TopicImage::clone(topic) })
        };
        match self {
            Found::Outcome(Outcome::Topics(topics)) => {
                let topics = topics.iter().map(|one| one.as_ref().map(without).map_err(Clone::clone));
                Found::Outcome(Outcome::Topics(topics.collect()))
            }
            other => other.clone(),
        }
    }

    /// As it was before it was sent, as far as this image has it: a topic that is gone has no partitions.
    pub(super) fn received(self, image: &MetadataImage) -> Found {
        let known = |topic: Arc<TopicImage>| image.topic_by_id(topic.id).cloned().unwrap_or(topic);
        match self {
            Found::Outcome(Outcome::Topics(topics)) => {
                Found::Outcome(Outcome::Topics(topics.into_iter().map(|one| one.map(known)).collect()))
            }
            other => other,
        }
    }
}

/// What the latest entries came to, of all nodes; clones are of the same.
#[derive(Clone, Default)]
pub struct Latest {
    kept: Arc<Mutex<Kept>>,
}

type Kept = VecDeque<(Place, Option<Outcome>)>;

impl Latest {
    /// The next one is applied; one that nobody has proposed has no outcome.
    pub(crate) fn push(&self, place: Place, outcome: Option<Outcome>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == OUTCOMES_KEPT {
            kept.pop_front();
        }
        kept.push_back((place, outcome));
    }

    /// What became of the proposal that was to stand there.
    pub(crate) fn of(&self, place: Place) -> Found {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Terms never fall along the log.
        let Some((last, _)) =
            kept.back().filter(|(last, _)| last.index >= place.index || last.term > place.term)
        else {
            return Found::NotYet;
        };
        if last.index < place.index {
            return Found::Overwritten;
        }
        let at = kept.binary_search_by_key(&place.index, |(there, _)| there.index);
        match at.ok().map(|at| &kept[at]) {
            Some((there, Some(outcome))) if *there == place => Found::Outcome(outcome.clone()),
            Some(_) => Found::Overwritten,
            None => Found::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept() {
        let latest = Latest::default();
        let place = |index, term| Place { index, term };
        let last = 3 * OUTCOMES_KEPT as u64;
        for index in (1..=last).filter(|index| index % 3 != 1) {
            // A leader begins its term with an entry that is nobody's.
            latest.push(place(index, 7), (index % 3 == 0).then_some(Outcome::Done));
        }
        let found = |index, term| latest.of(place(index, term));
        assert_eq!(found(last, 7), Found::Outcome(Outcome::Done));
        assert_eq!([found(last, 6), found(last - 1, 7)], [Found::Overwritten, Found::Overwritten]);
        assert_eq!(found(last + 9, 6), Found::Overwritten, "another leader's log has begun before it");
        assert_eq!([found(last + 1, 7), found(last + 1, 8)], [Found::NotYet, Found::NotYet]);
        assert_eq!([found(last - 2, 7), found(3, 7)], [Found::Gone, Found::Gone]);
        assert_eq!(Latest::default().of(place(1, 1)), Found::NotYet);
    }

    #[test]
    fn what_was_found_comes_out_as_it_went_in() {
        let image = crate::metadata::testing::cluster_with(3, &[&[1, 2], &[2, 3]]);
        let topic = image.topics.values().next().unwrap().clone();
        let partitions = topic.partitions.clone();
        let sent = |found: &Found| {
            let bytes = serde_json::to_vec(&found.to_send()).unwrap();
            serde_json::from_slice::<Found>(&bytes).unwrap().received(&image)
        };
        let outcomes = [
            Outcome::Topics(vec![Ok(topic), Err(super::super::TopicError::AlreadyExists("t".to_owned()))]),
            Outcome::Partitions(partitions.into_iter().map(Ok).collect()),
            Outcome::ProducerIds { first: crate::ids::ProducerId(7), count: 1_000 },
            Outcome::Done,
        ];
        for found in
            outcomes.map(Found::Outcome).into_iter().chain([Found::Overwritten, Found::NotYet, Found::Gone])
        {
            assert_eq!(sent(&found), found);
        }
    }
}
