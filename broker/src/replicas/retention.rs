//! The task `retention`: has partitions let go of what they need not keep, and removes the files.
//!
//! It sleeps until the first partition says that something of it may go ([`RetentionSchedule`]), or the first file. A round
//! asks a bounded number of partitions to move the start of their logs, has one checkpoint record vouch for all of them,
//! and has them forget the segments; files are removed one after another, with pauses, and in this order: no earlier than
//! the record. What each step leaves behind when the process ends there stands in `partition/retention.rs`.
//!
//! Whatever fails is told once and tried again after a pause, which grows. While the disk is full files do not wait for
//! `file.delete.delay.ms`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use io_backend::{Backend, Deadline, Disk, DiskError, Moment, Sender};

use super::checkpoint::{CheckpointInput, LaterStart, ask_to_vouch};
use super::{Replicas, ReplicasContext};
use crate::ids::PartitionId;
use crate::limits;
use crate::log::segment::SegmentName;
use crate::partition::{DeadFiles, Due, Retained, RetentionSchedule};

/// A partition that has let something go for its size is not asked again sooner.
const PAUSE_BY_SIZE: Duration = Duration::from_millis(100);
/// The pause after a failure, doubled with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// Clocks are looked at again after this at the latest: the wall clock, which records are as old as, may be set.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);
/// How often it is looked whether the disk is full, while files wait to be removed.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(1);

pub(super) struct Retention<B: Backend> {
    context: Arc<ReplicasContext<B>>,
    replicas: Replicas<B>,
    checkpoints: Sender<B, CheckpointInput>,
    schedule: RetentionSchedule,
    /// When partitions may be asked again, for whatever reason.
    pauses: BTreeMap<PartitionId, Moment>,
    /// What is due by its age is not looked for before: as often as `log.retention_check_interval`, as in Kafka.
    by_age: Moment,
    /// In the order in which they were forgotten.
    dead: VecDeque<Dead>,
    retry: Retry,
    /// Nothing is removed before.
    remove_not_before: Option<Moment>,
    remove_retry: Retry,
}

/// Files to remove.
struct Dead {
    from: Moment,
    files: DeadFiles,
}

/// What failed, how often in a row.
#[derive(Default)]
struct Retry {
    failures: u32,
}

impl Retry {
    /// Tells of the first failure in a row; the pause until the next try.
    fn failed(&mut self, what: &str, error: &dyn std::fmt::Display) -> Duration {
        if self.failures == 0 {
            tracing::warn!(error = %error, "{what}; tried again until it succeeds");
        }
        self.failures = self.failures.saturating_add(1);
        RETRY_FIRST.saturating_mul(1 << (self.failures - 1).min(8)).min(RETRY_LAST)
    }

    fn succeeded(&mut self, what: &str) {
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!("{what} again");
        }
    }
}

impl<B: Backend> Retention<B> {
    pub(super) fn new(
        context: Arc<ReplicasContext<B>>,
        replicas: Replicas<B>,
        checkpoints: Sender<B, CheckpointInput>,
        schedule: RetentionSchedule,
    ) -> Retention<B> {
        Retention {
            by_age: context.backend.now() + context.config.log.retention_check_interval,
            context,
            replicas,
            checkpoints,
            schedule,
            pauses: BTreeMap::new(),
            dead: VecDeque::new(),
            retry: Retry::default(),
            remove_not_before: None,
            remove_retry: Retry::default(),
        }
    }

    /// The task `retention`. It ends when it is aborted: what it has not done the next start does.
    pub(super) async fn run(mut self) {
        loop {
            let (due, next, seen) = self.look();
            let is_idle = due.is_empty();
            if !is_idle {
                self.round(due).await;
            }
            let removed = self.remove_files().await;
            let next = earlier(next, removed);
            // After a round nobody has told when its partitions are due again: that is looked up first.
            if !is_idle || next.is_some_and(|next| next <= self.context.backend.now()) {
                continue;
            }
            const IDLE: Deadline =
                Deadline::Unbounded("nothing can go, and the schedule tells when something can");
            let until = next.map_or(IDLE, Deadline::At);
            let changes = self.schedule.changes();
            let _ = changes.until(&self.context.backend, until, move |changes| *changes != seen).await;
        }
    }

    /// Who is due, and when the next one is if nobody says otherwise.
    fn look(&mut self) -> (Vec<PartitionId>, Option<Moment>, u64) {
        let (dues, seen) = self.schedule.dues();
        let (now, wall_ms) = (self.context.backend.now(), self.context.backend.wall_ms());
        let mut due = Vec::new();
        let mut next = None;
        let (mut some_by_age, mut all_by_age) = (false, true);
        for (id, when) in &dues {
            let pause = self.pauses.get(id).copied().unwrap_or(now);
            let at = match when {
                Due::Now => pause,
                Due::AtMs(ms) => {
                    let left_ms = u64::try_from(ms.saturating_sub(wall_ms)).unwrap_or(0);
                    pause.max(self.by_age).max(now + Duration::from_millis(left_ms).min(SLEEP_MAX))
                }
            };
            let is_taken = at <= now && due.len() < limits::RETENTION_PARTITIONS_PER_ROUND;
            if is_taken {
                due.push(*id);
            } else {
                next = earlier(next, Some(at));
            }
            if at <= now && *when != Due::Now {
                some_by_age |= is_taken;
                all_by_age &= is_taken;
            }
        }
        if some_by_age && all_by_age {
            self.by_age = now + self.context.config.log.retention_check_interval;
        }
        self.pauses.retain(|_, pause| *pause > now);
        (due, next, seen)
    }

