//! Raft held its lock until the log said that what it had proposed was written, and the log that wrote it asked Raft for its state, for the head of
//! each new segment, before it said so. A proposal on its way while a segment was full stopped both for good.

use std::sync::{Arc, OnceLock};

use broker::metadata::{MetadataCommand, Outcome, ProposeError};
use broker::parts::{Parts, Proposals, Propose};
use io_backend::{Backend, Level, Lock, Receiver, Replier, Sender, channel};

use super::told_later::{self, NO_DEADLINE, Synced};
use crate::world::SimBackend;

const SEGMENT_BYTES: usize = 16 << 10;

/// What the two know of one another.
struct Between {
    raft: Lock<SimBackend, ()>,
    /// Proposals that wait to be written.
    written: Sender<SimBackend, Replier<()>>,
}

pub(super) fn plant(parts: &mut Parts<SimBackend>) {
    let shared = Arc::new(OnceLock::<Arc<Between>>::new());
    let opened = shared.clone();
    told_later::by(&mut parts.raft_journal, "wal-commit-worker", move |backend, groups| {
        let (written, asking) = channel(&backend, "proposals to be written", 1);
        let between = Arc::new(Between { raft: Lock::new(&backend, "raft", Level(900), ()), written });
        let _ = opened.set(between.clone());
        write(groups, asking, between)
    });
    parts.proposals = Box::new(move |production| {
        let Proposals { backend, propose, .. } = production;
        Arc::new(move |command, deadline| match shared.get() {
            Some(between) => Box::pin(decide(backend.clone(), propose.clone(), between.clone(), command)),
            None => propose(command, deadline),
        })
    });
}

async fn write(mut groups: Synced, mut asking: Receiver<SimBackend, Replier<()>>, between: Arc<Between>) {
    asking.claim();
    let mut room = SEGMENT_BYTES;
    while let Some(group) = groups.next_group().await {
        for submitted in group {
            if submitted.bytes > room {
                drop(between.raft.lock(NO_DEADLINE).await);
                room = SEGMENT_BYTES;
            }
            room = room.saturating_sub(submitted.bytes);
            submitted.tell();
        }
        let mut written = Vec::new();
        asking.try_receive_many(&mut written, usize::MAX);
        for proposal in written {
            proposal.answer(());
        }
    }
}

async fn decide(
    backend: SimBackend,
    propose: Propose,
    between: Arc<Between>,
    command: MetadataCommand,
) -> Result<Outcome, ProposeError> {
    let Ok(held) = between.raft.lock(NO_DEADLINE).await else { return Err(ProposeError::TimedOut) };
    let (proposal, written) = between.written.reply("what Raft proposed to be written");
    let (decides, decided) = between.written.reply("decision of what was written");
    let _ = between.written.try_send(proposal);
    let _detached = backend.spawn("raft-propose", async move {
        decides.answer(propose(command, NO_DEADLINE).await);
    });
    let _ = written.wait(NO_DEADLINE).await;
    let outcome = decided.wait(NO_DEADLINE).await.unwrap_or(Err(ProposeError::TimedOut));
    drop(held);
    outcome
}
