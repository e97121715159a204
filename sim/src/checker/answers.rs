//! Every request is answered, refused or cut off by its deadline, and not all of them only run out of time.

use reports::{Verdict, Violation};

use super::Findings;
use crate::history::{At, History, Request, RequestEnd, Standstill, seconds};

/// When the way between clients and the node was not free, or the node could not run: nothing can be asked of
/// it then. In order, may overlap.
pub type Excuses = Vec<(At, At)>;

/// A request that the client had to give up on, though the way was free all the time.
pub fn answered(history: &History, excuses: &Excuses, grace: At) -> Vec<Violation> {
    let mut findings = Findings::of("answered-by-deadline", Verdict::Freeze);
    for request in &history.requests {
        let late = match request.end {
            RequestEnd::Unanswered => true,
            RequestEnd::Answered | RequestEnd::Disconnected => request.ended > request.deadline + grace,
        };
        if late && !excused(request, excuses) {
            let what = match request.end {
                RequestEnd::Unanswered => "was not answered at all",
                _ => "was answered too late",
            };
            findings.add(format!(
                "a {} request of {} at {} {what}: due by {}, client waited until {}",
                request.trade.name(),
                request.client,
                seconds(request.sent),
                seconds(request.deadline),
                seconds(request.ended)
            ));
        }
    }
    findings.all()
}

fn excused(request: &Request, excuses: &Excuses) -> bool {
    excuses.iter().any(|(from, to)| *from <= request.ended && *to >= request.sent)
}

/// The longest time in which requests were made and none was decided, if it is too long.
pub fn standstill(longest: Option<&Standstill>, frozen_after: At) -> Vec<Violation> {
    let mut findings = Findings::of("standstill", Verdict::Freeze);
    if let Some(still) = longest
        && still.to - still.from >= frozen_after
    {
        findings.add(format!(
            "nothing was decided about {} requests from {} to {} ({}): they only ran out of time",
            still.trade.name(),
            seconds(still.from),
            seconds(still.to),
            seconds(still.to - still.from)
        ));
    }
    findings.all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Trade;

    fn request(end: RequestEnd, ended: At) -> History {
        let request = Request {
            client: "client-1".into(),
            trade: Trade::Produce,
            sent: 100,
            deadline: 200,
            ended,
            end,
        };
        History { requests: vec![request], ..History::default() }
    }

    #[test]
    fn an_answer_or_a_cut_connection_in_time_is_fine() {
        for end in [RequestEnd::Answered, RequestEnd::Disconnected] {
            assert_eq!(answered(&request(end, 205), &vec![], 10), []);
        }
    }

    #[test]
    fn silence_and_late_answers_are_found() {
        assert_eq!(answered(&request(RequestEnd::Unanswered, 210), &vec![], 10).len(), 1);
        assert_eq!(answered(&request(RequestEnd::Answered, 211), &vec![], 10).len(), 1);
    }

    #[test]
    fn nobody_answers_through_a_broken_way() {
        let unanswered = request(RequestEnd::Unanswered, 210);
        assert_eq!(answered(&unanswered, &vec![(150, 160)], 10), []);
        assert_eq!(answered(&unanswered, &vec![(0, 99), (211, 300)], 10).len(), 1);
    }

    #[test]
    fn an_hour_of_time_outs_is_a_standstill() {
        let mut history = History::default();
        for at in (0..3_600).step_by(10) {
            history.pulse.asked(Trade::Produce, at);
            history.pulse.ended(Trade::Produce, at + 10, false);
        }
        let longest = history.pulse.longest(3_600);
        assert_eq!(standstill(longest.as_ref(), 60).len(), 1);
        assert_eq!(standstill(longest.as_ref(), 3_601), []);
    }
}
