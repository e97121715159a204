//! What consumers may see: only what is durable, and an end that does not move back.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{At, History, Place, Value, Watermark, seconds};

/// No record was served before it was durable. `durable_at` says since when it is, where the disk could tell;
/// `way` is the shortest time that a message takes.
pub fn reads_only_durable(
    history: &History,
    durable_at: impl Fn(Value) -> Option<Durable>,
    way: At,
) -> Vec<Violation> {
    let mut findings = Findings::of("reads-only-durable", Verdict::Safety);
    for poll in &history.polls {
        let left = poll.at.saturating_sub(way);
        for (offset, value) in &poll.records {
            let since = match durable_at(*value) {
                Some(Durable::Since(since)) if since > left => {
                    format!("and durable only at {}", seconds(since))
                }
                Some(Durable::Never) => "and never durable".to_owned(),
                Some(Durable::Since(_)) | None => continue,
            };
            findings.add(format!(
                "{value} was read by consumer {} at offset {offset} of {} at {}, {since}",
                poll.consumer,
                poll.place,
                seconds(poll.at)
            ));
        }
    }
    findings.all()
}

/// What disks know of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    Since(At),
    Never,
}

/// Since when each copy of a record is durable, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies(Vec<At>);

impl Copies {
    pub fn of(since: impl Iterator<Item = At>) -> Copies {
        let mut all: Vec<At> = since.collect();
        all.sort_unstable();
        Copies(all)
    }

    /// Since when so many of them are.
    pub fn durable(&self, copies: usize) -> Durable {
        match copies.checked_sub(1).and_then(|last| self.0.get(last)) {
            Some(at) => Durable::Since(*at),
            None => Durable::Never,
        }
    }
}

/// What a leader told as the high watermark it never takes back, whoever asks later. Its successor begins with what it knows
/// of it, which may be less; what was read before then stays all the same.
pub fn high_watermark_back(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("high-watermark-back", Verdict::Safety);
    let mut by_leader: BTreeMap<(&Place, Option<i32>), Vec<&Watermark>> = BTreeMap::new();
    for watermark in &history.watermarks {
        // A topic that is deleted may be created again, and begins again.
        if history.deleted.get(&*watermark.place.topic).is_none_or(|deleted| watermark.at < *deleted) {
            by_leader.entry((&watermark.place, watermark.epoch)).or_default().push(watermark);
        }
    }
    for ((place, epoch), mut told) in by_leader {
        told.sort_by_key(|watermark| watermark.at);
        let in_epoch = epoch.map(|epoch| format!(" in epoch {epoch}")).unwrap_or_default();
        // The highest told up to each of them.
        let highest: Vec<&Watermark> = told
            .iter()
            .scan(None, |highest: &mut Option<&Watermark>, next| {
                if highest.is_none_or(|known| known.high_watermark < next.high_watermark) {
                    *highest = Some(next);
                }
                *highest
            })
            .collect();
        for watermark in &told {
            let before = told.partition_point(|earlier| earlier.at < watermark.sent);
            let Some(known) = before.checked_sub(1).and_then(|last| highest.get(last)) else { continue };
            if watermark.high_watermark < known.high_watermark {
                findings.add(format!(
                    "the high watermark of {place}{in_epoch} was {} for consumer {} at {}, and {} for consumer {}, who asked at {}",
                    known.high_watermark,
                    known.consumer,
                    seconds(known.at),
                    watermark.high_watermark,
                    watermark.consumer,
                    seconds(watermark.sent)
                ));
            }
        }
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;

    #[test]
    fn what_is_read_was_durable_when_the_answer_left() {
        let history = History { polls: vec![poll(0, 0, 1_000, &[(0, 0)])], ..History::default() };
        let check = |durable| reads_only_durable(&history, |_| durable, 10).len();
        assert_eq!(check(Some(Durable::Since(990))), 0);
        assert_eq!(check(Some(Durable::Since(991))), 1);
        assert_eq!(check(Some(Durable::Never)), 1);
        assert_eq!(check(None), 0, "the disk could not tell");
    }

    #[test]
    fn a_record_is_durable_when_as_many_copies_are_as_it_takes() {
        let copies = Copies::of([30, 10].into_iter());
        assert_eq!(copies.durable(1), Durable::Since(10));
        assert_eq!(copies.durable(2), Durable::Since(30));
        assert_eq!(copies.durable(3), Durable::Never);
    }

    fn told(consumer: u32, sent: At, at: At, high_watermark: i64) -> Watermark {
        Watermark { consumer, place: place(), epoch: None, sent, at, high_watermark }
    }

    fn back(watermarks: Vec<Watermark>) -> usize {
        high_watermark_back(&History { watermarks, ..History::default() }).len()
    }

    #[test]
    fn a_high_watermark_that_rises_is_fine_and_answers_may_cross() {
        assert_eq!(back(vec![told(1, 0, 10, 5), told(2, 11, 20, 5), told(1, 12, 13, 7)]), 0);
        assert_eq!(back(vec![told(1, 0, 10, 5), told(2, 9, 20, 4)]), 0);
    }

    #[test]
    fn one_that_goes_back_is_found_for_the_same_consumer_and_for_another() {
        for consumer in [1, 2] {
            assert_eq!(back(vec![told(1, 0, 10, 5), told(consumer, 11, 20, 4)]), 1);
        }
        assert_eq!(back(vec![told(1, 0, 10, 9), told(1, 11, 12, 9), told(2, 13, 20, 8)]), 1);
    }

    #[test]
    fn each_leader_is_held_to_what_it_told_itself() {
        let told = |epoch, sent, high_watermark| Watermark {
            epoch: Some(epoch),
            ..told(1, sent, sent + 1, high_watermark)
        };
        assert_eq!(back(vec![told(3, 0, 10), told(4, 10, 8), told(4, 20, 12)]), 0);
        assert_eq!(back(vec![told(3, 0, 10), told(4, 10, 8), told(4, 20, 7)]), 1);
    }

    #[test]
    fn a_topic_that_is_deleted_owes_nothing_more() {
        let watermarks = vec![told(1, 0, 10, 5), told(1, 30, 31, 0)];
        let mut history = History { watermarks, ..History::default() };
        history.deleted.insert("orders".into(), 20);
        assert_eq!(high_watermark_back(&history), []);
    }
}
