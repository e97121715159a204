//! What a member may do while its journal is slow, decided: nothing here is done.
//!
//! Votes, terms and entries are worth nothing before they are durable. So a member whose journal stands still
//! neither campaigns nor votes, and a leader hands over to whoever is furthest and was heard of lately:
//! once, for a hand-over that comes to nothing is no reason for another. After that it resigns and is silent, and
//! the others elect. Where nobody can take over it goes on, and what waits is decided when the disk is back.
//!
//! Time is counted in ticks of a process that runs: one that was paused, or whose clock jumped, counts one.

/// How long the oldest submission of the journal may be in line before the disk is taken to stand still, in ticks.
pub(super) const STALLED_TICKS: u64 = 20;
/// A leader that the link to is lost, and that has said nothing since for so long, is no reason any more to refuse others a
/// vote. Leaders that are there say something more often, by links of their own.
const FORGOTTEN_TICKS: u64 = 2;
/// Then one of the others campaigns, and the next one so much later, each before an election would begin by itself.
const CAMPAIGN_TICKS: u64 = 3;
const CAMPAIGNS_APART_TICKS: u64 = 2;
/// Who has answered nothing for so long is nobody to hand over to, and a hand-over that takes longer failed.
pub(super) const LATELY_TICKS: u64 = 10;

/// What is to be known for it.
#[derive(Clone, Debug)]
pub(super) struct Situation {
    /// Whoever watches the disk says so.
    pub(super) told_not_to_vote: bool,
    /// Ticks for which the oldest submission has been in line.
    pub(super) in_line_ticks: u64,
    /// The group is known: a member without one has forgotten its votes, or never had any.
    pub(super) has_group: bool,
    /// A leader's snapshot is not durable yet, and not in the state machine.
    pub(super) restores: bool,
    /// It wins an election with its own vote, at once: all of its log has to be durable before.
    pub(super) sole_voter: bool,
    /// Something of the log is not durable.
    pub(super) log_in_line: bool,
    pub(super) leads: bool,
    /// Ticks since it handed over, if it did in this term.
    pub(super) handed_over_ticks: Option<u64>,
    /// The other voters.
    pub(super) others: Vec<Other>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Other {
    pub(super) id: u64,
    /// How far it acknowledged the log.
    pub(super) matched: u64,
    /// Ticks since it last did.
    pub(super) acknowledged_ticks: u64,
    /// Ticks since it last answered anything.
    pub(super) heard_ticks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// It answers who asks for its vote.
    pub(super) votes: bool,
    /// It may ask others for theirs, by itself or because a leader hands over to it.
    pub(super) campaigns: bool,
    pub(super) leader: Leader,
}

/// What a leader does about its office.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    Stays,
    HandsOverTo(u64),
    Resigns,
}

/// What a follower does about a leader that its link to is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LostLeader {
    /// It may be its network alone.
    Waits,
    /// Others may have this one's vote.
    Forgets,
    /// It asks for theirs. Where they hear the leader they do not give them, and nothing is lost.
    Campaigns,
}

/// By how long ago the link was lost with nothing heard since, and by which of the voters, the leader aside, this one is.
pub(super) fn about_lost_leader(ticks: u64, rank: Option<u64>) -> LostLeader {
    match rank {
        Some(rank) if ticks >= CAMPAIGN_TICKS + rank * CAMPAIGNS_APART_TICKS => LostLeader::Campaigns,
        _ if ticks >= FORGOTTEN_TICKS => LostLeader::Forgets,
        _ => LostLeader::Waits,
    }
}

pub(super) fn decide(situation: &Situation) -> Capacity {
    let stalled = situation.told_not_to_vote || situation.in_line_ticks >= STALLED_TICKS;
    let votes = situation.has_group && !stalled;
    let alone_too_early = situation.sole_voter && situation.log_in_line;
    let campaigns = votes && !situation.restores && !alone_too_early;
    let leader = match situation.handed_over_ticks {
        _ if !situation.leads || !stalled => Leader::Stays,
        Some(ticks) if ticks >= LATELY_TICKS => Leader::Resigns,
        Some(_) => Leader::Stays,
        None => successor(&situation.others).map_or(Leader::Stays, Leader::HandsOverTo),
    };
    Capacity { votes, campaigns, leader }
}

