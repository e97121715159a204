//! One replica of the model: its state machine over a disk that loses what was not synced, with a journal, segments and a mark.

use super::tests::ID;
use super::*;
use crate::journal::{EntryKind, JournalEntry};
use crate::log::batch::{BatchHeader, Batches, Damage};

/// Draws what happens.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// What names a record batch wherever it stands: its time, which nobody else has.
pub(super) type Content = i64;

/// Epoch, offset and content of each batch.
pub(super) type Log = Vec<(i32, i64, Content)>;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum OnDisk {
    InFlight,
    Durable,
    /// The journal said that it failed; it may have reached the medium all the same.
    Failed,
}

/// A checkpoint: what a restart begins with.
#[derive(Clone)]
pub(super) struct Mark {
    pub(super) recovered: RecoveredLog,
    pub(super) segments: Vec<Chunk>,
}

/// A replica, while its process runs and while it does not.
pub(super) struct Node {
    pub(super) machine: Option<ReplicaState<Asked>>,
    pub(super) journal: Vec<(Lsn, JournalEntry, OnDisk)>,
    pub(super) next_lsn: u64,
    pub(super) segments: Vec<Chunk>,
    pub(super) mark: Mark,
    /// The epoch that it was told last, and whether it leads there.
    pub(super) told: Option<(i32, bool)>,
}

/// Who waits for an append.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Asked {
    Producer { nth: usize, content: Content, epoch: i32 },
    Nobody,
}

pub(super) fn batches(bytes: &[u8]) -> Log {
    let header = |one: Result<(usize, BatchHeader), Damage>| {
        let (_, header) = one.expect("sound");
        (header.leader_epoch.0, header.base_offset.0, header.max_timestamp)
    };
    Batches::new(bytes).map(header).collect()
}

impl Node {
    pub(super) fn new() -> Node {
        let recovered = RecoveredLog::default();
        Node {
            machine: Some(ReplicaState::new(ID, Incarnation(1), false, recovered.clone())),
            journal: Vec::new(),
            next_lsn: 1,
            segments: Vec::new(),
            mark: Mark { recovered, segments: Vec::new() },
            told: None,
        }
    }

    pub(super) fn log(&self) -> Log {
        let Some(machine) = &self.machine else { return Vec::new() };
        let in_segments = self.segments.last().map_or(0, |last| last.end.0);
        let tail = machine.tail().chunks().filter(|chunk| chunk.end.0 > in_segments);
        let all = self.segments.iter().chain(tail).flat_map(|chunk| batches(&chunk.bytes));
        let mut log: Vec<_> = all.collect();
        log.dedup();
        log
    }

    pub(super) fn cut(segments: &mut Vec<Chunk>, to: Offset) {
        let mut tail = Tail::default();
        segments.drain(..).for_each(|chunk| tail.push(chunk));
        tail.truncate(to);
        segments.extend(tail.chunks().cloned());
    }

    pub(super) fn crash(&mut self, random: &mut Random) {
        self.machine = None;
        self.told = None;
        // Of what was in flight a beginning is there, of what failed too.
        let mut lost = [false; 2];
        self.journal.retain_mut(|(_, _, state)| {
            let which = match state {
                OnDisk::Durable => {
                    lost = [false; 2];
                    return true;
                }
                OnDisk::InFlight => 0,
                OnDisk::Failed => 1,
            };
            lost[which] |= random.one_in(3);
            *state = OnDisk::Durable;
            !lost[which]
        });
    }

    pub(super) fn restart(&mut self) {
        let Mark { recovered, segments } = self.mark.clone();
        self.segments = segments;
        let after = recovered.lsn;
        let mut machine = ReplicaState::new(ID, Incarnation(1), false, recovered);
        for (lsn, entry, _) in self.journal.iter().filter(|(lsn, ..)| *lsn > after) {
            machine.replay(*lsn, entry).expect("the journal is whole");
            if entry.kind == EntryKind::Truncate {
                Node::cut(&mut self.segments, entry.base_offset);
            }
        }
        self.machine = Some(machine);
    }

    pub(super) fn checkpoint(&mut self) -> bool {
        let Some(machine) = &mut self.machine else { return false };
        if !machine.is_cut_durable() {
            return false;
        }
        let own = machine.durable();
        let first = machine.first_in_flight().unwrap_or(Lsn(self.next_lsn));
        let end = machine.synced();
        let in_segments = self.segments.last().map_or(Offset::ZERO, |last| last.end);
        let more = machine.tail().up_to(own).into_iter().filter(|chunk| chunk.base >= in_segments);
        let more: Vec<Chunk> = more.collect();
        self.segments.extend(more);
        let high_watermark = machine.high_watermark();
        let recovered = RecoveredLog {
            log_start: machine.log_start(),
            log_end: end,
            lsn: own.max(Lsn(first.0 - 1)),
            epochs: machine.epochs().clone(),
            producers: Producers::restored(machine.producers().as_of(end, high_watermark)),
            high_watermark,
            truncations: machine.truncations(),
        };
        machine.handle_checkpointed(end);
        let released = recovered.lsn;
        self.mark = Mark { recovered, segments: self.segments.clone() };
        self.journal.retain(|(lsn, ..)| *lsn > released);
        true
    }
}
