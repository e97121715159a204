//! Every request is answered, refused or cut off by its deadline, and not all of them only run out of time.

use reports::{Verdict, Violation};

use super::Findings;
use super::circumstances::Circumstances;
use crate::history::{At, History, RequestEnd, Standstill, seconds};

/// A request that the client had to give up on, or that was answered late, though the way between the two was free
/// and the node could work.
pub fn answered(history: &History, circumstances: &Circumstances, grace: At) -> Vec<Violation> {
    let mut findings = Findings::of("answered-by-deadline", Verdict::Freeze);
    for request in &history.requests {
        let late = match request.end {
            RequestEnd::Unanswered => true,
            RequestEnd::Answered | RequestEnd::Disconnected => request.ended > request.deadline + grace,
        };
        if late && !circumstances.excuse(request, &request.machine(), grace) {
            let what = match request.end {
                RequestEnd::Unanswered => "was not answered at all",
                _ => "was answered too late",
            };
            findings.add(format!(
                "a {} request of {} to {} at {} {what}: due by {}, client waited until {}",
                request.trade.name(),
                request.client,
                request.machine(),
                seconds(request.sent),
                seconds(request.deadline),
                seconds(request.ended)
            ));
        }
    }
    findings.all()
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
    use crate::fault::{Fault, FaultHits, FaultKind};
    use crate::history::{Request, Trade};

    fn check(history: &History, faults: Vec<FaultHits>) -> Vec<Violation> {
        answered(history, &Circumstances::new(faults, Vec::new(), 1_000), 10)
    }

    fn request(end: RequestEnd, ended: At) -> History {
        let request = Request {
            node: 1,
            client: "client-1".into(),
            trade: Trade::Produce,
            sent: 100,
            deadline: 200,
            ended,
            connecting: 100,
            end,
        };
        History { requests: vec![request], ..History::default() }
    }

    #[test]
    fn an_answer_or_a_cut_connection_in_time_is_fine() {
        for end in [RequestEnd::Answered, RequestEnd::Disconnected] {
            assert_eq!(check(&request(end, 205), vec![]), []);
        }
    }

    #[test]
    fn silence_and_late_answers_are_found() {
        assert_eq!(check(&request(RequestEnd::Unanswered, 210), vec![]).len(), 1);
        assert_eq!(check(&request(RequestEnd::Answered, 211), vec![]).len(), 1);
    }

    #[test]
    fn nobody_answers_through_a_broken_way() {
        let unanswered = request(RequestEnd::Unanswered, 210);
        let partition = |link: &str, from, until| {
            let fault = Fault { link: Some(link.parse().unwrap()), ..Fault::new(FaultKind::Partition) };
            vec![FaultHits::once(fault, from, until)]
        };
        assert_eq!(check(&unanswered, partition("client-1 <-> node1", 150, 160)), []);
        assert_eq!(check(&unanswered, partition("client-2 <-> node1", 150, 160)).len(), 1);
        assert_eq!(check(&unanswered, partition("client-1 <-> node1", 211, 300)).len(), 1);
    }

    #[test]
    fn an_hour_of_time_outs_is_a_standstill() {
        let mut history = History::default();
        for at in (0..3_600).step_by(10) {
            history.pulse.asked(Trade::Produce, at, at);
            history.pulse.ended(Trade::Produce, at + 10, false);
        }
        let longest = history.pulse.longest(3_600);
        assert_eq!(standstill(longest.as_ref(), 60).len(), 1);
        assert_eq!(standstill(longest.as_ref(), 3_601), []);
    }
}
