//! A disk that stalls: judged from the age of the operation in flight, never from completions alone.
//!
//! [`StallDetector`] decides, purely; [`watch`] samples the registry, only while a journal is busy, and acts.
//! An operation's age grows by at most two sample periods from one sample to the next, so a process
//! that was paused, or whose clock jumped, does not take itself for dead. Only commits count, and the preparation
//! of a file that one waits for: what checkpoints and readers do has limits of its own and no say here.
//! The same samples tell [`writes`] whether a journal takes anything at all.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;

use io_backend::registry::{Entry, Registry};
use io_backend::{Backend, Deadline, ExitStatus, Moment, invariants};
use tracing::{info, warn};

use crate::config::StallConfig;
use crate::journal::{COMMIT_TASK, FILE_WAIT, FILES_TASK, JournalHandle, SubmitError};
use crate::metrics::{Metrics, RungLabel};

pub mod capacities;
pub mod contact;
pub mod writes;

use capacities::{Capacities, Fitness};
use contact::Contact;
use writes::{Refusal, WriteChange, WriteJudge, WriteState, Writes};

/// Shared by all who must know before they promise anything.
#[derive(Clone, Debug, Default)]
pub struct StorageHealth {
    level: Arc<AtomicU8>,
    /// What keeps records from being taken, if that lasts.
    pub writes: Writes,
    /// What this node is fit for among others.
    pub capacities: Capacities,
    /// Whether the controller still counts on what this node does.
    pub contact: Contact,
}

/// How the storage does, as far as it concerns new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Work is taken.
    Good,
    /// An operation is in flight for longer than a disk takes: nothing new is taken.
    Stalled,
    /// A journal is lost to this process, which ends.
    Failed,
}

impl StorageHealth {
    /// The latest judgement; one load.
    pub fn get(&self) -> Health {
        match self.level.load(Ordering::Acquire) {
            0 => Health::Good,
            1 => Health::Stalled,
            _ => Health::Failed,
        }
    }

    /// To be called by the watchdog, which judges.
    pub fn set(&self, health: Health) {
        self.level.store(health as u8, Ordering::Release);
    }
}

/// A commit operation in flight, as the registry knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlightCommit {
    /// The operation's number in the registry; a later operation has a larger one.
    pub number: u64,
    /// Since when it is in flight, or its file waited for.
    pub since: Moment,
}

/// What a sample changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The operation has come to `stall.warn_after`.
    Warned { age: Duration },
    /// The operation has come to `stall.stalled_after`.
    Stalled { age: Duration },
    /// The operation that stalled is over, after this long.
    Resumed { after: Duration },
}

/// The judgement on one journal.
#[derive(Clone, Debug)]
pub struct StallDetector {
    warn_after: Duration,
    stalled_after: Duration,
    sample: Duration,
    watched: Option<Sampled>,
    stalled: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sampled {
    number: u64,
    /// Capped in its growth: what this process has seen of it, not what the clock says.
    age: Duration,
    warned: bool,
}

impl StallDetector {
    /// Begins with nothing in flight.
    pub fn new(config: &StallConfig) -> StallDetector {
        StallDetector {
            warn_after: config.warn_after,
            stalled_after: config.stalled_after,
            sample: config.sample,
            watched: None,
            stalled: false,
        }
    }

    /// Whether nothing new is to be taken.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Takes in what is in flight now. Completions have been drained before: an operation that is over
    /// is not in the registry any more.
    pub fn handle_sample(&mut self, now: Moment, oldest: Option<InFlightCommit>) -> Option<Change> {
        let change = self.judge(now, oldest);
        self.check_invariants();
        change
    }

    fn check_invariants(&self) {
        if invariants::are_checked() && self.stalled {
            let watched = self.watched.expect("what stands still is watched");
            assert!(
                watched.warned && watched.age >= self.stalled_after,
                "what stands still is old, and was told of"
            );
        }
    }

