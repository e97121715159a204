//! What comes to the driver: proposals, what peers say, and time.

use std::time::Duration;

use io_backend::{Backend, Moment, Replier};
use raft::eraftpb::{Message, MessageType};
use raft::{Progress, SnapshotStatus};

use super::{Confirmations, Decision, Driver, Event, OF_A_START, TICK, Waiting};
use crate::raft::capacity::{self, Capacity, Leader, LostLeader, Other, Situation};
use crate::raft::heard::{self, Known, Listener, Unheard};
use crate::raft::{
    GroupInput, GroupProgress, MemberChange, MemberProgress, MembersProposal, MembersRefusal, Place,
    Proposal, Proposer, RaftInput, Refusal, StateMachine, members,
};

/// A snapshot of which nothing was heard for so many ticks is lost: the member it was for gets nothing else before.
const SNAPSHOT_SENT_TICKS: u64 = 600;

impl<B: Backend, M: StateMachine> Driver<B, M> {
    pub(super) fn handle(&mut self, event: Event<M::Answer>) {
        let now = self.backend.now();
        match event {
            Event::Inputs { of_the_group, asked } => {
                of_the_group.into_iter().for_each(|input| self.hear(input));
                for input in asked {
                    match input {
                        RaftInput::Propose(proposal) => self.propose(proposal, now),
                        RaftInput::ChangeMembers(proposal) => self.change_members(proposal, now),
                        RaftInput::HandOver(replier) => replier.answer(self.hand_over()),
                        RaftInput::Describe(replier) => replier.answer(self.describe()),
                        RaftInput::Close(replier) => self.closing = Some(Some(replier)),
                    }
                }
                // All that waited has been heard, so time may pass; or it never would where there is always something.
                self.tick_if_due(now);
            }
            Event::Abandoned => self.closing = Some(None),
            Event::Progress => {}
            Event::Timer => {
                if self.retry_at.is_some_and(|at| at <= now) {
                    self.retry_at = None;
                }
                self.tick_if_due(now);
            }
        }
    }

    fn tick_if_due(&mut self, now: Moment) {
        if self.tick_at.is_some_and(|at| at <= now) {
            self.tick_at = Some(now + TICK);
            self.tick();
        }
    }

    /// However long it has been, it is one tick later.
    pub(super) fn tick(&mut self) {
        let office = &mut self.office;
        office.ticks += 1;
        let front = self.line.front();
        if front.is_none() || front != office.front {
            (office.front, office.front_since) = (front, office.ticks);
        }
        let overdue = |since: u64| office.ticks - since >= SNAPSHOT_SENT_TICKS;
        let lost = office.snapshots_sent.extract_if(.., |_, since| overdue(*since));
        for (peer, _) in lost.collect::<Vec<_>>() {
            self.raft.report_snapshot(peer, SnapshotStatus::Failure);
        }
        let capacity = self.look_after_office();
        self.look_after_lost_leader(capacity);
        if self.leads() || capacity.campaigns {
            self.raft.tick();
        }
    }

    fn capacity(&self) -> Capacity {
        capacity::decide(&self.situation())
    }

    fn situation(&self) -> Situation {
        let office = &self.office;
        let group = self.raft.raft.prs();
        let voters = group.conf().voters().ids();
        let others = group.iter().filter(|(id, _)| **id != self.id && voters.contains(**id));
        let ticks_since = |moment: &u64| office.ticks - moment;
        Situation {
            told_not_to_vote: office.told_not_to_vote,
            in_line_ticks: office.front.map_or(0, |_| office.ticks - office.front_since),
            has_group: self.raft.store().has_group(),
            restores: self.line.restores(),
            sole_voter: self.is_sole_voter(),
            log_in_line: self.line.has_log(),
            leads: self.leads(),
            handed_over_ticks: office.handed_over.as_ref().map(ticks_since),
            others: others
                .map(|(id, progress)| Other {
                    id: *id,
                    matched: progress.matched,
                    heard_ticks: office.heard.get(id).map_or(u64::MAX, ticks_since),
                    acknowledged_ticks: office.acknowledged.get(id).map_or(u64::MAX, ticks_since),
                })
                .collect(),
        }
    }

    /// Hands the group over to whoever is furthest, if this member leads; who that is. It may come to nothing.
    fn hand_over(&mut self) -> Option<u64> {
        let successor = self.leads().then(|| capacity::successor(&self.situation().others)).flatten();
        if let Some(peer) = successor {
            self.office.handed_over = Some(self.office.ticks);
            self.raft.transfer_leader(peer);
        }
        successor
    }

