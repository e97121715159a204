//! How long traffic takes between two machines: each ordered pair is a link with its own random stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::fault::{self, ActiveFaults};
use crate::streams::Stream;

/// Bytes per second of an undisturbed link.
const BANDWIDTH: u64 = 1_000_000_000;
/// Within one machine.
const LOOPBACK_NS: u64 = 15_000;

struct Link {
    stream: Stream,
    usual_ns: u64,
}

#[derive(Default)]
pub struct Links(BTreeMap<(Arc<str>, Arc<str>), Link>);

/// What one segment meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transit {
    /// From leaving the sender to arriving.
    pub latency: u64,
    /// How long the link is busy with it.
    pub occupies: u64,
}

impl Links {
    fn link(&mut self, seed: u64, from: &Arc<str>, to: &Arc<str>) -> &mut Link {
        self.0.entry((from.clone(), to.clone())).or_insert_with(|| {
            let mut stream = Stream::new(seed, &format!("link/{from}/{to}"));
            let usual_ns = if from == to { LOOPBACK_NS } else { stream.between(40_000, 150_000) };
            Link { stream, usual_ns }
        })
    }

    pub fn transit(
        &mut self,
        seed: u64,
        faults: &mut ActiveFaults,
        from: &Arc<str>,
        to: &Arc<str>,
        bytes: usize,
        now: u64,
    ) -> Transit {
        let link = self.link(seed, from, to);
        let usual = link.stream.latency(link.usual_ns);
        let effect = fault::network::transit(faults, from, to, now, &mut link.stream);
        let rate = effect.bytes_per_s.unwrap_or(BANDWIDTH).max(1);
        let occupies = (bytes as u128 * 1_000_000_000 / u128::from(rate)) as u64;
        Transit { latency: usual + effect.delay, occupies }
    }

    pub fn connect_hangs(
        &mut self,
        seed: u64,
        faults: &mut ActiveFaults,
        from: &Arc<str>,
        to: &Arc<str>,
        now: u64,
    ) -> bool {
        let link = self.link(seed, from, to);
        fault::network::connect_hangs(faults, from, to, now, &mut link.stream)
    }

    /// How long after a heal the sender tries again.
    pub fn retry(&mut self, seed: u64, from: &Arc<str>, to: &Arc<str>) -> u64 {
        self.link(seed, from, to).stream.between(5_000_000, 200_000_000)
    }
}
