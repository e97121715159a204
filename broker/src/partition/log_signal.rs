//! Where the logs of replicated partitions stand: told by their owners, waited for by those who replicate them.
//!
//! Of each partition only the latest state is kept, and a listener hears of it once, however often it changes before the listener
//! looks. Telling allocates nothing once a partition is watched; every critical section is a few moves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::LeaderMarks;
use crate::ids::{LeaderEpoch, Offset, PartitionId};

/// What of a replica's log is on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// Everything before is synced.
    pub synced: Offset,
    /// The log starts there.
    pub log_start: Offset,
}

impl Durable {
    /// The same, of a log that ends at `end`: what was behind it does not count any more.
    pub fn within(self, end: Offset) -> Durable {
        Durable { synced: self.synced.min(end), ..self }
    }
}

/// Where the log of a replica stands, of a partition that has other replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Whether this replica leads; else it follows, or is about to lead.
    pub leading: bool,
    /// The epoch of that.
    pub epoch: LeaderEpoch,
    /// After the last record that has an offset, durable or not.
    pub log_end: Offset,
    /// Everything before is durable here.
    pub synced: Offset,
    /// Kafka's high watermark.
    pub high_watermark: Offset,
    /// Where the log starts, durably.
    pub log_start: Offset,
    /// All replicas have everything before on their disks, as far as is known here.
    pub held_by_all: Offset,
}

impl LogState {
    /// What a leader says of it.
    pub fn marks(&self) -> LeaderMarks {
        let LogState { high_watermark, log_start, held_by_all, .. } = *self;
        LeaderMarks { high_watermark, log_start, held_by_all }
    }

    /// What of it is on this replica's disk.
    pub fn durable(&self) -> Durable {
        Durable { synced: self.synced, log_start: self.log_start }
    }
}

/// Cloneable: all clones are the same.
#[derive(Clone, Default)]
pub struct LogSignal {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    partitions: BTreeMap<PartitionId, Watched>,
    listeners: BTreeMap<u64, Listener>,
    numbers: u64,
}

#[derive(Default)]
struct Watched {
    state: Option<LogState>,
    /// Numbers of listeners, and whether they have yet to hear of the latest state.
    watchers: Vec<(u64, bool)>,
}

impl Watched {
    fn is_of_nobody(&self) -> bool {
        self.state.is_none() && self.watchers.is_empty()
    }
}

#[derive(Default)]
struct Listener {
    moved: Vec<PartitionId>,
    waker: Option<Waker>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogSignal {
    /// The partition's log stands there now; `None`: nobody replicates it here.
    pub fn tell(&self, partition: PartitionId, state: Option<LogState>) {
        let mut shared = lock(&self.shared);
        let Shared { partitions, listeners, .. } = &mut *shared;
        let watched = match state {
            Some(_) => partitions.entry(partition).or_default(),
            None => match partitions.get_mut(&partition) {
                Some(watched) => watched,
                None => return,
            },
        };
        watched.state = state;
        for (number, has_moved) in &mut watched.watchers {
            if !std::mem::replace(has_moved, true)
                && let Some(listener) = listeners.get_mut(number)
            {
                listener.moved.push(partition);
                if let Some(waker) = listener.waker.take() {
                    waker.wake();
                }
            }
        }
        if watched.is_of_nobody() {
            partitions.remove(&partition);
        }
    }

    /// Where the partition's log stands.
    pub fn state(&self, partition: PartitionId) -> Option<LogState> {
        lock(&self.shared).partitions.get(&partition)?.state
    }

    /// Somebody who watches partitions, none yet.
    pub fn listener(&self) -> LogListener {
        let mut shared = lock(&self.shared);
        shared.numbers += 1;
        let number = shared.numbers;
        shared.listeners.insert(number, Listener::default());
        LogListener { shared: self.shared.clone(), number }
    }
}

/// Watches some partitions; dropping it ends that.
pub struct LogListener {
    shared: Arc<Mutex<Shared>>,
    number: u64,
}

impl LogListener {
    /// Hears of the partition from now on, and of where it stands at once.
    pub fn watch(&self, partition: PartitionId) {
        let mut shared = lock(&self.shared);
        let watched = shared.partitions.entry(partition).or_default();
        if watched.watchers.iter().any(|(number, _)| *number == self.number) {
            return;
        }
        let known = watched.state.is_some();
        watched.watchers.push((self.number, known));
        if known && let Some(listener) = shared.listeners.get_mut(&self.number) {
            listener.moved.push(partition);
        }
    }

