//! What was never acknowledged has rules too: a refusal is one, and what is sent with acks=0 gets there when nothing is
//! broken.

use std::collections::{BTreeMap, BTreeSet};

use reports::{Verdict, Violation};

use super::Findings;
use super::circumstances::Circumstances;
use crate::history::{AckMode, At, History, Outcome, Place, Send, Value, seconds};

/// What was sent this shortly before the end may not have arrived.
const ON_ITS_WAY: At = 1_000_000_000;
/// A partition that has just been created refuses by closing the connection, which its producer sees when it sends again.
const LED_WITHIN: At = 1_000_000_000;

/// Without any fault, what was sent with acks=0 is there in the end.
pub fn fired_and_lost(history: &History, circumstances: &Circumstances) -> Vec<Violation> {
    let mut findings = Findings::of("fired-and-lost", Verdict::Safety);
    if !circumstances.were_calm() {
        return Vec::new();
    }
    let in_the_end: BTreeMap<&Place, BTreeSet<Value>> = history
        .last_read
        .iter()
        .map(|(place, log)| (place, log.iter().map(|(_, value)| *value).collect()))
        .collect();
    // Who leaves in the middle cannot tell what of it got through.
    for send in history.sends.iter().filter(|send| send.acks == AckMode::None && !send.abandoned) {
        let Outcome::Acked { at, .. } = send.outcome else { continue };
        let Some(there) = in_the_end.get(&send.place) else { continue };
        if history.start_of(&send.place) > 0 {
            continue;
        }
        let created = history.topics.get(&*send.place.topic).copied().unwrap_or(0);
        if at.saturating_add(ON_ITS_WAY) > circumstances.until() || at < created.saturating_add(LED_WITHIN) {
            continue;
        }
        for value in send.values().filter(|value| !there.contains(value)) {
            findings.add(format!(
                "{value} was sent to {} at {} with acks=0; nothing was broken, its connection lived, and it is not there",
                send.place,
                seconds(at)
            ));
        }
    }
    findings.all()
}

/// What was refused for good was not written: nobody reads it, ever.
pub fn refused_and_read(history: &History) -> Vec<Violation> {
    let mut findings = Findings::of("aborted-read", Verdict::Safety);
    let mut refused: BTreeMap<Value, &Send> = BTreeMap::new();
    for send in &history.sends {
        if matches!(send.outcome, Outcome::Refused { .. }) && send.unknown_attempts == 0 {
            refused.extend(send.values().map(|value| (value, send)));
        }
    }
    let mut look = |place: &Place, offset: i64, value: &Value, who: &dyn Fn() -> String| {
        if let Some(send) = refused.get(value)
            && let Outcome::Refused { at, error } = &send.outcome
        {
            findings.add(format!(
                "{value} was refused at {} with {error}, and {} found it at offset {offset} of {place}",
                seconds(*at),
                who()
            ));
        }
    };
    for poll in &history.polls {
        for (offset, value) in &poll.records {
            look(&poll.place, *offset, value, &|| {
                format!("consumer {} at {}", poll.consumer, seconds(poll.at))
            });
        }
    }
    for (place, log) in &history.last_read {
        for (offset, value) in log {
            look(place, *offset, value, &|| "the last read".into());
        }
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;
    use crate::fault::{Fault, FaultHits, FaultKind};

    const END: At = 60_000_000_000;

    #[test]
    fn acks_0_is_no_licence_to_lose_when_nothing_is_broken() {
        let fired_at = |number, at| Send {
            acks: AckMode::None,
            outcome: Outcome::Acked { at, base: None },
            ..acked(number, 0)
        };
        let fired = |number| fired_at(number, 2 * LED_WITHIN);
        let history = ending_with(vec![fired(0), fired(1)], &[(0, 0)]);
        let calm = Circumstances::new(Vec::new(), Vec::new(), END);
        assert_eq!(fired_and_lost(&history, &calm).len(), 1);
        let early = ending_with(vec![fired(0), fired_at(1, LED_WITHIN - 1)], &[(0, 0)]);
        assert_eq!(fired_and_lost(&early, &calm), [], "its partition was not led yet");
        assert_eq!(fired_and_lost(&ending_with(vec![fired(0)], &[(0, 0)]), &calm), []);
        let fault = Fault::new(FaultKind::Kill).on(1);
        let hit = FaultHits::once(fault, 5, 5);
        assert_eq!(fired_and_lost(&history, &Circumstances::new(vec![hit], Vec::new(), END)), []);
    }

    #[test]
    fn what_was_refused_and_shows_up_was_not_refused() {
        let refused = |unknown_attempts| Send {
            outcome: Outcome::Refused { at: 5, error: "MessageTooLarge".into() },
            unknown_attempts,
            ..acked(0, 0)
        };
        assert_eq!(refused_and_read(&ending_with(vec![refused(0)], &[])), []);
        assert_eq!(refused_and_read(&ending_with(vec![refused(0)], &[(0, 0)])).len(), 1);
        assert_eq!(refused_and_read(&ending_with(vec![refused(1)], &[(0, 0)])), []);
        let mut read = ending_with(vec![refused(0)], &[]);
        read.polls.push(poll(0, 0, 5, &[(0, 0)]));
        assert_eq!(refused_and_read(&read).len(), 1);
    }
}
