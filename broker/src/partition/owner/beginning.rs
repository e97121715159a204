//! What the owner does of the log's beginning; the steps stand in `partition/retention.rs`.

use io_backend::{Backend, Replier};

use super::{Owner, Ticket};
use crate::ids::Offset;
use crate::log::LogSettings;
use crate::log::retention::{Unit, expires_at, new_start};
use crate::partition::AppendError;
use crate::partition::replica_state::Answers;
use crate::partition::retention::{DeadFiles, DeleteRecordsError, DeleteReply, Mover, Moving, Retained};
use crate::partition::schedule::Due;

impl<B: Backend> Owner<B> {
    pub(super) fn retain(&mut self, reply: Replier<Retained>) {
        let start = self.machine.lacking_log_start().max(Some(self.wanted_start())).unwrap_or_default();
        self.machine.handle_log_start(start);
        self.retaining.moving.push(Moving { to: start, who: Mover::Retention(reply) });
    }

    pub(super) fn delete_records(&mut self, before: Option<Offset>, reply: DeleteReply) {
        let view = self.machine.view();
        if !view.leading {
            return reply.answer(Err(DeleteRecordsError::NotLeader));
        }
        let is_known = before.is_some_and(|before| before <= view.high_watermark);
        if !is_known && !self.machine.is_settled() {
            return reply.answer(Err(DeleteRecordsError::NotYetKnown));
        }
        let start = before.unwrap_or(view.high_watermark);
        if start < Offset::ZERO || start > view.high_watermark {
            return reply.answer(Err(DeleteRecordsError::OutOfRange(start, view.high_watermark)));
        }
        self.machine.handle_log_start(start);
        self.retaining.moving.push(Moving { to: start, who: Mover::Client(reply) });
    }

    /// Answers those for whom the log's start has moved far enough, or will not.
    pub(super) fn answer_moves(&mut self, answers: &mut Answers<Ticket>) {
        let stays = answers.start_stays.take();
        if stays.is_some() {
            // A follower's is tried again, also where nothing else comes.
            self.reschedule();
        }
        if self.retaining.moving.is_empty() {
            return;
        }
        let log_start = self.machine.log_start();
        let (has_dead, truncations) = (self.has_dead(), self.machine.truncations());
        let machine = &self.machine;
        let (leads, low_watermark) = (machine.view().leading, machine.low_watermark());
        let is_done = |one: &mut Moving| match (one.to <= log_start, &one.who) {
            (false, _) => !machine.moves_log_start_to(one.to),
            (true, Mover::Retention(_)) => true,
            (true, Mover::Client(reply)) => {
                !leads || low_watermark.is_some_and(|low| one.to <= low) || !reply.is_awaited()
            }
        };
        let done: Vec<Moving> = self.retaining.moving.extract_if(.., is_done).collect();
        if !done.is_empty() {
            self.reschedule();
        }
        for Moving { to, who } in done {
            let failed = (to > log_start).then(|| stays.clone().unwrap_or(AppendError::Unknown));
            match who {
                Mover::Retention(reply) => {
                    reply.answer(Retained { log_start, truncations, has_dead, failed })
                }
                Mover::Client(reply) => reply.answer(match failed {
                    // Who leads next decides whether they are gone.
                    None => low_watermark.filter(|_| leads).ok_or(DeleteRecordsError::TimedOut),
                    Some(AppendError::Unknown) => Err(DeleteRecordsError::TimedOut),
                    Some(error) => Err(DeleteRecordsError::NotMoved(error)),
                }),
            }
        }
    }

    /// The owner ends.
    pub(super) fn close_retaining(&mut self) {
        self.schedules.retention.set(self.id, None);
        self.schedules.cleaning.set(self.id, None);
        self.cleaned.clear();
        for Moving { who, .. } in self.retaining.moving.drain(..) {
            if let Mover::Client(reply) = who {
                // It may be on its way in the journal.
                reply.answer(Err(DeleteRecordsError::TimedOut));
            }
        }
    }

