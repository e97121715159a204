//! No acknowledgement before the sync that covers it, judged from what the disk really did.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{At, History, Outcome, seconds};
use crate::scenario::AckMode;

/// An operation on a file of the data journal, as the disk carried it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskStep {
    pub file: String,
    pub begin: At,
    pub end: At,
    pub kind: StepKind,
    pub ok: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    Write,
    Sync,
    /// Write and sync in one.
    WriteDurable,
}

/// For every acknowledged batch some write began after the batch was first sent, and a successful sync of that
/// file that began after the write had ended was over before the acknowledgement left. `way` is the shortest
/// time that a message takes.
pub fn acked_before_synced(history: &History, steps: &[DiskStep], way: At) -> Vec<Violation> {
    let mut findings = Findings::of("ack-before-sync", Verdict::Safety);
    let covered = Covered::of(steps);
    for send in &history.sends {
        let Outcome::Acked { at, .. } = &send.outcome else { continue };
        if send.acks == AckMode::None {
            continue;
        }
        let (arrived, left) = (send.began + way, at.saturating_sub(way));
        match covered.earliest_after(arrived) {
            Some(durable) if durable <= left => {}
            durable => findings.add(format!(
                "record {} of producer {} to {} was sent at {} and acknowledged at {}, {}",
                send.first,
                send.producer,
                send.place,
                seconds(send.began),
                seconds(*at),
                match durable {
                    Some(durable) => format!("before anything written since was synced ({})", seconds(durable)),
                    None => "and nothing written since was ever synced".into(),
                }
            )),
        }
    }
    findings.all()
}

/// When each write became durable, by the time it began.
struct Covered {
    begins: Vec<At>,
    /// Of all writes that began at this time or later: the earliest moment that one was durable.
    earliest: Vec<At>,
}

impl Covered {
    fn of(steps: &[DiskStep]) -> Covered {
        let mut syncs: BTreeMap<&str, Vec<(At, At)>> = BTreeMap::new();
        for step in steps.iter().filter(|step| step.kind == StepKind::Sync && step.ok) {
            syncs.entry(&step.file).or_default().push((step.begin, step.end));
        }
        for list in syncs.values_mut() {
            list.sort_unstable();
            // Looked up by begin: the earliest end of all that begin there or later.
            let mut end = At::MAX;
            for sync in list.iter_mut().rev() {
                end = end.min(sync.1);
                sync.1 = end;
            }
        }
        let mut durable: Vec<(At, At)> = steps
            .iter()
            .filter(|step| step.ok)
            .filter_map(|step| match step.kind {
                StepKind::Sync => None,
                StepKind::WriteDurable => Some((step.begin, step.end)),
                StepKind::Write => {
                    let list = syncs.get(step.file.as_str())?;
                    let next = list.partition_point(|(begin, _)| *begin < step.end);
                    list.get(next).map(|(_, end)| (step.begin, *end))
                }
            })
            .collect();
        durable.sort_unstable();
        let mut earliest: Vec<At> = durable.iter().map(|(_, end)| *end).collect();
        for index in (1..earliest.len()).rev() {
            earliest[index - 1] = earliest[index - 1].min(earliest[index]);
        }
        Covered { begins: durable.iter().map(|(begin, _)| *begin).collect(), earliest }
    }

    fn earliest_after(&self, at: At) -> Option<At> {
        self.earliest.get(self.begins.partition_point(|begin| *begin < at)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;
    use crate::history::Send;

    fn step(kind: StepKind, begin: At, end: At) -> DiskStep {
        DiskStep { file: "journal/1".into(), begin, end, kind, ok: true }
    }

    /// Sent at 1,000, acknowledged at 1,500; a message takes 10 at least.
    fn check(steps: &[DiskStep]) -> usize {
        let history = History { sends: vec![acked(1, 0)], ..History::default() };
        acked_before_synced(&history, steps, 10).len()
    }

    #[test]
    fn a_write_and_then_its_sync_before_the_answer_is_fine() {
        assert_eq!(check(&[step(StepKind::Write, 1_020, 1_040), step(StepKind::Sync, 1_041, 1_400)]), 0);
        assert_eq!(check(&[step(StepKind::WriteDurable, 1_020, 1_400)]), 0);
    }

    #[test]
    fn an_answer_that_leaves_before_the_sync_is_over_is_found() {
        for steps in [
            vec![],
            vec![step(StepKind::Write, 1_020, 1_040)],
            vec![step(StepKind::Write, 1_020, 1_040), step(StepKind::Sync, 1_041, 1_495)],
            vec![step(StepKind::WriteDurable, 1_020, 1_600)],
            // The sync began while the write was still running: it covers nothing.
            vec![step(StepKind::Write, 1_020, 1_040), step(StepKind::Sync, 1_030, 1_400)],
            // What was written before the record was sent cannot hold it.
            vec![step(StepKind::WriteDurable, 900, 1_200)],
            // A sync that failed has synced nothing.
            vec![
                step(StepKind::Write, 1_020, 1_040),
                DiskStep { ok: false, ..step(StepKind::Sync, 1_041, 1_400) },
            ],
            // A sync of another file.
            vec![
                step(StepKind::Write, 1_020, 1_040),
                DiskStep { file: "journal/2".into(), ..step(StepKind::Sync, 1_041, 1_400) },
            ],
        ] {
            assert_eq!(check(&steps), 1, "{steps:?}");
        }
    }

    #[test]
    fn what_is_not_acknowledged_needs_no_sync() {
        let fired = Send { acks: AckMode::None, ..acked(1, 0) };
        let history = History { sends: vec![fired, unknown(2)], ..History::default() };
        assert_eq!(acked_before_synced(&history, &[], 10), []);
    }
}