/// The voter with the most of the log, which shows a disk that works: what this one waits for was sent to all. Of
/// equals the one that acknowledged last.
pub(super) fn successor(others: &[Other]) -> Option<u64> {
    let lately = others.iter().filter(|other| other.heard_ticks < LATELY_TICKS);
    let best = lately.max_by_key(|other| {
        (other.matched, std::cmp::Reverse(other.acknowledged_ticks), std::cmp::Reverse(other.id))
    });
    best.map(|other| other.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Situation {
        Situation {
            told_not_to_vote: false,
            in_line_ticks: 0,
            has_group: true,
            restores: false,
            sole_voter: false,
            log_in_line: true,
            leads: false,
            handed_over_ticks: None,
            others: vec![other(2, 9, 1), other(3, 10, 2)],
        }
    }

    fn other(id: u64, matched: u64, acknowledged_ticks: u64) -> Other {
        Other { id, matched, acknowledged_ticks, heard_ticks: 2 }
    }

    fn silent(id: u64, matched: u64, heard_ticks: u64) -> Other {
        Other { id, matched, acknowledged_ticks: heard_ticks, heard_ticks }
    }

    #[test]
    fn who_votes_and_campaigns() {
        let table: [(&str, Situation, (bool, bool)); 8] = [
            ("all is well", well(), (true, true)),
            (
                "told that the disk stands still",
                Situation { told_not_to_vote: true, ..well() },
                (false, false),
            ),
            ("seen that it does", Situation { in_line_ticks: STALLED_TICKS, ..well() }, (false, false)),
            ("it is only slow", Situation { in_line_ticks: STALLED_TICKS - 1, ..well() }, (true, true)),
            ("an empty journal", Situation { has_group: false, ..well() }, (false, false)),
            ("half way into a snapshot", Situation { restores: true, ..well() }, (true, false)),
            ("alone, its log not durable", Situation { sole_voter: true, ..well() }, (true, false)),
            (
                "alone, its log durable",
                Situation { sole_voter: true, log_in_line: false, ..well() },
                (true, true),
            ),
        ];
        for (case, situation, expected) in table {
            let capacity = decide(&situation);
            assert_eq!((capacity.votes, capacity.campaigns), expected, "{case}");
            assert_eq!(capacity.leader, Leader::Stays, "{case}: a follower has no office");
        }
    }

    #[test]
    fn a_leader_whose_link_is_lost_is_forgotten_and_then_one_after_the_other_campaigns() {
        use LostLeader::*;
        let by_tick = |rank| (0..8).map(|ticks| about_lost_leader(ticks, rank)).collect::<Vec<_>>();
        let campaigns = [Campaigns; 5];
        assert_eq!(by_tick(Some(0)), [&[Waits, Waits, Forgets][..], &campaigns].concat());
        let later = [Waits, Waits, Forgets, Forgets, Forgets, Campaigns, Campaigns, Campaigns];
        assert_eq!(by_tick(Some(1)), later);
        assert_eq!(by_tick(None)[7], Forgets, "who has no vote never campaigns");
    }

    #[test]
    fn what_a_leader_with_a_stalled_journal_does() {
        let stalled = || Situation { leads: true, in_line_ticks: STALLED_TICKS, ..well() };
        let long_ago = vec![silent(2, 9, LATELY_TICKS), silent(3, 10, LATELY_TICKS + 5)];
        let table = [
            ("its disk is well", Situation { in_line_ticks: 0, ..stalled() }, Leader::Stays),
            ("to the one with most of the log", stalled(), Leader::HandsOverTo(3)),
            (
                "of equals to the one that acknowledged last, which may be long ago",
                Situation { others: vec![other(2, 10, 100), other(3, 10, 200)], ..stalled() },
                Leader::HandsOverTo(2),
            ),
            (
                "not to one that is silent",
                Situation { others: vec![other(2, 9, 1), silent(3, 10, LATELY_TICKS)], ..stalled() },
                Leader::HandsOverTo(2),
            ),
            ("nobody was heard of", Situation { others: long_ago, ..stalled() }, Leader::Stays),
            ("nobody else votes", Situation { others: vec![], ..stalled() }, Leader::Stays),
            ("once", Situation { handed_over_ticks: Some(3), ..stalled() }, Leader::Stays),
            ("it failed", Situation { handed_over_ticks: Some(LATELY_TICKS), ..stalled() }, Leader::Resigns),
        ];
        for (case, situation, expected) in table {
            assert_eq!(decide(&situation).leader, expected, "{case}");
        }
    }
}