    pub(super) fn forget_before(&mut self, start: Offset, reply: Replier<DeadFiles>) {
        self.retaining.forget.push((start, reply));
        self.forget_dead();
    }

    /// A checkpoint gives back the segments that it began with: what it began with is not forgotten before it ends.
    pub(super) fn forget_dead(&mut self) {
        if self.has_checkpoint() {
            return;
        }
        for (start, reply) in std::mem::take(&mut self.retaining.forget) {
            assert!(start <= self.machine.log_start(), "only what nobody may read any more is forgotten");
            let dead: Vec<_> = self.files.segments.extract_if(.., |segment| segment.end() <= start).collect();
            reply.answer(DeadFiles {
                directory: self.files.directory.clone(),
                bytes: dead.iter().map(|segment| segment.bytes).sum(),
                segments: dead.iter().map(|segment| segment.name).collect(),
                delay: self.settings.retention.file_delete_delay,
            });
        }
    }

    pub(super) fn set_settings(&mut self, settings: LogSettings) {
        self.machine.set_log_append_time(settings.log_append_time);
        self.settings = settings;
    }

    /// Segments and tail.
    pub(super) fn log_bytes(&self) -> u64 {
        self.retaining.segment_bytes + self.machine.tail().bytes()
    }

    fn has_dead(&self) -> bool {
        self.files.segments.first().is_some_and(|first| first.end() <= self.machine.log_start())
    }

    fn units(&self) -> impl Iterator<Item = Unit> + Clone + '_ {
        let segments = self.files.segments.iter().map(|segment| Unit {
            end: segment.end(),
            bytes: segment.bytes,
            newest_ms: segment.newest_ms(),
        });
        let in_segments = self.files.segments.last().map_or(Offset::ZERO, |last| last.end());
        let chunks = self.machine.tail().chunks().filter(move |chunk| chunk.end > in_segments);
        segments.chain(chunks.map(|chunk| Unit {
            end: chunk.end,
            bytes: chunk.bytes.len() as u64,
            newest_ms: chunk.max_timestamp,
        }))
    }

    fn wanted_start(&self) -> Offset {
        new_start(
            self.units(),
            self.log_bytes(),
            &self.settings.retention,
            self.machine.log_start(),
            self.machine.high_watermark(),
            self.backend.wall_ms(),
        )
    }

    /// When the first of what there is may go.
    fn next_due(&self) -> Option<Due> {
        if self.has_dead() || self.machine.lacking_log_start().is_some() {
            return Some(Due::Now);
        }
        let retention = &self.settings.retention;
        let first = self.units().next()?;
        let durable = first.end <= self.machine.high_watermark();
        if durable && retention.bytes.is_some_and(|most| self.log_bytes().saturating_sub(first.bytes) >= most)
        {
            return Some(Due::Now);
        }
        expires_at(retention, first.newest_ms).map(Due::AtMs)
    }

    /// Tells the schedule, after segments, settings or the log's start changed.
    pub(super) fn reschedule(&mut self) {
        self.retaining.segment_bytes = self.files.segments.iter().map(|segment| segment.bytes).sum();
        let due = self.next_due();
        self.retaining.due = due;
        self.schedules.retention.set(self.id, due);
        self.schedules.cleaning.set(self.id, self.cleaning_due());
    }

    /// The same after an append: cheap, since what is there already goes first.
    pub(super) fn reschedule_if_grown(&mut self) {
        let due = self.retaining.due;
        let retention = &self.settings.retention;
        let unknown = due.is_none() && retention.time.is_some();
        if unknown || (due != Some(Due::Now) && retention.bytes.is_some()) {
            let next = self.next_due();
            if next != due {
                self.retaining.due = next;
                self.schedules.retention.set(self.id, next);
            }
        }
    }
}
