//! A broker's session with the controller, as the broker knows it: whether it may act on what it believes to lead. Pure.
//!
//! The session lasts from when a heartbeat was *sent* that was answered. The controller counts from when it heard it, which is
//! later: so it fences nobody for silence who has not noticed by himself.
//!
//! A broker whose storage takes no records may be relieved of what it leads as soon as it has said so, and hears of it later than
//! those who lead next, above all where its own metadata stand still with its disk. So it leads nothing from then on until the controller
//! has answered that nothing of it moves, be it that its storage takes records again meanwhile; or that all has moved, and its image has it.

use std::time::Duration;

use io_backend::Moment;

use crate::metadata::controller::HeartbeatAnswer;
use crate::stall::contact::Lost;

/// See the module.
pub struct BrokerSession {
    timeout: Duration,
    /// The latest answer, and when the heartbeat was sent that it is for.
    answered: Option<(Moment, HeartbeatAnswer)>,
    /// What it said last of whether its storage takes records, and when it last began to say that it does not.
    said_may: bool,
    gave_up: Option<Moment>,
    /// Nothing that was taken before this entry is unknown.
    revoked_at: u64,
}

impl BrokerSession {
    /// Nothing has been heard yet; a session lasts so long.
    pub fn new(timeout: Duration) -> BrokerSession {
        BrokerSession { timeout, answered: None, said_may: true, gave_up: None, revoked_at: 0 }
    }

    /// A heartbeat is sent, which says whether the broker's storage takes records.
    pub fn handle_said(&mut self, now: Moment, may_lead: bool) {
        if self.said_may && !may_lead {
            self.gave_up = Some(now);
        }
        self.said_may = may_lead;
    }

    /// The heartbeat that was sent then is answered. Answers may come in another order than heartbeats went.
    pub fn handle_answer(&mut self, sent: Moment, answer: HeartbeatAnswer) {
        self.revoked_at = self.revoked_at.max(answer.revoked_at);
        if self.answered.is_none_or(|(latest, _)| sent >= latest) {
            self.answered = Some((sent, answer));
        }
    }

    /// When the session ends, if nothing more is answered; `None` where it has ended, or never began.
    pub fn ends_at(&self, now: Moment) -> Option<Moment> {
        let lasts = |answer: HeartbeatAnswer| {
            answer.session_timeout.map_or(self.timeout, |told| told.min(self.timeout))
        };
        let ends_at = self.answered.map(|(sent, answer)| sent + lasts(answer));
        ends_at.filter(|ends_at| *ends_at > now)
    }

    /// Until when the broker may lead, with an image of this index, or why it may not.
    pub fn held(&self, now: Moment, image_index: u64) -> Result<Moment, Lost> {
        let ends_at = self.ends_at(now).ok_or(Lost::CutOff)?;
        match self.answered {
            Some((_, answer)) if answer.fenced => Err(Lost::Fenced),
            _ if image_index < self.revoked_at => Err(Lost::Behind),
            Some((sent, answer)) if answer.is_relieved || self.gave_up > Some(sent) => Err(Lost::Behind),
            _ => Ok(ends_at),
        }
    }

    /// Whether it was told last that something of it moves.
    pub fn is_relieved(&self) -> bool {
        self.answered.is_some_and(|(_, answer)| answer.is_relieved)
    }

