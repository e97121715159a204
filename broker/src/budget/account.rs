//! An account: so much of something, taken in shares that come back when they are dropped.
//!
//! Whoever finds too little is queued, first come, first served, so that a large wish is not starved by
//! small ones. Who takes in pieces keeps the place of its first one: were each piece to come last, all would hold
//! some and none ever enough. Each class has a line of its own and fills the account up to a limit of its own, so that what
//! is essential still finds room while what is large stands still. Each step costs O(log n) of those that wait.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use io_backend::invariants;
use prometheus_client::metrics::gauge::Gauge;

/// Which line a wish stands in, and how far it may fill the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestClass {
    /// Leaves both reserves alone.
    Large = 0,
    /// Leaves the last reserve alone.
    Common = 1,
    /// May use all of the account.
    Essential = 2,
}

/// One part in this many of an account is one of its two reserves.
const RESERVED: usize = 16;

/// So much of something, shared by those who use it.
pub struct Account {
    /// By class.
    limits: [usize; 3],
    state: Mutex<State>,
    /// What is taken.
    gauge: Gauge,
}

#[derive(Default)]
struct State {
    taken: usize,
    numbers: u64,
    /// By class, in the order of their coming.
    lines: [BTreeMap<u64, Waker>; 3],
}

impl State {
    /// The first in each line: there may be room for one.
    fn first(&self) -> [Option<Waker>; 3] {
        [0, 1, 2].map(|class: usize| self.lines[class].first_key_value().map(|(_, waker)| waker.clone()))
    }
}

impl State {
    fn check_invariants(&self) {
        if !invariants::are_checked() {
            return;
        }
        for line in &self.lines {
            let last = line.last_key_value();
            assert!(
                last.is_none_or(|(last, _)| *last <= self.numbers),
                "who stands in line was given a number"
            );
        }
        let [large, common, essential] = &self.lines;
        let first = large.keys().next();
        let twice = first.is_some_and(|number| common.contains_key(number) || essential.contains_key(number));
        assert!(!twice, "one wish stands in one line");
    }
}

fn wake(wakers: [Option<Waker>; 3]) {
    for waker in wakers.into_iter().flatten() {
        waker.wake();
    }
}

impl Account {
    /// An account of `limit`; `gauge` shows what is taken of it.
    pub fn new(limit: usize, gauge: Gauge) -> Arc<Account> {
        let reserve = limit / RESERVED;
        let limits = [limit - 2 * reserve, limit - reserve, limit];
        Arc::new(Account { limits, state: Mutex::default(), gauge })
    }

    /// All of it, reserves included.
    pub fn limit(&self) -> usize {
        self.limits[RequestClass::Essential as usize]
    }

    /// What the common line may still take.
    pub fn free(&self) -> usize {
        self.limits[RequestClass::Common as usize].saturating_sub(self.state().taken)
    }

    /// A share of `amount`, or a place in the queue. A wish larger than the whole account is granted when nothing
    /// else is taken.
    pub fn poll_take(
        self: &Arc<Self>,
        waiter: &mut Waiter,
        class: RequestClass,
        amount: usize,
        cx: &Context<'_>,
    ) -> Poll<Share> {
        // Who stands in a line stays in it.
        let class = if waiter.is_in_line() { waiter.class } else { class };
        let mut state = self.state();
        let number = *waiter.number.get_or_insert_with(|| {
            state.numbers += 1;
            state.numbers
        });
        let line = &state.lines[class as usize];
        let first = line.first_key_value().is_none_or(|(first, _)| number <= *first);
        if first && self.fits(&state, class, amount) {
            if waiter.of.take().is_some() {
                state.lines[class as usize].remove(&number);
            }
            state.taken += amount;
            state.check_invariants();
            let next = state.first();
            drop(state);
            wake(next);
            return Poll::Ready(self.share(amount));
        }
        state.lines[class as usize]
            .entry(number)
            .and_modify(|waker| waker.clone_from(cx.waker()))
            .or_insert_with(|| cx.waker().clone());
        state.check_invariants();
        if !waiter.is_in_line() {
            *waiter = Waiter { number: Some(number), class, of: Some(self.clone()) };
        }
        Poll::Pending
    }

    /// A share, when it is there. Dropping the future leaves the line.
    pub async fn take(self: &Arc<Self>, class: RequestClass, amount: usize) -> Share {
        let mut waiter = Waiter::default();
        poll_fn(|cx| self.poll_take(&mut waiter, class, amount, cx)).await
    }

