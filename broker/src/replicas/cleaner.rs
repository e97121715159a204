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
use crate::log::cleaning::rewrite::Counts;
use crate::log::cleaning::{Cleaning, Pace, Plan};
use crate::partition::{DeadFiles, Due, DueSchedule, PartitionHandle};

/// Clocks are looked at again after this at the latest: the wall clock, which records are as old as, may be set.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// One whose cleaning fails again and again is tried this often at least.
const PAUSE_MAX: Duration = Duration::from_secs(600);

pub(super) struct Cleaner<B: Backend> {
    context: Arc<ReplicasContext<B>>,
    replicas: Replicas<B>,
    checkpoints: Sender<B, CheckpointInput>,
    schedule: DueSchedule,
    /// Of partitions that are due, or were lately.
    known: BTreeMap<PartitionId, Known>,
    removals: Removals,
}

/// What the cleaner knows of a partition.
struct Known {
    /// When it was looked at last.
    looked_at: Moment,
    /// It may be cleaned again then.
    again_from: Moment,
    retry: Retry,
}

/// What a cleaning came to.
#[derive(Default)]
struct Outcome {
    segments: (usize, usize),
    bytes: (u64, u64),
    counts: Counts,
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
            known: BTreeMap::new(),
            removals: Removals::new("files of segments that were cleaned"),
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
        let is_due = |id: &PartitionId| dues.binary_search_by_key(id, |(due, _)| *due).is_ok();
        // Who is forgotten would come before all that wait.
        self.known
            .retain(|id, known| known.again_from > now || is_due(id) || self.replicas.get(*id).is_some());
        let (due, next) = first_due(&dues, &self.known, now, wall_ms);
        (due, next, seen)
    }

    async fn clean_one(&mut self, id: PartitionId) {
        let backend = self.context.backend.clone();
        let pause = self.context.config.cleaner.pause;
        let outcome = match self.replicas.get(id) {
            // What the journal has left there is for what makes room.
            _ if self.context.journal.status().disk_full => None,
            // It is being opened, or closed, and will say so.
            None => None,
            Some(partition) => Some(self.clean(&partition).await),
        };
        let now = backend.now();
        let known = Known { looked_at: now, again_from: now, retry: Retry::default() };
        let known = self.known.entry(id).or_insert(known);
        let pause = match outcome {
            None => pause,
            Some(Ok(())) => {
                known.retry.succeeded("a compacted log is cleaned");
                pause
            }
            // Its topic was deleted meanwhile, or it went elsewhere, and its files with it.
            Some(Err(_)) if self.replicas.get(id).is_none() => pause,
            Some(Err(error)) => {
                self.context.metrics.cleanings_failed.inc();
                let least = known.retry.failed("a compacted log is not cleaned", &error);
                // What fails has read the log as far as it came.
                let doublings = (known.retry.failures() - 1).min(16);
                pause.saturating_mul(1 << doublings).min(PAUSE_MAX).max(pause).max(least)
            }
        };
        (known.looked_at, known.again_from) = (now, now + pause);
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
            let (bytes, counts) = (cleaned.segment.bytes, cleaned.counts);
            let unneeded = DeadFiles {
                directory: plan.directory.clone(),
                segments: vec![cleaned.segment.name],
                bytes,
                delay: Duration::ZERO,
            };
            let deadline = Deadline::after(&backend, 2 * limits::CHECKPOINT_DEADLINE);
            let replaced = partition.put_cleaned(Box::new(cleaned), deadline).await;
            let Some(replaced) = replaced.map_err(|error| in_words(&error))? else {
                // What it was made of went meanwhile, for its age or on request, or a replica lacks more than was known.
                self.removals.put(&backend, unneeded);
                return Ok(());
            };
            outcome.segments = (outcome.segments.0 + group.len(), outcome.segments.1 + 1);
            outcome.bytes = (outcome.bytes.0 + replaced.bytes, outcome.bytes.1 + bytes);
            outcome.counts.add(counts);
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
        metrics.cleaned_records.inc_by(outcome.counts.went);
        metrics.tombstones_lacked.inc_by(outcome.counts.lacked);
        metrics.cleaned_bytes.inc_by(outcome.bytes.0.saturating_sub(outcome.bytes.1));
        tracing::info!(
            partition = %name, segments = outcome.segments.0, into = outcome.segments.1, bytes = outcome.bytes.0,
            left = outcome.bytes.1, records_gone = outcome.counts.went, records_left = outcome.counts.stayed,
            tombstones_lacked = outcome.counts.lacked, "a compacted log was cleaned"
        );
    }
}

/// Who is due, of several who was not looked at for the longest, and when one of the others is.
fn first_due(
    dues: &[(PartitionId, Due)],
    known: &BTreeMap<PartitionId, Known>,
    now: Moment,
    wall_ms: i64,
) -> (Option<PartitionId>, Option<Moment>) {
    let mut due: Option<(Option<Moment>, PartitionId)> = None;
    let mut next = None;
    for &(id, when) in dues {
        let known = known.get(&id);
        let pause = known.map_or(now, |known| known.again_from.max(now));
        let at = match when {
            Due::Now => pause,
            Due::AtMs(ms) => {
                let left_ms = u64::try_from(ms.saturating_sub(wall_ms)).unwrap_or(0);
                pause.max(now + Duration::from_millis(left_ms).min(SLEEP_MAX))
            }
        };
        if at > now {
            next = earlier(next, Some(at));
            continue;
        }
        let looked_at = known.map(|known| known.looked_at);
        // The others are looked for again when this one is done.
        due = Some(due.map_or((looked_at, id), |first| first.min((looked_at, id))));
    }
    (due.map(|(_, id)| id), next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicId;

    #[test]
    fn of_several_that_are_due_the_one_is_taken_that_waits_for_the_longest() {
        let at = |s: u64| Moment::ZERO + Duration::from_secs(s);
        let id = |index| PartitionId { topic: TopicId(uuid::Uuid::nil()), index };
        let known = |looked_at, again_from| Known {
            looked_at: at(looked_at),
            again_from: at(again_from),
            retry: Retry::default(),
        };
        let dues: Vec<_> = (0..4).map(|index| (id(index), Due::Now)).collect();
        let all = BTreeMap::from([
            (id(0), known(80, 95)),
            (id(1), known(70, 85)),
            (id(2), known(60, 120)),
            (id(3), known(75, 90)),
        ]);
        let first = |known: &BTreeMap<_, _>| first_due(&dues, known, at(100), 1_000);
        assert_eq!(first(&all), (Some(id(1)), Some(at(120))), "the third has failed and waits");
        assert_eq!(first(&BTreeMap::from([(id(0), known(1, 2))])).0, Some(id(1)), "never looked at");
        let later = [(id(0), Due::AtMs(4_000)), (id(1), Due::AtMs(900))];
        assert_eq!(first_due(&later, &all, at(100), 1_000), (Some(id(1)), Some(at(103))));
        assert_eq!(first_due(&later[..1], &all, at(90), 4_000), (None, Some(at(95))));
    }
}
