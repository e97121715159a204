//! Who holds much of an account and might never give it back: requests that are not whole, answers that are not
//! read. When somebody waits for room, the worst of them is cut off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use io_backend::Moment;

/// Who has got no further for so long may be cut off for those who wait.
const SILENT: Duration = Duration::from_secs(1);
/// One is cut off at a time, and what that gives is waited for.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection that may be cut off for those who wait. Must not wait.
pub trait CutOff: Send + Sync + 'static {
    /// Ends the connection, and with it what it holds.
    fn cut_off(&self);
}

/// All who hold much of one account.
#[derive(Default)]
pub struct Holders {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    numbers: u64,
    holders: BTreeMap<u64, Holder>,
    cut_at: Option<Moment>,
}

struct Holder {
    connection: Arc<dyn CutOff>,
    holds: Holds,
}

/// How a holder does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// What it holds.
    pub bytes: usize,
    /// When it last got further.
    pub since: Moment,
    /// It waits for room itself: it is not its client that stands still.
    pub waits: bool,
}

impl Holders {
    /// Tells how the holder of this number does, or of a new one; its number.
    pub fn note<C: CutOff>(&self, number: Option<u64>, connection: &Arc<C>, holds: Holds) -> u64 {
        let mut state = self.state();
        let number = number.unwrap_or_else(|| {
            state.numbers += 1;
            state.numbers
        });
        match state.holders.get_mut(&number) {
            Some(holder) => holder.holds = holds,
            None => {
                state.holders.insert(number, Holder { connection: connection.clone(), holds });
            }
        }
        number
    }

    /// The holder of this number has given back what it held.
    pub fn leave(&self, number: u64) {
        self.state().holders.remove(&number);
    }

    /// Somebody has waited for room, `long` or not: cuts off the worst holder, if one is bad enough.
    pub fn make_room(&self, now: Moment, long: bool) {
        let mut state = self.state();
        if state.cut_at.is_some_and(|at| now.since(at) < PAUSE) {
            return;
        }
        let holders = state.holders.iter().map(|(number, holder)| (*number, holder.holds));
        let Some(number) = worst(holders, now, long) else { return };
        state.cut_at = Some(now);
        if let Some(holder) = state.holders.remove(&number) {
            holder.connection.cut_off();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose client has stood still for the longest; where all wait for room and for `long`, the one that
/// holds most of it.
fn worst(holders: impl Iterator<Item = (u64, Holds)>, now: Moment, long: bool) -> Option<u64> {
    let mut silent: Option<(u64, Moment)> = None;
    let mut largest: Option<(u64, usize)> = None;
    for (number, holds) in holders {
        if holds.waits {
            if largest.is_none_or(|(_, bytes)| holds.bytes > bytes) {
                largest = Some((number, holds.bytes));
            }
        } else if now.since(holds.since) >= SILENT && silent.is_none_or(|(_, since)| holds.since < since) {
            silent = Some((number, holds.since));
        }
    }
    silent.map(|(number, _)| number).or(largest.filter(|_| long).map(|(number, _)| number))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[derive(Default)]
    struct Connection(AtomicBool);

    impl CutOff for Connection {
        fn cut_off(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn at(ms: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(ms)
    }

    fn holds(bytes: usize, since_ms: u64, waits: bool) -> Holds {
        Holds { bytes, since: at(since_ms), waits }
    }

    #[test]
    fn the_worst_is_who_stands_still_for_the_longest_and_after_long_who_holds_most() {
        let table: [(&[Holds], bool, Option<u64>); 7] = [
            (&[], true, None),
            (&[holds(1, 9_500, false)], true, None),
            (&[holds(9, 8_000, false), holds(1, 7_000, false)], false, Some(1)),
            (&[holds(9, 1_000, true), holds(1, 9_000, false)], false, Some(1)),
            (&[holds(5, 1_000, true), holds(9, 2_000, true)], false, None),
            (&[holds(5, 1_000, true), holds(9, 2_000, true)], true, Some(1)),
            (&[holds(9, 9_500, false), holds(5, 1_000, true)], true, Some(1)),
        ];
        for (holders, long, expected) in table {
            let numbered = (0..).zip(holders.iter().copied());
            assert_eq!(worst(numbered, at(10_000), long), expected, "{holders:?}, {long}");
        }
    }

    #[test]
    fn one_is_cut_off_at_a_time() {
        let all = Holders::default();
        let connections: Vec<Arc<Connection>> = (0..3).map(|_| Arc::default()).collect();
        for connection in &connections {
            all.note(None, connection, holds(1, 0, false));
        }
        let cut = || connections.iter().filter(|one| one.0.load(Ordering::Relaxed)).count();
        all.make_room(at(5_000), false);
        all.make_room(at(5_001), false);
        assert_eq!(cut(), 1);
        all.make_room(at(6_000), false);
        assert_eq!(cut(), 2);
        all.leave(3);
        all.make_room(at(7_000), false);
        assert_eq!(cut(), 2, "who has left is not cut off");
    }
}
