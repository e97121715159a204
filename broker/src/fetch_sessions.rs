//! Fetch sessions (KIP-227): what clients ask for is kept here, so that they need not say it again, nor be told what they know.
//!
//! A session is whoever's who knows its id, over any connection. What it keeps is bounded in number and in bytes; who finds no
//! place is answered in full, without a session, and a node that starts knows of none. A request takes its epoch, so
//! of two at once only the later is answered, and the earlier ends its wait; so it does when its session ends. No lock is held while
//! anybody waits, nor two at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use io_backend::published::Watcher;
use io_backend::{Moment, Published};

use crate::budget::Account;
use crate::config::ServerConfig;
use crate::metrics::Metrics;

mod session;
mod cache;

pub use session::{Outcome, SessionError, Terms, Told, Topic, Wanted};

use cache::{Bounds, Cache, Size};
use session::Session;

/// The epoch of a request that begins a session.
const BEGINS: i32 = 0;
/// The epoch of a request that wants none.
pub const WITHOUT: i32 = -1;
/// The id of no session.
pub const NO_SESSION: i32 = 0;

/// A fetch, as far as sessions are concerned.
pub struct Asked {
    pub id: i32,
    pub epoch: i32,
    /// Topics are named by id.
    pub by_id: bool,
    pub wanted: Vec<Wanted>,
    pub forgotten: Vec<(Topic, i32)>,
}

/// What comes of a fetch.
pub enum Course {
    /// All that it asks for is told, and it has no session.
    Alone(Vec<Wanted>),
    /// The same, and it is given one if there is place.
    Begins(Vec<Wanted>),
    /// All that its session has is looked at, and what is new is told.
    Continues(Continued),
}

/// A request of a session, until it is answered.
pub struct Continued {
    /// Of the session.
    pub id: i32,
    /// That the session is in, as long as no later request comes.
    epoch: i32,
    /// How many partitions the session has in it.
    pub partitions: usize,
    session: Arc<Shared>,
}

struct Shared {
    session: Mutex<Session>,
    epoch: Published<i32>,
}

/// All of a node.
pub struct FetchSessions {
    cache: Mutex<Cache<Shared>>,
    metrics: Arc<Metrics>,
}

impl FetchSessions {
    /// None yet.
    pub fn new(config: &ServerConfig, metrics: &Arc<Metrics>) -> FetchSessions {
        let bounds = Bounds {
            sessions: config.fetch_sessions,
            evictable_after: config.fetch_sessions_evictable_after,
        };
        let account = Account::new(config.fetch_session_bytes, metrics.fetch_session_bytes.clone());
        FetchSessions { cache: Mutex::new(Cache::new(bounds, account)), metrics: metrics.clone() }
    }

    /// A fetch has come.
    ///
    /// # Errors
    /// Its session is not there, or not for it.
    pub fn begin(&self, asked: Asked, now: Moment) -> Result<Course, SessionError> {
        let Asked { id, epoch, by_id, wanted, forgotten } = asked;
        if epoch == WITHOUT || epoch == BEGINS {
            // Whoever begins anew has no use for the one that it names.
            if id != NO_SESSION
                && let Some(ended) = self.changing(|cache| cache.remove(id))
            {
                ended.epoch.publish(WITHOUT);
            }
            return Ok(if epoch == WITHOUT { Course::Alone(wanted) } else { Course::Begins(wanted) });
        }
        let shared = self.cache().get(id).cloned().ok_or(SessionError::Unknown)?;
        let (epoch, size) = {
            let mut session = shared.session();
            let epoch = session.take(epoch, by_id, wanted, &forgotten)?;
            // In the order in which epochs are given out.
            shared.epoch.publish(epoch);
            (epoch, session.size())
        };
        let stays = self.changing(|cache| match size.partitions {
            0 => {
                cache.remove_this(id, &shared);
                false
            }
            _ => cache.touch(id, &shared, size, now),
        });
        let continued = Continued { id, epoch, partitions: size.partitions, session: shared };
        Ok(if stays {
            self.metrics.fetches_incremental.inc();
            Course::Continues(continued)
        } else {
            Course::Alone(continued.wanted()?)
        })
    }

