//! Which sessions there are, and which give way to others: Kafka's rules.
//!
//! A session gives way when it was not used for long, or, once it is that old, to one with more partitions. For want of
//! bytes only the former give way. Each is charged for what it keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use io_backend::Moment;

use crate::budget::{Account, RequestClass, Share};

/// One session keeps no more than this part of what all may.
const LARGEST_PART: usize = 4;

/// How many sessions there may be, and when they may give way.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub sessions: usize,
    pub evictable_after: Duration,
}

/// What a session is: how many partitions, and what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub partitions: usize,
    pub bytes: usize,
}

/// Sessions by their ids.
pub struct Cache<T> {
    bounds: Bounds,
    account: Arc<Account>,
    entries: BTreeMap<i32, Entry<T>>,
    by_use: BTreeSet<(Moment, i32)>,
    /// By partitions: those that were old enough when they were last used.
    replaceable: BTreeSet<(usize, i32)>,
    partitions: usize,
    evicted: u64,
}

struct Entry<T> {
    session: Arc<T>,
    room: Share,
    partitions: usize,
    created: Moment,
    used: Moment,
}

impl<T> Cache<T> {
    pub fn new(bounds: Bounds, account: Arc<Account>) -> Cache<T> {
        Cache {
            bounds,
            account,
            entries: BTreeMap::new(),
            by_use: BTreeSet::new(),
            replaceable: BTreeSet::new(),
            partitions: 0,
            evicted: 0,
        }
    }

    pub fn get(&self, id: i32) -> Option<&Arc<T>> {
        Some(&self.entries.get(&id)?.session)
    }

    /// Makes place for a session under an id that nobody has, if there is one for it.
    pub fn insert(&mut self, id: i32, session: Arc<T>, size: Size, now: Moment) -> bool {
        assert!(id > 0 && !self.entries.contains_key(&id), "ids are positive, and given out once");
        if size.bytes > self.account.limit() / LARGEST_PART {
            return false;
        }
        // Nobody gives way to who finds no room in the end.
        let Some(room) = self.room(size.bytes, now) else { return false };
        if self.entries.len() >= self.bounds.sessions
            && !self.evict_unused(now)
            && !self.evict_smaller(size.partitions)
        {
            return false;
        }
        let entry = Entry { session, room, partitions: size.partitions, created: now, used: now };
        self.partitions += size.partitions;
        self.by_use.insert((now, id));
        self.entries.insert(id, entry);
        self.check_invariants();
        true
    }

    /// The session is used, and is of this size now; false where there is no room for that, and no session any more.
    /// One that was evicted meanwhile stays so.
    pub fn touch(&mut self, id: i32, session: &Arc<T>, size: Size, now: Moment) -> bool {
        let Some(mut entry) = self.take(id, session) else { return true };
        let held = entry.room.amount();
        if size.bytes <= held {
            entry.room.set(size.bytes);
        } else if size.bytes > self.account.limit() / LARGEST_PART {
            return false;
        } else {
            // It is taken out, so it does not give way to itself.
            let Some(more) = self.room(size.bytes - held, now) else { return false };
            entry.room.merge(more);
        }
        entry.partitions = size.partitions;
        entry.used = entry.used.max(now);
        self.partitions += size.partitions;
        self.by_use.insert((entry.used, id));
        if now.since(entry.created) > self.bounds.evictable_after {
            self.replaceable.insert((size.partitions, id));
        }
        self.entries.insert(id, entry);
        self.check_invariants();
        true
    }

    /// The session of this id, if there is one, has ended.
    pub fn remove(&mut self, id: i32) -> Option<Arc<T>> {
        let session = self.get(id)?.clone();
        self.remove_this(id, &session);
        Some(session)
    }

    /// This session has ended, unless it was evicted before.
    pub fn remove_this(&mut self, id: i32, session: &Arc<T>) {
        self.take(id, session);
        self.check_invariants();
    }

    pub fn sessions(&self) -> usize {
        self.entries.len()
    }

