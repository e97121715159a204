//! The pulse of a system: when something was last decided, per trade, while somebody was waiting for it.
//!
//! A request that only runs out of time, on either side, decides nothing. So a broker that answers "timed out"
//! to everyone for an hour stands still as much as one that answers nobody; one that refuses at once does not.

use std::collections::BTreeMap;

use super::At;

/// What a request is for. Each trade can stand still by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trade {
    Produce,
    Consume,
    /// Creating topics, producer ids.
    Change,
    /// Versions, metadata, offsets.
    Look,
}

impl Trade {
    pub fn name(self) -> &'static str {
        match self {
            Trade::Produce => "produce",
            Trade::Consume => "fetch",
            Trade::Change => "create topics and producer ids",
            Trade::Look => "metadata and offsets",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pulse {
    trades: BTreeMap<Trade, Beat>,
    longest: Option<Standstill>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Beat {
    /// Requests that wait for an answer now.
    waiting: u32,
    /// The earliest request since the last decision.
    undecided_since: Option<At>,
}

/// A time in which requests of one trade were made and none was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    pub trade: Trade,
    pub from: At,
    pub to: At,
}

impl Pulse {
    pub fn asked(&mut self, trade: Trade, at: At) {
        let beat = self.trades.entry(trade).or_default();
        beat.waiting += 1;
        beat.undecided_since.get_or_insert(at);
    }

    /// A request is over; `decided` unless it just ran out of time.
    pub fn ended(&mut self, trade: Trade, at: At, decided: bool) {
        let beat = self.trades.entry(trade).or_default();
        beat.waiting = beat.waiting.saturating_sub(1);
        if !decided {
            return;
        }
        if let Some(from) = beat.undecided_since.take() {
            keep_longest(&mut self.longest, Standstill { trade, from, to: at });
        }
        if beat.waiting > 0 {
            beat.undecided_since = Some(at);
        }
    }

    /// The way was not free: nothing before this moment is held against the system.
    pub fn excuse(&mut self, at: At) {
        for beat in self.trades.values_mut() {
            if let Some(since) = &mut beat.undecided_since {
                *since = at.max(*since);
            }
        }
    }

    /// The longest time for which requests of some trade have been undecided now.
    pub fn undecided(&self, now: At) -> Option<Standstill> {
        let mut longest = None;
        for (trade, beat) in &self.trades {
            if let Some(from) = beat.undecided_since {
                keep_longest(&mut longest, Standstill { trade: *trade, from, to: now.max(from) });
            }
        }
        longest
    }

    /// The longest standstill up to now, one that still lasts included.
    pub fn longest(&self, now: At) -> Option<Standstill> {
        let mut longest = self.longest.clone();
        if let Some(present) = self.undecided(now) {
            keep_longest(&mut longest, present);
        }
        longest
    }
}

fn keep_longest(longest: &mut Option<Standstill>, candidate: Standstill) {
    let length = |still: &Standstill| still.to.saturating_sub(still.from);
    if longest.as_ref().is_none_or(|known| length(known) < length(&candidate)) {
        *longest = Some(candidate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_only_say_time_is_up_are_a_standstill() {
        let mut pulse = Pulse::default();
        for at in (0..100).step_by(10) {
            pulse.asked(Trade::Produce, at);
            pulse.ended(Trade::Produce, at + 9, false);
        }
        assert_eq!(pulse.longest(100), Some(Standstill { trade: Trade::Produce, from: 0, to: 100 }));
    }

    #[test]
    fn a_refusal_at_once_is_a_decision() {
        let mut pulse = Pulse::default();
        for at in (0..100).step_by(10) {
            pulse.asked(Trade::Produce, at);
            pulse.ended(Trade::Produce, at + 1, true);
        }
        assert_eq!(pulse.longest(100).map(|still| still.to - still.from), Some(1));
    }

    #[test]
    fn each_trade_stands_still_by_itself() {
        let mut pulse = Pulse::default();
        pulse.asked(Trade::Change, 0);
        for at in 0..100 {
            pulse.asked(Trade::Produce, at);
            pulse.ended(Trade::Produce, at, true);
        }
        assert_eq!(pulse.longest(100).map(|still| (still.trade, still.to)), Some((Trade::Change, 100)));
    }

    #[test]
    fn a_time_in_which_nobody_could_get_through_does_not_count() {
        let mut pulse = Pulse::default();
        pulse.asked(Trade::Produce, 0);
        pulse.excuse(90);
        assert_eq!(pulse.longest(100).map(|still| still.to - still.from), Some(10));
    }
}