    /// A session of what was answered in full, under an id from `random`; [`NO_SESSION`] where there is no place for it.
    pub fn create(
        &self,
        by_id: bool,
        answered: impl IntoIterator<Item = (Wanted, Told)>,
        now: Moment,
        random: impl Fn() -> u64,
    ) -> i32 {
        let session = Session::new(by_id, answered);
        if session.len() == 0 {
            return NO_SESSION;
        }
        let size = session.size();
        let shared =
            Shared { session: Mutex::new(session), epoch: Published::new("a fetch session", BEGINS) };
        self.changing(|cache| {
            let id = loop {
                let id = i32::try_from(random() >> 33).unwrap_or(NO_SESSION);
                if id != NO_SESSION && cache.get(id).is_none() {
                    break id;
                }
            };
            if cache.insert(id, Arc::new(shared), size, now) { id } else { NO_SESSION }
        })
    }

    fn changing<T>(&self, change: impl FnOnce(&mut Cache<Shared>) -> T) -> T {
        let mut cache = self.cache();
        let evicted = cache.evicted();
        let outcome = change(&mut cache);
        self.metrics.fetch_sessions.set(cache.sessions() as i64);
        self.metrics.fetch_session_partitions.set(cache.partitions() as i64);
        self.metrics.fetch_sessions_evicted.inc_by(cache.evicted() - evicted);
        outcome
    }

    fn cache(&self) -> MutexGuard<'_, Cache<Shared>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Continued {
    /// All that is to be looked at, in that order.
    ///
    /// # Errors
    /// A later request has come meanwhile, and is told.
    pub fn wanted(&self) -> Result<Vec<Wanted>, SessionError> {
        self.session.session().wanted_in(self.epoch).ok_or(SessionError::Epoch)
    }

    /// What came of all that the request was to look at, in that order; which of it is told.
    ///
    /// # Errors
    /// A later request has come meanwhile, and is told.
    pub fn conclude(&self, outcomes: &[Outcome]) -> Result<Vec<bool>, SessionError> {
        self.session.session().conclude(self.epoch, outcomes).ok_or(SessionError::Epoch)
    }

    /// Whether a later request has come.
    pub fn is_overtaken(&self) -> bool {
        *self.session.epoch.get() != self.epoch
    }

    /// To wait until a later request comes.
    pub fn overtaken(&self) -> Overtaken {
        Overtaken { epoch: self.epoch, watcher: self.session.epoch.watcher() }
    }
}

/// See [`Continued::overtaken`].
pub struct Overtaken {
    epoch: i32,
    watcher: Watcher<i32>,
}

impl Overtaken {
    /// Whether a later request has come; `waker` is woken when one does.
    pub fn watch(&mut self, waker: &std::task::Waker) -> bool {
        *self.watcher.watch(waker) != self.epoch
    }
}

impl Session {
    fn size(&self) -> Size {
        Size { partitions: self.len(), bytes: self.bytes() }
    }
}

impl Shared {
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::task::Waker;

    use super::*;
    use crate::config::Config;
    use crate::ids::{Offset, TopicId};

    const NOW: Moment = Moment(1);
    const QUIET: Outcome = Outcome {
        told: Told { high_watermark: Offset(0), log_start: Offset(0) },
        has_records: false,
        is_urgent: false,
    };

    fn sessions(configure: impl FnOnce(&mut ServerConfig)) -> FetchSessions {
        let mut config = Config::default().server;
        configure(&mut config);
        FetchSessions::new(&config, &Arc::default())
    }

    fn wanted(index: i32) -> Wanted {
        let terms = Terms { from: Offset(0), max_bytes: 1, leader_epoch: None };
        Wanted { topic: Topic::Id(TopicId::NIL), index, terms }
    }

    fn asked(id: i32, epoch: i32, indexes: &[i32]) -> Asked {
        let wanted = indexes.iter().copied().map(wanted).collect();
        Asked { id, epoch, by_id: true, wanted, forgotten: Vec::new() }
    }

    fn create(sessions: &FetchSessions, indexes: &[i32], random: impl Fn() -> u64) -> i32 {
        let answered: Vec<(Wanted, Told)> =
            indexes.iter().map(|index| (wanted(*index), QUIET.told)).collect();
        sessions.create(true, answered, NOW, random)
    }

