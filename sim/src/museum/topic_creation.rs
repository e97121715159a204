//! Creating a topic took a proposal for the topic, one for each partition and more for what belongs to them, each begun when the one
//! before was decided, and each began with a look-up of the leader that nobody remembered. It took 31 s.

use std::sync::Arc;
use std::time::Duration;

use broker::metadata::{MetadataCommand, NewTopic, Outcome, ProposeError};
use broker::parts::{Proposals, Propose};
use io_backend::{Clock, Deadline};

use crate::world::SimBackend;

/// What it took until all nodes had been asked who leads, those included that did not know.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Beside those of its partitions: the topic, its configuration, its offsets.
const PROPOSALS: usize = 3;
/// Nobody gave up before it was done.
const EACH_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn proposals(production: Proposals<SimBackend>) -> Propose {
    let Proposals { backend, propose, .. } = production;
    Arc::new(move |command, deadline| match command {
        MetadataCommand::CreateTopics { topics, validate_only: false } => {
            Box::pin(create(backend.clone(), propose.clone(), topics))
        }
        other => propose(other, deadline),
    })
}

async fn create(
    backend: SimBackend,
    propose: Propose,
    topics: Vec<NewTopic>,
) -> Result<Outcome, ProposeError> {
    let partitions: usize = topics.iter().map(|topic| topic.assignments.len()).sum();
    // What the old steps wrote one by one is one entry here, the last: those before it take as long and change nothing.
    for _ in 1..partitions + PROPOSALS * topics.len() {
        step(&backend, &propose, topics.clone(), true).await?;
    }
    step(&backend, &propose, topics, false).await
}

async fn step(
    backend: &SimBackend,
    propose: &Propose,
    topics: Vec<NewTopic>,
    validate_only: bool,
) -> Result<Outcome, ProposeError> {
    backend.sleep(LOOK_UP).await;
    let deadline = Deadline::after(backend, EACH_WITHIN);
    propose(MetadataCommand::CreateTopics { topics, validate_only }, deadline).await
}
