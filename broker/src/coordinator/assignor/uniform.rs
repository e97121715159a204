//! As many partitions for each member as for any other, and as few moves as that takes.
//!
//! Each member keeps what it has and may have; what nobody has goes to whoever has least; then partitions move from those that have more
//! to those that have at least two fewer, until there are none. Members may read different topics: then a partition moves among those
//! that read its topic, and each has at most one more than any other that could have one of its partitions.

use std::collections::{BTreeMap, BTreeSet};

use super::super::ids::MemberId;
use super::spec::{Assignment, GroupSpec};
use crate::ids::TopicId;

/// Members by number, in the order of their ids.
type Nth = usize;

/// Members that read the same topics, by how much they have.
#[derive(Default)]
struct Readers {
    by_load: BTreeSet<(usize, Nth)>,
}

struct Loads {
    load: Vec<usize>,
    /// One for each set of topics' readers that there is.
    readers: Vec<Readers>,
    /// In which of them a member is.
    of_member: Vec<Vec<usize>>,
}

impl Loads {
    fn change(&mut self, member: Nth, by: impl FnOnce(usize) -> usize) {
        let before = self.load[member];
        let after = by(before);
        self.load[member] = after;
        for readers in &self.of_member[member] {
            let by_load = &mut self.readers[*readers].by_load;
            by_load.remove(&(before, member));
            by_load.insert((after, member));
        }
    }

    fn least(&self, readers: usize) -> Option<(usize, Nth)> {
        self.readers[readers].by_load.first().copied()
    }
}

pub(super) fn assign(group: &GroupSpec) -> BTreeMap<MemberId, Assignment> {
    let members: Vec<_> = group.members.iter().collect();
    let mut loads = Loads {
        load: vec![0; members.len()],
        readers: Vec::new(),
        of_member: vec![Vec::new(); members.len()],
    };
    // Most groups have one set of readers: all read the same.
    let mut sets = BTreeMap::<Vec<Nth>, usize>::new();
    let mut topics = BTreeMap::<TopicId, usize>::new();
    for topic in group.topics.keys() {
        let readers: Vec<Nth> = (0..)
            .zip(&members)
            .filter(|(_, (_, member))| member.subscribed.contains(topic))
            .map(|(nth, _)| nth)
            .collect();
        let number = *sets.entry(readers).or_insert_with_key(|readers| {
            let number = loads.readers.len();
            readers.iter().for_each(|nth| loads.of_member[*nth].push(number));
            let by_load = readers.iter().map(|nth| (0, *nth)).collect();
            loads.readers.push(Readers { by_load });
            number
        });
        topics.insert(*topic, number);
    }

    let mut owners = BTreeMap::<(TopicId, i32), Nth>::new();
    for (nth, (_, member)) in (0..).zip(&members) {
        for (topic, partitions) in &member.assigned {
            let Some(count) = group.topics.get(topic).filter(|_| member.subscribed.contains(topic)) else {
                continue;
            };
            for partition in partitions.iter().filter(|partition| (0..*count).contains(*partition)) {
                owners.entry((*topic, *partition)).or_insert_with(|| {
                    loads.change(nth, |load| load + 1);
                    nth
                });
            }
        }
    }
    for (topic, readers) in &topics {
        for partition in 0..group.topics[topic] {
            if owners.contains_key(&(*topic, partition)) {
                continue;
            }
            if let Some((_, nth)) = loads.least(*readers) {
                loads.change(nth, |load| load + 1);
                owners.insert((*topic, partition), nth);
            }
        }
    }
    while balance(&topics, &mut owners, &mut loads) {}

    let mut assigned: BTreeMap<MemberId, Assignment> =
        group.members.keys().map(|id| (id.clone(), Assignment::new())).collect();
    for ((topic, partition), nth) in owners {
        let of_member = assigned.entry(members[nth].0.clone()).or_default();
        of_member.entry(topic).or_default().insert(partition);
    }
    assigned
}

/// Moves what makes members more equal; false where nothing does. Each move makes the sum of the squares of what they have smaller, so
/// there is an end.
fn balance(
    topics: &BTreeMap<TopicId, usize>,
    owners: &mut BTreeMap<(TopicId, i32), Nth>,
    loads: &mut Loads,
) -> bool {
    let mut moved = false;
    // From the last: who keeps something keeps what comes first.
    for ((topic, _), owner) in owners.iter_mut().rev() {
        let Some((least, nth)) = topics.get(topic).and_then(|readers| loads.least(*readers)) else {
            continue;
        };
        if loads.load[*owner] > least + 1 {
            loads.change(*owner, |load| load - 1);
            loads.change(nth, |load| load + 1);
            *owner = nth;
            moved = true;
        }
    }
    moved
}
