//! A member of the classic protocol: all join, one of them says who reads what, and all begin again when anybody comes or goes. Where others
//! speak the consumer protocol the coordinator says it, and the member joins when there is something else for it.

use io_backend::Backend;
use kafka_protocol::error::ResponseError;

use super::super::connection::{CallError, ns};
use super::classic_protocol::Joined;
use super::coordinator::{SESSION, positions_of};
use super::progress;
use super::reading::{Reading, Refusal, refusal};
use crate::history::groups::{Assigned, Told};
use crate::history::{At, Place};

/// Until it is told what to read, and where it is in that.
pub(super) async fn join<B: Backend>(reading: &mut Reading<B>) -> Result<Result<(), Refusal>, CallError> {
    let field = reading.client.field.clone();
    reading.wish();
    let topics = progress::topics(&field.places);
    // What it has it gives up before it joins.
    note(reading, Some(Vec::new()), reading.client.now(), Told::Nothing);
    let sent = reading.client.now();
    let joined = match reading.coordinator.join(&mut reading.name, &topics).await? {
        Ok(joined) => joined,
        Err(error) => {
            note(reading, None, sent, refused(error, reading.client.now()));
            return Ok(Err(refusal(error)));
        }
    };
    let Joined { generation, members, by_coordinator } = joined;
    let assignments = progress::assign(&field.places, &members);
    let sent = reading.client.now();
    let synced = reading.coordinator.sync(&reading.name, generation, assignments).await?;
    let at = reading.client.now();
    let places = match synced {
        Ok(places) => places,
        Err(error) => {
            note(reading, None, sent, refused(error, at));
            return Ok(Err(refusal(error)));
        }
    };
    reading.end_wish();
    reading.epoch = generation;
    reading.round += 1;
    reading.positions.clear();
    let owned: Vec<usize> =
        (0..field.places.len()).filter(|index| places.contains(&field.places[*index])).collect();
    note(reading, None, sent, Told::Member { at, epoch: generation, given: Some(places.clone()) });
    if by_coordinator {
        field.notes.write().count("classic members that a coordinator assigned to");
    }
    if !reading.is_mixed {
        let mut notes = field.notes.write();
        notes.count("group generations joined");
        notes.groups.assigned.push(Assigned {
            group: reading.progress.group.clone(),
            generation,
            member: reading.name.id.as_str().into(),
            places: places.clone(),
            at,
        });
    }
    let positions = match positions_of(&reading.client, &mut reading.coordinator, &places).await? {
        Ok(positions) => positions,
        Err(error) => return Ok(Err(refusal(error))),
    };
    let position = |index: &usize| positions.get(&field.places[*index]).copied().unwrap_or(-1).max(0);
    reading.has_uncommitted = false;
    reading.positions = owned.iter().map(|index| (*index, position(index))).collect();
    Ok(Ok(()))
}

/// Says that it is there.
pub(super) async fn beat<B: Backend>(reading: &mut Reading<B>) -> Result<Result<(), Refusal>, CallError> {
    let sent = reading.client.now();
    let answered = reading.coordinator.heartbeat(&reading.name, reading.epoch).await?;
    let at = reading.client.now();
    match answered {
        Ok(()) => note(reading, None, sent, Told::GoOn { session: ns(SESSION) }),
        Err(error) => note(reading, None, sent, refused(error, at)),
    }
    let refused = answered.err().map(refusal);
    if refused == Some(Refusal::Rebalance) {
        // What it has read so far is not to be read again by whoever gets it.
        reading.commit().await;
    }
    Ok(refused.map_or(Ok(()), Err))
}

/// Who does not hear of it misses the member for as long as a session.
pub(super) async fn leave<B: Backend>(reading: &mut Reading<B>) {
    if reading.name.instance.is_none() {
        note(reading, Some(Vec::new()), reading.client.now(), Told::Nothing);
    }
    drop(reading.coordinator.leave(&reading.name).await);
}

/// In a group of one protocol a generation says it all.
fn note<B: Backend>(reading: &Reading<B>, keeps: Option<Vec<Place>>, sent: At, told: Told) {
    if reading.is_mixed && !reading.name.id.is_empty() {
        reading.note_beat(keeps, sent, told);
    }
}

fn refused(error: ResponseError, at: At) -> Told {
    if refusal(error) == Refusal::Gone { Told::Out(at) } else { Told::Nothing }
}
