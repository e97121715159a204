//! Clients that ask little are served beside those that ask much.

use reports::{Verdict, Violation};

use super::Findings;
use super::circumstances::Circumstances;
use crate::fault::{Family, FaultKind};
use crate::history::{At, History, Request, RequestEnd, seconds};

/// Clients of this name ask little and behave well.
pub const PROBE: &str = "probe-";
/// Whatever others do, an answer to such a client takes no longer.
const WITHIN: At = 5_000_000_000;

/// Each request of a probe is answered, soon. Whether its answer may be an error is judged with all others. A disk that
/// stands still, or a queue that is full, may use up the deadline that was asked for; only what was broken between the two excuses more.
pub fn served_beside_others(
    history: &History,
    circumstances: &Circumstances,
    grace: At,
    places_full: bool,
) -> Vec<Violation> {
    let mut findings = Findings::of("served-beside-others", Verdict::Freeze);
    let slows = |kind: FaultKind| matches!(kind.family(), Family::Disk | Family::SyncPoint | Family::Clock);
    for request in history.requests.iter().filter(|request| request.client.starts_with(PROBE)) {
        let node = request.machine();
        let node = node.as_str();
        let slowed = circumstances.times_of(node, WITHIN, slows);
        let asked_for = request.deadline.saturating_sub(request.sent);
        let within = match slowed.meet(request.sent, request.ended) {
            true => WITHIN.max(asked_for + grace),
            false => WITHIN,
        };
        let late = request.ended.saturating_sub(request.sent.saturating_add(within));
        let answered = request.end == RequestEnd::Answered;
        if answered && late == 0 {
            continue;
        }
        let promised = Request { deadline: request.sent.saturating_add(within), ..request.clone() };
        let excused = match request.end {
            RequestEnd::Disconnected => {
                is_cut_off(request, circumstances, node)
                    || places_full && is_newcomer_served_next(request, history)
            }
            RequestEnd::Answered | RequestEnd::Unanswered => circumstances.excuse(&promised, node, 0),
        };
        if !excused {
            findings.add(format!(
                "a {} request of {} at {} {} {}, though it asks for little and its way was free",
                request.trade.name(),
                request.client,
                seconds(request.sent),
                match request.end {
                    RequestEnd::Answered => "was answered only at",
                    RequestEnd::Disconnected => "was cut off at",
                    RequestEnd::Unanswered => "had no answer until",
                },
                seconds(request.ended)
            ));
        }
    }
    findings.all()
}

/// A connection ends with its process, or with its way.
fn is_cut_off(request: &Request, circumstances: &Circumstances, node: &str) -> bool {
    circumstances.connections_broken(&request.client, node).meet(request.sent, request.ended)
        || circumstances.kept_away(&request.client, node, request.trade).meet(request.sent, request.ended)
}

/// Where every place is taken a newcomer may be turned away. It comes again, and is served in time all the same.
fn is_newcomer_served_next(request: &Request, history: &History) -> bool {
    let same = |other: &&Request| other.client == request.client;
    let before = |other: &Request| other.connecting == request.connecting && other.sent < request.sent;
    let served = |other: &Request| {
        other.sent >= request.ended
            && other.ended <= request.sent.saturating_add(WITHIN)
            && other.end == RequestEnd::Answered
    };
    !history.requests.iter().filter(same).any(before) && history.requests.iter().filter(same).any(served)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, FaultHits};
    use crate::history::Trade;

    const S: At = 1_000_000_000;

    fn check(client: &str, took_s: At, end: RequestEnd, fault: Option<(FaultKind, &str)>) -> usize {
        let request = Request {
            node: 1,
            client: client.into(),
            trade: Trade::Produce,
            sent: 10 * S,
            deadline: 13 * S,
            ended: (10 + took_s) * S,
            connecting: 10 * S,
            end,
        };
        let history = History { requests: vec![request], ..History::default() };
        let faults = fault.map(|(kind, link)| {
            let fault = Fault { link: Some(link.parse().unwrap()), ..Fault::new(kind) };
            FaultHits::once(fault, 11 * S, 30 * S)
        });
        let circumstances = Circumstances::new(faults.into_iter().collect(), Vec::new(), 100 * S);
        served_beside_others(&history, &circumstances, S, false).len()
    }

    #[test]
    fn a_newcomer_may_be_turned_away_where_all_places_are_taken_if_it_is_served_soon() {
        let request = |sent: At, ended: At, connecting: At, end| Request {
            node: 1,
            client: "probe-1".into(),
            trade: Trade::Look,
            sent: sent * S,
            deadline: (sent + 3) * S,
            ended: ended * S,
            connecting: connecting * S,
            end,
        };
        let found = |requests: Vec<Request>, full| {
            let history = History { requests, ..History::default() };
            let circumstances = Circumstances::new(Vec::new(), Vec::new(), 100 * S);
            served_beside_others(&history, &circumstances, S, full).len()
        };
        let refused = request(10, 11, 10, RequestEnd::Disconnected);
        let served = |at| request(at, at, at, RequestEnd::Answered);
        assert_eq!(found(vec![refused.clone(), served(12)], true), 0);
        assert_eq!(found(vec![refused.clone(), served(12)], false), 1, "there was a place");
        assert_eq!(found(vec![refused.clone(), served(16)], true), 1, "too late");
        let asked_before = request(8, 9, 10, RequestEnd::Answered);
        assert_eq!(found(vec![asked_before, refused, served(12)], true), 1, "it had a place");
    }

    #[test]
    fn a_probe_that_is_answered_soon_is_served() {
        assert_eq!(check("probe-1", 5, RequestEnd::Answered, None), 0);
    }

    #[test]
    fn a_probe_that_waits_for_others_is_not() {
        for end in [RequestEnd::Answered, RequestEnd::Unanswered] {
            assert_eq!(check("probe-1", 6, end, None), 1, "{end:?}");
        }
        assert_eq!(check("probe-1", 1, RequestEnd::Disconnected, None), 1);
        assert_eq!(check("client-1", 60, RequestEnd::Unanswered, None), 0);
    }

    #[test]
    fn only_its_own_way_excuses_it() {
        let partition = |link| Some((FaultKind::Partition, link));
        assert_eq!(check("probe-1", 10, RequestEnd::Unanswered, partition("probe-1 <-> node1")), 0);
        assert_eq!(check("probe-1", 10, RequestEnd::Unanswered, partition("client-1 <-> node1")), 1);
        let reset = Some((FaultKind::Reset, "* <-> node1"));
        assert_eq!(check("probe-1", 2, RequestEnd::Disconnected, reset), 0);
        assert_eq!(check("probe-1", 10, RequestEnd::Unanswered, reset), 1);
    }
}
