//! The pulse of a system: when something was last decided, per trade, while somebody was waiting for it.
//!
//! A request that only runs out of time, on either side, decides nothing. So a broker that answers "timed out"
//! to everyone for an hour stands still as much as one that answers nobody; one that refuses at once does not.

use std::collections::BTreeMap;

/// Nanoseconds since the world began.
pub type At = u64;

/// What a request is for. Each trade can stand still by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trade {
    Produce,
    Consume,
    /// Creating topics, producer ids.
    Change,
    /// Versions, metadata, offsets.
    Look,
    /// Members of groups: who coordinates them, who is there, and how far they are.
    Group,
}

impl Trade {
    pub fn name(self) -> &'static str {
        match self {
            Trade::Produce => "produce",
            Trade::Consume => "fetch",
            Trade::Change => "create topics and producer ids",
            Trade::Look => "metadata and offsets",
            Trade::Group => "group",
        }
    }
}

/// Who asked in vain asks again sooner. Where nobody does, nothing stands still.
const ASKED_AGAIN_WITHIN: At = 5_000_000_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProgressMonitor {
    trades: BTreeMap<Trade, ApiProgress>,
    /// Of each trade, those that are over.
    longest: BTreeMap<Trade, Standstill>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct ApiProgress {
    /// Requests that wait for an answer now, by the time from which one is owed to them.
    waiting: BTreeMap<At, u32>,
    /// The earliest request since the last decision that is over and was not decided.
    undecided_since: Option<At>,
    /// Since when nobody waits.
    quiet_since: Option<At>,
    /// Nothing before this counts: something was decided then, or the way was not free.
    counts_from: At,
}

impl ApiProgress {
    /// Since when nothing was decided though somebody waits or waited for it.
    fn still_since(&self) -> Option<At> {
        let waiting = self.waiting.keys().next().copied();
        let since = match (self.undecided_since, waiting) {
            (Some(over), Some(waiting)) => over.min(waiting),
            (over, waiting) => over.or(waiting)?,
        };
        Some(since.max(self.counts_from))
    }

    /// Until when it stands still: now, or when the last gave up and nobody asked again.
    fn still_until(&self, now: At) -> At {
        self.quiet_since.filter(|quiet| quiet.saturating_add(ASKED_AGAIN_WITHIN) < now).unwrap_or(now)
    }

    fn standstill(&self, trade: Trade, now: At) -> Option<Standstill> {
        let from = self.still_since()?;
        Some(Standstill { trade, from, to: self.still_until(now).max(from) })
    }

    fn over(&mut self, owed_from: At, now: Option<At>) {
        if let Some(count) = self.waiting.get_mut(&owed_from) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&owed_from);
            }
        }
        if self.waiting.is_empty() {
            self.quiet_since = now.or(self.quiet_since);
        }
    }
}

/// A time in which requests of one trade were made and none was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    pub trade: Trade,
    pub from: At,
    pub to: At,
}

impl Standstill {
    pub fn length(&self) -> At {
        self.to.saturating_sub(self.from)
    }
}

impl ProgressMonitor {
    /// Somebody asks now, and an answer is owed from `owed_from` on: at once, or after the wait that was asked for.
    pub fn asked(&mut self, trade: Trade, now: At, owed_from: At) {
        let beat = self.trades.entry(trade).or_default();
        let until = beat.still_until(now);
        if until < now
            && let Some(from) = beat.still_since().filter(|from| *from <= until)
        {
            keep_longest_of(&mut self.longest, Standstill { trade, from, to: until });
            beat.undecided_since = None;
        }
        beat.quiet_since = None;
        *beat.waiting.entry(owed_from).or_insert(0) += 1;
    }

    /// The request that has waited for the longest is over; `decided` unless it just ran out of time.
    pub fn ended(&mut self, trade: Trade, at: At, decided: bool) {
        let first = self.trades.get(&trade).and_then(|beat| beat.waiting.keys().next().copied());
        self.ended_one(trade, first.unwrap_or(at), at, decided);
    }

    /// The request to which an answer was owed from `owed_from` on is over.
    pub fn ended_one(&mut self, trade: Trade, owed_from: At, at: At, decided: bool) {
        let beat = self.trades.entry(trade).or_default();
        if !decided {
            beat.over(owed_from, Some(at));
            if owed_from <= at {
                beat.undecided_since =
                    Some(beat.undecided_since.map_or(owed_from, |since| since.min(owed_from)));
            }
            return;
        }
        if let Some(from) = beat.still_since().filter(|from| *from <= at) {
            keep_longest_of(&mut self.longest, Standstill { trade, from, to: at });
        }
        beat.over(owed_from, Some(at));
        beat.undecided_since = None;
        beat.counts_from = beat.counts_from.max(at);
    }

    /// The client does not want to know any more: nothing follows from this request.
    pub fn withdrawn(&mut self, trade: Trade, owed_from: At) {
        self.trades.entry(trade).or_default().over(owed_from, None);
    }

