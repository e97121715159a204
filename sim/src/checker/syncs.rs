//! No acknowledgement before the sync that covers it, judged from what the disk really holds.

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{AckMode, At, History, Outcome, Send, Value, seconds};

/// For every acknowledged record: its bytes were durable, wherever they lie, before the answer left.
/// `durable_at` says since when they are; `way` is the shortest time that a message takes.
pub fn acked_before_durable(
    history: &History,
    durable_at: impl Fn(&Send, Value) -> Option<At>,
    way: At,
) -> Vec<Violation> {
    let mut findings = Findings::of("ack-before-sync", Verdict::Safety);
    for send in &history.sends {
        let Outcome::Acked { at, .. } = &send.outcome else { continue };
        if send.acks == AckMode::None {
            continue;
        }
        let left = at.saturating_sub(way);
        for value in send.visible_values() {
            match durable_at(send, value) {
                Some(durable) if durable <= left => {}
                durable => findings.add(format!(
                    "{value} to {} was acknowledged at {}, {}",
                    send.place,
                    seconds(*at),
                    match durable {
                        Some(durable) => format!("and durable only at {}", seconds(durable)),
                        None => "and never durable".into(),
                    }
                )),
            }
        }
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;

    /// Acknowledged at 1,500; a message takes 10 at least.
    fn check(durable: Option<At>) -> usize {
        let history = History { sends: vec![acked(1, 0)], ..History::default() };
        acked_before_durable(&history, |_, _| durable, 10).len()
    }

    #[test]
    fn durable_before_the_answer_left_is_fine() {
        assert_eq!(check(Some(1_490)), 0);
    }

    #[test]
    fn an_answer_that_leaves_too_early_is_found() {
        for durable in [None, Some(1_491), Some(9_000)] {
            assert_eq!(check(durable), 1, "{durable:?}");
        }
    }

    #[test]
    fn what_is_not_acknowledged_need_not_be_durable() {
        let fired = Send { acks: AckMode::None, ..acked(1, 0) };
        let history = History { sends: vec![fired, unknown(2)], ..History::default() };
        assert_eq!(acked_before_durable(&history, |_, _| None, 10), []);
    }
}
