//! A node that takes no writes says so: at once to those who ask, and on `/health/ready`, with its reason.

use std::collections::BTreeMap;

use reports::{Verdict, Violation};

use super::Findings;
use super::causes::plain;
use super::circumstances::Circumstances;
use crate::fault::{Family, Fault, FaultKind, Operation, PathClass, PathSelector};
use crate::history::{
    AckMode, At, Complaint, Deleted, History, Outcome, Place, Readiness, Request, Trade, seconds,
};

/// Nobody is acknowledged anything for this long, though so many ask.
const SILENT_FOR: At = 10_000_000_000;
const ATTEMPTS: usize = 3;
/// Writes that are refused for longer have to show in the node's health.
const DECLARED_AFTER: At = 5_000_000_000;
/// A node that is asked between refusals that lie this close to one another is refusing.
const AMID: At = 2_000_000_000;
/// A reason takes some words.
const REASON_CHARS_MIN: usize = 10;
/// A disk that has stood still for this long is known to.
const KNOWN_AFTER: At = 2_000_000_000;
const AT_ONCE: At = 1_000_000_000;
/// What was broken may be felt for so long afterwards.
const AFTERWARDS: At = 5_000_000_000;

/// No produce is acknowledged for long though producers ask, nothing is broken, and the node calls itself ready; or
/// writes, to all partitions or to one, are refused for some time and its health does not say so, or not why.
pub fn silent_refusals(history: &History, circumstances: &Circumstances, node: &str) -> Vec<Violation> {
    let mut findings = Findings::of("silent-refusal", Verdict::Freeze);
    let acknowledged = acknowledgements(history);
    let end = circumstances.until();
    let mut broken: Vec<(At, At)> = circumstances.trouble(node, &history.requests).spans().to_vec();
    for (_, to) in &mut broken {
        *to = to.saturating_add(AFTERWARDS);
    }
    let clear = super::circumstances::Times::of(broken).others_until(end);
    for (from, to) in between(&acknowledged, end) {
        for (from, to) in clear.iter().map(|(begin, over)| (from.max(*begin), to.min(*over))) {
            ready_and_silent(history, from, to, &mut findings);
        }
    }
    let refusals = history.complaints.iter().filter(|complaint| is_refusal(complaint));
    let mut found = Vec::new();
    for refused in throughout(refusals.map(|complaint| complaint.at), &acknowledged) {
        found.extend(undeclared(&refused, "every write", history, circumstances, node));
    }
    if found.is_empty() {
        for (place, refused) in refused_places(history) {
            let what = format!("every write to {place}");
            found.extend(undeclared(&refused, &what, history, circumstances, node));
        }
    }
    found.into_iter().for_each(|what| findings.add(what));
    findings.all()
}

/// What was refused goes on for long, and the node's health does not say so.
fn undeclared(
    refused: &[At],
    what: &str,
    history: &History,
    circumstances: &Circumstances,
    node: &str,
) -> Option<String> {
    let (from, to) = (refused[0], refused[refused.len() - 1]);
    // Full queues and stopped tasks refuse here and there: a node has no reason to tell for those.
    let unfelt = |kind: FaultKind| {
        matches!(kind.family(), Family::SyncPoint | Family::Task | Family::Clock) || kind == FaultKind::Pause
    };
    if circumstances.times_of(node, AFTERWARDS, unfelt).meet(from, to) {
        return None;
    }
    // A node whose trouble ended and began anew needs time again.
    let mut told = None;
    for check in history.health.iter().filter(|check| check.asked >= from) {
        // Somebody is refused just before it is asked and just after it has answered.
        let any = |from: At, to: At| {
            refused.get(refused.partition_point(|at| *at < from)).is_some_and(|at| *at <= to)
        };
        let amid = any(check.asked.saturating_sub(AMID), check.asked);
        let goes_on = any(check.at, check.at.saturating_add(AMID));
        // A process that has just begun to serve has not refused for long.
        let fresh = circumstances
            .lives(node)
            .filter_map(|life| life.serving)
            .any(|serving| (serving..serving + DECLARED_AFTER).contains(&check.at));
        // One that has just begun to take writes again may have refused some that had waited.
        let over = check.at.saturating_add(AMID) > to;
        let says = match &check.answer {
            Readiness::Ready => "it calls itself ready".to_owned(),
            Readiness::NotReady(why) | Readiness::ReadyBut(why) if names_a_reason(why) => {
                told = Some(check.at);
                continue;
            }
            Readiness::ReadyBut(why) => format!("it says no more than {why:?}"),
            Readiness::NotReady(why) => format!("it gives no reason but {why:?}"),
            Readiness::Starting(_) | Readiness::Silent => continue,
        };
        let soon = check.asked < told.unwrap_or(from).saturating_add(DECLARED_AFTER);
        if soon || over || !amid || !goes_on || fresh {
            continue;
        }
        return Some(format!(
            "{node} refuses {what} since {}, and at {} {says}",
            seconds(from),
            seconds(check.at)
        ));
    }
    None
}

