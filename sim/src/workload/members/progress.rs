//! What the members of one group share: how far it is, and how partitions are divided.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use io_backend::Backend;

use super::super::client::Client;
use crate::history::{Place, wire_name};

/// One for each group.
#[derive(Clone)]
pub struct GroupProgress {
    pub(super) group: Arc<str>,
    /// What was acknowledged of it, by place of the field.
    committed: Arc<Mutex<Vec<i64>>>,
}

impl GroupProgress {
    pub fn new(group: &str, places: usize) -> GroupProgress {
        GroupProgress { group: group.into(), committed: Arc::new(Mutex::new(vec![0; places])) }
    }

    fn all(&self) -> Vec<i64> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These were acknowledged.
    pub(super) fn committed(&self, places: &[Place], offsets: &[(Place, i64)]) {
        let mut committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, offset) in offsets {
            if let Some(index) = places.iter().position(|one| one == place) {
                committed[index] = committed[index].max(*offset);
            }
        }
    }

    /// All that was acknowledged to producers has been read, and that was committed.
    pub(super) fn has_all<B: Backend>(&self, client: &Client<B>) -> bool {
        client.field.owed.is_seen(&self.all())
    }

    /// The last word of a member: where the group is.
    pub(super) fn end<B: Backend>(&self, client: &Client<B>) {
        let has_all = self.has_all(client);
        let ends = client.field.places.iter().cloned().zip(self.all());
        let ends = ends.map(|(place, offset)| (self.group.clone(), place, offset, has_all));
        client.field.notes.write().groups.ends.extend(ends);
    }
}

/// Names of the topics of these.
pub(super) fn topics(places: &[Place]) -> Vec<String> {
    let mut topics: Vec<String> = places.iter().map(|place| wire_name(&place.topic).to_owned()).collect();
    topics.dedup();
    topics
}

/// Who gets what: one after the other, in the order of the members' ids.
pub(super) fn assign(places: &[Place], members: &[String]) -> BTreeMap<String, Vec<Place>> {
    let mut members = members.to_vec();
    members.sort();
    let mut assigned: BTreeMap<String, Vec<Place>> =
        members.iter().map(|member| (member.clone(), Vec::new())).collect();
    for (place, member) in places.iter().zip(members.iter().cycle()) {
        if let Some(places) = assigned.get_mut(member) {
            places.push(place.clone());
        }
    }
    assigned
}

/// The partition that keeps a group, by Java's hash of its name.
pub(super) fn partition_of(group: &str, partitions: i32) -> i32 {
    let hash =
        group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_one_owner() {
        let place = |partition| Place { topic: "t".into(), partition };
        let places: Vec<Place> = (0..5).map(place).collect();
        let assigned = assign(&places, &["b".into(), "a".into()]);
        assert_eq!(assigned["a"], [place(0), place(2), place(4)]);
        assert_eq!(assigned["b"], [place(1), place(3)]);
        assert_eq!(assign(&places, &[]), BTreeMap::new());
    }

    #[test]
    fn a_group_is_kept_where_the_broker_keeps_it() {
        assert_eq!((partition_of("a", 50), partition_of("test-group", 50)), (47, 12));
    }
}
