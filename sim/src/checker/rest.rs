//! Back to idle: what a load took, a node gives back when the load is over.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::Findings;
use crate::world::ProcessCounts;

/// A node's process before clients came and after they had gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rest {
    pub before: ProcessCounts,
    pub after: ProcessCounts,
    /// Of each role, by then and now.
    pub tasks_before: BTreeMap<&'static str, u64>,
    pub tasks_after: BTreeMap<&'static str, u64>,
    /// What the node itself counts as under way after they had gone.
    pub under_way: UnderWay,
    /// What the load has made and what stays.
    pub partitions: u64,
    pub coordinators: u64,
    pub files: u64,
    /// Bytes that the journal's batches and the tails not yet checkpointed may still keep, by the node's config.
    pub tails: u64,
    /// Connections may have ended without either side being told.
    pub silenced: bool,
}

impl Rest {
    /// Of which roles there are more: `: 15 more flush, 2 more pusher`.
    fn new_tasks(&self) -> String {
        let before = |role| self.tasks_before.get(role).copied().unwrap_or(0);
        let more: Vec<String> = self
            .tasks_after
            .iter()
            .filter(|(role, after)| **after > before(**role))
            .map(|(role, after)| format!("{} more {role}", after - before(*role)))
            .collect();
        if more.is_empty() { String::new() } else { format!(": {}", more.join(", ")) }
    }
}

/// A node's own gauges of what is taken and given back.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnderWay {
    pub requests: i64,
    pub request_bytes: i64,
    pub waiting_bytes: i64,
    pub opening_bytes: i64,
    pub answer_bytes: i64,
    pub appends: i64,
    pub journal_entries: i64,
    pub proposal_bytes: i64,
}

