//! Looking into a batch before it is appended, where its topic is compacted or has a codec of its own.
//!
//! What that takes in memory is charged before it is taken, and so is the batch that comes of it until its partition has copied it.
//! Nobody waits for room and holds some. Most batches are small, whatever their codec says that they might take: so room is taken for
//! the beginning, and a batch that turns out to open to more begins anew with room for all of it, in a line of its own.

use std::panic::Location;
use std::sync::Arc;

use io_backend::task::give_way;
use io_backend::{Backend, Deadline, WaitKind, within};

use crate::budget::{Account, RequestClass, Share, charged};
use crate::context::Context;
use crate::log::batch::CheckedBatch;
use crate::log::codec::OPENED_BYTES_MAX;
use crate::log::inner::{Inner, Step, Wanted};
use crate::log::validate::BatchError;

/// The beginning.
const FIRST_BYTES: usize = 256 << 10;

/// Why a batch is not appended.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    /// What is in it.
    #[error("{0}")]
    Wrong(#[from] BatchError),
    /// No room for opening it, or no time. It may be sent again.
    #[error("no room in time to open the batch; nothing was written, so it may be sent again")]
    NoRoom,
}

/// The batch as it is to be appended.
pub async fn look<B: Backend>(
    context: &Context<B>,
    batch: CheckedBatch,
    wanted: Wanted,
    deadline: Deadline,
) -> Result<CheckedBatch, NotOpened> {
    let all = wanted.memory_bytes(&batch, OPENED_BYTES_MAX);
    let first = wanted.memory_bytes(&batch, FIRST_BYTES);
    let budget = &context.budget;
    let is_little = |bytes: usize| bytes <= budget.opening_little.limit();
    if first < all && is_little(first) {
        let share = room(context, &budget.opening_little, first, deadline).await?;
        if let Some(looked_at) = look_until(context, &batch, wanted, FIRST_BYTES, deadline).await? {
            return Ok(kept(&batch, looked_at, share));
        }
    }
    let account = if first == all && is_little(all) { &budget.opening_little } else { &budget.opening_much };
    let share = room(context, account, all, deadline).await?;
    // It is an error where a compressed batch opens to more; any other is there as a whole.
    let looked_at = look_until(context, &batch, wanted, usize::MAX, deadline).await?;
    let looked_at = looked_at.ok_or(NotOpened::NoRoom)?;
    Ok(kept(&batch, looked_at, share))
}

/// `None`: it opens to more than `bytes_max`.
async fn look_until<B: Backend>(
    context: &Context<B>,
    batch: &CheckedBatch,
    wanted: Wanted,
    bytes_max: usize,
    deadline: Deadline,
) -> Result<Option<CheckedBatch>, NotOpened> {
    let mut inner = Inner::of(batch, wanted)?;
    while inner.step()? == Step::More {
        if inner.opened() >= bytes_max {
            return Ok(None);
        }
        give_way().await;
        if deadline.has_passed(&context.backend) {
            return Err(NotOpened::NoRoom);
        }
    }
    Ok(Some(inner.finish()?))
}

/// Bytes other than those that came are charged for as long as they are there.
fn kept(came: &CheckedBatch, looked_at: CheckedBatch, mut share: Share) -> CheckedBatch {
    if looked_at.bytes.as_ptr() == came.bytes.as_ptr() {
        return looked_at;
    }
    share.set(looked_at.bytes.len());
    CheckedBatch { bytes: charged(looked_at.bytes.clone(), share), ..looked_at }
}

async fn room<B: Backend>(
    context: &Context<B>,
    account: &Arc<Account>,
    bytes: usize,
    deadline: Deadline,
) -> Result<Share, NotOpened> {
    let backend = &context.backend;
    if let Some(share) = account.try_take(RequestClass::Essential, bytes) {
        return Ok(share);
    }
    let wait =
        backend.registry().waiting(backend, WaitKind::Send, "room to open a batch", Location::caller());
    let taking = wait.bounded_by(deadline).during(account.take(RequestClass::Essential, bytes));
    within(backend, deadline, taking).await.map_err(|_| NotOpened::NoRoom)
}
