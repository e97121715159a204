//! A process whose disk has stood still for long ends, where the others have taken over all that it led: started anew, perhaps
//! on a disk that was mended, it is of use again, and until then it is in nobody's way.
//!
//! It stays where it is the only one who has something, or where the others would be too few without it. Where its own metadata stand
//! still with the disk, it goes by those of another node.

use std::collections::BTreeSet;
use std::time::Duration;

use io_backend::{Backend, Deadline};

use super::{ControllerContext, unlinked};
use crate::ids::BrokerId;
use crate::metadata::{Members, MetadataImage};
use crate::stall::StorageHealth;
use crate::stall::contact::Lost;

/// Where it could not be given up, it is looked again after this.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Waits until the disk has stood still for `stall.exit_after` and this node is not needed; says why it ends.
pub(super) async fn until_given_up<B: Backend>(
    context: &ControllerContext<B>,
    health: &StorageHealth,
) -> String {
    const WELL: Deadline = Deadline::Unbounded("a disk may be well for ever");
    let backend = &context.backend;
    let stall = &context.config.stall;
    let fitness = health.capacities.published();
    loop {
        if fitness.until(backend, WELL, |now| now.stands_still).await.is_err() {
            continue;
        }
        // It is known only when it has stood still for a while.
        let left = stall.exit_after.saturating_sub(stall.stalled_after);
        let mut look_at = Deadline::after(backend, left);
        while fitness.until(backend, look_at, |now| !now.stands_still).await.is_err() {
            let without = unlinked(context.asks.peers());
            let (image, members) = (context.metadata.shown(), context.metadata.members().get());
            let is_heard = health.contact.lost().is_none_or(|lost| lost.why == Lost::Behind);
            if is_heard && can_do_without(&image, &members, context.node, &without) {
                let after = stall.exit_after.as_secs();
                return format!(
                    "the disk has stood still for {after} s (stall.exit_after), and other nodes lead all that this one led: it ends, to \
                     be started again. Check the disk"
                );
            }
            look_at = Deadline::after(backend, LOOKED_AGAIN_AFTER);
        }
    }
}

/// Whether others lead all partitions that this node has a replica of, and most of those who vote are linked to without it.
fn can_do_without(
    image: &MetadataImage,
    members: &Members,
    node: BrokerId,
    unlinked: &BTreeSet<BrokerId>,
) -> bool {
    let partitions = image.topics.values().flat_map(|topic| &topic.partitions);
    let mut ours = partitions.filter(|partition| partition.replica(node).is_some());
    let others = members.voters.iter().filter(|voter| **voter != node && !unlinked.contains(voter)).count();
    let are_enough = 2 * others > members.voters.len();
    are_enough && ours.all(|partition| partition.leader.is_some_and(|leader| leader != node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::cluster_with;

    #[test]
    fn a_node_is_not_needed_where_others_lead_and_are_enough() {
        let members = |voters: &[i32]| Members {
            voters: voters.iter().copied().map(BrokerId).collect(),
            ..Members::default()
        };
        let three = members(&[1, 2, 3]);
        // Who has replicas of what, who votes, who is not linked to, and whether node 1 can go.
        type Case<'a> = (&'a [&'a [i32]], &'a Members, &'a [i32], bool);
        let table: [Case<'_>; 7] = [
            (&[&[2, 1, 3], &[3, 1]], &three, &[], true),
            (&[&[2, 3]], &three, &[], true),
            (&[&[2, 1, 3], &[1]], &three, &[], false),
            (&[&[2, 1, 3]], &three, &[3], false),
            (&[&[2, 1, 3]], &members(&[2, 3]), &[], true),
            (&[&[2, 1, 3]], &members(&[1, 2]), &[], false),
            (&[&[2, 1, 3]], &members(&[1]), &[], false),
        ];
        for (number, (assignments, members, without, expected)) in table.into_iter().enumerate() {
            let image = cluster_with(3, assignments);
            let without = without.iter().copied().map(BrokerId).collect();
            assert_eq!(can_do_without(&image, members, BrokerId(1), &without), expected, "{number}");
        }
    }
}
