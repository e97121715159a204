//! Who is connected, and how to tell them all that it is over.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_backend::{Backend, Deadline, Moment, Published, TimedOut};
use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::Counted;
use crate::session::{Closing, Control};

/// All open connections.
pub(super) struct Connections {
    open: Mutex<Open>,
    count: Published<usize>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Open {
    numbers: u64,
    controls: BTreeMap<u64, (Arc<str>, Arc<Control>)>,
    by_address: BTreeMap<Arc<str>, usize>,
    /// Found idle, first the first to give way, and among whom: of one address, or of all.
    idle: (Option<Arc<str>>, VecDeque<u64>),
}

/// How many are found idle at a time: looking at all of them for each newcomer would be a way to keep a node busy.
const IDLE_FOUND: usize = 64;

impl Open {
    /// Takes a place from who is idle, of this address or of any.
    fn take_place(&mut self, of: Option<&Arc<str>>, now: Moment) -> bool {
        if self.idle.0.as_ref() != of {
            self.idle.1.clear();
        }
        for found_anew in [false, true] {
            if found_anew {
                let mut found: Vec<((bool, u64), u64)> = self
                    .controls
                    .iter()
                    .filter(|(_, (address, _))| of.is_none_or(|of| of == address))
                    .filter_map(|(number, (_, control))| Some((control.gives_way(now)?, *number)))
                    .collect();
                found.sort_unstable();
                let numbers = found.into_iter().take(IDLE_FOUND).map(|(_, number)| number).collect();
                self.idle = (of.cloned(), numbers);
            }
            while let Some(number) = self.idle.1.pop_front() {
                let Some((_, control)) = self.controls.get(&number) else { continue };
                if control.gives_way(now).is_some() {
                    control.close(Closing::ForNewcomer);
                    self.remove(number);
                    return true;
                }
            }
        }
        false
    }

    fn remove(&mut self, number: u64) {
        let Some((address, _)) = self.controls.remove(&number) else { return };
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub all: usize,
    pub per_address: usize,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections {
            open: Mutex::default(),
            count: Published::new("open connections", 0),
            refused: AtomicU64::new(0),
        }
    }
}

impl Connections {
    /// `None`: all places are taken, by connections on which something is asked.
    pub(super) fn join(
        self: &Arc<Self>,
        places: Places,
        peer: &str,
        now: Moment,
        gauge: &Gauge,
    ) -> Option<Member> {
        let address: Arc<str> = peer.rsplit_once(':').map_or(peer, |(address, _)| address).into();
        let mut open = self.open();
        let of_address = open.by_address.get(&address).copied().unwrap_or(0);
        if (of_address >= places.per_address && !open.take_place(Some(&address), now))
            || (open.controls.len() >= places.all && !open.take_place(None, now))
        {
            return None;
        }
        open.numbers += 1;
        let number = open.numbers;
        let control = Arc::new(Control::default());
        control.idle(now);
        *open.by_address.entry(address.clone()).or_default() += 1;
        open.controls.insert(number, (address, control.clone()));
        self.count.publish(open.controls.len());
        Some(Member { of: self.clone(), number, control, _counted: Counted::among(gauge) })
    }

    /// Counts a connection that was turned away; returns how many there have been.
    pub(super) fn count_refused(&self) -> u64 {
        self.refused.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn len(&self) -> usize {
        self.open().controls.len()
    }

    pub(super) fn close_all(&self, how: Closing) {
        let controls: Vec<Arc<Control>> =
            self.open().controls.values().map(|(_, control)| control.clone()).collect();
        for control in controls {
            control.close(how);
        }
    }

    pub(super) async fn until_empty<B: Backend>(
        &self,
        backend: &B,
        deadline: Deadline,
    ) -> Result<(), TimedOut> {
        self.count.until(backend, deadline, |count| *count == 0).await.map(|_| ())
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's membership; dropping it leaves.
pub(super) struct Member {
    of: Arc<Connections>,
    number: u64,
    control: Arc<Control>,
    _counted: Counted,
}

impl Member {
    pub(super) fn control(&self) -> &Arc<Control> {
        &self.control
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut open = self.of.open();
        open.remove(self.number);
        self.of.count.publish(open.controls.len());
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const PLACES: Places = Places { all: 3, per_address: 2 };

    fn at(ms: u64) -> Moment {
        Moment::ZERO + std::time::Duration::from_millis(ms)
    }

    fn join(connections: &Arc<Connections>, peer: &str, ms: u64) -> Option<Member> {
        let member = connections.join(PLACES, peer, at(ms), &Gauge::default());
        if let Some(member) = &member {
            member.control.asked();
        }
        member
    }

    #[test]
    fn the_limits_hold_and_a_place_that_is_left_is_free_again() {
        let connections = Arc::new(Connections::default());
        let first = join(&connections, "a:1", 0);
        let second = join(&connections, "a:2", 0);
        assert!(first.is_some() && second.is_some());
        assert!(join(&connections, "a:3", 9_000).is_none(), "two from one address");
        let third = join(&connections, "b:1", 0);
        assert!(third.is_some() && join(&connections, "c:1", 9_000).is_none(), "three in all");
        drop(first);
        assert_eq!(connections.len(), 2);
        let again = join(&connections, "a:3", 0);
        assert!(again.is_some() && join(&connections, "c:1", 9_000).is_none());
        drop((second, third, again));
        assert!(connections.open().by_address.is_empty());
    }

    #[test]
    fn who_is_idle_gives_way_to_a_newcomer_and_who_never_asked_anything_gives_way_first() {
        let connections = Arc::new(Connections::default());
        let members: Vec<Member> =
            ["a:1", "b:1", "c:1"].iter().filter_map(|peer| join(&connections, peer, 0)).collect();
        let closing = |n: usize| members[n].control.closing(Waker::noop());
        members[0].control.idle(at(1_000));
        members[1].control.idle(at(500));
        assert!(join(&connections, "d:1", 1_400).is_none(), "nobody has been idle for long");
        let fourth = join(&connections, "d:1", 5_000);
        assert!(fourth.is_some());
        assert_eq!([0, 1, 2].map(closing), [Closing::No, Closing::ForNewcomer, Closing::No]);
        let silent = connections.join(PLACES, "d:2", at(6_000), &Gauge::default());
        assert!(silent.is_some(), "the first gave way");
        assert_eq!(closing(0), Closing::ForNewcomer);
        members[2].control.idle(at(100));
        let fifth = join(&connections, "d:3", 9_000);
        assert!(fifth.is_some());
        let of_silent = silent.map(|member| member.control.closing(Waker::noop()));
        assert_eq!(of_silent, Some(Closing::ForNewcomer), "of its address, and it never asked anything");
        assert_eq!(closing(2), Closing::No);
        assert_eq!(connections.len(), 3);
    }
}
