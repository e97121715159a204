//! The coordinators of this node, one for each replica of `__consumer_offsets` that is open here, and the way to them.
//!
//! The task `coordinators` owns which there are: it begins and ends them as replicas are opened and closed, and tells them of topics that
//! are deleted. Which of them serves is decided by each alone, from its partition's leadership.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use io_backend::channel::{SendError, channel};
use io_backend::reply::ReplyError;
use io_backend::{Backend, Deadline, Published, Replier, Reply, Sender, TaskHandle, TaskName};

use super::OFFSETS_TOPIC;
use super::driver::Driver;
use super::ids::GroupId;
use super::messages::{Answered, CoordinatorError, CoordinatorInput};
use super::progress::Progress;
use super::settings::GroupSettings;
use crate::ids::PartitionId;
use crate::limits;
use crate::metadata::{MetadataHandle, MetadataImage};
use crate::metrics::Metrics;
use crate::partition::PartitionHandle;
use crate::replicas::Replicas;

/// What a question passes through on its way.
pub type Hear = Arc<dyn Fn(CoordinatorInput) -> CoordinatorInput + Send + Sync>;

/// Cloneable; all clones lead to the same coordinators.
pub struct Coordinators<B: Backend> {
    hear: Hear,
    reached: Published<OrdMap<PartitionId, Reached<B>>>,
}

/// How a coordinator is asked, and looked at.
struct Reached<B: Backend> {
    mailbox: Sender<B, CoordinatorInput>,
    progress: Published<Progress>,
}

impl<B: Backend> Clone for Reached<B> {
    fn clone(&self) -> Self {
        Reached { mailbox: self.mailbox.clone(), progress: self.progress.clone() }
    }
}

impl<B: Backend> Clone for Coordinators<B> {
    fn clone(&self) -> Self {
        Coordinators { hear: self.hear.clone(), reached: self.reached.clone() }
    }
}

impl<B: Backend> Default for Coordinators<B> {
    /// Of a node that coordinates nothing.
    fn default() -> Self {
        Coordinators {
            hear: Arc::new(|input| input),
            reached: Published::new("coordinators of groups", OrdMap::new()),
        }
    }
}

/// The partition of `__consumer_offsets` that keeps a group, as Kafka has it: by Java's hash of the name.
pub fn partition_of(group: &GroupId, partitions: usize) -> Option<i32> {
    let hash =
        group.0.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let partitions = i32::try_from(partitions).ok().filter(|partitions| *partitions > 0)?;
    // Kafka's Utils.abs: the smallest number has no counterpart.
    Some((hash & i32::MAX) % partitions)
}

impl<B: Backend> Coordinators<B> {
    /// Puts a question into the mailbox of who coordinates what this partition keeps: before those of who asks later.
    pub async fn ask<A: Send>(
        &self,
        partition: PartitionId,
        what: &'static str,
        input: impl FnOnce(Replier<Answered<A>>) -> CoordinatorInput,
        deadline: Deadline,
    ) -> Asked<B, A> {
        let reached = self.reached.get();
        let Some(mailbox) = reached.get(&partition).map(|reached| reached.mailbox.clone()) else {
            return Asked::refused(CoordinatorError::NotCoordinator);
        };
        let (replier, reply): (_, Reply<B, Answered<A>>) = mailbox.reply(what);
        match mailbox.send((self.hear)(input(replier)), deadline).await {
            Ok(()) => Asked(Ok(reply)),
            Err(SendError::Closed(_)) => Asked::refused(CoordinatorError::NotCoordinator),
            Err(SendError::Full(_) | SendError::TimedOut(_)) => Asked::refused(CoordinatorError::Loading),
        }
    }

    /// How far the groups are that this node coordinates, as of a moment ago. Nobody is asked.
    pub fn progress(&self) -> Vec<Arc<Progress>> {
        self.reached.get().values().map(|reached| reached.progress.get()).collect()
    }
}

/// A question that was asked.
pub struct Asked<B: Backend, A>(Result<Reply<B, Answered<A>>, CoordinatorError>);

impl<B: Backend, A: Send> Asked<B, A> {
    /// Nobody was asked.
    pub fn refused(why: CoordinatorError) -> Self {
        Asked(Err(why))
    }

    /// The answer.
    ///
    /// # Errors
    /// As the coordinator says; it is there no more, or gives no answer by the deadline.
    pub async fn wait(self, deadline: Deadline) -> Answered<A> {
        match self.0?.wait(deadline).await {
            Ok(answered) => answered,
            Err(ReplyError::Dropped) => Err(CoordinatorError::NotCoordinator),
            Err(ReplyError::TimedOut) => Err(CoordinatorError::NotKept),
        }
    }
}

/// The task `coordinators`.
struct Supervisor<B: Backend> {
    backend: B,
    replicas: Replicas<B>,
    metadata: MetadataHandle<B>,
    settings: Published<GroupSettings>,
    metrics: Arc<Metrics>,
    reached: Published<OrdMap<PartitionId, Reached<B>>>,
    running: BTreeMap<PartitionId, Running<B>>,
}

