//! Network faults: what becomes of traffic between two machines.
//!
//! Connections are streams: duplication and reordering of packets never show in them but as time, which is
//! what loss and delay take.

use super::active::{ActiveFaults, FaultId};
use super::duration::nanos;
use super::model::{Family, Fault, FaultKind};
use crate::streams::Stream;

/// How long a lost segment takes to be sent again.
const RETRANSMISSION: u64 = 200_000_000;

/// What faults do to one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransitEffect {
    pub delay: u64,
    pub bytes_per_s: Option<u64>,
}

fn aims_at(fault: &Fault, from: &str, to: &str) -> bool {
    match fault.kind {
        FaultKind::OneWay => match (&fault.link, &fault.node) {
            (Some(link), _) => crate::fault::Link { both_ways: false, ..link.clone() }.matches(from, to),
            (None, Some(node)) => node.is(from),
            (None, None) => false,
        },
        // A partition cuts both ways however it is written.
        FaultKind::Partition | FaultKind::Flapping => {
            crate::fault::Link { both_ways: true, ..fault.links() }.matches(from, to)
        }
        _ => fault.links().matches(from, to),
    }
}

/// Whether nothing passes from one machine to the other now.
pub fn blocked(faults: &ActiveFaults, from: &str, to: &str, now: u64) -> Option<FaultId> {
    if from == to || !faults.any_of(Family::Network) {
        return None;
    }
    faults.force_since(Family::Network, now, |fault, since| {
        let cuts = match fault.kind {
            FaultKind::Partition | FaultKind::OneWay => true,
            FaultKind::Flapping => ((now - since) / flap(fault)).is_multiple_of(2),
            _ => false,
        };
        cuts && aims_at(fault, from, to)
    })
}

/// How long a flapping link keeps each of its two states, in nanoseconds.
pub fn flap(fault: &Fault) -> u64 {
    fault.delay.map_or(1, |delay| nanos(delay.0)).max(1)
}

/// Whether a connect from one machine to the other hangs although traffic passes. Counts a hit.
pub fn connect_hangs(faults: &mut ActiveFaults, from: &str, to: &str, now: u64, stream: &mut Stream) -> bool {
    faults.any_of(Family::Network)
        && !faults
            .strike(Family::Network, now, stream, |fault| {
                fault.kind == FaultKind::ConnectHangs && aims_at(fault, from, to)
            })
            .is_empty()
}

/// What loss, delay and a slow link do to a segment.
pub fn transit(
    faults: &mut ActiveFaults,
    from: &str,
    to: &str,
    now: u64,
    stream: &mut Stream,
) -> TransitEffect {
    let mut effect = TransitEffect::default();
    if from == to || !faults.any_of(Family::Network) {
        return effect;
    }
    let struck = faults.strike(Family::Network, now, stream, |fault| {
        matches!(fault.kind, FaultKind::Loss | FaultKind::Delay | FaultKind::SlowLink)
            && aims_at(fault, from, to)
    });
    for (kind, id) in struck {
        match kind {
            FaultKind::Loss => effect.delay += faults.delay_of(id, RETRANSMISSION),
            FaultKind::Delay => effect.delay += faults.delay_of(id, 0),
            _ => {
                let rate = faults.get(id).bytes_per_s.unwrap_or(u64::MAX);
                effect.bytes_per_s = Some(effect.bytes_per_s.map_or(rate, |other| other.min(rate)));
            }
        }
    }
    effect
}

/// Whether a reset or a silence that begins now touches the connection between these machines.
pub fn breaks(fault: &Fault, one: &str, other: &str) -> bool {
    matches!(fault.kind, FaultKind::Reset | FaultKind::Silence)
        && (aims_at(fault, one, other) || aims_at(fault, other, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(kind: FaultKind, link: &str) -> ActiveFaults {
        let mut faults = ActiveFaults::default();
        faults.add(&Fault { link: Some(link.parse().unwrap()), ..Fault::new(kind) }, 0);
        faults
    }

    #[test]
    fn a_partition_cuts_both_ways_and_one_way_only_one() {
        let partition = with(FaultKind::Partition, "node1 -> node2");
        assert!(blocked(&partition, "node1", "node2", 1).is_some());
        assert!(blocked(&partition, "node2", "node1", 1).is_some());
        assert!(blocked(&partition, "node2", "node3", 1).is_none());
        let one_way = with(FaultKind::OneWay, "node1 -> node2");
        assert!(blocked(&one_way, "node1", "node2", 1).is_some());
        assert!(blocked(&one_way, "node2", "node1", 1).is_none());
    }

    #[test]
    fn a_flapping_link_comes_and_goes() {
        let mut faults = ActiveFaults::default();
        let link = Some("client-* <-> node1".parse().unwrap());
        let flapping =
            Fault { link, delay: Some("10ns".parse().unwrap()), ..Fault::new(FaultKind::Flapping) };
        faults.add(&Fault { at: "5ns".parse().unwrap(), ..flapping }, 0);
        for (now, cut) in [(4, false), (5, true), (14, true), (15, false), (24, false), (25, true)] {
            for (from, to) in [("client-1", "node1"), ("node1", "client-1")] {
                assert_eq!(blocked(&faults, from, to, now).is_some(), cut, "{from} to {to} at {now}");
            }
        }
    }

    #[test]
    fn a_partition_of_a_node_leaves_its_own_loopback_alone() {
        let mut faults = ActiveFaults::default();
        faults.add(&Fault::new(FaultKind::Partition).on(1), 0);
        assert!(blocked(&faults, "node1", "client-1", 1).is_some());
        assert!(blocked(&faults, "node1", "node1", 1).is_none());
    }

    #[test]
    fn delays_add_up_and_the_slowest_rate_wins() {
        let mut faults = with(FaultKind::Loss, "a <-> b");
        let delay = Fault { delay: Some("1us".parse().unwrap()), ..Fault::new(FaultKind::Delay).on(1) };
        faults.add(&Fault { node: None, link: Some("a <-> b".parse().unwrap()), ..delay }, 0);
        for rate in [500, 100, 900] {
            let slow = Fault { bytes_per_s: Some(rate), ..Fault::new(FaultKind::SlowLink) };
            faults.add(&Fault { link: Some("a <-> b".parse().unwrap()), ..slow }, 0);
        }
        let effect = transit(&mut faults, "b", "a", 1, &mut Stream::new(1, "link"));
        assert_eq!(effect, TransitEffect { delay: RETRANSMISSION + 1_000, bytes_per_s: Some(100) });
    }
}
