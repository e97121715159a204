//! Sets of times: spans that are in order and do not overlap.

use crate::history::At;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times(Vec<(At, At)>);

impl Times {
    /// The union of these spans. Empty ones (a moment) are kept.
    pub fn of(spans: impl IntoIterator<Item = (At, At)>) -> Times {
        let mut spans: Vec<(At, At)> = spans.into_iter().filter(|(from, to)| from <= to).collect();
        spans.sort_unstable();
        let mut union: Vec<(At, At)> = Vec::new();
        for (from, to) in spans {
            match union.last_mut() {
                Some((_, end)) if from <= *end => *end = to.max(*end),
                _ => union.push((from, to)),
            }
        }
        Times(union)
    }

    pub fn spans(&self) -> &[(At, At)] {
        &self.0
    }

    /// How much of the time between the two lies in it.
    pub fn within(&self, from: At, to: At) -> At {
        self.0.iter().map(|(begin, end)| to.min(*end).saturating_sub(from.max(*begin))).sum()
    }

    /// Whether any moment from `from` to `to` lies in it.
    pub fn meet(&self, from: At, to: At) -> bool {
        self.0.iter().any(|(begin, end)| *begin <= to && *end >= from)
    }

    /// What it leaves of the time from the start to `end`.
    pub fn others_until(&self, end: At) -> Vec<(At, At)> {
        let mut rest = Vec::new();
        let mut from = 0;
        for (begin, over) in &self.0 {
            if *begin > from {
                rest.push((from, (*begin).min(end)));
            }
            from = from.max(*over);
        }
        if from < end {
            rest.push((from, end));
        }
        rest.retain(|(from, to)| from < to);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_touch_are_one() {
        let times = Times::of([(15, 25), (10, 20), (40, 45), (9, 3)]);
        assert_eq!(times.spans(), [(10, 25), (40, 45)]);
        assert_eq!(times.within(0, 100), 20);
        assert_eq!(times.within(20, 42), 7);
        assert!(times.meet(25, 30) && !times.meet(26, 39));
    }

    #[test]
    fn the_others_are_what_lies_between() {
        let times = Times::of([(10, 20), (15, 25), (40, 45)]);
        assert_eq!(times.others_until(100), [(0, 10), (25, 40), (45, 100)]);
        assert_eq!(Times::default().others_until(100), [(0, 100)]);
        assert_eq!(Times::of([(0, At::MAX)]).others_until(9), []);
        assert_eq!(Times::of([(50, 60)]).others_until(30), [(0, 30)]);
    }
}
