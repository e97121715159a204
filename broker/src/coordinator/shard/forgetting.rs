//! What is forgotten: groups that are deleted or that nobody came back to, and how far groups are in what nobody reads any more.

use super::super::offsets::Forgetting;
use super::*;

impl<T> Shard<T> {
    /// Forgets a group and how far it is.
    ///
    /// # Errors
    /// It stays as it is.
    pub fn delete(&mut self, id: &GroupId) -> Result<(), DeleteError> {
        let group = self.groups.get(id).ok_or(DeleteError::NotFound)?;
        if !group.members.is_empty() {
            return Err(DeleteError::NotEmpty);
        }
        let all = group.offsets.iter().map(|(topic, partition, _)| (topic.clone(), partition)).collect();
        self.forget_offsets(id, all);
        self.forget_group(id);
        Ok(())
    }

    /// A topic is no more: nobody is anywhere in it, as far as that was committed by then.
    pub fn handle_topic_deleted(&mut self, topic: &Arc<str>, seen_ms: i64) {
        let of_topic = |group: &Group<T>| -> Vec<_> {
            let is_of_it = |partition: &i32| {
                group
                    .offsets
                    .get(topic, *partition)
                    .is_some_and(|committed| committed.committed_ms <= seen_ms)
            };
            let partitions = group.offsets.of_topic(topic).filter(is_of_it);
            partitions.map(|partition| (topic.clone(), partition)).collect()
        };
        let over: Vec<_> = self.groups.iter().map(|(id, group)| (id.clone(), of_topic(group))).collect();
        for (id, over) in over.into_iter().filter(|(_, over)| !over.is_empty()) {
            self.forget_offsets(&id, over);
        }
    }

    /// Topics that are none of these are no more.
    pub fn handle_topics_deleted(&mut self, image: &MetadataImage) {
        let all = self.groups.values().flat_map(|group| group.offsets.iter().map(|(topic, ..)| topic));
        let gone: BTreeSet<_> =
            all.filter(|topic| !image.topics.contains_key(topic.as_ref())).cloned().collect();
        for topic in gone {
            self.handle_topic_deleted(&topic, i64::MAX);
        }
    }

    /// Forgets what nobody can want any more: offsets kept for longer than `retention_ms`, and groups of which nothing is left.
    pub fn forget(&mut self, retention_ms: i64, now: Now) {
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            let Some(group) = self.groups.get(&id) else { continue };
            let over = group.offsets.forgettable(&forgetting(&group.members), retention_ms, now.wall_ms);
            self.forget_offsets(&id, over);
            let is_over = |group: &Group<T>| group.members.is_empty() && group.offsets.is_empty();
            if self.groups.get(&id).is_some_and(is_over) {
                self.forget_group(&id);
            }
        }
    }

    pub(super) fn forget_offsets(&mut self, id: &GroupId, offsets: Vec<(Arc<str>, i32)>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        for (topic, partition) in offsets {
            group.offsets.set(&topic, partition, None);
            let group = id.clone();
            self.effects.records.push(CoordinatorRecord::Offset { group, topic, partition, committed: None });
        }
    }

    pub(super) fn forget_group(&mut self, id: &GroupId) {
        let Some(group) = self.groups.remove(id) else { return };
        if let Some(due) = group.due {
            self.timers.remove(&(due, id.clone()));
        }
        if group.is_kept {
            self.effects.records.extend(group.members.tombstones(id));
        }
    }
}

impl<T> Members<T> {
    /// All that is kept of a group is no more: what is left of it would be, once the topic is cleaned.
    pub(super) fn tombstones(&self, id: &GroupId) -> Vec<CoordinatorRecord> {
        match self {
            Members::Classic(_) => vec![CoordinatorRecord::Group { group: id.clone(), stored: None }],
            Members::Consumer(group) => {
                let tombstones = group.all().into_iter().map(|changed| changed.tombstone());
                tombstones.map(|record| CoordinatorRecord::Consumer(id.clone(), record)).collect()
            }
        }
    }
}

/// Offsets of who has members are wanted, but for topics that these do not read; those of a group that nobody is in are wanted for as
/// long as somebody may come back.
fn forgetting<T>(members: &Members<T>) -> Forgetting {
    let group = match members {
        Members::Classic(group) => group,
        Members::Consumer(group) => {
            return group.subscribed_names().map_or(Forgetting::Nothing, |but| Forgetting::ByCommit { but });
        }
    };
    match (group.protocol_type(), group.is_empty(), group.subscribed_topics()) {
        (None, _, _) => Forgetting::ByCommit { but: Vec::new() },
        (Some(_), true, _) => Forgetting::SinceEmpty { since_ms: group.since_ms() },
        (Some(_), false, Some(topics)) => Forgetting::ByCommit { but: topics },
        (Some(_), false, None) => Forgetting::Nothing,
    }
}