    /// In words: what comes of a fetch, and for how many partitions.
    fn course(sessions: &FetchSessions, asked: Asked) -> String {
        match sessions.begin(asked, NOW) {
            Ok(Course::Alone(wanted)) => format!("alone {}", wanted.len()),
            Ok(Course::Begins(wanted)) => format!("begins {}", wanted.len()),
            Ok(Course::Continues(continued)) => {
                let wanted = continued.wanted().expect("no later request");
                assert_eq!(wanted.len(), continued.partitions);
                format!("continues {} {}", continued.id, wanted.len())
            }
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn what_comes_of_a_fetch_follows_from_its_id_and_epoch() {
        let all = sessions(|_| {});
        let numbers = Cell::new(6u64 << 33);
        let random = || {
            numbers.set(numbers.get() + (1 << 33));
            numbers.get()
        };
        let table: [(i32, i32, &[i32], &str); 12] = [
            (0, -1, &[1], "alone 1"),
            (0, 0, &[1, 2], "begins 2"),
            (0, 1, &[1], "Unknown"),
            (5, 1, &[], "Unknown"),
            (5, 0, &[1], "begins 1"),
            (5, -1, &[1], "alone 1"),
            (7, 2, &[], "Epoch"),
            (7, -9, &[], "Epoch"),
            (7, 1, &[], "continues 7 2"),
            (7, 1, &[], "Epoch"),
            (7, 2, &[3], "continues 7 3"),
            (7, 0, &[1], "begins 1"),
        ];
        assert_eq!(create(&all, &[1, 2], random), 7);
        for (id, epoch, indexes, expected) in table {
            assert_eq!(course(&all, asked(id, epoch, indexes)), expected, "session {id}, epoch {epoch}");
        }
        assert_eq!(course(&all, asked(7, 3, &[])), "Unknown", "who begins anew ends what it names");
        assert_eq!(create(&all, &[1], random), 8);
        assert_eq!(course(&all, asked(8, -1, &[1])), "alone 1");
        assert_eq!(course(&all, asked(8, 1, &[])), "Unknown");
        assert_eq!(create(&all, &[], random), NO_SESSION);
    }

    #[test]
    fn ids_are_positive_and_of_one_session() {
        let all = sessions(|_| {});
        let numbers = Cell::new(0);
        let drawn = [0, u64::MAX, 1 << 32, u64::MAX, 5 << 33];
        let random = || {
            numbers.set(numbers.get() + 1);
            drawn[numbers.get() - 1]
        };
        assert_eq!((create(&all, &[1], random), create(&all, &[1], random)), (i32::MAX, 5));
    }

    #[test]
    fn a_session_that_nothing_is_left_of_ends() {
        let all = sessions(|_| {});
        let id = create(&all, &[1], || 9 << 33);
        let forgotten = vec![(Topic::Id(TopicId::NIL), 1)];
        assert_eq!(course(&all, Asked { forgotten, ..asked(id, 1, &[]) }), "alone 0");
        assert_eq!(course(&all, asked(id, 2, &[1])), "Unknown");
        assert_eq!((all.metrics.fetch_sessions.get(), all.metrics.fetch_session_bytes.get()), (0, 0));
    }

    #[test]
    fn who_finds_no_place_is_answered_in_full() {
        let all = sessions(|config| config.fetch_session_bytes = 4_000);
        let id = create(&all, &[1], || 9 << 33);
        let many: Vec<i32> = (0..10).collect();
        assert_eq!(create(&all, &many, || 8 << 33), NO_SESSION);
        assert_eq!(course(&all, asked(id, 1, &many)), "alone 10", "what is added counts as well");
        assert_eq!(course(&all, asked(id, 2, &[])), "Unknown");
        let none = sessions(|config| config.fetch_sessions = 0);
        assert_eq!(create(&none, &[1], || 9 << 33), NO_SESSION);
    }

    #[test]
    fn of_two_at_once_the_earlier_ends_its_wait_and_is_not_told_anything() {
        let all = sessions(|_| {});
        let id = create(&all, &[1], || 9 << 33);
        let begin = |epoch| match all.begin(asked(id, epoch, &[]), NOW) {
            Ok(Course::Continues(continued)) => continued,
            _ => panic!("it is the next"),
        };
        let first = begin(1);
        let mut waits = first.overtaken();
        assert!(!waits.watch(Waker::noop()));
        let second = begin(2);
        assert!(waits.watch(Waker::noop()) && !second.overtaken().watch(Waker::noop()));
        assert_eq!(first.wanted(), Err(SessionError::Epoch));
        assert_eq!(first.conclude(&[QUIET]), Err(SessionError::Epoch));
        assert_eq!(second.conclude(&[QUIET]), Ok(vec![false]));
    }

    #[test]
    fn who_waits_in_a_session_that_is_ended_waits_no_longer() {
        let all = sessions(|_| {});
        let id = create(&all, &[1], || 9 << 33);
        let Ok(Course::Continues(parked)) = all.begin(asked(id, 1, &[]), NOW) else {
            panic!("it is the next")
        };
        let mut waits = parked.overtaken();
        assert!(!waits.watch(Waker::noop()));
        assert_eq!(course(&all, asked(id, -1, &[1])), "alone 1");
        assert!(waits.watch(Waker::noop()) && parked.is_overtaken());
    }
}
