//! What is known of a run from outside of its world, however it ends: the clients' history, the lives of the nodes'
//! processes, and their disks' own knowledge.
//!
//! A world that stops early takes its main future with it; what stands here is still there to be judged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use broker::metrics::Metrics;

use super::inside::Insides;
use crate::checker::circumstances::{End, Life};
use crate::checker::rest::UnderWay;
use crate::fault::PathClass;
use crate::history::{At, Notes};
use crate::world::{Cause, Device, Ending, JournalFailure, lock};

#[derive(Clone, Default)]
pub(super) struct Witness {
    pub(super) notes: Notes,
    pub(super) lives: Lives,
    /// Of each node's latest process.
    pub(super) metrics: LatestMetrics,
    pub(super) insides: Insides,
    disks: Arc<Mutex<BTreeMap<String, Arc<Device>>>>,
}

impl Witness {
    pub(super) fn sees_disk(&self, node: &str, disk: &Arc<Device>) {
        lock(&self.disks).insert(node.to_owned(), disk.clone());
    }

    /// Of all nodes.
    pub(super) fn disks(&self) -> Vec<Arc<Device>> {
        lock(&self.disks).values().cloned().collect()
    }

    /// What failed on the files of journals, by node.
    pub(super) fn journal_failures(&self) -> Failures {
        let disks = lock(&self.disks);
        disks.iter().map(|(node, disk)| (node.clone(), disk.journal_failures())).collect()
    }
}

/// What failed on the files of journals, by node.
pub(super) type Failures = BTreeMap<String, Vec<JournalFailure>>;

/// What the process of a node that began last counts, seen without asking it; nothing while it starts.
#[derive(Clone, Default)]
pub(super) struct LatestMetrics(Arc<Mutex<BTreeMap<String, Arc<Metrics>>>>);

impl LatestMetrics {
    /// The process whose they were has ended.
    pub(super) fn forget(&self, node: &str) {
        lock(&self.0).remove(node);
    }

    pub(super) fn are(&self, node: &str, metrics: Arc<Metrics>) {
        lock(&self.0).insert(node.to_owned(), metrics);
    }

    pub(super) fn under_way(&self, node: &str) -> UnderWay {
        let metrics = lock(&self.0);
        let Some(metrics) = metrics.get(node) else { return UnderWay::default() };
        UnderWay {
            requests: metrics.requests_in_flight.get(),
            request_bytes: metrics.request_bytes.get(),
            waiting_bytes: metrics.waiting_bytes.get(),
            opening_bytes: metrics.opening_bytes.get(),
            answer_bytes: metrics.answer_bytes.get(),
            appends: metrics.produce_partition_concurrency.get(),
            journal_entries: metrics.wal_queue_depth.get(),
            proposal_bytes: metrics.raft_proposal_bytes.get(),
        }
    }
}

/// One entry for each process of a node, written by its program and by whoever watches it.
#[derive(Clone, Default)]
pub(super) struct Lives(Arc<Mutex<Vec<Life>>>);

impl Lives {
    pub(super) fn began(&self, node: &str, incarnation: u64, at: At) {
        lock(&self.0).push(Life { node: node.to_owned(), incarnation, began: at, ..Life::default() });
    }

    pub(super) fn note(&self, node: &str, incarnation: u64, note: impl FnOnce(&mut Life)) {
        let mut lives = lock(&self.0);
        if let Some(life) = lives.iter_mut().find(|life| life.node == node && life.incarnation == incarnation)
        {
            note(life);
        }
    }

    /// Whether clients have been able to connect to any of its processes.
    pub(super) fn is_serving(&self, node: &str) -> bool {
        lock(&self.0).iter().any(|life| life.node == node && life.serving.is_some())
    }

    /// All of them, with how they ended and what failed under them.
    pub(super) fn with_ends(&self, endings: &[Ending], failures: &Failures) -> Vec<Life> {
        let mut lives = lock(&self.0).clone();
        for ending in endings {
            let of_it =
                |life: &&mut Life| life.node == ending.machine && life.incarnation == ending.incarnation;
            if let Some(life) = lives.iter_mut().find(of_it) {
                let end = match &ending.cause {
                    Cause::Killed => End::Killed,
                    Cause::PowerLost => End::PowerLost,
                    Cause::Exited(status, why) => End::Exited(*status as i32, why.clone()),
                };
                life.end = Some((ending.at, end));
            }
        }
        for life in &mut lives {
            let ended = life.end.as_ref().map_or(At::MAX, |(at, _)| *at);
            let of_node = failures.get(&life.node).into_iter().flatten();
            for failure in of_node.filter(|failure| (life.began..=ended).contains(&failure.at)) {
                let of_life = &mut life.journal_failures;
                match (failure.class, failure.opens) {
                    (PathClass::Raft, _) => of_life.raft += 1,
                    (_, false) => of_life.contents = of_life.contents.max(failure.in_a_row),
                    (_, true) => of_life.opens += 1,
                }
            }
        }
        lives
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::circumstances::JournalFailures;
    use io_backend::ExitStatus;

    #[test]
    fn every_process_has_a_life_and_an_end_of_its_own() {
        let lives = Lives::default();
        lives.began("node1", 1, 0);
        lives.began("node1", 2, 60);
        lives.note("node1", 1, |life| life.stopped = Some(50));
        let ending = |incarnation, at, cause| Ending { machine: "node1".into(), incarnation, at, cause };
        let ends = [
            ending(1, 51, Cause::Exited(ExitStatus::Clean, "returned".into())),
            ending(2, 90, Cause::PowerLost),
        ];
        let failed = |at, class, opens, in_a_row| JournalFailure { at, class, opens, in_a_row };
        let failures = vec![
            failed(49, PathClass::Journal, false, 1),
            failed(50, PathClass::Journal, false, 2),
            failed(51, PathClass::Journal, false, 1),
            failed(55, PathClass::Raft, false, 0),
            failed(70, PathClass::Raft, false, 0),
            failed(71, PathClass::Journal, true, 0),
        ];
        let failures = Failures::from([("node1".to_owned(), failures)]);
        let lives = lives.with_ends(&ends, &failures);
        assert_eq!(lives[0].journal_failures, JournalFailures { raft: 0, contents: 2, opens: 0 });
        assert_eq!(lives[1].journal_failures, JournalFailures { raft: 1, contents: 0, opens: 1 });
        assert_eq!((lives[0].stopped, lives[1].stopped), (Some(50), None));
        assert_eq!(lives[0].end, Some((51, End::Exited(0, "returned".into()))));
        assert_eq!(lives[1].end, Some((90, End::PowerLost)));
    }
}
