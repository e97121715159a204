//! When clients begin, stop and give up, in nanoseconds of the world.

use std::time::Duration;

use crate::history::At;
use crate::scenario::Scenario;

use super::shape::LONG_POLL_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Faults end here at the latest.
    pub healed: At,
    /// No new record after this.
    pub produce_until: At,
    /// Whoever has not got what it wants by then goes without.
    pub give_up: At,
}

impl Schedule {
    pub fn of(scenario: &Scenario) -> Schedule {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let healed = ns(scenario.duration());
        let owed = scenario.liveness.connected_for.0 + scenario.liveness.acknowledged_within.0;
        let produce_until = match scenario.workload.stop_after {
            Some(stop) => ns(stop.0).min(healed),
            // Some seconds beyond what is owed, to see that it goes on and not just once.
            None => healed + ns(owed) + 2_000_000_000,
        };
        // A last attempt may have begun just before; then readers have to get through.
        // A poll on a connection that has gone silent is noticed only when its whole wait is over.
        let load = &scenario.workload;
        let poll = if load.varied { LONG_POLL_MAX.max(load.long_poll.0) } else { load.long_poll.0 };
        let patience = load.request_timeout.0 * 2 + Duration::from_secs(30) + poll * 2;
        let give_up = produce_until.max(healed) + ns(owed + patience);
        Schedule { healed, produce_until, give_up }
    }
}
