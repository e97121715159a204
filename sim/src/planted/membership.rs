//! An addition to an ISR that is asked for again, under whatever version the partition has by then: late copies of it bring back who
//! has left since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::ids::{BrokerId, PartitionId};
use broker::metadata::{AlteredPartition, BrokerProcess, MetadataCommand, MetadataImage, Proposals, Propose};
use broker::parts::Parts;
use io_backend::{Backend, Clock, Deadline};

use crate::world::{SimBackend, lock};

/// After the change that it undoes, and after one another.
const COMES_AFTER: Duration = Duration::from_millis(300);
const COPIES: u32 = 10;
const TRIED_FOR: Duration = Duration::from_secs(1);

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    parts.proposals = Box::new(repeats_additions);
}

fn repeats_additions(production: Proposals<SimBackend>) -> Propose {
    let Proposals { backend, images, propose } = production;
    let largest: Arc<Mutex<BTreeMap<PartitionId, Vec<BrokerId>>>> = Arc::default();
    Arc::new(move |command, deadline| {
        let MetadataCommand::AlterPartition { leader, partitions } = &command else {
            return propose(command, deadline);
        };
        let leader = *leader;
        let image = images.get();
        let mut known = lock(&largest);
        let mut late = Vec::new();
        for asked in partitions {
            let Some(now) = image.partition(asked.partition) else { continue };
            let added = known.entry(asked.partition).or_default();
            if now.isr.len() > added.len() {
                added.clone_from(&now.isr);
            }
            if asked.isr.len() < now.isr.len() {
                late.push((asked.partition, added.clone()));
            }
        }
        drop(known);
        let asked = propose(command, deadline);
        let (backend, images, propose) = (backend.clone(), images.clone(), propose.clone());
        Box::pin(async move {
            let outcome = asked.await;
            if !late.is_empty() {
                let of = backend.clone();
                of.spawn("late copies", async move {
                    for _ in 0..COPIES {
                        backend.sleep(COMES_AFTER).await;
                        let image = images.get();
                        let copies = late.iter().filter_map(|(id, isr)| unversioned(&image, *id, isr));
                        let command =
                            MetadataCommand::AlterPartition { leader, partitions: copies.collect() };
                        let _ = propose(command, Deadline::after(&backend, TRIED_FOR)).await;
                    }
                });
            }
            outcome
        })
    })
}

/// What was asked for, as if it was asked for now.
fn unversioned(image: &MetadataImage, id: PartitionId, isr: &[BrokerId]) -> Option<AlteredPartition> {
    let partition = image.partition(id)?;
    let process =
        |broker: &BrokerId| Some(BrokerProcess { broker: *broker, epoch: image.brokers.get(broker)?.epoch });
    Some(AlteredPartition {
        partition: id,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        isr: isr.iter().map(process).collect::<Option<Vec<_>>>()?,
    })
}
