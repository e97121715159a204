//! What the owner does of cleaning: says what may be cleaned, and puts what was in its place.

use io_backend::Backend;

use super::Owner;
use crate::ids::Offset;
use crate::log::cleaning::choice::{self, Next, Sealed};
use crate::log::cleaning::{Cleaned, Plan};
use crate::partition::retention::DeadFiles;
use crate::partition::schedule::Due;

impl<B: Backend> Owner<B> {
    /// Which segments may be cleaned: those that are not written on, that the last checkpoint vouches for and knows to be committed,
    /// and that have something to read.
    fn may_be_cleaned(&self) -> std::ops::Range<usize> {
        let segments = &self.files.segments;
        let Some(marked) = self.marked else { return 0..0 };
        let until = marked.log_end.min(marked.high_watermark);
        let first = segments.partition_point(|segment| segment.end() <= self.machine.log_start());
        let behind = segments.partition_point(|segment| segment.end() <= until);
        first..behind.min(segments.len().saturating_sub(1)).max(first)
    }

    /// When the cleaner is to come.
    pub(super) fn cleaning_due(&self) -> Option<Due> {
        let rules = self.settings.compaction?;
        let sealed: Vec<Sealed> =
            self.files.segments[self.may_be_cleaned()].iter().map(|segment| Sealed::of(segment)).collect();
        match choice::next(&sealed, &rules, self.backend.wall_ms())? {
            Next::Now => Some(Due::Now),
            Next::At(ms) => Some(Due::AtMs(ms)),
        }
    }

    /// What is to be cleaned now, if anything is.
    pub(super) fn plan_cleaning(&mut self) -> Option<Plan<B>> {
        let rules = self.settings.compaction?;
        let mut segments = self.files.segments[self.may_be_cleaned()].to_vec();
        let sealed: Vec<Sealed> = segments.iter().map(|segment| Sealed::of(segment)).collect();
        let now_ms = self.backend.wall_ms();
        if choice::next(&sealed, &rules, now_ms) != Some(Next::Now) {
            // What was told is over.
            self.reschedule();
            return None;
        }
        segments.truncate(choice::cleanable(&sealed, &rules, now_ms));
        self.files.cleanings += 1;
        let until = segments.last().map_or(Offset::ZERO, |last| last.end());
        Some(Plan {
            directory: self.files.directory.clone(),
            open_files: self.files.open_files.clone(),
            remembered: self.machine.producers().remembered_before(until).collect(),
            segments,
            log_start: self.machine.log_start(),
            held_by_all: self.machine.held_by_all(),
            truncations: self.machine.truncations(),
            nth: self.files.cleanings,
            rules,
            segment_bytes: self.settings.segment_bytes,
            index_interval_bytes: self.settings.index_interval_bytes,
        })
    }

    /// A checkpoint gives back the segments that it began with: so nothing is put in their place before it ends. What was cleaned
    /// counts from now on, unless what it was made of is not there any more, or a replica lacks a tombstone that went.
    pub(super) fn put_cleaned(&mut self) {
        if self.has_checkpoint() || self.cleaned.is_empty() {
            return;
        }
        for (Cleaned { sources, segment, counts }, reply) in std::mem::take(&mut self.cleaned) {
            // Whoever switched it off wants to keep what there is; and a replica that had lost its disk since may lack what went.
            let is_wanted =
                self.settings.compaction.is_some() && counts.held_before <= self.machine.held_by_all();
            let replaced = is_wanted.then(|| self.files.replace(&sources, segment)).flatten();
            reply.answer(replaced.map(|replaced| DeadFiles {
                directory: self.files.directory.clone(),
                bytes: replaced.iter().map(|segment| segment.bytes).sum(),
                segments: replaced.iter().map(|segment| segment.name).collect(),
                delay: self.settings.retention.file_delete_delay,
            }));
        }
        self.reschedule();
    }
}
