//! What producers were told: offsets that rise with what they sent, and no blame for what they did right.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{History, Outcome, Place, seconds};

/// Later batches of a partition get higher offsets, where one is on its way at a time or the broker keeps their order.
pub fn send_order(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("non-monotonic-send", Verdict::Safety);
    let mut last: BTreeMap<(u32, &Place), (u64, i64)> = BTreeMap::new();
    for send in history.sends.iter().filter(|send| send.idempotent || !send.pipelined) {
        let Outcome::Acked { at, base: Some(base) } = &send.outcome else { continue };
        let end = base + i64::from(send.count);
        if let Some((number, before)) = last.get(&(send.producer, &send.place))
            && send.first > *number
            && base < before
        {
            findings.add(format!(
                "producer {} was told offset {base} for record {} of {} at {}, below {before} for an earlier one",
                send.producer,
                send.first,
                send.place,
                seconds(*at)
            ));
        }
        last.insert((send.producer, &send.place), (send.first, end));
    }
    findings.all()
}

/// An idempotent producer whose batches follow one another is never told that they do not.
pub fn rejections(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("producer-state", Verdict::Safety);
    for rejection in &history.rejections {
        findings.add(format!(
            "idempotent producer {} was told {} by {} at {}, though it had left nothing out",
            rejection.producer,
            rejection.error,
            rejection.place,
            seconds(rejection.at)
        ));
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;
    use crate::history::Rejection;

    #[test]
    fn rising_offsets_are_fine_and_falling_ones_are_not() {
        let rising = History { sends: vec![acked(0, 0), acked(1, 5)], ..History::default() };
        assert_eq!(send_order(&rising), []);
        let falling = History { sends: vec![acked(0, 5), acked(1, 0)], ..History::default() };
        assert_eq!(send_order(&falling).len(), 1);
    }

    #[test]
    fn a_producer_that_is_blamed_for_nothing_is_a_loss_of_its_state() {
        let mut history = History::default();
        assert_eq!(rejections(&history), []);
        history.rejections.push(Rejection {
            producer: 1,
            place: place(),
            at: 1,
            error: "OutOfOrderSequenceNumber".into(),
        });
        assert_eq!(rejections(&history).len(), 1);
    }
}