    fn judge(&mut self, now: Moment, oldest: Option<InFlightCommit>) -> Option<Change> {
        let before = self.watched;
        let Some(commit) = oldest else {
            self.watched = None;
            return self.resume(before);
        };
        let seen = before.filter(|watched| watched.number == commit.number);
        let grown = seen.map_or(Duration::ZERO, |watched| watched.age) + 2 * self.sample;
        let age = now.since(commit.since).min(grown);
        let mut watched = Sampled { number: commit.number, age, warned: seen.is_some_and(|w| w.warned) };
        if seen.is_none() && self.stalled {
            self.watched = Some(watched);
            return self.resume(before);
        }
        let change = if age >= self.stalled_after && !self.stalled {
            self.stalled = true;
            watched.warned = true;
            Some(Change::Stalled { age })
        } else if age >= self.warn_after && !watched.warned {
            watched.warned = true;
            Some(Change::Warned { age })
        } else {
            None
        };
        self.watched = Some(watched);
        change
    }

    fn resume(&mut self, before: Option<Sampled>) -> Option<Change> {
        if !self.stalled {
            return None;
        }
        self.stalled = false;
        Some(Change::Resumed { after: before.map_or(Duration::ZERO, |watched| watched.age) })
    }
}

/// One journal under watch.
pub struct Watch {
    /// The journal that is told.
    pub journal: JournalHandle,
    /// Where its files are: operations on them are its operations.
    pub directory: PathBuf,
    /// What goes through it.
    pub of: Watched,
}

/// What a journal is for, which says who is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Records of partitions.
    Records,
    /// Changes of metadata.
    Metadata,
}

impl Watch {
    fn oldest(&self, registry: &Registry) -> Option<Entry> {
        oldest(registry, &self.directory.to_string_lossy())
    }
}

/// The oldest operation that commits of the journal in this directory wait for.
fn oldest(registry: &Registry, directory: &str) -> Option<Entry> {
    let commit = registry.oldest_operation(|entry| is_on_disk(entry, COMMIT_TASK, directory));
    if commit.is_some() {
        return commit;
    }
    registry.oldest(|entry| waits_for_file(entry, directory))?;
    registry.oldest_operation(|entry| is_on_disk(entry, FILES_TASK, directory))
}

/// Whether an entry is an operation of this task on the journal in this directory. Of the commit loop all of them count,
/// the opening of the next file too; of the preparation of files what happens while a commit waits for one.
fn is_on_disk(entry: &Entry, task: &str, directory: &str) -> bool {
    entry.operation && entry.kind.is_disk() && is_of(entry, task, directory)
}

/// Whether an entry is a commit's wait for the next file.
fn waits_for_file(entry: &Entry, directory: &str) -> bool {
    !entry.operation && entry.what == FILE_WAIT && is_of(entry, COMMIT_TASK, directory)
}

fn is_of(entry: &Entry, task: &str, directory: &str) -> bool {
    entry.target.as_ref().is_some_and(|target| target.starts_with(directory))
        && entry.task.as_ref().is_some_and(|current| current.name.role == task)
}

