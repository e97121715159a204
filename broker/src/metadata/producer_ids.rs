//! Numbers for idempotent producers, from blocks that the metadata group gives to this node.

use io_backend::{Backend, Deadline, Level, Lock};

use super::{ChangeError, Changes, MetadataCommand, Outcome};
use crate::ids::{BrokerId, ProducerId};
use crate::limits;

/// Ids asked for at once, as Kafka does: one proposal for a thousand producers.
const BLOCK: i64 = 1_000;
const LEVEL: Level = Level(100);

/// Why there is no producer id.
#[derive(Debug, thiserror::Error)]
pub enum ProducerIdError {
    /// Its client asks again.
    #[error("others have waited for a block of them for too long")]
    Busy,
    /// The metadata group did not give a block.
    #[error("{0}")]
    Change(#[from] ChangeError),
    /// It answered something else: a defect of ours, which only this request hears of.
    #[error("the metadata group gave none, but {0}")]
    Answer(String),
}

/// The block in use. Ids that a stop leaves unused are never given out.
pub struct ProducerIds<B: Backend> {
    node: BrokerId,
    changes: Changes<B>,
    block: Lock<B, Block>,
}

#[derive(Default)]
struct Block {
    next: i64,
    end: i64,
}

impl<B: Backend> ProducerIds<B> {
    /// Begins without a block: the first producer asks for one.
    pub fn new(node: BrokerId, changes: Changes<B>) -> ProducerIds<B> {
        let block = Lock::new(&changes.backend, "producer ids", LEVEL, Block::default());
        ProducerIds { node, changes, block }
    }

    /// An id that nobody has been given.
    ///
    /// # Errors
    ///
    /// No block came within [`limits::PROPOSE_DEADLINE`].
    pub async fn next(&self) -> Result<ProducerId, ProducerIdError> {
        let deadline = Deadline::after(&self.changes.backend, limits::PROPOSE_DEADLINE);
        let mut block = self.block.lock(deadline).await.map_err(|_| ProducerIdError::Busy)?;
        if block.next == block.end {
            let command = MetadataCommand::AllocateProducerIds { broker: self.node, count: BLOCK };
            match self.changes.propose(command, deadline).await? {
                Outcome::ProducerIds { first, count } if count > 0 => {
                    *block = Block { next: first.0, end: first.0 + count };
                }
                other => return Err(ProducerIdError::Answer(format!("{other:?}"))),
            }
        }
        let id = block.next;
        block.next += 1;
        Ok(ProducerId(id))
    }
}
