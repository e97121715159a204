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

    /// To whom it happened a moment ago.
    pub(super) fn now(&self, now: Moment) -> BTreeSet<BrokerId> {
        let since = self.lock();
        since.iter().filter(|(_, at)| now.since(**at) < self.lasts).map(|(node, _)| *node).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BrokerId, Moment>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task `fenced brokers`: notes when a broker is fenced. Of those that were when this node began nothing is known.
pub(super) async fn watch_fences<B: Backend>(backend: B, images: Published<MetadataImage>, lately: Lately) {
    const FENCES: Deadline = Deadline::Unbounded("brokers are fenced at any time, or never");
    let mut before = fenced(&images.get());
    loop {
        let Ok(image) = images.until(&backend, FENCES, |image| fenced(image) != before).await else { return };
        let now = fenced(&image);
        now.difference(&before).for_each(|broker| lately.set(*broker, Some(backend.now())));
        before.difference(&now).for_each(|broker| lately.set(*broker, None));
        before = now;
    }
}

fn fenced(image: &MetadataImage) -> BTreeSet<BrokerId> {
    image.brokers.values().filter(|broker| broker.fenced).map(|broker| broker.id()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fenced_are_those_that_the_image_says() {
        let image = crate::metadata::testing::cluster_with(3, &[]);
        let mut later = image.clone();
        if let Some(broker) = later.brokers.get_mut(&BrokerId(2)) {
            broker.fenced = true;
        }
        assert_eq!((fenced(&image), fenced(&later)), ([].into(), [BrokerId(2)].into()));
        let lately = Lately::fenced();
        lately.set(BrokerId(2), Some(Moment(0)));
        let told = |seconds: u64| lately.now(Moment(seconds * 1_000_000_000)).len();
        assert_eq!((told(89), told(90)), (1, 0));
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