fn ready_and_silent(history: &History, from: At, to: At, findings: &mut Findings) {
    let attempts: Vec<At> = history
        .requests
        .iter()
        .filter(|request| request.trade == Trade::Produce && request.sent >= from && request.ended <= to)
        .map(|request| request.sent)
        .collect();
    let (Some(first), Some(last)) = (attempts.iter().min().copied(), attempts.iter().max()) else { return };
    if attempts.len() <= ATTEMPTS || last - first <= SILENT_FOR {
        return;
    }
    let mut answers = history.health.iter().filter(|check| check.asked >= first && check.at <= to).peekable();
    if answers.peek().is_some() && answers.all(|check| check.answer == Readiness::Ready) {
        findings.add(format!(
            "from {} to {} nothing was acknowledged to anybody, in {} attempts; nothing was broken, and /health/ready said ready",
            seconds(first),
            seconds(to),
            attempts.len()
        ));
    }
}

fn names_a_reason(why: &str) -> bool {
    let why = why.trim();
    why.len() >= REASON_CHARS_MIN && !plain(why).trim_end_matches("ready").eq("not")
}

/// When something was acknowledged, in order.
fn acknowledgements(history: &History) -> Vec<At> {
    let mut times: Vec<At> = history
        .sends
        .iter()
        .filter(|send| send.acks != AckMode::None)
        .filter_map(|send| match send.outcome {
            Outcome::Acked { at, .. } => Some(at),
            _ => None,
        })
        .collect();
    let deleted = history.deletions.iter().filter(|deletion| matches!(deletion.told, Deleted::From(_)));
    times.extend(deleted.filter_map(|deletion| deletion.answered));
    times.sort_unstable();
    times
}

/// The times between them, long enough to matter.
fn between(times: &[At], end: At) -> Vec<(At, At)> {
    let mut edges = vec![0];
    edges.extend_from_slice(times);
    edges.push(end);
    edges
        .windows(2)
        .map(|pair| (pair[0], pair[1]))
        .filter(|(from, to)| to.saturating_sub(*from) > SILENT_FOR)
        .collect()
}

fn is_refusal(complaint: &Complaint) -> bool {
    complaint.trade == Trade::Produce
        && matches!(
            plain(&complaint.error).as_str(),
            "kafkastorageerror" | "notleaderorfollower" | "notenoughreplicas" | "policyviolation"
        )
}

/// Partitions whose every write is refused for long, while their topics are there, each with when.
fn refused_places(history: &History) -> Vec<(&Place, Vec<At>)> {
    let mut acknowledged: BTreeMap<&Place, Vec<At>> = BTreeMap::new();
    for send in history.sends.iter().filter(|send| send.acks != AckMode::None) {
        if let Outcome::Acked { at, .. } = send.outcome {
            acknowledged.entry(&send.place).or_default().push(at);
        }
    }
    let mut refused: BTreeMap<&Place, Vec<At>> = BTreeMap::new();
    for complaint in history.complaints.iter().filter(|complaint| is_refusal(complaint)) {
        let Some(place) = &complaint.place else { continue };
        if !history.deleted.contains_key(&*place.topic) {
            refused.entry(place).or_default().push(complaint.at);
        }
    }
    let mut found = Vec::new();
    for (place, refused) in refused {
        let acknowledged = acknowledged.entry(place).or_default();
        acknowledged.sort_unstable();
        found.extend(throughout(refused.into_iter(), acknowledged).into_iter().map(|times| (place, times)));
    }
    found
}

/// Refusals with no acknowledgement among them, in order, where they go on for long.
fn throughout(refused: impl Iterator<Item = At>, acknowledged: &[At]) -> Vec<Vec<At>> {
    let mut refused: Vec<At> = refused.collect();
    refused.sort_unstable();
    let mut groups: Vec<(usize, Vec<At>)> = Vec::new();
    for at in refused {
        let before = acknowledged.partition_point(|acked| *acked <= at);
        match groups.last_mut() {
            Some((group, times)) if *group == before => times.push(at),
            _ => groups.push((before, vec![at])),
        }
    }
    let is_long = |times: &Vec<At>| times[times.len() - 1] - times[0] > DECLARED_AFTER;
    groups.into_iter().map(|(_, times)| times).filter(is_long).collect()
}