    /// A process that has ended closes its connections: nobody waits for a whole election time-out to be sure.
    fn look_after_lost_leader(&mut self, capacity: Capacity) {
        let Some((lost, since)) = self.office.lost_leader else { return };
        if self.leads() || self.leader().is_some_and(|leader| leader != lost) {
            self.office.lost_leader = None;
            return;
        }
        let voters = self.raft.raft.prs().conf().voters().ids();
        let rank = voters
            .contains(self.id)
            .then(|| voters.iter().filter(|voter| *voter < self.id && *voter != lost).count() as u64);
        match capacity::about_lost_leader(self.office.ticks - since, rank) {
            LostLeader::Waits => {}
            LostLeader::Forgets if self.leader().is_some() => {
                let term = self.raft.raft.term;
                self.raft.raft.become_follower(term, raft::INVALID_ID);
            }
            LostLeader::Forgets => {}
            LostLeader::Campaigns => {
                self.office.lost_leader = None;
                if capacity.campaigns
                    && let Err(error) = self.raft.campaign()
                {
                    tracing::debug!(%error, "a campaign comes to nothing");
                }
            }
        }
    }

    /// A leader whose journal stands still hands over, or resigns where that came to nothing.
    fn look_after_office(&mut self) -> Capacity {
        let capacity = self.capacity();
        match capacity.leader {
            Leader::Stays if capacity.votes => self.office.handed_over = None,
            Leader::Stays => {}
            Leader::HandsOverTo(peer) => {
                tracing::warn!(peer, "the disk under the Raft journal stands still: metadata is handed over");
                self.office.handed_over = Some(self.office.ticks);
                self.raft.transfer_leader(peer);
            }
            Leader::Resigns => {
                tracing::warn!(
                    "the disk under the Raft journal stands still: leadership of metadata is given up"
                );
                let term = self.raft.raft.term;
                self.raft.raft.become_follower(term, raft::INVALID_ID);
            }
        }
        capacity
    }

    fn hear(&mut self, input: GroupInput) {
        match input {
            GroupInput::Messages(messages) => {
                messages.into_iter().for_each(|message| self.receive(message));
            }
            GroupInput::Unreachable(peer) => {
                self.raft.report_unreachable(peer);
                if self.leader() == Some(peer) && self.office.lost_leader.is_none() {
                    self.office.lost_leader = Some((peer, self.office.ticks));
                }
            }
            GroupInput::SnapshotSent { peer, ok } => {
                self.office.snapshots_sent.remove(&peer);
                let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.raft.report_snapshot(peer, status);
            }
            GroupInput::Confirm { at_once, replier } => self.confirm(at_once, replier),
            GroupInput::MayVote(may) => {
                self.office.told_not_to_vote = !may;
                self.look_after_office();
            }
        }
    }

    /// Waits for the voters' answers to heartbeats that are not sent yet.
    fn confirm(&mut self, at_once: bool, replier: Replier<()>) {
        if !self.leads() {
            return;
        }
        self.office.confirmations.waiting.push_back((self.office.confirmations.sent, replier));
        if at_once {
            self.raft.ping();
        }
        // A sole voter asks nobody.
        self.look_after_confirmations();
    }

    fn look_after_confirmations(&mut self) {
        let Confirmations { waiting, answered, .. } = &mut self.office.confirmations;
        let (id, members) = (self.id, self.raft.raft.prs());
        let is_confirmed = |asked: u64| {
            let later = answered.iter().filter(|(_, sent)| **sent > asked).map(|(member, _)| *member);
            members.has_quorum(&later.chain([id]).collect())
        };
        while let Some((_, replier)) = waiting.pop_front_if(|(asked, _)| is_confirmed(*asked)) {
            replier.answer(());
        }
    }

    /// A member of this leader's term answers a heartbeat.
    fn note_answer(&mut self, from: u64, context: &[u8]) {
        if let Ok(number) = context.try_into().map(u64::from_be_bytes) {
            let latest = self.office.confirmations.answered.entry(from).or_default();
            *latest = number.max(*latest);
            self.look_after_confirmations();
        }
    }

    fn receive(&mut self, mut message: Message) {
        let (kind, from) = (message.get_msg_type(), message.from);
        let listener = Listener {
            id: self.id,
            last: self.raft.raft.raft_log.last_index(),
            known: Known {
                leader: self.raft.raft.leader_id,
                term: self.raft.raft.term,
                committed: self.raft.raft.raft_log.committed,
            },
            has_group: self.raft.store().has_group(),
            learns: self.raft.raft.prs().conf().learners().contains(&self.id),
            capacity: self.capacity(),
            restores: self.line.restores() || self.raft.snap().is_some(),
            is_full: self.line.is_long(),
        };
        heard::bound(&mut message, &listener);
        let heard = heard::hear(&message, &listener);
        match heard {
            Ok(()) | Err(Unheard::NothingNew) => drop(self.office.mistaken.take_if(|by| *by == from)),
            Err(unheard @ Unheard::MistakenIdentity) => {
                if self.office.mistaken.replace(from) != Some(from) {
                    tracing::warn!(
                        ?kind,
                        from,
                        ?unheard,
                        "a member of the metadata group takes this node for another"
                    );
                }
                return;
            }
            Err(unheard) => {
                tracing::debug!(?kind, from, ?unheard, "a message of the metadata group is not heard");
                return;
            }
        }
        let of_a_leader =
            matches!(kind, MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot);
        if of_a_leader && self.office.lost_leader.is_some_and(|(lost, _)| lost == from) {
            self.office.lost_leader = None;
        }
        if matches!(kind, MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse) {
            self.office.heard.insert(from, self.office.ticks);
        }
        if kind == MessageType::MsgAppendResponse && !message.reject {
            self.office.acknowledged.insert(from, self.office.ticks);
            self.office.snapshots_sent.remove(&from);
        }
        let is_of_this_term = message.term == self.raft.raft.term && self.leads();
        if heard.is_ok() && kind == MessageType::MsgHeartbeatResponse && is_of_this_term {
            self.note_answer(from, &message.context);
        }
        if heard.is_ok()
            && let Err(error) = self.raft.step(message)
        {
            tracing::debug!(?kind, from, %error, "a message of the metadata group comes to nothing");
        }
    }

