//! Lock and channel faults: what other threads would do to a seam.

use std::time::Duration;

use io_backend::{Pressure, Seam};

use super::active::ActiveFaults;
use super::model::{Family, FaultKind};
use super::select::matches_pattern;
use crate::streams::Stream;

/// Decides for one acquisition or hand-over, and counts the hit.
pub fn pressure(
    faults: &mut ActiveFaults,
    machine: &str,
    seam: Seam<'_>,
    now: u64,
    stream: &mut Stream,
) -> Pressure {
    if !faults.any_of(Family::Seam) {
        return Pressure::None;
    }
    let struck = faults.strike(Family::Seam, now, stream, |fault| {
        let wanted = match (fault.kind, seam) {
            (FaultKind::LockDelay, Seam::Lock(name)) => fault.lock.as_deref().map(|lock| (lock, name)),
            (FaultKind::ChannelDelay | FaultKind::ChannelFull, Seam::Channel(name)) => {
                fault.channel.as_deref().map(|channel| (channel, name))
            }
            _ => None,
        };
        wanted.is_some_and(|(pattern, name)| matches_pattern(pattern, name))
            && fault.node.as_ref().is_some_and(|node| node.is(machine))
    });
    let mut delay = 0;
    for (kind, id) in struck {
        if kind == FaultKind::ChannelFull {
            return Pressure::Full;
        }
        delay += faults.delay_of(id, 0);
    }
    if delay == 0 { Pressure::None } else { Pressure::Delay(Duration::from_nanos(delay)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    #[test]
    fn only_the_named_seam_feels_it() {
        let mut stream = Stream::new(1, "seam");
        let mut faults = ActiveFaults::default();
        let mut lock = Fault::new(FaultKind::LockDelay).on(1);
        lock.lock = Some("file*".to_owned());
        lock.delay = Some("5ms".parse().unwrap());
        faults.add(&lock, 0);
        let mut full = Fault::new(FaultKind::ChannelFull).on(1);
        full.channel = Some("journal".to_owned());
        faults.add(&full, 0);
        for (machine, seam, expected) in [
            ("node1", Seam::Lock("file orders-0"), Pressure::Delay(Duration::from_millis(5))),
            ("node1", Seam::Lock("pending"), Pressure::None),
            ("node2", Seam::Lock("file orders-0"), Pressure::None),
            ("node1", Seam::Channel("journal"), Pressure::Full),
            ("node1", Seam::Channel("file x"), Pressure::None),
        ] {
            assert_eq!(pressure(&mut faults, machine, seam, 1, &mut stream), expected, "{seam:?}");
        }
    }
}