    /// Whether everything that this broker led is led by others, as far as that can be.
    pub fn may_stop(&self) -> bool {
        self.answered.is_some_and(|(_, answer)| answer.may_stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn session() -> BrokerSession {
        BrokerSession::new(Duration::from_secs(2))
    }

    const WELL: HeartbeatAnswer = HeartbeatAnswer {
        fenced: false,
        may_stop: false,
        revoked_at: 10,
        is_relieved: false,
        session_timeout: None,
    };

    #[test]
    fn a_broker_may_lead_for_as_long_as_a_session_from_when_it_sent_what_was_answered() {
        let mut session = session();
        assert_eq!((session.held(at(0), 10), session.ends_at(at(0))), (Err(Lost::CutOff), None));
        session.handle_answer(at(1_000), WELL);
        assert_eq!(session.held(at(2_999), 10), Ok(at(3_000)));
        assert_eq!(session.ends_at(at(2_999)), Some(at(3_000)));
        assert_eq!(session.held(at(3_000), 10), Err(Lost::CutOff));
        assert_eq!(session.ends_at(at(3_000)), None);
        session.handle_answer(at(2_900), WELL);
        assert_eq!(session.held(at(3_000), 10), Ok(at(4_900)), "the next answer ends it");
    }

    #[test]
    fn a_session_is_no_longer_than_the_controller_and_the_broker_take_it_for() {
        for (told, ends_at) in [(1, 1_000), (2, 2_000), (10, 2_000)] {
            let mut session = session();
            let session_timeout = Some(Duration::from_secs(told));
            session.handle_answer(at(0), HeartbeatAnswer { session_timeout, ..WELL });
            assert_eq!(session.held(at(1), 10), Ok(at(ends_at)));
        }
    }

    #[test]
    fn what_the_controller_says_counts_before_the_image_says_it() {
        let mut session = session();
        session.handle_answer(at(0), HeartbeatAnswer { fenced: true, ..WELL });
        assert_eq!(session.held(at(1), 99), Err(Lost::Fenced));
        session.handle_answer(at(2), HeartbeatAnswer { revoked_at: 12, ..WELL });
        assert_eq!(session.held(at(3), 11), Err(Lost::Behind));
        assert_eq!(session.held(at(3), 12), Ok(at(2_002)));
    }

    #[test]
    fn who_says_that_it_takes_no_records_leads_again_when_it_hears_that_nothing_of_it_moves() {
        let mut session = session();
        let relieved = HeartbeatAnswer { is_relieved: true, ..WELL };
        session.handle_said(at(0), true);
        session.handle_answer(at(0), WELL);
        for sent in [5, 7] {
            session.handle_said(at(sent), false);
        }
        assert_eq!(session.held(at(8), 10), Err(Lost::Behind), "somebody may lead by now");
        session.handle_answer(at(5), WELL);
        assert_eq!(session.held(at(9), 10), Ok(at(2_005)), "nobody else could");
        session.handle_answer(at(7), relieved);
        assert_eq!(session.held(at(9), 99), Err(Lost::Behind));
        session.handle_answer(at(10), HeartbeatAnswer { revoked_at: 12, ..WELL });
        assert_eq!((session.held(at(11), 11), session.held(at(11), 12)), (Err(Lost::Behind), Ok(at(2_010))));
        session.handle_said(at(20), true);
        session.handle_said(at(30), false);
        assert_eq!(session.held(at(31), 12), Err(Lost::Behind), "once more");
        session.handle_said(at(40), true);
        assert_eq!(
            session.held(at(41), 12),
            Err(Lost::Behind),
            "and somebody may lead by now, whatever it says since"
        );
        session.handle_answer(at(40), HeartbeatAnswer { revoked_at: 12, ..WELL });
        assert_eq!(session.held(at(42), 12), Ok(at(2_040)));
    }

    #[test]
    fn an_answer_that_was_overtaken_takes_nothing_back() {
        let mut session = session();
        session.handle_answer(at(5), HeartbeatAnswer { revoked_at: 12, may_stop: true, ..WELL });
        session.handle_answer(at(1), HeartbeatAnswer { fenced: true, ..WELL });
        assert_eq!(session.held(at(6), 12), Ok(at(2_005)));
        assert_eq!(session.held(at(6), 11), Err(Lost::Behind));
        assert!(session.may_stop());
        session.handle_answer(at(7), HeartbeatAnswer { revoked_at: 0, ..WELL });
        assert_eq!(session.held(at(8), 11), Err(Lost::Behind), "another controller knows less of before");
    }
}
