//! What clients are told while this node's own image stands still: the image of a node that is well.
//!
//! Where the disk under Raft's journal does not answer, this node applies nothing more and goes on naming itself as the
//! leader of what others lead by now; clients that ask it again and again would never get away. So it asks the others for
//! theirs, and goes by that until its own has caught up. Answers to clients are made from it, what others lead by it is resigned, and
//! a process that gives up looks there whether it may; all else that this node does follows from its own image.

use std::future::poll_fn;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::future::{Either, select};
use io_backend::{Backend, Deadline, WaitKind, within};

use super::image::MetadataImage;
use super::snapshot::{decode_image, encode_image};
use super::{Members, MetadataHandle};
use crate::ids::BrokerId;
use crate::peers::asks::{Asks, Subject};
use crate::stall::StorageHealth;
use crate::stall::contact::Lost;

/// Between two questions, and how long the answer to one is waited for.
const PAUSE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(1);
/// A node that is well again has caught up by then, or gets nothing more.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(10);

/// The image, for a node that has it up to this index; nothing where it is no later.
pub(super) fn lend(image: &MetadataImage, question: &[u8]) -> Vec<u8> {
    let known = { question }.try_get_u64().unwrap_or(u64::MAX);
    match image.index > known {
        true => encode_image(image),
        false => Vec::new(),
    }
}

/// The task `borrowed metadata`: whenever this node's own metadata stand still, its clients are told of other nodes'.
pub async fn borrow_when_needed<B: Backend>(
    metadata: MetadataHandle<B>,
    asks: Asks<B>,
    health: StorageHealth,
) {
    let backend = metadata.backend.clone();
    let mut turn = 0;
    loop {
        until_it_stands_still(&backend, &health).await;
        while stands_still(&health) {
            turn += 1;
            if let Some(image) = borrow_from_next(&metadata, &asks, turn).await {
                tracing::debug!(index = image.index, "clients are told of another node's metadata");
                metadata.borrowed.publish(Some(Arc::new(image)));
            }
            backend.sleep(PAUSE).await;
        }
        // What clients were told of once they go on being told of.
        let (told, soon) = (metadata.shown().index, Deadline::after(&backend, CAUGHT_UP_WITHIN));
        let caught_up = pin!(metadata.images.until(&backend, soon, |image| image.index >= told));
        let again = pin!(until_it_stands_still(&backend, &health));
        if let Either::Right(_) = select(caught_up, again).await {
            continue;
        }
        metadata.borrowed.publish(None);
    }
}

fn stands_still(health: &StorageHealth) -> bool {
    let is_behind = health.contact.lost().is_some_and(|lost| lost.why == Lost::Behind);
    is_behind || !health.capacities.get().may_vote
}

async fn until_it_stands_still<B: Backend>(backend: &B, health: &StorageHealth) {
    const WELL: Deadline = Deadline::Unbounded("a node whose metadata are good borrows none");
    let mut contact = health.contact.published().watcher();
    let mut fitness = health.capacities.published().watcher();
    let what = "own metadata to stand still";
    let wait = backend.registry().waiting(backend, WaitKind::Change, what, Location::caller());
    let changed = poll_fn(|cx| {
        drop((contact.watch(cx.waker()), fitness.watch(cx.waker())));
        if stands_still(health) { Poll::Ready(()) } else { Poll::Pending }
    });
    let _ = within(backend, WELL, wait.bounded_by(WELL).during(changed)).await;
}

/// Whoever leads, as far as this node knows, and the others in turn: what it knows stands still.
async fn borrow_from_next<B: Backend>(
    metadata: &MetadataHandle<B>,
    asks: &Asks<B>,
    turn: usize,
) -> Option<MetadataImage> {
    let known = metadata.shown().index;
    let members: Arc<Members> = metadata.members.get();
    let reachable = asks.peers().reachable().get();
    let leader = members.leader.filter(|leader| turn % 2 == 1 && reachable.contains_key(leader));
    let in_turn = || reachable.keys().copied().nth(turn / 2 % reachable.len().max(1));
    let node: BrokerId = leader.or_else(in_turn)?;
    let deadline = Deadline::after(&metadata.backend, PATIENCE);
    let answer: Bytes = asks.ask(node, Subject::Image, &known.to_be_bytes(), deadline).await.ok()?;
    if answer.is_empty() {
        return None;
    }
    let image = decode_image(&answer).inspect_err(|error| {
        tracing::warn!(%node, %error, "the metadata of this node cannot be read");
    });
    let mut image = image.ok().filter(|image| image.index > metadata.shown().index)?;
    image.controller = members.leader.filter(|leader| *leader != metadata.node).or(Some(node));
    Some(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::cluster_with;

    #[test]
    fn who_has_as_much_is_lent_nothing() {
        let image = MetadataImage { index: 7, ..cluster_with(3, &[&[1, 2]]) };
        let lent = |known: u64| lend(&image, &known.to_be_bytes());
        assert_eq!(decode_image(&lent(6)).unwrap().index, 7);
        assert!(lent(7).is_empty() && lent(8).is_empty());
        assert!(lend(&image, b"short").is_empty());
    }
}
