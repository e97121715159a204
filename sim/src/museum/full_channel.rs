//! Who committed told of it through a bounded queue, and held the log's lock until all of a group were told. Who took from that queue took the lock
//! for each. As long as a group fitted the queue nobody noticed; one that did not stopped both for good.

use std::sync::Arc;

use broker::parts::Parts;
use io_backend::{Backend, Level, Lock, Receiver, Sender, TaskName, channel};

use super::told_later::{self, NO_DEADLINE, Submitted, Synced};
use crate::world::SimBackend;

/// It was 1,000 then, with as many more requests on the way.
const RESPONSES: usize = 64;

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    told_later::by(&mut parts.journal, "wal-commit-worker", |backend, groups| async move {
        let log = Arc::new(Lock::new(&backend, "log", Level(900), ()));
        let (responses, taken) = channel(&backend, "responses", RESPONSES);
        let name = TaskName::from("wal-response-worker");
        let _detached = backend.spawn(name, answer(taken, log.clone()));
        commit(groups, responses, log).await;
    });
}

async fn commit(
    mut groups: Synced,
    responses: Sender<SimBackend, Submitted>,
    log: Arc<Lock<SimBackend, ()>>,
) {
    while let Some(group) = groups.next_group().await {
        let Ok(held) = log.lock(NO_DEADLINE).await else { return };
        for submitted in group {
            if responses.send(submitted, NO_DEADLINE).await.is_err() {
                return;
            }
        }
        drop(held);
    }
}

/// Looks up where each is in the log, and tells of it.
async fn answer(mut taken: Receiver<SimBackend, Submitted>, log: Arc<Lock<SimBackend, ()>>) {
    while let Ok(submitted) = taken.receive(NO_DEADLINE).await {
        let Ok(looked) = log.lock(NO_DEADLINE).await else { return };
        drop(looked);
        submitted.tell();
    }
}
