//! A member of the classic protocol: all join, one of them says who reads what, and all begin again when anybody comes or goes.

use io_backend::Backend;

use super::super::connection::CallError;
use super::classic_protocol::Joined;
use super::coordinator::positions_of;
use super::progress;
use super::reading::{Reading, Refusal, refusal};
use crate::history::groups::Assigned;

/// Until it is told what to read, and where it is in that.
pub(super) async fn join<B: Backend>(reading: &mut Reading<B>) -> Result<Result<(), Refusal>, CallError> {
    let field = reading.client.field.clone();
    reading.wish();
    let topics = progress::topics(&field.places);
    let joined = match reading.coordinator.join(&mut reading.name, &topics).await? {
        Ok(joined) => joined,
        Err(error) => return Ok(Err(refusal(error))),
    };
    let Joined { generation, members } = joined;
    let assignments = progress::assign(&field.places, &members);
    let synced = reading.coordinator.sync(&reading.name, generation, assignments).await?;
    let places = match synced {
        Ok(places) => places,
        Err(error) => return Ok(Err(refusal(error))),
    };
    reading.end_wish();
    reading.epoch = generation;
    reading.round += 1;
    reading.positions.clear();
    let owned: Vec<usize> =
        (0..field.places.len()).filter(|index| places.contains(&field.places[*index])).collect();
    {
        let at = reading.client.now();
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
    let answered = reading.coordinator.heartbeat(&reading.name, reading.epoch).await?;
    let refused = answered.err().map(refusal);
    if refused == Some(Refusal::Rebalance) {
        // What it has read so far is not to be read again by whoever gets it.
        reading.commit().await;
    }
    Ok(refused.map_or(Ok(()), Err))
}
