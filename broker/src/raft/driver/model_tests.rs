//! A group in a storm: seeded, each step one thing that may happen to it. What must hold is asserted where it shows
//! (`group.rs`): one leader in a term, one vote, and the same entry at the same index for all who apply it.

use std::collections::BTreeSet;

use raft::eraftpb::EntryType;

use super::group::{Group, with_group};
use super::*;
use crate::raft::MemberChange;
use crate::raft::memory_journal::MemoryJournal;

const STEPS: usize = 3_000;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// What was seen over all seeds: a storm in which nothing happens shows nothing.
#[derive(Default)]
struct Seen {
    terms: u64,
    torn: usize,
    restarts: usize,
    snapshots: usize,
    changes: usize,
    decided: usize,
    wiped: usize,
}

fn storm(seed: u64, seen: &mut Seen) {
    with_group(async |mut group| {
        let mut draws = Draws(seed);
        group.submission_max = draws.of(&[3, 8, 1_000]);
        group.file_entries = draws.of(&[1, 4, 64, 1_000]);
        group.snapshot_every_entries = draws.of(&[4, 12, 1_000_000]);
        let founders: &[u64] = if draws.below(3) == 0 { &[1, 2, 3, 4, 5] } else { &[1, 2, 3] };
        let begins_alone = draws.below(4) == 0;
        if begins_alone {
            group.start(1, Begin::Alone, MemoryJournal::new());
        } else {
            group.found(founders);
        }
        for id in 1..=5 {
            if !group.nodes.contains_key(&id) {
                group.start(id, Begin::Join, MemoryJournal::new());
            }
        }
        let mut wiped = false;
        for number in 0..STEPS {
            one_step(&mut group, &mut draws, number, &mut wiped, seen);
        }
        heal(&mut group);
        seen.wiped += usize::from(wiped);
        seen.terms += group.nodes.values().map(|node| node.driver.raft.raft.term).max().unwrap();
        let leader = group.leader().unwrap();
        seen.decided += group.words(leader).len();
    });
}

fn one_step(group: &mut Group, draws: &mut Draws, number: usize, wiped: &mut bool, seen: &mut Seen) {
    let id = draws.of(&group.ids());
    match draws.below(1_000) {
        0..480 => {
            let waiting = group.on_the_wire().len();
            if waiting == 0 {
                return;
            }
            // Mostly in order, for a storm in which no append finds its place decides nothing.
            let at = if draws.below(4) == 0 { draws.below(waiting) } else { 0 };
            let message = group.take(at);
            match draws.below(20) {
                0 => group.lose(message),
                1 => {
                    group.put_back(message.clone());
                    group.deliver(message);
                }
                _ => group.deliver(message),
            }
        }
        480..640 => {
            let patience = 10 + draws.below(10);
            group.tick(id, patience);
        }
        640..700 => {
            // A member loses its patience: elections are rare otherwise, and torn ones rarer.
            for _ in 0..draws.below(20) {
                group.tick(id, 10);
            }
        }
        700..880 => {
            let in_flight = group.nodes[&id].journal.entries_in_flight();
            let part =
                if draws.below(3) == 0 { draws.below(in_flight as usize + 1) as u64 } else { in_flight };
            seen.torn += usize::from(part < in_flight);
            group.node(id).journal.sync_entries(part);
            group.step(id);
        }
        880..950 => {
            if let Some(leader) = group.leader() {
                drop(group.propose(leader, &format!("{number}")));
            }
        }
        950..965 => {
            seen.snapshots +=
                usize::from(group.driver(id).raft.store().snapshot.get_metadata().index > FOUNDED);
            seen.restarts += 1;
            group.restart(id);
        }
        965..975 => {
            group.cut.clear();
            match draws.below(3) {
                0 => group.isolate(id),
                1 => {
                    let other = draws.of(&group.ids());
                    group.cut.insert((id, other));
                }
                _ => {}
            }
        }
        975..978 => {
            let may = draws.below(3) > 0;
            group.tell(id, GroupInput::MayVote(may));
        }
        978..990 => {
            if let Some(leader) = group.leader() {
                let change = draws.of(&[
                    MemberChange::AddLearner(id),
                    MemberChange::AddVoter(id),
                    MemberChange::AddVoter(id),
                    MemberChange::Remove(id),
                ]);
                let voters = group.driver(leader).raft.store().conf.voters.clone();
                // An empty voter is one that is down: no other is removed before it.
                let empty = voters.iter().copied().find(|voter| is_empty(group, *voter));
                let removes = matches!(change, MemberChange::Remove(_));
                if !removes || (voters.len() > 2 && empty.is_none_or(|empty| empty == id)) {
                    seen.changes += 1;
                    drop(group.change(leader, change));
                }
            }
        }
        990..993 => {
            // One machine is replaced by an empty one, at most: what two of three had synced would be gone.
            let several = group.nodes.values().all(|node| {
                let (store, applied) = (node.driver.raft.store(), node.driver.applied);
                let decided = store
                    .entries
                    .iter()
                    .all(|entry| entry.index <= applied || entry.get_entry_type() == EntryType::EntryNormal);
                decided && !matches!(store.conf.voters.len(), 1 | 2)
            });
            if !*wiped && several && group.leader().is_some() && group.driver(id).raft.raft.term > 4 {
                *wiped = true;
                group.nodes.remove(&id);
                group.lose_messages_of(id);
                group.start(id, Begin::Join, MemoryJournal::new());
            }
        }
        _ => {}
    }
}

/// Disks and network work again, and what is wiped comes back as a learner: all of them get everything.
fn heal(group: &mut Group) {
    group.cut.clear();
    for id in group.ids() {
        group.tell(id, GroupInput::MayVote(true));
    }
    for round in 0..40 {
        group.settle();
        group.pass(10, 1 + round % 5);
        let Some(leader) = group.leader() else { continue };
        drop(group.propose(leader, &format!("healed {round}")));
        group.pass(2, leader);
        let conf = group.driver(leader).raft.store().conf.clone();
        let members: BTreeSet<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
        if let Some(voter) = conf.voters.iter().copied().find(|id| is_empty(group, *id)) {
            drop(group.change(leader, MemberChange::Remove(voter)));
            continue;
        }
        let words = group.words(leader);
        if members.iter().all(|id| group.words(*id) == words) {
            return;
        }
    }
    let state: Vec<String> = group
        .nodes
        .iter()
        .map(|(id, node)| {
            let raft = &node.driver.raft.raft;
            format!(
                "{id}: {:?} term {} last {} committed {} applied {} conf {:?}",
                raft.state,
                raft.term,
                raft.raft_log.last_index(),
                raft.raft_log.committed,
                node.driver.applied,
                node.driver.raft.store().conf
            )
        })
        .collect();
    panic!("they do not come to an agreement:\n{}", state.join("\n"));
}

fn is_empty(group: &mut Group, id: u64) -> bool {
    !group.driver(id).raft.store().has_group()
}

fn seeds(seeds: std::ops::Range<u64>) {
    let mut seen = Seen::default();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| storm(seed, &mut seen)));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
    let Seen { terms, torn, restarts, snapshots, changes, decided, wiped } = seen;
    eprintln!(
        "{terms} terms, {torn} torn syncs, {restarts} restarts, {snapshots} of them with a snapshot, {changes} changes of \
         members, {decided} words decided, {wiped} journals wiped"
    );
    assert!(terms > 100 && torn > 100 && restarts > 100 && snapshots > 20 && changes > 100);
    assert!(decided > 500 && wiped > 2);
}

#[test]
fn a_group_agrees_in_a_storm() {
    seeds(0..30);
}