/// The watchdog: asleep while the journals are idle, sampling while one is busy.
pub async fn watch<B: Backend>(
    backend: B,
    config: StallConfig,
    watches: Vec<Watch>,
    health: StorageHealth,
    metrics: Arc<Metrics>,
) {
    let mut ladders: Vec<StallDetector> = watches.iter().map(|_| StallDetector::new(&config)).collect();
    let mut judges: Vec<WriteJudge> = watches.iter().map(|_| WriteJudge::default()).collect();
    loop {
        until_any_busy(&watches).await;
        loop {
            backend.sleep(config.sample).await;
            let mut in_flight = false;
            let mut refusing = false;
            let mut state = WriteState::default();
            for ((watch, ladder), judge) in watches.iter().zip(&mut ladders).zip(&mut judges) {
                let oldest = watch.oldest(backend.registry());
                in_flight |= oldest.is_some();
                let commit = oldest.as_ref().map(|e| InFlightCommit { number: e.number, since: e.since });
                if let Some(change) = ladder.handle_sample(backend.now(), commit) {
                    tell(change, oldest.as_ref(), watch, &metrics);
                }
                let stalled = oldest.filter(|_| ladder.is_stalled());
                let stalled =
                    stalled.map(|e| (e.kind.name(), e.target.as_deref().unwrap_or_default().into()));
                let refusal = Refusal::of(&watch.journal.status(), stalled);
                refusing |= refusal.is_some();
                if let Some(change) = judge.handle_sample(backend.now(), refusal) {
                    tell_of_writes(change, watch);
                }
                watch.journal.set_refusing(match ladder.is_stalled() {
                    true => Some(SubmitError::Stalled),
                    false => judge.is_beyond_patience(backend.now()).then_some(SubmitError::NoRoom),
                });
                match watch.of {
                    Watched::Records => state.records = judge.lasting().cloned(),
                    Watched::Metadata => state.metadata = judge.lasting().cloned(),
                }
            }
            let stands_still = |of: Watched| {
                watches.iter().zip(&ladders).any(|(watch, ladder)| watch.of == of && ladder.is_stalled())
            };
            health.capacities.set(Fitness::of(
                stands_still(Watched::Records),
                stands_still(Watched::Metadata),
                state.records.is_some(),
            ));
            health.writes.set(state);
            if let Some(failed) = watches.iter().find(|watch| watch.journal.status().failed) {
                health.set(Health::Failed);
                give_up(&backend, failed);
                return;
            }
            let stalled = ladders.iter().any(StallDetector::is_stalled);
            health.set(if stalled { Health::Stalled } else { Health::Good });
            if !in_flight && !refusing {
                break;
            }
        }
    }
}

/// A journal that takes nothing more cannot be trusted again by this process: what it has in memory may be ahead of
/// what any file holds. A new start reads what is there, on a disk that may have been mended.
fn give_up<B: Backend>(backend: &B, failed: &Watch) {
    let directory = failed.directory.display();
    backend.exit(
        ExitStatus::StorageNotTrusted,
        &format!("{directory}: syncing failed and failed again in new files; check the disk, then start the node again"),
    );
}

