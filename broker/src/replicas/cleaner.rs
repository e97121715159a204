//! The task `cleaner`: cleans compacted partitions, one at a time.
//!
//! It sleeps until an owner says that its log is due ([`DueSchedule`]). Before a segment is touched, a checkpoint record is durable
//! that vouches for it and knows all of it to be committed. Everything is read and written at a bounded pace, in bounded memory;
//! a produce never waits for it. Whatever fails is told once and tried again after a pause, which grows: nothing has changed then, or
//! what has is whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use io_backend::{Backend, Deadline, Moment, Sender};

use super::checkpoint::{CheckpointInput, LaterStart, ask_to_vouch};
use super::removals::{Removals, Retry, earlier};
use super::{Replicas, ReplicasContext};
use crate::ids::PartitionId;
use crate::limits;
use crate::log::cleaning::choice::{self, Sealed};
use crate::log::cleaning::{Cleaning, Pace, Plan};
use crate::partition::{DeadFiles, Due, DueSchedule, PartitionHandle};

/// Clocks are looked at again after this at the latest: the wall clock, which records are as old as, may be set.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

pub(super) struct Cleaner<B: Backend> {
    context: Arc<ReplicasContext<B>>,
    replicas: Replicas<B>,
    checkpoints: Sender<B, CheckpointInput>,
    schedule: DueSchedule,
    /// When partitions may be cleaned again.
    pauses: BTreeMap<PartitionId, Moment>,
    removals: Removals,
    retry: Retry,
}

/// What a cleaning came to.
#[derive(Default)]
struct Outcome {
    segments: (usize, usize),
    bytes: (u64, u64),
    went: u64,
    stayed: u64,
}

impl<B: Backend> Cleaner<B> {
    pub(super) fn new(
        context: Arc<ReplicasContext<B>>,
        replicas: Replicas<B>,
        checkpoints: Sender<B, CheckpointInput>,
        schedule: DueSchedule,
    ) -> Cleaner<B> {
        Cleaner {
            context,
            replicas,
            checkpoints,
            schedule,
            pauses: BTreeMap::new(),
            removals: Removals::new("files of segments that were cleaned"),
            retry: Retry::default(),
        }
    }

    /// It ends when it is aborted: what it has not done the next start does.
    pub(super) async fn run(mut self) {
        loop {
            let (due, next, seen) = self.look();
            if let Some(id) = due {
                self.clean_one(id).await;
            }
            let is_full = self.context.journal.status().disk_full;
            let removed = self.removals.remove(&self.context.backend, is_full).await;
            let next = earlier(next, removed);
            if due.is_some() || next.is_some_and(|next| next <= self.context.backend.now()) {
                continue;
            }
            const IDLE: Deadline =
                Deadline::Unbounded("no log is to be cleaned, and the schedule tells when one is");
            let until = next.map_or(IDLE, Deadline::At);
            let changes = self.schedule.changes();
            let _ = changes.until(&self.context.backend, until, move |changes| *changes != seen).await;
        }
    }

    /// Who is due, and when the next one is if nobody says otherwise.
    fn look(&mut self) -> (Option<PartitionId>, Option<Moment>, u64) {
        let (dues, seen) = self.schedule.dues();
        let (now, wall_ms) = (self.context.backend.now(), self.context.backend.wall_ms());
        self.pauses.retain(|_, pause| *pause > now);
        let mut due = None;
        let mut next = None;
        for (id, when) in dues {
            let pause = self.pauses.get(&id).copied().unwrap_or(now);
            let at = match when {
                Due::Now => pause,
                Due::AtMs(ms) => {
                    let left_ms = u64::try_from(ms.saturating_sub(wall_ms)).unwrap_or(0);
                    pause.max(now + Duration::from_millis(left_ms).min(SLEEP_MAX))
                }
            };
            match at <= now && due.is_none() {
                true => due = Some(id),
                false => next = earlier(next, Some(at)),
            }
        }
        (due, next, seen)
    }

    async fn clean_one(&mut self, id: PartitionId) {
        let backend = self.context.backend.clone();
        let pause = self.context.config.cleaner.pause;
        let outcome = match self.replicas.get(id) {
            // What the journal has left there is for what makes room.
            _ if self.context.journal.status().disk_full => Ok(()),
            // It is being opened, or closed, and will say so.
            None => Ok(()),
            Some(partition) => self.clean(&partition).await,
        };
        let pause = match outcome {
            Ok(()) => {
                self.retry.succeeded("compacted logs are cleaned");
                pause
            }
            // Its topic was deleted meanwhile, or it went elsewhere, and its files with it.
            Err(_) if self.replicas.get(id).is_none() => pause,
            Err(error) => {
                self.context.metrics.cleanings_failed.inc();
                pause.max(self.retry.failed("a compacted log is not cleaned", &error))
            }
        };
        self.pauses.insert(id, backend.now() + pause);
    }