struct Running<B: Backend> {
    partition: PartitionHandle<B>,
    reached: Reached<B>,
}

/// Begins to coordinate what this node will lead.
pub(crate) fn start<B: Backend>(
    backend: &B,
    replicas: Replicas<B>,
    metadata: MetadataHandle<B>,
    settings: Published<GroupSettings>,
    metrics: Arc<Metrics>,
    hear: Hear,
) -> (Coordinators<B>, TaskHandle) {
    let coordinators = Coordinators { hear, ..Coordinators::default() };
    let supervisor = Supervisor {
        backend: backend.clone(),
        replicas,
        metadata,
        settings,
        metrics,
        reached: coordinators.reached.clone(),
        running: BTreeMap::new(),
    };
    let task = backend.spawn("coordinators", supervisor.run());
    (coordinators, task)
}

impl<B: Backend> Supervisor<B> {
    /// Ends when it is aborted.
    async fn run(mut self) {
        let mut seen = self.metadata.image();
        loop {
            let open = self.replicas.open().get();
            let image = self.metadata.image();
            self.begin_and_end(&image, &open);
            self.tell_of_deleted_topics(&seen, &image);
            seen = image;
            const IDLE: Deadline = Deadline::Unbounded("coordinators come and go with topics and replicas");
            let (changed, replicas) = (seen.clone(), self.replicas.open().clone());
            let opened = replicas.until(&self.backend, IDLE, |now| !now.ptr_eq(&open));
            let applied =
                self.metadata.images().until(&self.backend, IDLE, |now| !now.topics.ptr_eq(&changed.topics));
            let (opened, applied) = (std::pin::pin!(opened), std::pin::pin!(applied));
            futures::future::select(opened, applied).await;
        }
    }

    fn begin_and_end(&mut self, image: &MetadataImage, open: &OrdMap<PartitionId, PartitionHandle<B>>) {
        let before = self.running.len();
        let mut changed = false;
        // Whom nobody can ask any more ends.
        self.running.retain(|id, running| {
            open.get(id).is_some_and(|partition| partition.is_same(&running.partition))
        });
        changed |= self.running.len() != before;
        let topic = image.topics.get(OFFSETS_TOPIC);
        for index in 0..topic.map_or(0, |topic| topic.partitions.len()) {
            let (Some(topic), Ok(index)) = (topic, i32::try_from(index)) else { continue };
            let id = PartitionId { topic: topic.id, index };
            let Some(partition) = open.get(&id).filter(|_| !self.running.contains_key(&id)) else { continue };
            let name = TaskName::of("coordinator", partition.name().clone());
            let (mailbox, questions) = channel(
                &self.backend,
                format!("coordinator[{}]", partition.name()),
                limits::COORDINATOR_MAILBOX,
            );
            let progress = Published::new("how far groups are", Progress::default());
            let driver = Driver::new(
                self.backend.clone(),
                partition.clone(),
                questions,
                self.settings.clone(),
                self.metadata.images().clone(),
                self.metrics.clone(),
                progress.clone(),
            );
            self.backend.spawn(name, driver.run());
            let reached = Reached { mailbox, progress };
            self.running.insert(id, Running { partition: partition.clone(), reached });
            changed = true;
        }
        if changed {
            let reached = self.running.iter().map(|(id, running)| (*id, running.reached.clone()));
            self.reached.publish(reached.collect());
        }
    }

    /// Who leads forgets where groups were in them.
    fn tell_of_deleted_topics(&self, before: &MetadataImage, now: &MetadataImage) {
        if before.topic_names.ptr_eq(&now.topic_names) {
            return;
        }
        let deleted: Vec<Arc<str>> = before
            .topic_names
            .diff(&now.topic_names)
            .filter_map(|change| match change {
                imbl::ordmap::DiffItem::Remove(_, name) => Some(name.clone()),
                imbl::ordmap::DiffItem::Add(..) | imbl::ordmap::DiffItem::Update { .. } => None,
            })
            .collect();
        let seen_ms = self.backend.wall_ms();
        for topic in deleted {
            for running in self.running.values() {
                let said = CoordinatorInput::TopicDeleted { topic: topic.clone(), seen_ms };
                // Who has too much to do sees for itself, some time, what is gone.
                if running.reached.mailbox.try_send(said).is_err() {
                    tracing::debug!(%topic, partition = %running.partition.name(), "a coordinator was not told that the topic is deleted");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_kept_where_kafka_keeps_them() {
        // Of Java: Utils.abs("...".hashCode()) % 50.
        let cases = [("", 0), ("a", 47), ("test-group", 12), ("console-consumer-12345", 6)];
        for (name, partition) in cases {
            assert_eq!(partition_of(&GroupId(Arc::from(name)), 50), Some(partition), "{name}");
        }
        assert_eq!(partition_of(&GroupId(Arc::from("a")), 0), None);
    }
}
