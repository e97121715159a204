//! What the owner does of checkpoints: begins one at a time, on a copy of what there is, and takes over what it made.

use io_backend::{Backend, Deadline, DiskError, Replier, Reply, TaskName};

use super::Owner;
use crate::ids::Lsn;
use crate::limits;
use crate::log::CheckpointMark;
use crate::log::checkpoint::{Checkpoint, Checkpointed};
use crate::log::snapshot::Snapshot;

impl<B: Backend> Owner<B> {
    /// Begins what was asked for meanwhile, if that is possible now.
    pub(super) fn begin_next_checkpoint(&mut self) {
        if self.has_checkpoint() || !self.machine.is_cut_durable() {
            return;
        }
        if let Some((deadline, _)) = self.open.next.first() {
            let deadline = *deadline;
            self.open.running.extend(self.open.next.drain(..).map(|(_, reply)| reply));
            // Before it copies what there is.
            self.forget_dead();
            self.put_cleaned();
            self.begin_checkpoint(deadline);
        }
    }

    fn begin_checkpoint(&mut self, deadline: Deadline) {
        self.machine.expire_producers(self.backend.now());
        // Read before our own state: whatever of ours is submitted later has a higher LSN.
        let journal = self.journal.status().durable;
        let first_in_flight = self.machine.first_in_flight();
        let own = self.machine.durable();
        let idle_up_to = first_in_flight.map_or(journal, |first| journal.min(Lsn(first.0 - 1)));
        let mark = CheckpointMark {
            partition: self.id,
            replica: self.replica,
            lsn: idle_up_to.max(own),
            log_start: self.machine.log_start(),
            log_end: self.machine.synced(),
            high_watermark: self.machine.high_watermark(),
            generation: self.files.generation,
            truncations: self.machine.truncations(),
        };
        let changed = self.files.snapshots.last().is_none_or(|last| *last < own) && own > Lsn(0);
        let snapshot = changed.then(|| Snapshot {
            lsn: mark.lsn,
            log_start: mark.log_start,
            log_end: mark.log_end,
            truncations: mark.truncations,
            epochs: self.machine.epochs().entries().to_vec(),
            producers: self.machine.producers().as_of(mark.log_end, mark.high_watermark),
        });
        let checkpoint = Checkpoint {
            backend: self.backend.clone(),
            settings: self.settings,
            files: self.files.clone(),
            chunks: self.machine.tail().up_to(own),
            snapshot,
            mark,
            deadline,
        };
        let (done, ended): (Replier<Checkpointed<B>>, Reply<B, Checkpointed<B>>) =
            self.own.reply("checkpoint");
        let task = TaskName::of("checkpoint", self.name.clone());
        self.backend.spawn(task, async move { done.answer(checkpoint.run().await) });
        let bounded = Deadline::Unbounded("each disk operation of a checkpoint has a deadline");
        self.open.checkpoint = Some(Box::pin(async move { ended.wait(bounded).await.ok() }));
    }

    pub(super) fn checkpointed(&mut self, done: Option<Checkpointed<B>>) {
        let outcome = match done {
            Some(Checkpointed { files, .. }) if self.open.cut_since => {
                self.open.cut_since = false;
                self.files.discard(files);
                // Who asked for it is told of the next one.
                let again = Deadline::after(&self.backend, limits::CHECKPOINT_DEADLINE);
                self.open.next.extend(self.open.running.drain(..).map(|reply| (again, reply)));
                return self.after_checkpoint();
            }
            Some(Checkpointed { files, outcome }) => {
                self.files.go_on_with(files);
                if let Ok(mark) = &outcome {
                    self.machine.handle_checkpointed(mark.log_end);
                    self.marked = Some(*mark);
                }
                outcome
            }
            None => Err(self.gone("checkpoint")),
        };
        for reply in self.open.running.drain(..) {
            reply.answer(match &outcome {
                Ok(mark) => Ok(*mark),
                Err(error) => {
                    let source = std::io::Error::new(error.kind(), error.source.to_string());
                    Err(DiskError::new(error.operation, &error.path, source))
                }
            });
        }
        self.after_checkpoint();
    }

    fn after_checkpoint(&mut self) {
        self.begin_next_checkpoint();
        self.forget_dead();
        self.put_cleaned();
        self.reschedule();
    }
}