    async fn clean(&mut self, partition: &PartitionHandle<B>) -> Result<(), String> {
        let backend = self.context.backend.clone();
        let name = partition.name().clone();
        let in_words = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let soon = Deadline::after(&backend, limits::ASK_DEADLINE);
        let plan = partition.plan_cleaning(soon).await.map_err(|error| in_words(&error))?;
        let Some(mut plan) = plan else { return Ok(()) };
        self.keep_vouched(partition, &mut plan).await.map_err(|error| in_words(&error))?;
        let config = &self.context.config.cleaner;
        let mut pace = Pace::new(&backend, config.bytes_per_s);
        let judge = self.context.judge.clone();
        let cleaning = Cleaning {
            backend: &backend,
            plan: &plan,
            keys_bytes: config.memory_bytes,
            judge: &judge,
            left_behind: AtomicBool::new(false),
        };
        let (newest, upto) = cleaning.survey(&mut pace).await.map_err(|error| in_words(&error))?;
        if newest.has_overflowed() {
            tracing::info!(
                partition = %name, keys = newest.keys(), memory_bytes = config.memory_bytes,
                "a compacted log has more keys than the cleaner has room for (cleaner.memory_bytes): a part of it waits"
            );
        }
        let segments = &plan.segments[..upto];
        let sealed: Vec<Sealed> = segments.iter().map(|segment| Sealed::of(segment)).collect();
        let mut outcome = Outcome::default();
        for group in choice::groups(&sealed, plan.segment_bytes) {
            let group = &segments[group];
            let cleaned = match cleaning.clean(&newest, group, &mut pace).await {
                Ok(Some(cleaned)) => cleaned,
                Ok(None) => continue,
                Err(error) => {
                    let words = in_words(&error);
                    self.removals.put_unfinished(&backend, error.left);
                    return Err(words);
                }
            };
            let (bytes, (went, stayed)) = (cleaned.segment.bytes, cleaned.counts);
            let unneeded = DeadFiles {
                directory: plan.directory.clone(),
                segments: vec![cleaned.segment.name],
                bytes,
                delay: Duration::ZERO,
            };
            let deadline = Deadline::after(&backend, 2 * limits::CHECKPOINT_DEADLINE);
            let replaced = partition.put_cleaned(Box::new(cleaned), deadline).await;
            let Some(replaced) = replaced.map_err(|error| in_words(&error))? else {
                // What it was made of went meanwhile, for its age or on request.
                self.removals.put(&backend, unneeded);
                return Ok(());
            };
            outcome.segments = (outcome.segments.0 + group.len(), outcome.segments.1 + 1);
            outcome.bytes = (outcome.bytes.0 + replaced.bytes, outcome.bytes.1 + bytes);
            outcome.went += went;
            outcome.stayed += stayed;
            self.removals.put(&backend, replaced);
            let is_full = self.context.journal.status().disk_full;
            self.removals.remove(&backend, is_full).await;
        }
        self.tell(&name, &outcome);
        Ok(())
    }

    /// What no recorded checkpoint vouches for, or knows to be committed, is left alone.
    async fn keep_vouched(&self, partition: &PartitionHandle<B>, plan: &mut Plan<B>) -> Result<(), String> {
        let deadline = Deadline::after(&self.context.backend, 2 * limits::CHECKPOINT_DEADLINE);
        let (log_start, truncations) = (plan.log_start, plan.truncations);
        let start = LaterStart { partition: partition.id(), log_start, truncations };
        let vouched = ask_to_vouch(&self.checkpoints, vec![start], deadline).await;
        let marks = vouched.map_err(|error| error.to_string())?;
        let mark = marks.first().ok_or("it has no checkpoint yet, or none since its log was truncated")?;
        let until = mark.log_end.min(mark.high_watermark);
        plan.segments.truncate(plan.segments.partition_point(|segment| segment.end() <= until));
        Ok(())
    }

    fn tell(&self, name: &str, outcome: &Outcome) {
        let metrics = &self.context.metrics;
        metrics.cleanings.inc();
        metrics.cleaned_records.inc_by(outcome.went);
        metrics.cleaned_bytes.inc_by(outcome.bytes.0.saturating_sub(outcome.bytes.1));
        tracing::info!(
            partition = %name, segments = outcome.segments.0, into = outcome.segments.1, bytes = outcome.bytes.0,
            left = outcome.bytes.1, records_gone = outcome.went, records_left = outcome.stayed, "a compacted log was cleaned"
        );
    }
}
