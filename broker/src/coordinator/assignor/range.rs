//! Ranges of each topic's partitions, in the order of the members' names.

use std::collections::BTreeMap;

use super::super::ids::MemberId;
use super::spec::{Assignment, GroupSpec};

pub(super) fn assign(group: &GroupSpec) -> BTreeMap<MemberId, Assignment> {
    let mut assigned: BTreeMap<MemberId, Assignment> =
        group.members.keys().map(|id| (id.clone(), Assignment::new())).collect();
    for (topic, partitions) in &group.topics {
        let mut readers: Vec<_> = group.subscribers(*topic).collect();
        // A static member keeps its range when its process is another one.
        readers
            .sort_by_key(|(id, member)| (member.instance.is_none(), member.instance.clone(), (*id).clone()));
        let Ok(count) = i32::try_from(readers.len()) else { continue };
        if count == 0 {
            continue;
        }
        let (each, with_one_more) = (partitions / count, partitions % count);
        let mut next = 0;
        for (nth, (id, _)) in (0..).zip(readers) {
            let end = next + each + i32::from(nth < with_one_more);
            if next < end {
                assigned.entry(id.clone()).or_default().insert(*topic, (next..end).collect());
            }
            next = end;
        }
    }
    assigned
}