/// While a disk stands still and the node has had time to know it, whoever asks and is refused is refused at once and not
/// after a deadline. What came before may stand in the journal's queue, and a request that holds a batch of that waits for it.
pub fn refused_at_once(history: &History, circumstances: &Circumstances, node: &str) -> Vec<Violation> {
    let mut findings = Findings::of("refused-at-once", Verdict::Freeze);
    let refused: Vec<&Complaint> = history
        .complaints
        .iter()
        .filter(|complaint| {
            complaint.trade == Trade::Produce && plain(&complaint.error) == "kafkastorageerror"
        })
        .collect();
    let mut ends: BTreeMap<&str, Vec<End>> = BTreeMap::new();
    for Request { client, ended, sent, trade, .. } in &history.requests {
        ends.entry(&**client).or_default().push(End { ended: *ended, sent: *sent, trade: *trade });
    }
    // What ended at one moment stays in the order of its answers.
    ends.values_mut().for_each(|ends| ends.sort_by_key(|end| (end.ended, end.sent)));
    for hit in circumstances.faults_of(node, |kind| kind == FaultKind::DiskStall) {
        if !stops_commits(&hit.fault) {
            continue;
        }
        let known = hit.from.saturating_add(KNOWN_AFTER);
        for complaint in refused.iter().filter(|c| known <= c.sent && c.at <= hit.until) {
            let from = its_turn(ends.get(&*complaint.client).map_or(&[], Vec::as_slice), complaint);
            let took = complaint.at.saturating_sub(from);
            if took <= AT_ONCE {
                continue;
            }
            let away = circumstances.kept_away(&complaint.client, node, complaint.trade);
            if took.saturating_sub(away.within(from, complaint.at)) > AT_ONCE {
                findings.add(format!(
                    "{} was refused at {} what it had asked for at {}, though the disk stood still since {}",
                    complaint.client,
                    seconds(complaint.at),
                    seconds(complaint.sent),
                    seconds(hit.from)
                ));
            }
        }
    }
    findings.all()
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
struct End {
    ended: At,
    sent: At,
    trade: Trade,
}

/// When nothing was left to be answered that the client had asked before: answers come in order, and what was on its way
/// when the disk stopped may take as long as it was allowed to.
/// `ends` of its client's requests, in order.
fn its_turn(ends: &[End], complaint: &Complaint) -> At {
    let own = (complaint.at, complaint.sent);
    let earlier = ends.partition_point(|end| (end.ended, end.sent) < own);
    // Of one write and answered at one moment: the first of them may be something else that was waited for.
    let same = ends.get(earlier).filter(|end| (end.ended, end.sent) == own && end.trade != Trade::Produce);
    let before = ends[..earlier].iter().rev().find(|end| end.sent <= complaint.sent);
    same.or(before).map_or(0, |end| end.ended).max(complaint.sent)
}

fn stops_commits(fault: &Fault) -> bool {
    let journal = match &fault.path {
        None | Some(PathSelector::Any) => true,
        Some(PathSelector::Class(class)) => *class == PathClass::Journal,
        Some(PathSelector::Pattern(_)) => false,
    };
    let commits = matches!(fault.operation, None | Some(Operation::Any | Operation::Sync | Operation::Write));
    journal && commits && fault.count.is_none() && fault.per_mille.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::circumstances::Life;
    use crate::checker::stories::*;
    use crate::fault::FaultHits;
    use crate::history::{HealthCheck, RequestEnd, Send};

    const S: At = 1_000_000_000;

    fn acked_at(at_s: At) -> Send {
        Send { outcome: Outcome::Acked { at: at_s * S, base: Some(0) }, ..acked(0, 0) }
    }

    fn refused(sent: At, at: At) -> Complaint {
        Complaint {
            client: "client-1".into(),
            trade: Trade::Produce,
            place: Some(place()),
            error: "KafkaStorageError".into(),
            sent,
            at,
            routed: None,
        }
    }

    /// Refused every second from 10 s to 30 s, and asked for its health as often.
    fn refusing(answer: &Readiness) -> History {
        let mut history = History { sends: vec![acked_at(9), acked_at(31)], ..History::default() };
        for second in 10..=30 {
            let sent = second * S;
            history.requests.push(Request {
                node: 1,
                client: "client-1".into(),
                trade: Trade::Produce,
                sent,
                deadline: sent + S,
                ended: sent + 1,
                connecting: S,
                end: RequestEnd::Answered,
            });
            history.complaints.push(refused(sent, sent + 1));
            history.health.push(HealthCheck { node: 1, asked: sent, at: sent + 1, answer: answer.clone() });
        }
        history
    }

    fn circumstances(kind: Option<FaultKind>) -> Circumstances {
        let hit = |kind| FaultHits::once(Fault::new(kind).on(1), 10 * S, 30 * S);
        let life = Life { node: "node1".into(), incarnation: 1, serving: Some(S), ..Life::default() };
        Circumstances::new(kind.map(hit).into_iter().collect(), vec![life], 40 * S)
    }

    fn silent(history: &History, kind: Option<FaultKind>) -> Vec<Violation> {
        silent_refusals(history, &circumstances(kind), "node1")
    }

    #[test]
    fn a_node_that_refuses_and_calls_itself_ready_is_found() {
        // Once since nothing was acknowledged though nothing is broken, once since it does not tell.
        assert_eq!(silent(&refusing(&Readiness::Ready), None).len(), 2);
        assert_eq!(silent(&refusing(&Readiness::Ready), Some(FaultKind::DiskFull)).len(), 1);
    }

    #[test]
    fn a_reason_is_more_than_not_ready() {
        for (why, count) in
            [("", 1), ("not ready", 1), ("NOT_READY!!!", 1), ("no space left on the journal's disk", 0)]
        {
            let history = refusing(&Readiness::NotReady(why.into()));
            assert_eq!(silent(&history, Some(FaultKind::DiskFull)).len(), count, "{why:?}");
        }
    }

    #[test]
    fn a_node_that_told_a_moment_ago_is_heard() {
        let why = "no space left on the journal's disk".to_owned();
        for (ready_from, count) in [(20, 1), (22, 1), (24, 0)] {
            let mut history = refusing(&Readiness::NotReady(why.clone()));
            for check in history.health.iter_mut().filter(|check| check.asked >= ready_from * S) {
                check.answer = Readiness::Ready;
            }
            assert_eq!(silent(&history, Some(FaultKind::DiskFull)).len(), count, "{ready_from}");
        }
    }

    #[test]
    fn who_acknowledges_something_now_and_then_does_not_refuse_everything() {
        let mut history = refusing(&Readiness::Ready);
        history.sends.extend([acked_at(14), acked_at(18), acked_at(22), acked_at(26)]);
        assert_eq!(silent(&history, None), []);
    }

    #[test]
    fn a_partition_that_is_refused_beside_others_is_told_of_too() {
        let mut history = refusing(&Readiness::Ready);
        let elsewhere = Place { topic: "orders".into(), partition: 1 };
        for second in 9..=31 {
            history.sends.push(Send { place: elsewhere.clone(), ..acked_at(second) });
        }
        let found = silent(&history, None);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("every write to orders-0 since 10.000 s"), "{}", found[0].what);
        let why = "ready, but 1 partitions do not serve yet".to_owned();
        history.health.iter_mut().for_each(|check| check.answer = Readiness::ReadyBut(why.clone()));
        assert_eq!(silent(&history, None), []);
        history.health.iter_mut().for_each(|check| check.answer = Readiness::Ready);
        history.deleted.insert("orders".into(), 12 * S);
        assert_eq!(silent(&history, None), []);
    }

    #[test]
    fn full_queues_need_no_declaration() {
        assert_eq!(silent(&refusing(&Readiness::Ready), Some(FaultKind::ChannelFull)), []);
    }

    #[test]
    fn a_refusal_after_a_deadline_is_none_at_once() {
        let history = |took: At| {
            let complaints =
                vec![refused(11 * S, 12 * S), refused(15 * S, 15 * S + took), refused(12 * S - 1, 17 * S)];
            History { complaints, ..History::default() }
        };
        let found = |history: &History, kind| refused_at_once(history, &circumstances(kind), "node1").len();
        assert_eq!(found(&history(S), Some(FaultKind::DiskStall)), 0);
        assert_eq!(found(&history(S + 1), Some(FaultKind::DiskStall)), 1);
        assert_eq!(found(&history(S + 1), None), 0);
        // What the client had asked before was answered first.
        let mut pipelined = history(2 * S);
        pipelined.requests.push(Request {
            node: 1,
            client: pipelined.complaints[1].client.clone(),
            trade: Trade::Produce,
            sent: 10 * S,
            deadline: 20 * S,
            ended: 17 * S,
            connecting: S,
            end: RequestEnd::Answered,
        });
        assert_eq!(found(&pipelined, Some(FaultKind::DiskStall)), 0);
        pipelined.requests[0].ended = 15 * S + 1;
        assert_eq!(found(&pipelined, Some(FaultKind::DiskStall)), 1);
        // In the same write; its own end is no excuse.
        (pipelined.requests[0].sent, pipelined.requests[0].ended) = (15 * S, 17 * S - 1);
        assert_eq!(found(&pipelined, Some(FaultKind::DiskStall)), 0);
        pipelined.requests[0].ended = 17 * S;
        assert_eq!(found(&pipelined, Some(FaultKind::DiskStall)), 1);
        pipelined.requests.insert(0, Request { trade: Trade::Consume, ..pipelined.requests[0].clone() });
        assert_eq!(found(&pipelined, Some(FaultKind::DiskStall)), 0, "it stood behind a long poll");
        pipelined.requests.swap(0, 1);
        assert_eq!(found(&pipelined, Some(FaultKind::DiskStall)), 1, "and here before one");
    }
}