    fn propose(&mut self, proposal: Proposal<M::Answer>, now: Moment) {
        let Proposal { data, until, proposer, share } = proposal;
        if self.closing.is_some() {
            return proposer.refuse(Refusal::Closed);
        }
        if until.is_some_and(|until| until <= now) {
            // It has given up: dropping its replier tells nobody.
            return;
        }
        // What is kept back of a journal file is for what a process start has to say: its registration.
        if self.proposed >= OF_A_START && self.journal.status().disk_full {
            return proposer.refuse(Refusal::DiskFull);
        }
        self.proposed += 1;
        if !self.leads() {
            return proposer.refuse(Refusal::NotLeader { leader: self.leader() });
        }
        if matches!(proposer, Proposer::ForPlace(_)) && self.line.promises() {
            // Ended now, it may lead again in this term, with other entries at these places.
            return proposer.refuse(Refusal::NotLeader { leader: None });
        }
        if self.raft.propose(Vec::new(), data).is_err() {
            // It is handing over: who leads next is not known.
            return proposer.refuse(Refusal::NotLeader { leader: None });
        }
        let decision = match proposer {
            Proposer::ForOutcome(replier) => Decision::Proposal(replier),
            Proposer::ForPlace(replier) => {
                replier.answer(Ok(self.last_place()));
                Decision::Placed
            }
        };
        self.await_decision(decision, Some(share));
    }

    fn describe(&self) -> Result<GroupProgress, Refusal> {
        if !self.leads() {
            return Err(Refusal::NotLeader { leader: self.leader() });
        }
        let (office, raft) = (&self.office, &self.raft.raft);
        let voters = raft.prs().conf().voters().ids();
        let member = |(id, progress): (&u64, &Progress)| {
            let is_own = *id == self.id;
            let ticks = office.heard.get(id).map(|at| office.ticks - at);
            let heard = ticks.map(|ticks| TICK * u32::try_from(ticks).unwrap_or(u32::MAX));
            MemberProgress {
                id: *id,
                votes: voters.contains(*id),
                last: if is_own { raft.raft_log.last_index() } else { progress.matched },
                heard: if is_own { Some(Duration::ZERO) } else { heard },
            }
        };
        let mut members: Vec<MemberProgress> = raft.prs().iter().map(member).collect();
        members.sort_by_key(|member| member.id);
        Ok(GroupProgress { term: raft.term, committed: raft.raft_log.committed, members })
    }

    fn change_members(&mut self, proposal: MembersProposal, now: Moment) {
        let MembersProposal { change: wanted, until, replier } = proposal;
        if self.closing.is_some() {
            return replier.answer(Err(Refusal::Closed));
        }
        if until.is_some_and(|until| until <= now) {
            return;
        }
        if !self.leads() {
            return replier.answer(Err(Refusal::NotLeader { leader: self.leader() }));
        }
        if self.raft.raft.has_pending_conf() {
            return replier.answer(Err(Refusal::Members(MembersRefusal::OneAtATime)));
        }
        let change = match members::change(wanted, self.raft.raft.prs()) {
            Ok(Some(change)) => change,
            Ok(None) => return replier.answer(Ok(())),
            Err(refusal) => return replier.answer(Err(Refusal::Members(refusal))),
        };
        let has_snapshot = self.raft.store().snapshot.get_metadata().index > 0;
        if matches!(wanted, MemberChange::AddLearner(_)) && !has_snapshot && !self.snapshots.in_flight {
            // A log that begins at the beginning does not say who its first member was. It stands in line
            // before the change, so whoever comes is sent a snapshot.
            self.take_snapshot();
        }
        if self.raft.propose_conf_change(Vec::new(), change).is_err() {
            return replier.answer(Err(Refusal::NotLeader { leader: None }));
        }
        self.await_decision(Decision::Members(replier), None);
    }

    fn last_place(&self) -> Place {
        let raft = &self.raft.raft;
        Place { index: raft.raft_log.last_index(), term: raft.term }
    }

    fn await_decision(&mut self, decision: Decision<M::Answer>, share: Option<crate::budget::Share>) {
        let Place { index, term } = self.last_place();
        self.waiting.insert(index, Waiting { term, decision, _share: share });
    }
}
