//! The task `retention`: has partitions let go of what they need not keep, and removes the files.
//!
//! It sleeps until the first partition says that something of it may go ([`DueSchedule`]), or the first file. A round
//! asks a bounded number of partitions to move the start of their logs, has one checkpoint record vouch for all of them,
//! and has them forget the segments; files are removed one after another, with pauses, and in this order: no earlier than
//! the record. What each step leaves behind when the process ends there stands in `partition/retention.rs`.
//!
//! Whatever fails is told once and tried again after a pause, which grows. While the disk is full files do not wait for
//! `file.delete.delay.ms`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use io_backend::{Backend, Deadline, Moment, Sender};

use super::checkpoint::{CheckpointInput, LaterStart, ask_to_vouch};
use super::removals::{RETRY_FIRST, Removals, Retry, earlier};
use super::{Replicas, ReplicasContext};
use crate::ids::PartitionId;
use crate::limits;
use crate::partition::{Due, DueSchedule, Retained};

/// A partition that has let something go for its size is not asked again sooner.
const PAUSE_BY_SIZE: Duration = Duration::from_millis(100);
/// Clocks are looked at again after this at the latest: the wall clock, which records are as old as, may be set.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

pub(super) struct Retention<B: Backend> {
    context: Arc<ReplicasContext<B>>,
    replicas: Replicas<B>,
    checkpoints: Sender<B, CheckpointInput>,
    schedule: DueSchedule,
    /// When partitions may be asked again, for whatever reason.
    pauses: BTreeMap<PartitionId, Moment>,
    /// What is due by its age is not looked for before: as often as `log.retention_check_interval`, as in Kafka.
    by_age: Moment,
    removals: Removals,
    retry: Retry,
}

impl<B: Backend> Retention<B> {
    pub(super) fn new(
        context: Arc<ReplicasContext<B>>,
        replicas: Replicas<B>,
        checkpoints: Sender<B, CheckpointInput>,
        schedule: DueSchedule,
    ) -> Retention<B> {
        Retention {
            by_age: context.backend.now() + context.config.log.retention_check_interval,
            context,
            replicas,
            checkpoints,
            schedule,
            pauses: BTreeMap::new(),
            removals: Removals::new("files of deleted records"),
            retry: Retry::default(),
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
            let is_full = self.context.journal.status().disk_full;
            let removed = self.removals.remove(&self.context.backend, is_full).await;
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
        let unmarked = ids.iter().filter(|id| vouched.iter().all(|mark| mark.partition != **id));
        for id in unmarked {
            why = "it has no checkpoint yet, or none since its log was truncated".to_owned();
            failed.push(*id);
        }
        for mark in vouched {
            let (id, start) = (mark.partition, mark.log_start);
            let Some(partition) = open.get(&id) else { continue };
            match partition.forget_before(start, deadline).await {
                Ok(files) if files.segments.is_empty() => {}
                Ok(files) => {
                    tracing::info!(
                        partition = %partition.name(), log_start = start.0, segments = files.segments.len(),
                        bytes = files.bytes, "records are deleted"
                    );
                    self.removals.put(&backend, files);
                }
                Err(error) => {
                    why = error.to_string();
                    failed.push(id);
                }
            }
        }
        if failed.is_empty() { Ok(()) } else { Err((failed, why)) }
    }
}
