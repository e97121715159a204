//! No error without a cause: what clients are told has to be so.

use broker::limits::ADMIN_WARNINGS_MAX;
use reports::{Verdict, Violation};

use super::Findings;
use super::circumstances::{Circumstances, Times};
use crate::fault::{Family, Fault, FaultHits, FaultKind, Operation};
use crate::history::{At, Complaint, HealthCheck, History, Place, Readiness, Trade, seconds, wire_name};

/// What was broken may be felt for so long afterwards, and topics are not everywhere at once.
const AFTERWARDS: At = 5_000_000_000;
/// Who leads is looked at this often, or oftener.
const SEEN_WITHIN: At = 1_000_000_000;

/// What can bring an error about. Several may; none: nothing can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A fault of the node's disk.
    Disk,
    /// The node says on `/health/ready` that it does not serve, and why.
    Declared,
    /// The node's process or its tasks could not run, or its queues were full.
    Work,
    /// The node's process started or ended.
    Start,
    /// A clock that ran wrong or jumped.
    Clock,
    /// ... at any time before: whoever jumps stays where it came to, and jumps add up.
    WallClock,
    /// The topic, or the partition of it, was being created, or had been deleted.
    Topic,
    /// A fault that changes what is on the disk.
    Corruption,
    /// ... and the node, if it was asked since its start, last said of the partition that it does not serve.
    Damage,
    /// The network between nodes, or to one of them, was broken.
    Network,
    /// The partition went back to the first of its replicas.
    Balance,
    /// The partition was moved to other nodes.
    Move,
    /// Asked again for what was there already, or with a session of before: part of the protocol.
    Protocol,
}

/// Kafka's names of errors, without case and underscores, with what can cause them.
fn causes(error: &str) -> &'static [Cause] {
    use Cause::*;
    match error {
        // A clock that jumps ends deadlines: a read that was in time is given up.
        "kafkastorageerror" => &[Disk, Declared, Work, Start, Clock],
        "requesttimedout" => &[Disk, Declared, Work, Start, Clock],
        "notleaderorfollower" | "leadernotavailable" => &[Disk, Work, Start, Topic, Damage],
        // Somebody else leads by now, or the same node anew. Whoever names a wrong epoch on purpose does not complain.
        "fencedleaderepoch" => &[Disk, Work, Start, Topic],
        "notcontroller" => &[Disk, Work, Start],
        "coordinatornotavailable" => &[Disk, Declared, Work, Start, Clock, Topic],
        "notcoordinator" | "coordinatorloadinprogress" => &[Disk, Declared, Work, Start, Clock, Topic],
        // Whoever was heard of in time is a member still, unless the coordinator, or the way to it, was not well.
        error if is_of_members(error) => &[Disk, Declared, Work, Start, Clock, Network],
        "unknowntopicorpartition" | "unknowntopicid" => &[Topic],
        "corruptmessage" => &[Corruption],
        "invalidtimestamp" => &[Clock, WallClock],
        "topicalreadyexists" => &[Protocol],
        "fetchsessionidnotfound" => &[Protocol],
        // An offset that is out of range, a sequence that is out of order, a producer that is not known, and everything that says the request is
        // wrong: well-behaved clients are told none of these.
        _ => &[],
    }
}

/// What else can cause an error where there are several nodes: whatever keeps a leader from its followers, or moves
/// leadership, on whichever of them.
fn causes_among_several(error: &str) -> &'static [Cause] {
    use Cause::*;
    match error {
        "notleaderorfollower" | "leadernotavailable" | "fencedleaderepoch" | "unknownleaderepoch" => {
            &[Disk, Declared, Work, Start, Clock, Network, Topic, Balance, Move]
        }
        "notenoughreplicas" | "notenoughreplicasafterappend" | "offsetnotavailable" => {
            &[Disk, Declared, Work, Start, Clock, Network, Topic]
        }
        // Who loses an epoch does not know what becomes of what it has appended in it.
        "requesttimedout" => &[Disk, Declared, Work, Start, Clock, Network, Move],
        "kafkastorageerror"
        | "notcontroller"
        | "coordinatornotavailable"
        | "networkexception"
        | "brokernotavailable" => &[Disk, Declared, Work, Start, Clock, Network],
        "notcoordinator" | "coordinatorloadinprogress" => {
            &[Disk, Declared, Work, Start, Clock, Network, Topic, Balance, Move]
        }
        error if is_of_members(error) => &[Balance, Move],
        // Fewer nodes are registered than a topic is to have replicas: they have not come yet.
        "invalidreplicationfactor" => &[Disk, Work, Start, Network],
        _ => &[],
    }
}

