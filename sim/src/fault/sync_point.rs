//! Lock and channel faults: what other threads would do at a sync point.

use std::time::Duration;

use io_backend::{Interference, SyncPoint};

use super::active::ActiveFaults;
use super::model::{Family, FaultKind};
use super::select::matches_pattern;
use crate::streams::Stream;

/// Decides for one acquisition or hand-over, and counts the hit.
pub fn interference(
    faults: &mut ActiveFaults,
    machine: &str,
    sync_point: SyncPoint<'_>,
    now: u64,
    stream: &mut Stream,
) -> Interference {
    if !faults.any_of(Family::SyncPoint) {
        return Interference::None;
    }
    let struck = faults.strike(Family::SyncPoint, now, stream, |fault| {
        let wanted = match (fault.kind, sync_point) {
            (FaultKind::LockDelay, SyncPoint::Lock(name)) => fault.lock.as_deref().map(|lock| (lock, name)),
            (FaultKind::ChannelDelay | FaultKind::ChannelFull, SyncPoint::Channel(name)) => {
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
            return Interference::Full;
        }
        delay += faults.delay_of(id, 0);
    }
    if delay == 0 { Interference::None } else { Interference::Delay(Duration::from_nanos(delay)) }
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
        for (machine, sync_point, expected) in [
            ("node1", SyncPoint::Lock("file orders-0"), Interference::Delay(Duration::from_millis(5))),
            ("node1", SyncPoint::Lock("pending"), Interference::None),
            ("node2", SyncPoint::Lock("file orders-0"), Interference::None),
            ("node1", SyncPoint::Channel("journal"), Interference::Full),
            ("node1", SyncPoint::Channel("file x"), Interference::None),
        ] {
            assert_eq!(
                interference(&mut faults, machine, sync_point, 1, &mut stream),
                expected,
                "{sync_point:?}"
            );
        }
    }
}