async fn until_any_busy(watches: &[Watch]) {
    let idle = Deadline::Unbounded("a journal that is idle may be idle for ever");
    let mut waits: Vec<_> = watches.iter().map(|watch| watch.journal.until_busy(idle)).collect();
    let mut any = pin!(poll_fn(|cx| {
        if waits.iter_mut().any(|wait| wait.as_mut().poll(cx).is_ready()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
    any.as_mut().await;
}

fn tell(change: Change, oldest: Option<&Entry>, watch: &Watch, metrics: &Metrics) {
    let operation = oldest.map_or("", |entry| entry.kind.name());
    let file = oldest.and_then(|entry| entry.target.as_deref()).unwrap_or_default();
    let status = watch.journal.status();
    match change {
        Change::Warned { age } => {
            metrics.wal_stall.get_or_create(&RungLabel { rung: "warn" }).inc();
            warn!(operation, file, age_ms = age.as_millis() as u64, "a disk operation takes long");
        }
        Change::Stalled { age } => {
            metrics.wal_stall.get_or_create(&RungLabel { rung: "stalled" }).inc();
            warn!(
                operation,
                file,
                age_ms = age.as_millis() as u64,
                waiting_entries = status.submitted.0.saturating_sub(status.durable.0),
                "the disk stands still: nothing is acknowledged and nothing new is taken until it answers; \
                 see /debug/stalls on the admin port"
            );
        }
        Change::Resumed { after } => {
            metrics.wal_stall.get_or_create(&RungLabel { rung: "resumed" }).inc();
            let directory = watch.directory.display().to_string();
            info!(journal = directory, after_ms = after.as_millis() as u64, "the disk answers again");
        }
    }
}

fn tell_of_writes(change: WriteChange, watch: &Watch) {
    let journal = watch.directory.display().to_string();
    let what = match watch.of {
        Watched::Records => "records",
        Watched::Metadata => "changes of metadata",
    };
    match change {
        WriteChange::Refuses(refusing) => {
            let (reason, advice) = (refusing.reason.name(), refusing.reason.advice());
            warn!(journal, reason, "this node takes no {what}: {}; {advice}", refusing.reason);
        }
        WriteChange::TakesAgain { reason, after } => {
            let after_ms = after.as_millis() as u64;
            info!(journal, reason = reason.name(), after_ms, "this node takes {what} again");
        }
    }
}

#[cfg(test)]
mod tests {
    use io_backend::{Clock, TaskName};

    use super::*;

    const MS: u64 = 1_000_000;

    fn ladder() -> StallDetector {
        StallDetector::new(&crate::config::Config::default().stall)
    }

    fn commit(number: u64, since_ms: u64) -> Option<InFlightCommit> {
        Some(InFlightCommit { number, since: Moment(since_ms * MS) })
    }

    /// Samples every 100 ms from `from` to `to` and returns what changed, when.
    fn run(
        ladder: &mut StallDetector,
        from: u64,
        to: u64,
        oldest: Option<InFlightCommit>,
    ) -> Vec<(u64, Change)> {
        (from..=to)
            .step_by(100)
            .filter_map(|ms| ladder.handle_sample(Moment(ms * MS), oldest).map(|change| (ms, change)))
            .collect()
    }

    #[test]
    fn a_stall_is_warned_of_then_declared_then_over() {
        let mut ladder = ladder();
        let changes = run(&mut ladder, 100, 3_000, commit(1, 0));
        let ms = Duration::from_millis;
        assert_eq!(
            changes,
            [(300, Change::Warned { age: ms(300) }), (1_000, Change::Stalled { age: ms(1_000) })]
        );
        assert_eq!(
            ladder.handle_sample(Moment(3_100 * MS), None),
            Some(Change::Resumed { after: ms(3_000) })
        );
        assert!(!ladder.is_stalled());
    }

    #[test]
    fn commits_that_come_and_go_are_no_stall_however_busy_the_disk() {
        let mut ladder = ladder();
        for n in 0..100 {
            assert_eq!(ladder.handle_sample(Moment((n * 100 + 90) * MS), commit(n, n * 100)), None);
        }
    }

    #[test]
    fn a_process_that_was_paused_does_not_judge_itself_dead() {
        let mut ladder = ladder();
        assert_eq!(ladder.handle_sample(Moment(100 * MS), commit(1, 0)), None);
        // Paused for an hour with the operation in flight: its age is what we saw, plus two samples.
        let change = ladder.handle_sample(Moment(3_600_000 * MS), commit(1, 0));
        assert_eq!(change, Some(Change::Warned { age: Duration::from_millis(300) }));
        assert!(!ladder.is_stalled());
    }

    /// What the watchdog of `/data/journal` goes by, of entries by task, kind, file and whether they are operations.
    fn watched(entries: &[(&'static str, &'static str, io_backend::WaitKind, &str, bool)]) -> Option<String> {
        use std::panic::Location;

        use crate::journal::fake::Fake;

        let backend = Fake::new();
        backend.run(async {
            for (task, what, kind, file, operation) in entries.iter().copied() {
                let (own, file) = (backend.clone(), Arc::from(file));
                backend.spawn(TaskName::of(task, "journal"), async move {
                    let (registry, now, site) = (own.registry(), own.now(), Location::caller());
                    let _entered = if operation {
                        registry.operation_at(now, kind, what, file, site)
                    } else {
                        registry.wait_at(now, kind, what, file, site, false)
                    };
                    own.sleep(Duration::from_secs(60)).await;
                });
            }
            backend.sleep(Duration::from_millis(1)).await;
            let watched = oldest(backend.registry(), "/data/journal");
            watched.and_then(|entry| entry.target).map(|target| target.to_string())
        })
    }

    #[test]
    fn what_commits_wait_for_is_judged_and_nothing_else() {
        use io_backend::WaitKind::{Change, DiskName, DiskRead, DiskSync, DiskWrite};
        let commit = |kind| (COMMIT_TASK, "", kind, "/data/journal/000001.journal", true);
        for kind in [DiskWrite, DiskSync, DiskName] {
            assert!(watched(&[commit(kind)]).is_some(), "{kind:?} of the commit loop");
        }
        let prepares = (FILES_TASK, "", DiskSync, "/data/journal/000002.journal", true);
        let waits = (COMMIT_TASK, FILE_WAIT, Change, "/data/journal", false);
        assert_eq!(watched(&[prepares]), None, "a file prepared ahead of its time");
        assert_eq!(
            watched(&[waits]),
            None,
            "a file that is being waited for and on which nothing is in flight"
        );
        assert_eq!(watched(&[prepares, waits]).as_deref(), Some("/data/journal/000002.journal"));
        let others = (COMMIT_TASK, FILE_WAIT, Change, "/data/raft", false);
        assert_eq!(watched(&[prepares, others]), None, "another journal's commits wait");
        assert_eq!(watched(&[("checkpoint", "", DiskRead, "/data/journal/000001.journal", true)]), None);
    }

    #[test]
    fn another_operation_in_flight_means_the_stalled_one_is_over() {
        let mut ladder = ladder();
        run(&mut ladder, 100, 2_000, commit(1, 0));
        assert!(ladder.is_stalled());
        let change = ladder.handle_sample(Moment(2_100 * MS), commit(2, 2_050));
        assert_eq!(change, Some(Change::Resumed { after: Duration::from_millis(2_000) }));
    }

    /// What the node says of its records every 100 ms for three seconds, beginning when a journal holds too much.
    #[test]
    fn a_journal_that_takes_no_records_is_told_of_though_nothing_is_in_flight_and_until_it_takes_them_again()
    {
        use crate::journal::fake::Fake;
        use crate::journal::{JournalContext, JournalSettings, open};

        let fake = Fake::new();
        fake.run(async {
            let settings =
                JournalSettings { unreleased_bytes_max: 8 << 10, ..crate::journal::tests::settings() };
            let context = JournalContext {
                backend: fake.clone(),
                name: "journal",
                directory: "/data/journal".into(),
                settings,
                metrics: Arc::default(),
            };
            let journal = open(context).await.unwrap().journal;
            let health = StorageHealth::default();
            let watch =
                Watch { journal: journal.clone(), directory: "/data/journal".into(), of: Watched::Records };
            let config = crate::config::Config::default().stall;
            let watching = super::watch(fake.clone(), config, vec![watch], health.clone(), Arc::default());
            fake.spawn("stall-watchdog", watching);
            let progress = Arc::new(io_backend::progress::Progress::default());
            let partition = crate::journal::tests::entry(0, 0, b"").partition;
            let mut last = crate::ids::Lsn(0);
            while !journal.status().holds_too_much {
                last =
                    journal.submit(vec![crate::journal::tests::entry(0, 0, &[7; 3000])], &progress).unwrap();
                crate::journal::tests::until_reached(&progress, last).await;
            }
            fake.sleep(Duration::from_millis(900)).await;
            assert_eq!(health.writes.get().records, None, "a moment is nobody's business");
            fake.sleep(Duration::from_millis(400)).await;
            let refusing = health.writes.get().records.expect("it lasts");
            assert_eq!(refusing.reason.name(), "checkpoints_behind");
            let room =
                journal.wait_for_capacity(partition, 1, Deadline::after(&fake, Duration::from_secs(30)));
            fake.sleep(Duration::from_secs(2)).await;
            room.await.expect("refused by now");
            let late = vec![crate::journal::tests::entry(0, 0, b"late")];
            assert_eq!(journal.submit(late, &progress), Err(SubmitError::NoRoom));
            journal.release_before(crate::ids::Lsn(last.0 + 1));
            fake.sleep(Duration::from_millis(200)).await;
            assert_eq!(health.writes.get(), WriteState::default());
        });
    }
}