/// Errors that make clients give up, skip or start over instead of asking again.
fn is_grave(error: &str) -> bool {
    matches!(
        error,
        "offsetoutofrange"
            | "outofordersequencenumber"
            | "unknownproducerid"
            | "invalidproducerepoch"
            | "corruptmessage"
    )
}

/// Errors that say that somebody else leads, or that a member is none: by what happened since the client was told otherwise.
fn is_of_routes(error: &str) -> bool {
    matches!(error, "notleaderorfollower" | "fencedleaderepoch" | "notcoordinator") || is_of_members(error)
}

/// Errors that say to a member of a group that it is not what it believes to be. Who was silent for too long, or went, does not complain.
fn is_of_members(error: &str) -> bool {
    matches!(
        error,
        "unknownmemberid"
            | "illegalgeneration"
            | "fencedinstanceid"
            | "fencedmemberepoch"
            | "stalememberepoch"
            | "unreleasedinstanceid"
    )
}

pub(super) fn plain(error: &str) -> String {
    error.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether the error says that the storage takes nothing.
pub fn is_storage_error(error: &str) -> bool {
    plain(error) == "kafkastorageerror"
}

pub fn errors_have_causes(
    history: &History,
    circumstances: &Circumstances,
    nodes: &[String],
) -> Vec<Violation> {
    let mut retriable = Findings::of("error-without-cause", Verdict::Freeze);
    let mut grave = Findings::of("error-without-cause", Verdict::Safety);
    for complaint in &history.complaints {
        let error = plain(&complaint.error);
        let of_cluster: &[Cause] = if nodes.len() > 1 { causes_among_several(&error) } else { &[] };
        let explains = |cause: &Cause| {
            nodes.iter().any(|node| was_there(*cause, complaint, history, circumstances, node))
        };
        if causes(&error).iter().chain(of_cluster).any(explains) {
            continue;
        }
        let about = complaint.place.as_ref().map(|place| format!(" about {place}")).unwrap_or_default();
        let routed = complaint.routed.filter(|_| is_of_routes(&error));
        let known = routed.map(|at| format!(" by what was known since {}", seconds(at))).unwrap_or_default();
        let findings = if is_grave(&error) { &mut grave } else { &mut retriable };
        findings.add(format!(
            "{} was told {} at {} to a {} request{about} of {}{known}, and nothing was there to cause it",
            complaint.client,
            complaint.error,
            seconds(complaint.at),
            complaint.trade.name(),
            seconds(complaint.sent)
        ));
    }
    let mut all = grave.all();
    all.extend(retriable.all());
    all
}

fn was_there(
    cause: Cause,
    complaint: &Complaint,
    history: &History,
    circumstances: &Circumstances,
    node: &str,
) -> bool {
    // Whoever goes by what it was told long ago learns late that it is so no more.
    let stale = complaint.routed.filter(|_| is_of_routes(&plain(&complaint.error)));
    let (from, to) = (stale.map_or(complaint.sent, |routed| routed.min(complaint.sent)), complaint.at);
    let family = |wanted: Family| {
        circumstances.times_of(node, AFTERWARDS, |kind| kind.family() == wanted).meet(from, to)
    };
    let disk = |hinders: bool| {
        let such = |hit: &&FaultHits| hinders_records(&hit.fault) == hinders;
        let hits = circumstances.faults_of(node, |kind| kind.family() == Family::Disk).filter(such);
        Times::of(hits.map(|hit| (hit.from, hit.until.saturating_add(AFTERWARDS)))).meet(from, to)
    };
    let records = complaint.trade == Trade::Produce && plain(&complaint.error) == "kafkastorageerror";
    match cause {
        Cause::Disk => disk(true) || !records && disk(false),
        Cause::Declared => {
            let declared = |check: &HealthCheck| {
                declares(&check.answer, complaint.place.as_ref())
                    && check.at.saturating_add(AFTERWARDS) >= from
                    && check.asked <= to.saturating_add(AFTERWARDS)
            };
            // Whatever it says of itself: readers that wait are no reason to take no records.
            let only_reads_wait = records && disk(false) && !disk(true);
            !only_reads_wait && history.health.iter().any(declared)
        }
        Cause::Work => {
            let held = |kind: FaultKind| matches!(kind, FaultKind::Pause | FaultKind::Unkillable);
            family(Family::Task)
                || family(Family::SyncPoint)
                || circumstances.times_of(node, AFTERWARDS, held).meet(from, to)
        }
        Cause::Start => {
            let down = circumstances.down(node);
            down.meet(from.saturating_sub(AFTERWARDS), to.saturating_add(AFTERWARDS))
        }
        Cause::Clock => family(Family::Clock),
        Cause::WallClock => {
            circumstances.faults_of(node, |kind| kind == FaultKind::ClockJump).any(|hit| hit.from <= to)
        }
        Cause::Network => circumstances.times_on_ways(node, AFTERWARDS).meet(from, to),
        // Whose request is to create or delete it learns so that others did.
        Cause::Topic => complaint.place.as_ref().map_or(complaint.trade == Trade::Change, |place| {
            let created = history.added.get(place).or_else(|| history.topics.get(&*place.topic));
            let deleted = history.deleted.get(&*place.topic);
            created.is_none_or(|at| from <= at.saturating_add(AFTERWARDS))
                || deleted.is_some_and(|at| *at <= to)
        }),
        Cause::Corruption => {
            let destroys = |kind: FaultKind| kind.destroys_data() && kind != FaultKind::SyncFails;
            circumstances.faults_of(node, destroys).any(|hit| hit.from <= to)
        }
        Cause::Damage => {
            let began = circumstances.lives(node).map(|life| life.began).filter(|at| *at <= to).max();
            let asked = || history.health.iter().filter(|check| began.is_none_or(|at| at <= check.asked));
            let by_then = asked().rfind(|check| check.asked <= to.saturating_add(AFTERWARDS));
            was_there(Cause::Corruption, complaint, history, circumstances, node)
                && by_then
                    .or_else(|| asked().next())
                    .is_some_and(|check| declares(&check.answer, complaint.place.as_ref()))
        }
        Cause::Balance | Cause::Move => {
            let seen = if cause == Cause::Balance { &history.returned } else { &history.reassigned };
            let of_place = complaint.place.as_ref().and_then(|place| seen.get(&place.to_string()));
            let meets =
                |at: &At| at.saturating_add(AFTERWARDS) >= from && *at <= to.saturating_add(SEEN_WITHIN);
            of_place.is_some_and(|all| all.iter().any(meets))
        }
        Cause::Protocol => true,
    }
}

/// Whether a node says there that it does not serve this. A partition that does not open keeps no other from being served.
fn declares(answer: &Readiness, place: Option<&Place>) -> bool {
    let named = place.map(|place| format!("partition {}-{} ", wire_name(&place.topic), place.partition));
    let concerns = |line: &str| {
        !line.contains("does not open") || named.as_ref().is_none_or(|named| line.contains(named))
    };
    match answer {
        Readiness::NotReady(_) => true,
        // A long list is cut short.
        Readiness::ReadyBut(why) => why.lines().count() >= ADMIN_WARNINGS_MAX || why.lines().any(concerns),
        Readiness::Ready | Readiness::Starting(_) | Readiness::Silent => false,
    }
}

/// What holds up reads alone keeps no record from being written.
fn hinders_records(fault: &Fault) -> bool {
    let holds_up = matches!(fault.kind, FaultKind::DiskStall | FaultKind::DiskSlow);
    !(holds_up && fault.operation == Some(Operation::Read))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::circumstances::Life;
    use crate::checker::stories::*;

    const S: At = 1_000_000_000;

    fn told(error: &str, at_s: At) -> History {
        let mut history = History::default();
        history.topics.insert("orders".into(), S);
        history.complaints.push(Complaint {
            client: "client-1".into(),
            trade: Trade::Produce,
            place: Some(place()),
            error: error.into(),
            sent: at_s * S,
            at: at_s * S + 1,
            routed: None,
        });
        history
    }

    fn found(history: &History, kind: Option<FaultKind>) -> Vec<Violation> {
        let hit = |kind| FaultHits::once(Fault::new(kind).on(1), 40 * S, 50 * S);
        let life = Life { node: "node1".into(), incarnation: 1, serving: Some(S), ..Life::default() };
        let circumstances = Circumstances::new(kind.map(hit).into_iter().collect(), vec![life], 100 * S);
        errors_have_causes(history, &circumstances, &["node1".to_owned()])
    }

    #[test]
    fn each_error_has_the_causes_that_it_can_have() {
        use FaultKind::*;
        for (error, kind, count) in [
            ("KafkaStorageError", None, 1),
            ("KafkaStorageError", Some(DiskFull), 0),
            ("KAFKA_STORAGE_ERROR", Some(DiskStall), 0),
            ("KafkaStorageError", Some(TaskStopped), 0),
            ("KafkaStorageError", Some(ClockJump), 0),
            ("RequestTimedOut", Some(DiskStall), 0),
            ("RequestTimedOut", Some(ClockJump), 0),
            ("RequestTimedOut", None, 1),
            ("UnknownTopicOrPartition", Some(DiskStall), 1),
            ("OutOfOrderSequenceNumber", Some(DiskStall), 1),
            ("OffsetOutOfRange", Some(BitRot), 1),
            ("CorruptMessage", Some(BitRot), 0),
            ("CorruptMessage", Some(SyncFails), 1),
            ("NotController", None, 1),
            ("UnknownServerError", Some(DiskStall), 1),
            ("InvalidTimestamp", Some(DiskStall), 1),
            ("InvalidTimestamp", Some(ClockSkew), 0),
            ("FetchSessionIdNotFound", None, 0),
            ("InvalidFetchSessionEpoch", None, 1),
        ] {
            assert_eq!(found(&told(error, 45), kind).len(), count, "{error} with {kind:?}");
        }
    }

    #[test]
    fn a_leader_that_came_back_is_news_for_a_while_where_there_are_several_nodes() {
        let found = |error: &str, returned_s: At, of: &str| {
            let mut history = told(error, 60);
            history.returned.insert(of.into(), vec![returned_s * S]);
            let nodes = ["node1", "node2"].map(str::to_owned);
            errors_have_causes(&history, &Circumstances::new(Vec::new(), Vec::new(), 100 * S), &nodes).len()
        };
        let of = place().to_string();
        for (error, at_s, count) in [
            ("NotLeaderOrFollower", 61, 0),
            ("FencedLeaderEpoch", 56, 0),
            ("NotLeaderOrFollower", 54, 1),
            ("RequestTimedOut", 60, 1),
        ] {
            assert_eq!(found(error, at_s, &of), count, "{error} {at_s}");
        }
        assert_eq!(found("NotLeaderOrFollower", 60, "another-0"), 1);
    }

    #[test]
    fn who_asked_for_a_partition_that_moves_may_not_hear_what_became_of_it() {
        for (error, at_s, count) in
            [("RequestTimedOut", 60, 0), ("FencedLeaderEpoch", 60, 0), ("RequestTimedOut", 40, 1)]
        {
            let mut history = told(error, 60);
            history.reassigned.insert(place().to_string(), vec![at_s * S]);
            let nodes = ["node1", "node2"].map(str::to_owned);
            let calm = Circumstances::new(Vec::new(), Vec::new(), 100 * S);
            assert_eq!(errors_have_causes(&history, &calm, &nodes).len(), count, "{error} {at_s}");
        }
    }

    #[test]
    fn a_cause_is_there_at_that_time() {
        assert_eq!(found(&told("KafkaStorageError", 54), Some(FaultKind::DiskStall)), []);
        assert_eq!(found(&told("KafkaStorageError", 56), Some(FaultKind::DiskStall)).len(), 1);
        assert_eq!(found(&told("KafkaStorageError", 39), Some(FaultKind::DiskStall)).len(), 1);
    }

    #[test]
    fn a_clock_that_has_jumped_is_wrong_from_then_on() {
        let at = |at_s, kind| found(&told("InvalidTimestamp", at_s), Some(kind)).len();
        assert_eq!((at(90, FaultKind::ClockJump), at(39, FaultKind::ClockJump)), (0, 1));
        assert_eq!(at(90, FaultKind::ClockSkew), 1, "it was put right");
    }

    #[test]
    fn whoever_was_told_of_the_leader_before_a_fault_may_learn_after_it_that_it_moved() {
        let mut history = told("NotLeaderOrFollower", 70);
        history.complaints[0].routed = Some(39 * S);
        assert_eq!(found(&history, Some(FaultKind::DiskStall)), []);
        history.complaints[0].routed = Some(56 * S);
        assert_eq!(found(&history, Some(FaultKind::DiskStall)).len(), 1, "it was told since");
        history.complaints[0] =
            Complaint { error: "KafkaStorageError".into(), ..history.complaints[0].clone() };
        history.complaints[0].routed = Some(39 * S);
        assert_eq!(found(&history, Some(FaultKind::DiskStall)).len(), 1, "that says nothing of who leads");
    }

    #[test]
    fn who_was_heard_of_in_time_is_no_member_any_more_only_for_what_happened_since() {
        let mut history = told("UnknownMemberId", 70);
        history.complaints[0].routed = Some(69 * S);
        assert_eq!(found(&history, None).len(), 1);
        assert_eq!(found(&history, Some(FaultKind::DiskStall)).len(), 1, "it was well again long before");
        history.complaints[0].routed = Some(54 * S);
        assert_eq!(found(&history, Some(FaultKind::DiskStall)), []);
    }

    #[test]
    fn a_topic_is_unknown_only_while_it_comes_and_once_it_is_to_go() {
        let mut history = told("UnknownTopicOrPartition", 45);
        history.topics.insert("orders".into(), 41 * S);
        assert_eq!(found(&history, None), []);
        history.topics.insert("orders".into(), 39 * S);
        assert_eq!(found(&history, None).len(), 1);
        history.added.insert(place(), 41 * S);
        assert_eq!(found(&history, None), []);
        history.added.insert(place(), 39 * S);
        assert_eq!(found(&history, None).len(), 1);
        history.deleted.insert("orders".into(), 44 * S);
        assert_eq!(found(&history, None), []);
    }

    #[test]
    fn a_node_that_says_why_it_does_not_serve_may_refuse() {
        let mut history = told("KafkaStorageError", 45);
        history.health.push(HealthCheck {
            node: 1,
            asked: 45 * S,
            at: 45 * S,
            answer: Readiness::NotReady("no space left".into()),
        });
        assert_eq!(found(&history, None), []);
        history.health[0].asked = 70 * S;
        assert_eq!(found(&history, None).len(), 1);
    }

    #[test]
    fn a_partition_that_does_not_open_is_no_reason_to_refuse_another() {
        let mut history = told("KafkaStorageError", 45);
        let mut says = |why: String| {
            let answer = Readiness::ReadyBut(why);
            history.health = vec![HealthCheck { node: 1, asked: 45 * S, at: 45 * S, answer }];
            found(&history, None).len()
        };
        let other = "partition others-0 does not open: damaged\n";
        assert_eq!(says(format!("{other}ready, but partition {} does not open: damaged", place())), 0);
        assert_eq!(says(other.into()), 1);
        assert_eq!(says(format!("{other}ready, but no changes of metadata are taken for 3 s")), 0);
    }

    #[test]
    fn damage_is_a_cause_where_the_node_names_the_partition_when_it_is_asked() {
        let mut history = told("NotLeaderOrFollower", 60);
        let mut says = |answers: &[(At, Readiness)]| {
            let check = |(at, answer): &(At, Readiness)| HealthCheck {
                node: 1,
                asked: at * S,
                at: at * S,
                answer: answer.clone(),
            };
            history.health = answers.iter().map(check).collect();
            found(&history, Some(FaultKind::BitRot)).len()
        };
        let but = |place: &str| Readiness::ReadyBut(format!("partition {place} does not open: damaged"));
        let named = || but(&place().to_string());
        assert_eq!((says(&[(58, named())]), says(&[(58, Readiness::Ready), (64, named())])), (0, 0));
        assert_eq!((says(&[(58, Readiness::Ready)]), says(&[(58, but("others-0"))]), says(&[])), (1, 1, 1));
        assert_eq!(says(&[(90, named())]), 0, "nobody asked before");
        assert_eq!(says(&[(58, Readiness::Ready), (90, named())]), 1, "it was asked and did not say");
    }

    #[test]
    fn reads_that_hang_are_no_reason_to_take_no_records_whatever_the_node_says() {
        let found = |history: &History, operation| {
            let fault = Fault { operation, ..Fault::new(FaultKind::DiskStall).on(1) };
            let hits = vec![FaultHits::once(fault, 40 * S, 50 * S)];
            errors_have_causes(history, &Circumstances::new(hits, Vec::new(), 100 * S), &["node1".to_owned()])
                .len()
        };
        let mut history = told("KafkaStorageError", 45);
        history.health.push(HealthCheck {
            node: 1,
            asked: 45 * S,
            at: 45 * S,
            answer: Readiness::NotReady("no journal file".into()),
        });
        assert_eq!((found(&history, Some(Operation::Read)), found(&history, None)), (1, 0));
        history.complaints[0].trade = Trade::Consume;
        assert_eq!(found(&history, Some(Operation::Read)), 0);
    }

    #[test]
    fn what_makes_clients_skip_or_give_up_is_a_matter_of_safety() {
        assert_eq!(found(&told("OffsetOutOfRange", 45), None)[0].verdict, Verdict::Safety);
        assert_eq!(found(&told("KafkaStorageError", 45), None)[0].verdict, Verdict::Freeze);
    }
}
