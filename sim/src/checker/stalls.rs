//! What a disk that stands still costs: how soon what was on its way gets through elsewhere, and what everybody else feels of it.

use std::collections::{BTreeMap, BTreeSet};

use super::quantile;
use crate::history::{AckMode, At, History, Outcome, Send};

/// The disk of a node stands still.
#[derive(Clone, Debug, PartialEq)]
pub struct Stall {
    pub node: i32,
    pub from: At,
    pub until: At,
}

/// What was sent by then after the beginning of a stall counts as sent into it: it is judged as still after a second.
const NOTICED_AFTER: At = 1_000_000_000;
/// From then on who leads what is settled.
const OVER_AFTER: At = 2_000_000_000;
/// After the end of a stall, until the node has caught up.
const AFTERMATH: At = 5_000_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Costs {
    /// The longest time from the beginning of a stall until something was acknowledged that was on its way then, or sent in the second after; and,
    /// from when it was sent, of what a producer sends to a partition first after that.
    pub resume: Option<At>,
    /// The same from the beginning of a pause.
    pub pause_resume: Option<At>,
    /// The 99th percentile of acknowledgements of partitions without a replica on the node, as a multiple of theirs without a stall.
    pub untouched_p99: Option<f64>,
    /// The same of partitions with a replica there, from two seconds on, but for what a producer sends to a partition first.
    pub touched_p99: Option<f64>,
}

/// Those that no other one meets.
pub fn apart(stalls: Vec<Stall>) -> Vec<Stall> {
    let meet = |one: &Stall, other: &Stall| one != other && one.from < other.until && other.from < one.until;
    stalls.iter().filter(|one| !stalls.iter().any(|other| meet(one, other))).cloned().collect()
}

/// `replicas` has the nodes of each partition.
pub fn costs(history: &History, stalls: &[Stall], replicas: &BTreeMap<String, Vec<i32>>) -> Costs {
    let sends: Vec<(&Send, At, At)> = history
        .sends
        .iter()
        .filter(|send| send.acks != AckMode::None && !send.abandoned)
        .filter_map(|send| {
            let acked = match send.outcome {
                Outcome::Acked { at, .. } => at,
                _ => At::MAX,
            };
            Some((send, send.sent?, acked))
        })
        .collect();
    let is_there = |send: &Send, stall: &Stall| {
        let of = replicas.get(&format!("{}-{}", send.place.topic, send.place.partition));
        of.is_some_and(|of| of.contains(&stall.node))
    };
    let within = |sent: At, stall: &Stall| (stall.from..stall.until).contains(&sent);
    // What a producer sends to a partition first when the stall is noticed, however late: it learns then who leads it.
    let mut firsts = BTreeSet::new();
    let mut resume = None;
    for stall in stalls {
        let mut met = BTreeSet::new();
        let mut into: Vec<_> = sends
            .iter()
            .enumerate()
            .filter(|(_, (_, sent, acked))| *acked > stall.from && *sent < stall.until)
            .collect();
        into.sort_by_key(|(_, (_, sent, _))| *sent);
        for (index, (send, sent, acked)) in into {
            let is_first = *sent >= stall.from + NOTICED_AFTER && met.insert((send.producer, &send.place));
            if *sent < stall.from + NOTICED_AFTER {
                resume = resume.max(Some(acked.saturating_sub(stall.from)));
            } else if is_first {
                resume = resume.max(Some(acked.saturating_sub(*sent)));
            }
            if is_first {
                firsts.insert(index);
            }
        }
    }
    let p99 = |wanted: &dyn Fn(&Send, At, bool) -> bool| {
        let mut took: Vec<At> = sends
            .iter()
            .enumerate()
            .filter(|(index, (send, sent, _))| wanted(send, *sent, firsts.contains(index)))
            .map(|(_, (_, sent, acked))| acked.saturating_sub(*sent))
            .collect();
        took.sort_unstable();
        quantile(&took, 0.99).map(|ns| ns.max(1) as f64)
    };
    let calm = |sent: At| {
        !stalls.iter().any(|stall| (stall.from..stall.until.saturating_add(AFTERMATH)).contains(&sent))
    };
    let usual = p99(&|_, sent, _| calm(sent));
    let times = |during: Option<f64>| Some(during? / usual?);
    let untouched =
        p99(&|send, sent, _| stalls.iter().any(|stall| within(sent, stall) && !is_there(send, stall)));
    let touched = p99(&|send, sent, is_first| {
        let settled = |stall: &&Stall| within(sent, stall) && sent >= stall.from + OVER_AFTER;
        !is_first && stalls.iter().filter(settled).any(|stall| is_there(send, stall))
    });
    Costs { resume, pause_resume: None, untouched_p99: times(untouched), touched_p99: times(touched) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::stories::*;

    const MS: At = 1_000_000;

    fn send(partition: i32, sent_ms: At, took_ms: At) -> Send {
        let one = acked(sent_ms, 0);
        let place = crate::history::Place { partition, ..one.place.clone() };
        let outcome = Outcome::Acked { at: (sent_ms + took_ms) * MS, base: Some(0) };
        Send { place, sent: Some(sent_ms * MS), acks: AckMode::All, outcome, ..one }
    }

    #[test]
    fn who_waits_from_the_beginning_and_who_is_slower_than_usual_is_told() {
        let usual = || (0..100).flat_map(|n| [send(0, n, 2), send(1, n, 2)]);
        let name = |partition: i32| {
            let place = send(partition, 0, 0).place;
            format!("{}-{}", place.topic, place.partition)
        };
        let replicas = BTreeMap::from([(name(0), vec![1, 2]), (name(1), vec![2, 3])]);
        let stalls = [Stall { node: 1, from: 10_000 * MS, until: 20_000 * MS }];
        let of = |more: Vec<Send>| {
            let sends = usual().chain(more).collect();
            costs(&History { sends, ..History::default() }, &stalls, &replicas)
        };
        assert_eq!(of(vec![]), Costs::default());
        let on_its_way = of(vec![send(0, 9_990, 1_510), send(0, 10_400, 900), send(1, 10_400, 2)]);
        assert_eq!(on_its_way.resume, Some(1_500 * MS), "from the beginning of the stall");
        assert_eq!((on_its_way.untouched_p99, on_its_way.touched_p99), (Some(1.0), None));
        let later = of(vec![send(0, 12_500, 90), send(0, 13_000, 8), send(1, 13_000, 6)]);
        assert_eq!((later.untouched_p99, later.touched_p99), (Some(3.0), Some(4.0)));
        assert_eq!(later.resume, Some(90 * MS), "it has to find out who leads");
        let twice = of(vec![send(0, 10_300, 2), send(0, 12_500, 90), send(0, 13_000, 8)]);
        assert_eq!(twice.touched_p99, Some(4.0), "it was taken where the leader was, which has moved since");
        let lost = Send { outcome: Outcome::Unknown, ..send(0, 10_100, 0) };
        assert!(of(vec![lost]).resume.is_some_and(|resume| resume > 1 << 60), "it never was");
    }
}
