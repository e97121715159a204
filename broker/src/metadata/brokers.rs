//! Brokers come, fall silent, return and go, and what that does to their seats.

use super::command::BrokerProcess;
use super::image::{BrokerImage, MetadataImage, PartitionImage, Replica};
use super::outcome::{BrokerError, RegistrationError};
use super::partition_change::{Around, Change, Election, change_partitions};
use super::registration::BrokerRegistration;
use crate::ids::{AssignmentId, BrokerEpoch, BrokerId};

/// The process that a command names, where it is the latest of its broker.
pub fn process(image: &MetadataImage, named: BrokerProcess) -> Result<&BrokerImage, BrokerError> {
    let broker = image.brokers.get(&named.broker).ok_or(BrokerError::NotRegistered(named.broker))?;
    if broker.epoch != named.epoch {
        return Err(BrokerError::StaleEpoch { expected: broker.epoch, found: named.epoch });
    }
    Ok(broker)
}

/// A process start. What its broker led is led under another epoch from then on, whoever leads it: the process may
/// have lost an unsynced tail that others have seen.
pub fn register(
    image: &mut MetadataImage,
    index: u64,
    registration: &BrokerRegistration,
) -> Result<BrokerEpoch, RegistrationError> {
    let id = registration.id;
    if let Some(known) = image.brokers.get(&id) {
        let said = &known.registration;
        if said.is_of_the_same_process(registration) {
            // Where it listens may have changed, what it leads has not.
            let again = BrokerImage { registration: registration.clone(), ..known.clone() };
            let epoch = again.epoch;
            image.brokers.insert(id, again);
            return Ok(epoch);
        }
        if said.storage == registration.storage && registration.incarnation <= said.incarnation {
            // A late message of an earlier process, or the directory was restored from a copy. Neither becomes anything:
            // to take the seats of the storage away here would let a late message do so.
            return Err(RegistrationError::Copy { known: said.incarnation, found: registration.incarnation });
        }
        // A process that was granted an epoch, and ended before its directory knew of it, was never unfenced.
        let behind = registration.previous_epoch.unwrap_or_default() < known.served_epoch;
        if said.storage == registration.storage && registration.incarnation_id.is_some() && behind {
            return Err(RegistrationError::Behind {
                served: known.served_epoch,
                known: registration.previous_epoch.unwrap_or_default(),
            });
        }
        if said.storage != registration.storage && !known.fenced && registration.incarnation_id.is_some() {
            return Err(RegistrationError::Duplicate(id));
        }
    }
    // Alone, nobody else could lead anything, or say that this one may. Binaries that drew no incarnation id were alone.
    let alone = image.brokers.keys().all(|known| *known == id);
    let fenced = !alone && registration.incarnation_id.is_some();
    let epoch = BrokerEpoch(index);
    let known = image.brokers.get(&id).filter(|known| known.registration.storage == registration.storage);
    let served_before = known.map_or(BrokerEpoch(0), |known| known.served_epoch);
    let broker = BrokerImage {
        registration: registration.clone(),
        epoch,
        served_epoch: if fenced { served_before } else { epoch },
        fenced,
        in_controlled_shutdown: false,
    };
    image.brokers.insert(id, broker);
    let storage = registration.storage;
    let anew = Replica { broker: id, storage, assignment: AssignmentId(index) };
    change_partitions(image, &[], |partition, _| {
        let seat = partition.replica(id)?;
        if seat.storage != storage {
            // Another disk: what the replica had acknowledged is gone, so it is in sync with nothing and leads nothing
            // until it has caught up, and nobody takes it for the one that was there.
            let mut change = Change::leave(partition, id);
            change.replicas.iter_mut().filter(|seat| seat.broker == id).for_each(|seat| *seat = anew);
            change.lost.push(id);
            return Some(change);
        }
        Some(if fenced { Change::leave(partition, id) } else { Change::none(partition) })
    });
    Ok(epoch)
}

/// It is silent: it leads nothing, and is in no ISR.
pub fn fence(image: &mut MetadataImage, named: BrokerProcess) -> Result<(), BrokerError> {
    let broker = BrokerImage { fenced: true, ..process(image, named)?.clone() };
    image.brokers.insert(named.broker, broker);
    leave(image, named.broker);
    Ok(())
}

/// It is heard again, and leads what nobody else could.
pub fn unfence(image: &mut MetadataImage, named: BrokerProcess) -> Result<(), BrokerError> {
    let broker = BrokerImage { fenced: false, served_epoch: named.epoch, ..process(image, named)?.clone() };
    image.brokers.insert(named.broker, broker);
    change_partitions(image, &[], |partition, _| {
        (partition.leader.is_none() && partition.replica(named.broker).is_some())
            .then(|| Change::none(partition))
    });
    Ok(())
}

/// It is about to stop: what others can lead is theirs.
pub fn begin_controlled_shutdown(image: &mut MetadataImage, named: BrokerProcess) -> Result<(), BrokerError> {
    let broker = BrokerImage { in_controlled_shutdown: true, ..process(image, named)?.clone() };
    image.brokers.insert(named.broker, broker);
    hand_over(image, named.broker, &[], &[]);
    Ok(())
}

/// Its storage stands still: what others can lead is theirs.
pub fn move_leaders(
    image: &mut MetadataImage,
    named: BrokerProcess,
    barred: &[BrokerId],
    avoided: &[BrokerId],
) -> Result<(), BrokerError> {
    process(image, named)?;
    let barred: Vec<BrokerId> = barred.iter().copied().chain([named.broker]).collect();
    hand_over(image, named.broker, &barred, avoided);
    Ok(())
}

/// It does not come back.
pub fn unregister(image: &mut MetadataImage, broker: BrokerId) -> Result<(), BrokerError> {
    image.brokers.remove(&broker).ok_or(BrokerError::NotRegistered(broker))?;
    leave(image, broker);
    Ok(())
}

fn leave(image: &mut MetadataImage, broker: BrokerId) {
    change_partitions(image, &[], |partition, _| {
        (partition.leader == Some(broker) || partition.isr.contains(&broker))
            .then(|| Change::leave(partition, broker))
    });
}

/// What this broker leads goes to whoever can lead it, and it leaves every ISR that has other members. Where nobody better
/// is there it stays, as leader and in sync.
fn hand_over(image: &mut MetadataImage, broker: BrokerId, barred: &[BrokerId], avoided: &[BrokerId]) {
    change_partitions(image, barred, |partition, around| {
        if !hands_over(partition, broker, around) {
            return None;
        }
        let change = Change::leave(partition, broker);
        if partition.leader != Some(broker) {
            return Some(change);
        }
        let good = |other: &BrokerId| *other != broker && around.may_lead(*other) && !avoided.contains(other);
        let in_sync = partition.replica_brokers().filter(|other| partition.isr.contains(other)).find(good);
        let rather = in_sync.or_else(|| partition.elr.iter().copied().find(good));
        Some(change.election(rather.map_or(Election::IfNeeded, Election::For)))
    });
}

/// Whether a broker that cannot write can do without its place in this partition, as leader or in sync.
pub fn hands_over(partition: &PartitionImage, broker: BrokerId, around: Around<'_>) -> bool {
    let mut others = partition.replica_brokers().filter(|other| *other != broker);
    match partition.leader == Some(broker) {
        true => others.any(|other| partition.is_in_sync_or_eligible(other) && around.may_lead(other)),
        false => partition.isr.contains(&broker) && partition.isr.len() > 1,
    }
}

#[cfg(test)]
#[path = "brokers_tests.rs"]
mod tests;
