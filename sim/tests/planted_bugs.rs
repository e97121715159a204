//! Each planted bug is caught on at least 80 % of seeds that nobody chose, by the checker that is there for it, in the
//! scenario that ours passes.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sim::planted::{
    BUGS, DELETIONS, DELETIONS_ON_REPLICAS, Defect, OF_CLEANING, OF_CLEANING_FOR_THE_ABSENT,
    OF_FETCH_SESSIONS, OF_GROUPS, OF_MEMBERS, OF_METADATA, OF_SESSIONS, OF_STARTS_IN_FETCH_SESSIONS,
    OF_THE_ISR, REPLICATION, RETENTION,
};
use sim::run::{Choice, Order, run};
use sim::scenario::ScenarioDir;

const SEEDS: u64 = 5;

/// Which checkers a bug is to be caught by: any of them, on each seed that counts.
fn checkers(bug: &str) -> &'static [&'static str] {
    match bug {
        "ack-before-sync" | "sync-skipped" | "unsynced-reported" => &["ack-before-sync"],
        // What was cut is back, in the way of what took its place, or beside it.
        "truncation-skipped" => {
            &["inconsistent-offset", "lost-write", "duplicate", "replicas-differ", "not-converged"]
        }
        "maximum-reported" => &["ack-before-sync", "in-sync"],
        "isr-unversioned" => &["in-sync"],
        "stale-leader-serves" => &["stale-leader"],
        // It is acknowledged before anybody has looked whose it is, too.
        "commit-before-durable" => &["wrong-group-position", "two-owners"],
        "generation-unchecked" => &["two-owners", "wrong-group-position"],
        "tombstone-dropped-early" | "last-value-dropped" | "deleted-value-back" => &["compacted-lost"],
        // Who comes back has what was deleted; readers see it where it leads.
        "lacked-tombstone-dropped" => &["compacted-lost", "replicas-differ"],
        // What is not there any more, or is no log.
        "cleaning-not-durable" => &["compacted-lost", "unreadable", "error-without-cause", "replicas-differ"],
        "expired-member-owns" => &["group-behind", "assigned-when-clear"],
        "member-epoch-unchecked" => &["two-owners", "wrong-group-position"],
        // It was heard of in time, and is told that it is no member.
        "revocation-not-awaited" => &["error-without-cause", "two-owners"],
        "vote-not-synced" => &["lost-topic", "images-differ", "two-leaders"],
        // What is believed is not what was sent, or no batch at all.
        "crc-unchecked" => &["foreign-record", "unreadable", "crash", "duplicate", "inconsistent-offset"],
        "last-group-dropped" => &["lost-write"],
        "directory-not-synced" => &["ack-before-sync"],
        "configs-misread" => &["lost-config"],
        "producer-state-lost" => &["duplicate", "producer-state", "error-without-cause"],
        // Files are gone, and the record that a start goes by needs them; or nothing was gone yet, and all is back.
        "log-start-not-durable" | "log-start-forgotten" => {
            &["log-start-back", "unreadable", "error-without-cause"]
        }
        // Who asks again is answered at once, and is told nothing: nor that more is committed.
        "news-left-out" => &["unseen", "livelock", "high-watermark-back"],
        "start-left-out" | "deletion-told-early" => &["log-start-back"],
        "expired-too-early" => &["deleted-too-early"],
        "expired-too-late" => &["kept-too-long"],
        other => panic!("{other} has no checker that is there for it"),
    }
}

#[test]
fn planted_bugs_are_caught_by_their_checkers_and_the_same_seeds_are_clean_without_them() {
    caught_in("safety/power-loss", &BUGS);
}

#[test]
fn those_between_nodes_are_caught_where_all_of_them_lose_power() {
    caught_in("safety/cluster-loses-power", &REPLICATION);
}

#[test]
fn those_of_the_isr_are_caught_where_followers_are_behind_and_come_back() {
    caught_in("safety/unequal-followers", &OF_THE_ISR);
}

#[test]
fn those_of_sessions_are_caught_where_nodes_are_cut_off_and_not_from_their_clients() {
    caught_in("safety/partitions", &OF_SESSIONS);
}

#[test]
fn those_of_groups_are_caught_where_members_come_and_go() {
    caught_in("safety/groups", &OF_GROUPS);
}

#[test]
fn those_of_members_are_caught_where_they_have_time_to_miss_one_another() {
    caught_in("liveness/groups", &OF_MEMBERS);
}

#[test]
fn those_of_cleaning_are_caught_where_a_topic_is_compacted() {
    caught_in("safety/compaction", &OF_CLEANING);
}

#[test]
fn those_of_cleaning_for_the_absent_are_caught_where_nodes_are_away_for_long() {
    caught_in("safety/absent-replicas", &OF_CLEANING_FOR_THE_ABSENT);
}

#[test]
fn those_of_fetch_sessions_are_caught_where_consumers_have_some() {
    caught_in("safety/fetch-sessions", &OF_FETCH_SESSIONS);
}

#[test]
fn those_of_metadata_are_caught_where_metadata_changes() {
    caught_in("safety/configurations", &OF_METADATA);
}

#[test]
fn those_of_deletions_are_caught_where_records_are_deleted() {
    caught_in("safety/retention", &DELETIONS);
}

#[test]
fn those_of_deletions_on_replicas_are_caught_where_leaders_come_and_go() {
    caught_in("safety/deletions", &DELETIONS_ON_REPLICAS);
}

#[test]
fn those_of_starts_in_fetch_sessions_are_caught_where_records_are_deleted() {
    caught_in("safety/retention", &OF_STARTS_IN_FETCH_SESSIONS);
}

#[test]
fn those_of_retention_are_caught_where_nothing_else_deletes() {
    caught_in("liveness/retention", &RETENTION);
}

fn caught_in(scenario: &str, bugs: &[Defect]) {
    let scenario = ScenarioDir::find().unwrap().load(scenario).unwrap();
    let choices = bugs.iter().map(|bug| Choice::Part(bug.name.to_owned())).chain([Choice::Production]);
    let orders: Vec<Order> = choices
        .flat_map(|choice| (101..=100 + SEEDS).map(move |seed| (choice.clone(), seed)))
        .map(|(choice, seed)| Order { choice, ..Order::new(scenario.clone(), seed) })
        .collect();
    let found = Mutex::new(vec![BTreeSet::new(); orders.len()]);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(order) = orders.get(index) else { return };
                    let violations = run(order).violations;
                    let checkers: BTreeSet<String> =
                        violations.into_iter().map(|found| found.checker).collect();
                    found.lock().unwrap()[index] = checkers;
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    let of = |choice: Choice| {
        orders
            .iter()
            .zip(&found)
            .filter(move |(order, _)| order.choice == choice)
            .map(|(order, found)| (order.seed, found))
    };
    for (seed, found) in of(Choice::Production) {
        assert!(found.is_empty(), "our code fails on seed {seed}: {found:?}");
    }
    for bug in bugs {
        let wanted = checkers(bug.name);
        let caught = |found: &BTreeSet<String>| wanted.iter().any(|checker| found.contains(*checker));
        let seen: Vec<(u64, &BTreeSet<String>)> = of(Choice::Part(bug.name.to_owned())).collect();
        let count = seen.iter().filter(|(_, found)| caught(found)).count() as u64;
        assert!(
            count * 10 >= SEEDS * 8,
            "{} is caught by {wanted:?} on {count} seeds only: {seen:?}",
            bug.name
        );
    }
}