    /// A share if there is room and nobody is queued for it.
    pub fn try_take(self: &Arc<Self>, class: RequestClass, amount: usize) -> Option<Share> {
        let mut state = self.state();
        if !state.lines[class as usize].is_empty() || !self.fits(&state, class, amount) {
            return None;
        }
        state.taken += amount;
        drop(state);
        Some(self.share(amount))
    }

    /// From `least` to `most`, as much as half of what is free: whoever comes at the same time finds the other
    /// half.
    pub fn try_take_some(self: &Arc<Self>, class: RequestClass, least: usize, most: usize) -> Option<Share> {
        let free = self.limits[class as usize].saturating_sub(self.state().taken);
        self.try_take(class, most.min(least.max(free / 2)))
    }

    /// A share whether there is room or not, for what is there already: others wait until it is made good.
    pub fn take_anyway(self: &Arc<Self>, amount: usize) -> Share {
        self.state().taken += amount;
        self.share(amount)
    }

    fn fits(&self, state: &State, class: RequestClass, amount: usize) -> bool {
        state.taken == 0 || state.taken.saturating_add(amount) <= self.limits[class as usize]
    }

    fn share(self: &Arc<Self>, amount: usize) -> Share {
        self.gauge.inc_by(amount as i64);
        Share { of: self.clone(), amount }
    }