    /// Hears no more of it.
    pub fn unwatch(&self, partition: PartitionId) {
        let mut shared = lock(&self.shared);
        if let Some(watched) = shared.partitions.get_mut(&partition) {
            watched.watchers.retain(|(number, _)| *number != self.number);
            if watched.is_of_nobody() {
                shared.partitions.remove(&partition);
            }
        }
        if let Some(listener) = shared.listeners.get_mut(&self.number) {
            listener.moved.retain(|moved| *moved != partition);
        }
    }

    /// Which of them have moved since they were heard of last, and where they stand now; added to `into`.
    pub fn poll_moved(&self, cx: &Context<'_>, into: &mut Vec<(PartitionId, Option<LogState>)>) -> Poll<()> {
        let mut shared = lock(&self.shared);
        let Shared { partitions, listeners, .. } = &mut *shared;
        let Some(listener) = listeners.get_mut(&self.number) else { return Poll::Pending };
        if listener.moved.is_empty() {
            match &mut listener.waker {
                Some(old) => old.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        for partition in listener.moved.drain(..) {
            let Some(watched) = partitions.get_mut(&partition) else { continue };
            for (number, has_moved) in &mut watched.watchers {
                if *number == self.number {
                    *has_moved = false;
                }
            }
            into.push((partition, watched.state));
        }
        Poll::Ready(())
    }
}

impl Drop for LogListener {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.listeners.remove(&self.number);
        shared.partitions.retain(|_, watched| {
            watched.watchers.retain(|(number, _)| *number != self.number);
            !watched.is_of_nobody()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicId;

    fn id(index: i32) -> PartitionId {
        PartitionId { topic: TopicId::NIL, index }
    }

    fn at(end: i64) -> Option<LogState> {
        let (epoch, log_end) = (LeaderEpoch(1), Offset(end));
        let [synced, high_watermark, log_start, held_by_all] = [Offset::ZERO; 4];
        Some(LogState { leading: true, epoch, log_end, synced, high_watermark, log_start, held_by_all })
    }

    fn moved(listener: &LogListener) -> Vec<(PartitionId, Option<LogState>)> {
        let mut all = Vec::new();
        let _ = listener.poll_moved(&Context::from_waker(Waker::noop()), &mut all);
        all
    }

    #[test]
    fn who_watches_hears_the_latest_state_once() {
        let signal = LogSignal::default();
        let (one, two) = (signal.listener(), signal.listener());
        one.watch(id(1));
        signal.tell(id(1), at(5));
        signal.tell(id(1), at(7));
        signal.tell(id(2), at(1));
        assert_eq!(moved(&one), [(id(1), at(7))]);
        assert_eq!(moved(&one), []);
        two.watch(id(1));
        assert_eq!(moved(&two), [(id(1), at(7))], "what was told before, too");
        signal.tell(id(1), None);
        assert_eq!((moved(&one), moved(&two)), (vec![(id(1), None)], vec![(id(1), None)]));
    }

    #[test]
    fn who_watches_no_more_hears_nothing_and_nothing_is_kept_for_it() {
        let signal = LogSignal::default();
        let (one, two) = (signal.listener(), signal.listener());
        one.watch(id(1));
        two.watch(id(1));
        signal.tell(id(1), at(5));
        one.unwatch(id(1));
        assert_eq!(moved(&one), []);
        drop(two);
        signal.tell(id(1), None);
        assert!(lock(&signal.shared).partitions.is_empty());
    }
}
