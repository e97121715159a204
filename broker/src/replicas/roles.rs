//! The roles that partitions are told: each partition takes its own when it can, and holds up no other.
//!
//! The latest one counts. What a partition was told before and has not taken is not waited for any more, but for an epoch that it
//! begins: who is in sync in it is told when it has begun.

use std::collections::BTreeMap;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use io_backend::{Backend, Deadline};

use super::reconcile::{ReplicaId, Role};
use crate::ids::LeaderEpoch;
use crate::partition::{AppendError, PartitionHandle, ReadError};

/// What partitions have been told and not answered; as many at most as there are partitions.
#[derive(Default)]
pub(super) struct Roles {
    on_their_way: BTreeMap<ReplicaId, OnItsWay>,
    telling: FuturesUnordered<Abortable<BoxFuture<'static, Answered>>>,
    numbers: u64,
}

/// Who has answered, to which telling of all, and what.
type Answered = (ReplicaId, u64, Result<(), AppendError>);

struct OnItsWay {
    number: u64,
    role: Role,
    begins: Option<LeaderEpoch>,
    /// It is to be told more when it has begun that epoch.
    held: bool,
    abort: AbortHandle,
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// A partition has become what it was told, or has not.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) id: ReplicaId,
    pub(super) role: Role,
    pub(super) result: Result<(), AppendError>,
    /// It was to be told more meanwhile, and could not be.
    pub(super) held: bool,
}

impl Roles {
    /// What the partition was told last, if it has not answered yet.
    pub(super) fn told(&self, id: ReplicaId) -> Option<&Role> {
        self.on_their_way.get(&id).map(|one| &one.role)
    }

    /// Tells a partition what it is from now on; `led` is the epoch in which it leads so far.
    pub(super) fn tell<B: Backend>(
        &mut self,
        id: ReplicaId,
        partition: PartitionHandle<B>,
        role: Role,
        led: Option<LeaderEpoch>,
        deadline: Deadline,
    ) {
        let begins = role.leads_in().filter(|epoch| led != Some(*epoch));
        if begins.is_some()
            && let Some(before) = self.on_their_way.get_mut(&id)
            && before.begins == begins
        {
            before.held = true;
            return;
        }
        self.numbers += 1;
        let (number, told) = (self.numbers, role.clone());
        let telling: BoxFuture<'static, Answered> = Box::pin(async move {
            let taken = take_role(&partition, &told, begins.is_none(), deadline).await;
            (id, number, taken)
        });
        let (abort, registration) = AbortHandle::new_pair();
        self.telling.push(Abortable::new(telling, registration));
        // What was on its way before ends here.
        self.on_their_way.insert(id, OnItsWay { number, role, begins, held: false, abort });
    }

    /// The replica is gone.
    pub(super) fn forget(&mut self, id: ReplicaId) {
        self.on_their_way.remove(&id);
    }

    /// Nobody has yet to answer.
    pub(super) fn is_empty(&self) -> bool {
        self.on_their_way.is_empty()
    }

    /// Who has answered; pending while nobody has.
    pub(super) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Taken>> {
        let mut all = Vec::new();
        while let Poll::Ready(Some(ended)) = self.telling.poll_next_unpin(cx) {
            let Ok((id, number, result)) = ended else { continue };
            if self.on_their_way.get(&id).is_some_and(|one| one.number == number)
                && let Some(told) = self.on_their_way.remove(&id)
            {
                all.push(Taken { id, role: told.role.clone(), result, held: told.held });
            }
        }
        if all.is_empty() { Poll::Pending } else { Poll::Ready(all) }
    }
}

/// Has a partition become this; `goes_on` where it leads in that epoch already.
async fn take_role<B: Backend>(
    partition: &PartitionHandle<B>,
    role: &Role,
    goes_on: bool,
    deadline: Deadline,
) -> Result<(), AppendError> {
    match role {
        Role::Leads(epoch, in_sync) if goes_on => {
            partition.change_in_sync(*epoch, in_sync.clone(), deadline).await
        }
        Role::Leads(epoch, in_sync) => partition.lead(*epoch, in_sync.clone(), deadline).await,
        Role::Follows(epoch) => match partition.follow(*epoch, deadline).await {
            Ok(_) => Ok(()),
            Err(ReadError::Gone) => Err(AppendError::Gone),
            Err(_) => Err(AppendError::Overloaded),
        },
        Role::Idle(_) => partition.resign(deadline).await,
    }
}