impl UnderWay {
    /// What a connection can hold for as long as it lives.
    fn of_connections(&self) -> [(&'static str, i64); 6] {
        [
            // Decided, and not asked about while an answer before it is not taken.
            ("appends", self.appends),
            ("requests", self.requests),
            ("bytes of requests", self.request_bytes),
            ("bytes of requests that wait", self.waiting_bytes),
            ("bytes of batches that are opened", self.opening_bytes),
            ("bytes of answers", self.answer_bytes),
        ]
    }

    fn of_partitions(&self) -> [(&'static str, i64); 2] {
        [("journal entries", self.journal_entries), ("bytes of metadata proposals", self.proposal_bytes)]
    }
}

/// Beside what the log's tails keep: allocators round up, and tables that have grown do not shrink.
const MEMORY_SHARE: f64 = 1.25;
const MEMORY_MORE: u64 = 2 << 20;
/// The tail, the producer states and the indexes of a partition; what a coordinator keeps of its groups.
const MEMORY_OF_PARTITION: u64 = 512 << 10;
const DESCRIPTORS_MORE: u64 = 8;
/// The owner, and a checkpoint that has just begun.
const TASKS_OF_PARTITION: u64 = 1;
const TASKS_MORE: u64 = 2;

pub fn back_to_idle(rest: &Rest) -> Vec<Violation> {
    let mut findings = Findings::of("back-to-idle", Verdict::Budget);
    let Rest { before, after, .. } = rest;
    let memory = (before.memory as f64 * MEMORY_SHARE) as u64
        + MEMORY_MORE
        + (rest.partitions + rest.coordinators) * MEMORY_OF_PARTITION
        + rest.tails;
    let mut checks = vec![("bytes of memory", before.memory, after.memory, memory)];
    if !rest.silenced {
        checks.extend([
            ("sockets", before.sockets, after.sockets, before.sockets),
            (
                "descriptors",
                before.descriptors,
                after.descriptors,
                before.descriptors + rest.files + DESCRIPTORS_MORE,
            ),
            (
                "tasks",
                before.tasks,
                after.tasks,
                before.tasks + rest.partitions * TASKS_OF_PARTITION + rest.coordinators + TASKS_MORE,
            ),
        ]);
    }
    for (what, before, after, allowed) in checks {
        if after > allowed {
            let roles = if what == "tasks" { rest.new_tasks() } else { String::new() };
            findings.add(format!(
                "the node had {before} {what} before its clients came and {after} after they had gone; {allowed} can be explained{roles}"
            ));
        }
    }
    let mut under_way = rest.under_way.of_partitions().to_vec();
    if !rest.silenced {
        under_way.extend(rest.under_way.of_connections());
    }
    for (what, amount) in under_way.into_iter().filter(|(_, amount)| *amount != 0) {
        findings.add(format!("the node counts {amount} {what} as under way after its clients had gone"));
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: ProcessCounts = ProcessCounts {
        polls: 0,
        wakes: 0,
        tasks: 10,
        memory: 8 << 20,
        memory_peak: 0,
        descriptors: 12,
        sockets: 2,
        sockets_peak: 0,
    };

    fn found(after: ProcessCounts) -> Vec<String> {
        let rest = Rest { before: BEFORE, after, partitions: 4, files: 20, ..Rest::default() };
        back_to_idle(&rest).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn what_the_load_made_may_stay() {
        let grown = ProcessCounts { tasks: 14, memory: 13 << 20, descriptors: 30, ..BEFORE };
        assert_eq!(found(grown), Vec::<String>::new());
    }

    #[test]
    fn what_it_only_took_may_not() {
        for (after, what) in [
            (ProcessCounts { sockets: 3, ..BEFORE }, "sockets"),
            (ProcessCounts { tasks: 17, ..BEFORE }, "tasks"),
            (ProcessCounts { memory: 64 << 20, ..BEFORE }, "memory"),
            (ProcessCounts { descriptors: 99, ..BEFORE }, "descriptors"),
        ] {
            assert!(found(after)[0].contains(what), "{what}");
        }
    }

    #[test]
    fn the_roles_of_which_there_are_more_are_named() {
        let rest = Rest {
            before: BEFORE,
            after: ProcessCounts { tasks: 19, ..BEFORE },
            tasks_before: BTreeMap::from([("connection", 2), ("fetcher", 8)]),
            tasks_after: BTreeMap::from([("connection", 9), ("fetcher", 8), ("partition", 2)]),
            partitions: 2,
            coordinators: 3,
            ..Rest::default()
        };
        let found: Vec<String> = back_to_idle(&rest).into_iter().map(|violation| violation.what).collect();
        assert_eq!(
            found,
            [
                "the node had 10 tasks before its clients came and 19 after they had gone; 17 can be explained: \
                 7 more connection, 2 more partition"
            ]
        );
        let coordinators = Rest { after: ProcessCounts { tasks: 17, ..BEFORE }, ..rest };
        assert_eq!(back_to_idle(&coordinators), []);
    }

    #[test]
    fn a_connection_that_ended_in_silence_is_not_known_to_have_ended() {
        let after = ProcessCounts { sockets: 3, tasks: 20, ..BEFORE };
        let under_way = UnderWay { answer_bytes: 9, ..UnderWay::default() };
        let rest = Rest { before: BEFORE, after, under_way, silenced: true, ..Rest::default() };
        assert_eq!(back_to_idle(&rest), []);
    }

    #[test]
    fn what_the_node_counts_as_under_way_has_ended() {
        for (under_way, silenced) in [
            (UnderWay { proposal_bytes: 80, ..UnderWay::default() }, true),
            (UnderWay { proposal_bytes: -80, ..UnderWay::default() }, true),
            (UnderWay { answer_bytes: 80, ..UnderWay::default() }, false),
        ] {
            let rest = Rest { before: BEFORE, after: BEFORE, under_way, silenced, ..Rest::default() };
            let found = back_to_idle(&rest);
            assert!(found.len() == 1 && found[0].what.contains("80 bytes of"), "{found:?}");
        }
    }
}
