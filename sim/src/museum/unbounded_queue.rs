//! Changes of metadata went into a queue that had no bound and no time-outs, neither for who asked nor for what was asked: a client that gave up left its
//! change in there. While the disk under the metadata was slow the queue grew, and the process with it.

use std::sync::Arc;
use std::time::Duration;

use broker::metadata::{MetadataCommand, Outcome, ProposeError};
use broker::parts::{Proposals, Propose};
use io_backend::{Backend, Clock, Deadline, Receiver, Replier, channel};

use crate::world::SimBackend;

/// No bound that anything ever came to.
const CHANGES: usize = 1 << 40;
const EACH_WITHIN: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(50);
const NO_DEADLINE: Deadline = Deadline::Unbounded("the old queue had no time-outs");

struct Change {
    command: MetadataCommand,
    asks: Replier<Result<Outcome, ProposeError>>,
}

pub(super) fn proposals(production: Proposals<SimBackend>) -> Propose {
    let Proposals { backend, propose, .. } = production;
    let (queue, changes) = channel(&backend, "metadata changes", CHANGES);
    let _detached = backend.spawn("metadata-queue", decide(backend.clone(), propose, changes));
    Arc::new(move |command, deadline| {
        let (asks, reply) = queue.reply("a change of metadata");
        let queued = queue.try_send(Change { command, asks });
        Box::pin(async move {
            match queued {
                Ok(()) => reply.wait(deadline).await.unwrap_or(Err(ProposeError::TimedOut)),
                Err(_) => Err(ProposeError::NoController),
            }
        })
    })
}

async fn decide(backend: SimBackend, propose: Propose, mut changes: Receiver<SimBackend, Change>) {
    while let Ok(Change { command, asks }) = changes.receive(NO_DEADLINE).await {
        let outcome = loop {
            match propose(command.clone(), Deadline::after(&backend, EACH_WITHIN)).await {
                Err(
                    ProposeError::NoController
                    | ProposeError::Overloaded
                    | ProposeError::TimedOut
                    | ProposeError::DiskFull,
                ) => backend.sleep(AGAIN_AFTER).await,
                outcome => break outcome,
            }
        };
        asks.answer(outcome);
    }
}
