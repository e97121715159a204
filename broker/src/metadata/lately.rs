//! What happened to other nodes a moment ago, and what clients are told because of it.
//!
//! **A link broke**: the controller most likely has others lead before long what that node led. A client that has lost its
//! connection to a leader asks at once who leads. Told of the same one, it would ask again only after a second or more; told that
//! none is known now, it asks again at once, as Kafka's clients do. The link may be what broke, and not the node: so it is told for
//! a second, and not longer.
//!
//! **A broker was fenced**: it stays among the brokers for a while, though it leads nothing. librdkafka (2.10 and later) gives up a
//! broker that an answer does not name, and what it moves to another leader by that same answer loses its leader with it: it asks
//! again only after a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use io_backend::{Backend, Deadline, Moment, Published};

use super::MetadataImage;
use crate::ids::BrokerId;

/// Longer than it takes to fence a node whose process has ended.
const LINK_DOUBTED_FOR: Duration = Duration::from_secs(1);
/// Longer than clients wait for an answer by default before they ask who leads instead.
const FENCED_LISTED_FOR: Duration = Duration::from_secs(90);

/// When it happened, and to whom; clones are of the same.
#[derive(Clone)]
pub struct Lately {
    since: Arc<Mutex<BTreeMap<BrokerId, Moment>>>,
    lasts: Duration,
}

impl Lately {
    /// Of links that broke.
    pub(super) fn unlinked() -> Lately {
        Lately { since: Arc::default(), lasts: LINK_DOUBTED_FOR }
    }

    /// Of brokers that were fenced.
    pub(super) fn fenced() -> Lately {
        Lately { since: Arc::default(), lasts: FENCED_LISTED_FOR }
    }

    /// It happened at this moment, or is over.
    pub(super) fn set(&self, node: BrokerId, at: Option<Moment>) {
        match at {
            Some(at) => drop(self.lock().insert(node, at)),
            None => drop(self.lock().remove(&node)),
        }
    }

    /// Who was there before is not, or who was not is.
    fn note(&self, before: &BTreeSet<BrokerId>, now: &BTreeSet<BrokerId>, at: Moment) {
        before.difference(now).for_each(|node| self.set(*node, Some(at)));
        now.difference(before).for_each(|node| self.set(*node, None));
    }

    /// To whom it happened a moment ago.
    pub(super) fn now(&self, now: Moment) -> BTreeSet<BrokerId> {
        let since = self.lock();
        since.iter().filter(|(_, at)| now.since(**at) < self.lasts).map(|(node, _)| *node).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BrokerId, Moment>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task `fenced brokers`: notes when a broker is fenced. Of one that was when this node began nobody is told.
pub(super) async fn watch_fences<B: Backend>(backend: B, images: Published<MetadataImage>, lately: Lately) {
    const FENCES: Deadline = Deadline::Unbounded("brokers are fenced at any time, or never");
    let mut before = unfenced(&images.get());
    loop {
        let Ok(image) = images.until(&backend, FENCES, |image| unfenced(image) != before).await else {
            return;
        };
        let now = unfenced(&image);
        lately.note(&before, &now, backend.now());
        before = now;
    }
}

fn unfenced(image: &MetadataImage) -> BTreeSet<BrokerId> {
    image.alive_brokers().map(|broker| broker.id()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_fenced_is_told_of_for_a_while_and_who_was_before_is_not() {
        let image = |fenced: &[i32]| {
            let mut image = crate::metadata::testing::cluster_with(3, &[]);
            for id in fenced {
                image.brokers.get_mut(&BrokerId(*id)).expect("one of three").fenced = true;
            }
            unfenced(&image)
        };
        let lately = Lately::fenced();
        let at = |seconds: u64| Moment(seconds * 1_000_000_000);
        // A node that has just started has no brokers before it has any.
        let known = [[].into(), image(&[1]), image(&[1, 2]), image(&[2, 3])];
        for (second, pair) in (0..).zip(known.windows(2)) {
            lately.note(&pair[0], &pair[1], at(second));
        }
        let told = |second: u64| lately.now(at(second));
        assert_eq!(told(3), [BrokerId(2), BrokerId(3)].into());
        assert_eq!((told(91), told(92)), ([BrokerId(3)].into(), [].into()));
    }

    #[test]
    fn a_lost_link_is_doubted_for_a_second_or_until_there_is_another() {
        let doubts = Lately::unlinked();
        let at = |millis: u64| Moment(millis * 1_000_000);
        let (one, two) = (BrokerId(1), BrokerId(2));
        doubts.set(one, Some(at(500)));
        doubts.set(two, Some(at(900)));
        assert_eq!(doubts.now(at(1_400)), [one, two].into());
        assert_eq!(doubts.now(at(1_600)), [two].into());
        doubts.set(two, None);
        assert_eq!(doubts.now(at(1_600)), [].into());
    }
}