    /// Of all sessions.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// Sessions that gave way to others so far.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn take(&mut self, id: i32, session: &Arc<T>) -> Option<Entry<T>> {
        let entry = self.entries.get(&id).filter(|entry| Arc::ptr_eq(&entry.session, session))?;
        self.by_use.remove(&(entry.used, id));
        self.replaceable.remove(&(entry.partitions, id));
        self.partitions -= entry.partitions;
        self.entries.remove(&id)
    }

    fn room(&mut self, bytes: usize, now: Moment) -> Option<Share> {
        loop {
            if let Some(room) = self.account.try_take(RequestClass::Essential, bytes) {
                return Some(room);
            }
            if !self.evict_unused(now) {
                return None;
            }
        }
    }

    fn evict_unused(&mut self, now: Moment) -> bool {
        match self.by_use.first() {
            Some((used, id)) if now.since(*used) > self.bounds.evictable_after => self.evict(*id),
            _ => false,
        }
    }

    fn evict_smaller(&mut self, partitions: usize) -> bool {
        match self.replaceable.first() {
            Some((fewer, id)) if *fewer < partitions => self.evict(*id),
            _ => false,
        }
    }

    fn evict(&mut self, id: i32) -> bool {
        self.remove(id);
        self.evicted += 1;
        true
    }

    fn check_invariants(&self) {
        if !io_backend::invariants::are_checked() {
            return;
        }
        assert!(self.entries.len() <= self.bounds.sessions, "the number of sessions is bounded");
        assert_eq!(self.entries.len(), self.by_use.len(), "each session was used once");
        let known = |(partitions, id): &(usize, i32)| {
            self.entries.get(id).is_some_and(|entry| entry.partitions == *partitions)
        };
        assert!(self.replaceable.iter().all(known), "who may be replaced is there");
        let partitions: usize = self.entries.values().map(|entry| entry.partitions).sum();
        assert_eq!(partitions, self.partitions, "partitions are counted");
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn cache(sessions: usize, bytes: usize) -> Cache<()> {
        let bounds = Bounds { sessions, evictable_after: Duration::from_secs(120) };
        Cache::new(bounds, Account::new(bytes, Gauge::default()))
    }

    fn of(partitions: usize) -> Size {
        Size { partitions, bytes: partitions * 10 }
    }

    fn ids(cache: &Cache<()>) -> Vec<i32> {
        cache.entries.keys().copied().collect()
    }

    fn use_again(cache: &mut Cache<()>, id: i32, size: Size, seconds: u64) -> bool {
        let session = cache.get(id).unwrap().clone();
        cache.touch(id, &session, size, at(seconds))
    }

    /// Sessions 1, 2 and 3 of so many partitions, created at 0 and last used at so many seconds; who comes then, and who
    /// gives way.
    #[test]
    fn who_was_not_used_for_long_gives_way_or_who_is_old_and_smaller() {
        let table = [
            ([5, 5, 5], [1, 2, 3], 100, 9, None),
            ([5, 5, 5], [1, 2, 3], 121, 9, None),
            ([5, 5, 5], [2, 1, 3], 122, 1, Some(2)),
            ([5, 4, 6], [130, 130, 130], 131, 4, None),
            ([5, 4, 6], [130, 130, 130], 131, 5, Some(2)),
            ([5, 4, 6], [130, 110, 130], 131, 6, Some(1)),
            ([5, 4, 6], [130, 120, 130], 131, 5, None),
            ([5, 4, 6], [130, 130, 5], 131, 1, Some(3)),
        ];
        for (partitions, used, now, comes, gives_way) in table {
            let mut cache = cache(3, 1 << 20);
            for (id, partitions) in (1..).zip(partitions) {
                assert!(cache.insert(id, Arc::new(()), of(partitions), at(0)));
            }
            for (id, (partitions, used)) in (1..).zip(partitions.into_iter().zip(used)) {
                assert!(use_again(&mut cache, id, of(partitions), used));
            }
            let taken = cache.insert(9, Arc::new(()), of(comes), at(now));
            assert_eq!(taken, gives_way.is_some(), "{partitions:?} {used:?} {now} {comes}");
            if let Some(gone) = gives_way {
                assert!(cache.get(gone).is_none() && cache.sessions() == 3, "{partitions:?} {used:?}");
            }
            assert_eq!(cache.evicted(), u64::from(taken));
        }
    }

    #[test]
    fn for_want_of_bytes_those_give_way_that_are_not_used() {
        let mut cache = cache(100, 100);
        for (id, used) in [(1, 0), (2, 10), (3, 300), (4, 300), (5, 300)] {
            assert!(cache.insert(id, Arc::new(()), of(2), at(used)));
        }
        assert!(!cache.insert(6, Arc::new(()), of(3), at(100)), "90 of 100");
        assert!(cache.insert(6, Arc::new(()), of(2), at(300)));
        assert_eq!(ids(&cache), [2, 3, 4, 5, 6]);
        assert!(
            !cache.insert(7, Arc::new(()), Size { partitions: 1, bytes: 26 }, at(300)),
            "one takes not most"
        );
        assert_eq!(ids(&cache), [2, 3, 4, 5, 6], "and nobody gives way for it");
    }

    #[test]
    fn who_grows_beyond_what_there_is_ends_and_gives_back_what_it_had() {
        let mut cache = cache(100, 100);
        for id in 1..=5 {
            assert!(cache.insert(id, Arc::new(()), of(2), at(0)));
        }
        assert!(use_again(&mut cache, 1, of(1), 1));
        assert!(use_again(&mut cache, 2, Size { partitions: 5, bytes: 25 }, 1), "what another one gave back");
        assert!(!use_again(&mut cache, 3, of(3), 1), "too much in sum");
        assert!(!use_again(&mut cache, 2, of(3), 1), "too much for one");
        assert_eq!((ids(&cache), cache.partitions()), (vec![1, 4, 5], 5));
        assert_eq!(cache.account.free() + 50, 100 - 100 / 16);
    }

    #[test]
    fn who_has_gone_is_not_brought_back_by_its_last_request() {
        let mut cache = cache(1, 1_000);
        assert!(cache.insert(1, Arc::new(()), of(2), at(0)));
        let old = cache.get(1).unwrap().clone();
        cache.remove(1);
        assert!(cache.touch(1, &old, of(2), at(1)));
        assert!(cache.insert(1, Arc::new(()), of(1), at(1)));
        assert!(cache.touch(1, &old, of(2), at(1)), "nor is another one with its id taken for it");
        assert_eq!((cache.sessions(), cache.partitions()), (1, 1));
    }
}