    /// Has these partitions let go of what they may.
    async fn round(&mut self, due: Vec<PartitionId>) {
        let backend = self.context.backend.clone();
        let deadline = Deadline::after(&backend, limits::ASK_DEADLINE);
        let open = self.replicas.open().get();
        let mut asked = Vec::new();
        for id in due {
            match open.get(&id) {
                Some(partition) => asked.push(partition.clone()),
                // It is being opened, or closed, and will say so.
                None => {
                    self.pauses.insert(id, backend.now() + RETRY_FIRST);
                }
            }
        }
        let answers: Vec<_> = futures::stream::iter(asked)
            .map(|partition| async move { (partition.id(), partition.retain(deadline).await) })
            .buffer_unordered(limits::RETENTION_ASKED_AT_ONCE)
            .collect()
            .await;
        let mut starts = Vec::new();
        let mut failure = None;
        let mut failed = Vec::new();
        let now = backend.now();
        for (id, answer) in answers {
            match answer {
                Ok(retained) => {
                    if let Some(error) = retained.failed {
                        failure = Some(error.to_string());
                        failed.push(id);
                    } else {
                        self.pauses.insert(id, now + PAUSE_BY_SIZE);
                    }
                    if retained.has_dead {
                        let Retained { log_start, truncations, .. } = retained;
                        starts.push(LaterStart { partition: id, log_start, truncations });
                    }
                }
                Err(error) => {
                    failure = Some(error.to_string());
                    failed.push(id);
                }
            }
        }
        if let Err((ids, error)) = self.forget(starts).await {
            failure = Some(error);
            failed.extend(ids);
        }
        match failure {
            Some(error) => {
                let pause = self.retry.failed("records that may go stay", &error);
                let until = backend.now() + pause;
                self.pauses.extend(failed.into_iter().map(|id| (id, until)));
            }
            None => self.retry.succeeded("records that may go are let go"),
        }
    }

    /// Has a record vouch for these starts, then the partitions forget the segments before them.
    async fn forget(&mut self, starts: Vec<LaterStart>) -> Result<(), (Vec<PartitionId>, String)> {
        if starts.is_empty() {
            return Ok(());
        }
        let backend = self.context.backend.clone();
        let deadline = Deadline::after(&backend, 2 * limits::CHECKPOINT_DEADLINE);
        let ids: Vec<PartitionId> = starts.iter().map(|start| start.partition).collect();
        let vouched = match ask_to_vouch(&self.checkpoints, starts, deadline).await {
            Ok(vouched) => vouched,
            Err(error) => return Err((ids, error.to_string())),
        };
        let open = self.replicas.open().get();
        let mut failed = Vec::new();
        let mut why = String::new();
        let unmarked = ids.iter().filter(|id| vouched.iter().all(|(of, _)| of != *id));
        for id in unmarked {
            why = "it has no checkpoint yet, or none since its log was truncated".to_owned();
            failed.push(*id);
        }
        for (id, start) in vouched {
            let Some(partition) = open.get(&id) else { continue };
            match partition.forget_before(start, deadline).await {
                Ok(files) if files.segments.is_empty() => {}
                Ok(files) => {
                    tracing::info!(
                        partition = %partition.name(), log_start = start.0, segments = files.segments.len(),
                        bytes = files.bytes, "records are deleted"
                    );
                    let now = backend.now();
                    self.dead.push_back(Dead { from: now + files.delay, files });
                }
                Err(error) => {
                    why = error.to_string();
                    failed.push(id);
                }
            }
        }
        if failed.is_empty() { Ok(()) } else { Err((failed, why)) }
    }

    /// Removes what has waited for long enough, or some of it; when there is more to do.
    async fn remove_files(&mut self) -> Option<Moment> {
        let backend = self.context.backend.clone();
        let now = backend.now();
        if let Some(pause) = self.remove_not_before.filter(|pause| *pause > now) {
            return Some(pause);
        }
        let is_full = self.context.journal.status().disk_full;
        let mut left = limits::RETENTION_SEGMENTS_PER_ROUND;
        while let Some(nth) = self.dead.iter().position(|dead| is_full || dead.from <= now)
            && left > 0
        {
            let dead = &mut self.dead[nth];
            let Some(name) = dead.files.segments.last().copied() else {
                self.dead.remove(nth);
                continue;
            };
            let directory = dead.files.directory.clone();
            match remove_segment(&backend, &directory, name).await {
                Ok(()) => {
                    self.dead[nth].files.segments.pop();
                    self.remove_retry.succeeded("files of deleted records are removed");
                    left -= 1;
                }
                Err(error) => {
                    let pause = self.remove_retry.failed("files of deleted records stay", &error);
                    self.remove_not_before = Some(backend.now() + pause);
                    return self.remove_not_before;
                }
            }
        }
        let first = self.dead.iter().map(|dead| dead.from).min()?;
        Some(first.min(backend.now() + LOOK_FOR_SPACE).max(now))
    }
}

/// One after another: what a crash leaves of them the next start removes.
async fn remove_segment<B: Backend>(
    backend: &B,
    directory: &std::path::Path,
    name: SegmentName,
) -> Result<(), DiskError> {
    for extension in ["log", "index", "timeindex"] {
        let deadline = Deadline::after(backend, limits::DISK_DEADLINE);
        match backend.disk().remove_file(&directory.join(name.file(extension)), deadline).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

fn earlier(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
