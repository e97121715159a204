//! Leader epochs (KIP-101, KIP-320): whoever knows an older or a newer one than the partition has is told so, and an
//! epoch ends where the records say that the next begins.

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{EpochAnswer, EpochEnd, EpochQuestion, History, Outcome, Place, seconds};

pub fn epochs(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("wrong-epoch", Verdict::Safety);
    for question in &history.epoch_questions {
        if let Some(what) = wrong_answer(question).filter(|_| is_owed(history, &question.place)) {
            let EpochQuestion { client, place, sent, told, named, .. } = question;
            findings.add(format!(
                "{client} asked {place} at {} with leader epoch {named}, after it had been told {told}: {what}",
                seconds(*sent)
            ));
        }
    }
    for asked in &history.epoch_ends {
        if let Some(what) = wrong_end(history, asked).filter(|_| is_owed(history, &asked.place)) {
            let EpochEnd { client, place, sent, asked, epoch, end, .. } = asked;
            findings.add(format!(
                "{client} asked {place} at {} where leader epoch {asked} ends and was told epoch {epoch}, offset {end}: {what}",
                seconds(*sent)
            ));
        }
    }
    findings.all()
}

/// A topic that is deleted and created again begins anew.
fn is_owed(history: &History, place: &Place) -> bool {
    !history.deleted.contains_key(&*place.topic)
}

/// An epoch never falls, and none comes near those that are named to be ahead.
fn wrong_answer(question: &EpochQuestion) -> Option<&'static str> {
    let EpochQuestion { told, named, answer, .. } = question;
    match answer {
        EpochAnswer::Served if named < told => Some("it was served though its epoch is behind"),
        EpochAnswer::Served if named > told => Some("it was served though its epoch is ahead"),
        EpochAnswer::Fenced if named > told => Some("its epoch was called old and is ahead"),
        EpochAnswer::Unknown if named <= told => Some("its epoch was called unknown and is not ahead"),
        _ => None,
    }
}

fn wrong_end(history: &History, asked: &EpochEnd) -> Option<String> {
    if asked.epoch > asked.asked {
        return Some("that is a later one".into());
    }
    let starts = history.epochs.get(&asked.place)?;
    // Records of later epochs lie at the end or behind it. What the latest ends with may be lost with the power.
    let next = starts.iter().find(|(_, epoch)| *epoch > asked.asked);
    if asked.asked < asked.told
        && let Some((start, epoch)) = next
        && *start < asked.end
    {
        return Some(format!("the record at offset {start} is of epoch {epoch}"));
    }
    // And those of this one and earlier ones before it, as far as they were there.
    let acked = history.sends.iter().filter(|send| send.place == asked.place);
    let acked = acked.filter_map(|send| match send.outcome {
        Outcome::Acked { at, base: Some(base) } if at < asked.sent => Some(base + i64::from(send.count) - 1),
        _ => None,
    });
    let of = |offset: i64| {
        let after = starts.partition_point(|(start, _)| *start <= offset);
        after.checked_sub(1).map(|index| starts[index].1)
    };
    let last = acked.filter(|offset| of(*offset).is_some_and(|epoch| epoch <= asked.asked)).max()?;
    if last >= asked.end {
        let epoch = of(last).unwrap_or(-1);
        return Some(format!("the record at offset {last}, of epoch {epoch}, had been acknowledged"));
    }
    let epoch = of(last).filter(|epoch| asked.epoch >= 0 && *epoch > asked.epoch)?;
    Some(format!("the record at offset {last} is of epoch {epoch}, which is larger"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;

    fn question(told: i32, named: i32, answer: EpochAnswer) -> usize {
        let mut history = History::default();
        let question =
            EpochQuestion { client: "look-ups-1".into(), place: place(), sent: 1, told, named, answer };
        history.epoch_questions.push(question);
        epochs(&history).len()
    }

    #[test]
    fn whose_epoch_is_behind_or_ahead_is_told_so() {
        use EpochAnswer::*;
        for (named, answer) in [(3, Served), (3, Fenced), (2, Fenced), (1_003, Unknown)] {
            assert_eq!(question(3, named, answer), 0, "{named} {answer:?}");
        }
        for (named, answer) in [(2, Served), (1_003, Served), (1_003, Fenced), (2, Unknown), (3, Unknown)] {
            assert_eq!(question(3, named, answer), 1, "{named} {answer:?}");
        }
    }

    /// Records 0 and 1 of epoch 1, record 2 of epoch 4, acknowledged at 500, 1,500 and 2,500.
    fn end(asked: i32, sent: u64, epoch: i32, end: i64) -> usize {
        let mut history = ending_with(vec![acked(0, 0), acked(1, 1), acked(2, 2)], &[(0, 0), (1, 1), (2, 2)]);
        history.epochs.insert(place(), vec![(0, 1), (2, 4)]);
        let client = "look-ups-1".into();
        history.epoch_ends.push(EpochEnd { client, place: place(), sent, told: 4, asked, epoch, end });
        epochs(&history).len()
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        for (asked, sent, epoch, offset) in [
            (1, 9_000, 1, 2),
            (3, 9_000, 1, 2),
            (4, 9_000, 4, 3),
            (4, 2_000, 4, 2),
            (4, 2_000, 4, 9),
            (0, 9_000, 0, 0),
        ] {
            assert_eq!(end(asked, sent, epoch, offset), 0, "{asked} at {sent}: {epoch}, {offset}");
        }
        for (asked, sent, epoch, offset) in [
            (1, 9_000, 1, 1),
            (1, 9_000, 1, 3),
            (3, 9_000, 4, 2),
            (4, 9_000, 4, 2),
            (4, 9_000, 1, 3),
            (3, 9_000, 0, 2),
        ] {
            assert_eq!(end(asked, sent, epoch, offset), 1, "{asked} at {sent}: {epoch}, {offset}");
        }
    }
}