    fn give_back(&self, amount: usize) {
        let mut state = self.state();
        state.taken = state.taken.checked_sub(amount).expect("what comes back was taken");
        state.check_invariants();
        let next = state.first();
        drop(state);
        wake(next);
        self.gauge.dec_by(amount as i64);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, kept by who waits, and from one piece to the next; dropping it leaves the queue.
pub struct Waiter {
    /// By the time of the first wish.
    number: Option<u64>,
    class: RequestClass,
    /// While it stands in the line.
    of: Option<Arc<Account>>,
}

impl Default for Waiter {
    fn default() -> Waiter {
        Waiter { number: None, class: RequestClass::Essential, of: None }
    }
}

impl Waiter {
    /// Whether it waits.
    pub fn is_in_line(&self) -> bool {
        self.of.is_some()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let (Some(number), Some(of)) = (self.number, &self.of) else { return };
        let mut state = of.state();
        state.lines[self.class as usize].remove(&number);
        let next = state.first();
        drop(state);
        wake(next);
    }
}

/// A part of an account; dropping it gives it back.
pub struct Share {
    of: Arc<Account>,
    amount: usize,
}

impl Share {
    /// How much it is.
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Adds another share of the same account.
    pub fn merge(&mut self, mut other: Share) {
        debug_assert!(Arc::ptr_eq(&self.of, &other.of), "shares of one account");
        self.amount += std::mem::take(&mut other.amount);
    }

    /// Takes more without asking, or gives some back: the share is of `amount` then.
    pub fn set(&mut self, amount: usize) {
        if amount > self.amount {
            let more = self.of.take_anyway(amount - self.amount);
            self.merge(more);
        } else if amount < self.amount {
            self.of.give_back(self.amount - amount);
            self.amount = amount;
        }
    }
}

/// Bytes that hold a share: it comes back when the last of them, and of what was sliced from them, is gone.
pub fn charged(bytes: Bytes, share: Share) -> Bytes {
    struct Charged {
        bytes: Bytes,
        _share: Share,
    }
    impl AsRef<[u8]> for Charged {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Charged { bytes, _share: share })
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.of.give_back(self.amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(limit: usize) -> Arc<Account> {
        Account::new(limit, Gauge::default())
    }

    fn take(account: &Arc<Account>, waiter: &mut Waiter, amount: usize) -> Option<Share> {
        take_as(RequestClass::Essential, account, waiter, amount)
    }

    fn take_as(
        class: RequestClass,
        account: &Arc<Account>,
        waiter: &mut Waiter,
        amount: usize,
    ) -> Option<Share> {
        match account.poll_take(waiter, class, amount, &Context::from_waker(Waker::noop())) {
            Poll::Ready(share) => Some(share),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_is_taken_is_bounded_and_comes_back() {
        let account = account(100);
        let a = take(&account, &mut Waiter::default(), 60);
        assert!(a.is_some());
        let mut waiter = Waiter::default();
        assert!(take(&account, &mut waiter, 60).is_none(), "too much");
        drop(a);
        let b = take(&account, &mut waiter, 60);
        assert!(b.is_some() && !waiter.is_in_line());
        assert_eq!(account.gauge.get(), 60);
        drop(b);
        assert_eq!(account.gauge.get(), 0);
    }

    #[test]
    fn a_small_wish_does_not_overtake_a_large_one_that_waits() {
        let account = account(100);
        let a = take(&account, &mut Waiter::default(), 60);
        let (mut large, mut small) = (Waiter::default(), Waiter::default());
        assert!(take(&account, &mut large, 90).is_none());
        assert!(take(&account, &mut small, 1).is_none());
        assert!(account.try_take(RequestClass::Essential, 1).is_none());
        drop(large);
        assert!(take(&account, &mut small, 1).is_some(), "who gives up lets the next one in");
        drop(a);
    }

    #[test]
    fn who_takes_in_pieces_keeps_its_place_until_it_has_them_all() {
        let account = account(100);
        let (mut older, mut newer, mut fresh) = (Waiter::default(), Waiter::default(), Waiter::default());
        let held = [take(&account, &mut older, 40), take(&account, &mut newer, 40)];
        assert!(take(&account, &mut newer, 30).is_none());
        assert!(take(&account, &mut fresh, 10).is_none(), "one stands in line");
        assert!(take(&account, &mut older, 20).is_some(), "it came before both");
        assert!(take(&account, &mut older, 50).is_none());
        assert!(take(&account, &mut newer, 30).is_none(), "though there is no room for the older one");
        drop((older, held));
        assert!(take(&account, &mut newer, 30).is_some());
        let mut of_the_next = std::mem::take(&mut newer);
        assert!(take(&account, &mut newer, 1).is_none() && take(&account, &mut of_the_next, 1).is_some());
    }

    #[test]
    fn each_class_leaves_its_reserves_to_what_is_more_essential() {
        let account = account(16);
        let large = take_as(RequestClass::Large, &account, &mut Waiter::default(), 14);
        let mut waits = [Waiter::default(), Waiter::default()];
        assert!(large.is_some() && take_as(RequestClass::Large, &account, &mut waits[0], 1).is_none());
        let common = take_as(RequestClass::Common, &account, &mut Waiter::default(), 1);
        assert!(common.is_some(), "who stands in one line holds up no other");
        assert!(take_as(RequestClass::Common, &account, &mut waits[1], 1).is_none());
        assert_eq!(account.free(), 0);
        let essential = take(&account, &mut Waiter::default(), 1);
        assert!(essential.is_some());
        drop((common, essential));
        assert!(
            take_as(RequestClass::Essential, &account, &mut waits[1], 1).is_some(),
            "its place is in its line"
        );
        drop(large);
        assert!(take_as(RequestClass::Large, &account, &mut waits[0], 14).is_some());
    }

    #[test]
    fn a_wish_larger_than_the_account_is_granted_alone() {
        let account = account(100);
        let all = take(&account, &mut Waiter::default(), 1_000);
        assert!(all.is_some());
        assert!(take(&account, &mut Waiter::default(), 1).is_none());
    }

    #[test]
    fn charged_bytes_give_their_share_back_with_their_last_slice() {
        let account = account(100);
        let bytes = charged(Bytes::from_static(b"a request"), account.take_anyway(9));
        let slice = bytes.slice(2..5);
        drop(bytes);
        assert_eq!((account.gauge.get(), &slice[..]), (9, &b"req"[..]));
        drop(slice);
        assert_eq!(account.gauge.get(), 0);
    }

    #[test]
    fn half_of_what_is_free_is_given_at_once_and_never_less_than_the_least() {
        let account = account(160);
        let taken = |least, most| {
            account.try_take_some(RequestClass::Large, least, most).map(|share| {
                let amount = share.amount();
                std::mem::forget(share);
                amount
            })
        };
        assert_eq!(taken(10, 1_000), Some(70));
        assert_eq!(taken(10, 20), Some(20));
        assert_eq!(taken(40, 1_000), Some(40));
        assert_eq!(taken(1, 1_000), Some(5));
        assert_eq!(taken(10, 1_000), None);
    }

    #[test]
    fn what_is_there_already_is_charged_beyond_the_limit_and_others_wait_until_it_is_made_good() {
        let account = account(100);
        let mut share = account.take_anyway(50);
        share.set(150);
        assert!(account.try_take(RequestClass::Essential, 1).is_none());
        share.set(99);
        assert!(account.try_take(RequestClass::Essential, 1).is_some());
        assert_eq!(share.amount(), 99);
    }
}
