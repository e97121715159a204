//! Changes that clients ask for: each is refused by itself, and what is left is decided together by the metadata group.

use std::sync::Arc;
use std::time::Duration;

use io_backend::{Backend, Deadline};
use kafka_protocol::ResponseError;

use crate::context::Context;
use crate::error_codes;
use crate::limits;
use crate::metadata::{MetadataCommand, Outcome, PartitionError, PartitionImage, TopicError, TopicImage};
use crate::wire::{StrBytes, text};

/// Why something is not done: the code, and a sentence.
pub type Refusal = (ResponseError, String);

/// As the metadata group refuses it.
pub fn refused(error: TopicError) -> Refusal {
    (error_codes::topic(&error), error.to_string())
}

/// Error code and message as they are answered: 0 and null for what was done.
pub fn code_and_message<T>(outcome: Result<T, Refusal>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(_) => (error_codes::NONE, None),
        Err((code, why)) => (code.code(), Some(text(why))),
    }
}

/// How long a client's change may take: a second at least, whatever the client says.
pub fn patience(timeout_ms: i32) -> Duration {
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0).max(1_000));
    timeout.min(limits::PROPOSE_DEADLINE)
}

/// Has a command decided that is about `count` things; the outcome of each, in order. `each` takes them out of the
/// group's answer.
pub async fn propose<B: Backend, T: Clone>(
    context: &Context<B>,
    command: MetadataCommand,
    count: usize,
    deadline: Deadline,
    each: fn(Outcome) -> Vec<Result<T, Refusal>>,
) -> Vec<Result<T, Refusal>> {
    if count == 0 {
        return Vec::new();
    }
    match context.changes.propose(command, deadline).await {
        Ok(outcome) => {
            let mut decided = each(outcome);
            decided.resize(count, Err(unknown()));
            decided
        }
        Err(error) => {
            let refusal: Refusal = (error_codes::change(&error), error.to_string());
            vec![Err(refusal); count]
        }
    }
}

/// The outcome of each topic that a command was about.
pub fn of_topics(outcome: Outcome) -> Vec<Result<Arc<TopicImage>, Refusal>> {
    match outcome {
        Outcome::Topics(outcomes) => outcomes.into_iter().map(|outcome| outcome.map_err(refused)).collect(),
        _ => Vec::new(),
    }
}

/// The outcome of each partition that a command was about.
pub fn of_partitions(outcome: Outcome) -> Vec<Result<PartitionImage, Refusal>> {
    let refused = |error: PartitionError| (error_codes::partition(&error), error.to_string());
    match outcome {
        Outcome::Partitions(outcomes) => outcomes.into_iter().map(|one| one.map_err(refused)).collect(),
        _ => Vec::new(),
    }
}

/// The outcome of each of `plans`: why it was refused, or what was decided of it.
pub fn outcomes<P, T>(
    plans: Vec<Result<P, Refusal>>,
    decided: Vec<Result<T, Refusal>>,
) -> Vec<Result<T, Refusal>> {
    let mut decided = decided.into_iter();
    let mut next = || decided.next().unwrap_or_else(|| Err(unknown()));
    plans.into_iter().map(|plan| plan.and_then(|_| next())).collect()
}

fn unknown() -> Refusal {
    (ResponseError::UnknownServerError, "the outcome is not known".to_owned())
}
