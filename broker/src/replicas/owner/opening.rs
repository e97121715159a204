//! How partitions of this node open: their beginnings go into the journal, and what does not open is copied aside.

use std::collections::BTreeSet;

use futures::StreamExt;
use io_backend::{Backend, Deadline};

use super::{JournalLost, OpenReplica, Owner};
use crate::limits;
use crate::replicas::checkpoint::ask_for_checkpoint;
use crate::replicas::reconcile::{ReplicaId, Wanted};
use crate::replicas::{NotLed, lives, open, rescue};

impl<B: Backend> Owner<B> {
    /// Opens these; returns how many could not be.
    pub(super) async fn open(&mut self, mut wanted: Vec<Wanted>) -> usize {
        let lost = self.refuse_lost_journal(&mut wanted);
        if wanted.is_empty() {
            return lost;
        }
        let new: Vec<ReplicaId> =
            wanted.iter().map(|wanted| wanted.id).filter(|id| !self.recovered.contains_key(id)).collect();
        self.publish_pins(&wanted.iter().map(|wanted| wanted.id).collect::<Vec<_>>());
        // Some of them queued without the others is no harm: recovery takes repetitions.
        let mut failed = lost;
        if let Err((begun, error)) = lives::begin(&self.context, &new).await {
            let not_begun: BTreeSet<_> = new[begun..].iter().collect();
            tracing::warn!(error = %error, partitions = not_begun.len(), "partitions not opened");
            self.not_begun = Some(NotLed { partitions: not_begun.len(), why: error.to_string() });
            failed += not_begun.len();
            wanted.retain(|wanted| !not_begun.contains(&wanted.id));
        }
        self.counted.extend(wanted.iter().map(|wanted| wanted.topic.name.clone()));
        let deadline = Deadline::after(&self.context.backend, limits::OPEN_DEADLINE);
        let opening: Vec<_> = wanted
            .into_iter()
            .map(|wanted| {
                let recovered = self.recovered.get(&wanted.id).cloned().unwrap_or_default();
                let shared = (self.open_files.clone(), self.schedules.clone(), self.replicas.signal.clone());
                (self.context.clone(), shared, wanted, recovered)
            })
            .collect();
        let opened: Vec<_> = futures::stream::iter(opening)
            .map(|(context, (open_files, schedule, signal), wanted, recovered)| async move {
                let (id, topic) = (wanted.id, wanted.topic.clone());
                let config = context.metadata.config();
                let opened = open::open_replica(
                    context,
                    open_files,
                    schedule,
                    signal,
                    wanted,
                    config.clone(),
                    recovered,
                    deadline,
                )
                .await;
                (id, topic, config, opened)
            })
            .buffer_unordered(limits::REPLICAS_OPENED_AT_ONCE)
            .collect()
            .await;
        let mut not_opened = Vec::new();
        for (id, topic, config, result) in opened {
            match result {
                Ok(partition) => {
                    self.mended.extend(self.recovered.remove(&id).and_then(|replica| replica.rescued));
                    self.open.insert(id, OpenReplica { partition, topic, config, role: None });
                }
                Err(error) => {
                    failed += 1;
                    let name = format!("{}-{}", topic.name, id.partition.index);
                    let why = error.to_string();
                    if self.replicas.not_open.get().get(&name) != Some(&why) {
                        tracing::error!(partition = name, error = why, "partition not opened");
                    }
                    self.not_open.insert(name, why);
                    not_opened.push(id);
                }
            }
        }
        self.rescue(&not_opened).await;
        failed
    }

    /// A replica that the image has only now, and that the journal should know: as at the start, it is not opened, for that
    /// would cut its segments.
    fn refuse_lost_journal(&mut self, wanted: &mut Vec<Wanted>) -> usize {
        let before = wanted.len();
        let (not_open, context) = (&mut self.not_open, &self.context);
        wanted.retain(|wanted| {
            let known = !self.unknown.contains(&wanted.id);
            if !known {
                let name = format!("{}-{}", wanted.topic.name, wanted.id.partition.index);
                let directory = context.directory().join(wanted.id.directory());
                let why = JournalLost { partition: name.clone(), directory };
                not_open.insert(name, why.to_string());
            }
            known
        });
        before - wanted.len()
    }

    /// Copies what the journal has of replicas that do not open to files of their own: the journal of all others
    /// does not wait for them to be mended.
    async fn rescue(&mut self, ids: &[ReplicaId]) {
        let context = self.context.clone();
        let directory = context.rescued_directory();
        let deadline = Deadline::after(&context.backend, limits::RESCUE_DEADLINE);
        let mut replicas = Vec::new();
        for id in ids {
            if self.recovered.get(id).is_some_and(|replica| !replica.entries.is_empty()) {
                replicas.extend(self.recovered.remove_entry(id));
            }
        }
        let (context, directory) = (&context, &directory);
        let rescued: Vec<_> = futures::stream::iter(replicas)
            .map(|(id, replica)| async move {
                let written = rescue::write(&context.backend, directory, id, &replica, deadline).await;
                (id, replica, written)
            })
            .buffer_unordered(limits::REPLICAS_OPENED_AT_ONCE)
            .collect()
            .await;
        for (id, mut replica, written) in rescued {
            match written {
                Ok(Some(rescued)) => {
                    let file = rescued.path.display().to_string();
                    let entries = replica.entries.len();
                    tracing::warn!(
                        partition = %id.partition,
                        entries,
                        file,
                        "the journal goes on without a partition that does not open: what it has of it is kept in a file"
                    );
                    replica.handle_rescued(rescued);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(
                    partition = %id.partition,
                    error = %error,
                    "what the journal has of a partition that does not open is not copied; the journal keeps it"
                ),
            }
            self.recovered.insert(id, replica);
        }
    }

    /// The files of replicas that have opened are not needed once a checkpoint holds what is in them. To be called when
    /// those are published, so that the checkpoint sees them.
    pub(super) fn forget_rescued(&mut self) {
        let files = std::mem::take(&mut self.mended);
        if files.is_empty() {
            return;
        }
        let (backend, checkpoints) = (self.context.backend.clone(), self.checkpoints.clone());
        let deadline = Deadline::after(&backend, 2 * limits::CHECKPOINT_DEADLINE);
        // In a task of its own: this one has partitions to open while a checkpoint is made.
        self.context.backend.spawn("rescued", async move {
            if ask_for_checkpoint(&checkpoints, deadline).await.is_err() {
                // The next start knows that they are not needed.
                return;
            }
            for file in files {
                if let Err(error) = rescue::remove(&backend, &file, deadline).await {
                    tracing::debug!(error = %error, "a rescued file stays until the next start");
                }
            }
        });
    }
}