    /// The way was not free: nothing before this moment is held against the system.
    pub fn excuse(&mut self, at: At) {
        for beat in self.trades.values_mut() {
            beat.counts_from = beat.counts_from.max(at);
        }
    }

    /// The longest time for which requests of some trade have been undecided now.
    pub fn undecided(&self, now: At) -> Option<Standstill> {
        let mut longest = None;
        for (trade, beat) in &self.trades {
            if let Some(present) = beat.standstill(*trade, now) {
                keep_longest(&mut longest, present);
            }
        }
        longest
    }

    /// The longest standstill up to now, one that still lasts included.
    pub fn longest(&self, now: At) -> Option<Standstill> {
        let mut longest = None;
        for candidate in self.longest.values().cloned().chain(self.undecided(now)) {
            keep_longest(&mut longest, candidate);
        }
        longest
    }

    /// The same of one trade; nothing where nobody asked.
    pub fn longest_of(&self, trade: Trade, now: At) -> Option<Standstill> {
        let mut longest = self.longest.get(&trade).cloned();
        if let Some(present) = self.trades.get(&trade).and_then(|beat| beat.standstill(trade, now)) {
            keep_longest(&mut longest, present);
        }
        longest
    }
}

fn keep_longest(longest: &mut Option<Standstill>, candidate: Standstill) {
    if longest.as_ref().is_none_or(|known| known.length() < candidate.length()) {
        *longest = Some(candidate);
    }
}

fn keep_longest_of(all: &mut BTreeMap<Trade, Standstill>, candidate: Standstill) {
    let known = all.entry(candidate.trade).or_insert_with(|| candidate.clone());
    if known.length() < candidate.length() {
        *known = candidate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_only_say_time_is_up_are_a_standstill() {
        let mut pulse = ProgressMonitor::default();
        for at in (0..100).step_by(10) {
            pulse.asked(Trade::Produce, at, at);
            pulse.ended(Trade::Produce, at + 9, false);
        }
        assert_eq!(pulse.longest(100), Some(Standstill { trade: Trade::Produce, from: 0, to: 100 }));
    }

    #[test]
    fn nothing_stands_still_that_nobody_asks_for() {
        const S: At = 1_000_000_000;
        let mut pulse = ProgressMonitor::default();
        pulse.asked(Trade::Change, S, S);
        pulse.ended(Trade::Change, 6 * S, false);
        let still = |to| Some(Standstill { trade: Trade::Change, from: S, to });
        assert_eq!(pulse.longest(8 * S), still(8 * S), "somebody may ask again");
        assert_eq!(pulse.longest(60 * S), still(6 * S));
        pulse.asked(Trade::Change, 61 * S, 61 * S);
        pulse.ended(Trade::Change, 62 * S, true);
        assert_eq!(pulse.longest(63 * S), still(6 * S));
    }

    #[test]
    fn a_refusal_at_once_is_a_decision() {
        let mut pulse = ProgressMonitor::default();
        for at in (0..100).step_by(10) {
            pulse.asked(Trade::Produce, at, at);
            pulse.ended(Trade::Produce, at + 1, true);
        }
        assert_eq!(pulse.longest(100).map(|still| still.to - still.from), Some(1));
    }

    #[test]
    fn each_trade_stands_still_by_itself() {
        let mut pulse = ProgressMonitor::default();
        pulse.asked(Trade::Change, 0, 0);
        for at in 0..100 {
            pulse.asked(Trade::Produce, at, at);
            pulse.ended(Trade::Produce, at, true);
        }
        assert_eq!(pulse.longest(100).map(|still| (still.trade, still.to)), Some((Trade::Change, 100)));
        let of = |trade| pulse.longest_of(trade, 100).map(|still| still.length());
        assert_eq!((of(Trade::Produce), of(Trade::Change), of(Trade::Look)), (Some(0), Some(100), None));
    }

    #[test]
    fn a_time_in_which_nobody_could_get_through_does_not_count() {
        let mut pulse = ProgressMonitor::default();
        pulse.asked(Trade::Produce, 0, 0);
        pulse.excuse(90);
        assert_eq!(pulse.longest(100).map(|still| still.to - still.from), Some(10));
    }

    #[test]
    fn a_long_poll_is_owed_nothing_while_it_waits_as_it_asked() {
        let mut pulse = ProgressMonitor::default();
        pulse.asked(Trade::Consume, 0, 30);
        assert_eq!(pulse.longest(20).map(|still| still.to - still.from), Some(0));
        assert_eq!(pulse.longest(37).map(|still| still.to - still.from), Some(7));
        pulse.asked(Trade::Consume, 0, 5);
        pulse.ended_one(Trade::Consume, 5, 6, true);
        pulse.ended_one(Trade::Consume, 30, 31, true);
        assert_eq!(pulse.longest(100).map(|still| still.to - still.from), Some(1));
    }

    #[test]
    fn a_client_that_leaves_is_owed_nothing() {
        let mut pulse = ProgressMonitor::default();
        pulse.asked(Trade::Produce, 0, 0);
        pulse.withdrawn(Trade::Produce, 0);
        assert_eq!(pulse.longest(100), None);
    }
}
