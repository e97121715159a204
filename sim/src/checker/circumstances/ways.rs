//! What one fault does to the requests of one client to one node.

use super::paths;
use crate::fault::duration::nanos;
use crate::fault::select::matches_pattern;
use crate::fault::{FaultHits, FaultKind, Link};
use crate::history::{At, Trade};

/// Clients that ask now and then have noticed by then that a connection has silently ended.
const UNNOTICED: At = 30_000_000_000;
/// One request takes so many segments, one after the other, the connection's making included.
const SEGMENTS_IN_TURN: u64 = 8;
/// Segments that are this much late do not make an answer late.
const HARMLESS: At = 2_000_000_000;
/// What a connection has on its way at most.
const BYTES_ON_THE_WAY: u64 = 256 * 1024;

/// From when until when, and what became of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// They were held up and went on afterwards.
    Pauses(At, At),
    /// Some got lost without a word: nobody will ever answer them.
    Swallows(At, At),
    /// The connections of that moment ended without a word: whoever asks on one, however much later, is not answered.
    Silences(At),
}

impl Hold {
    pub fn span(self) -> (At, At) {
        match self {
            Hold::Pauses(from, to) | Hold::Swallows(from, to) => (from, to),
            Hold::Silences(at) => (at, at.saturating_add(UNNOTICED)),
        }
    }
}

/// Without a client it is about whichever may be concerned. None for what does not keep answers away: a disk's faults above all, sync points, clocks, and ends of processes, of which
/// clients are told (those that are not told are in the process's life).
pub fn hold(hit: &FaultHits, client: Option<&str>, node: &str, trade: Trade) -> Option<Hold> {
    let fault = &hit.fault;
    let (from, until) = (hit.from, hit.until);
    let between = || {
        let link = Link { both_ways: true, ..fault.links() };
        match client {
            Some(client) => link.matches(client, node),
            None => matches_pattern(&link.from, node) || matches_pattern(&link.to, node),
        }
    };
    let here = || fault.node.as_ref().is_some_and(|machine| machine.machine() == node);
    let pauses = Hold::Pauses(from, until);
    match fault.kind {
        FaultKind::Partition | FaultKind::OneWay | FaultKind::Flapping => between().then_some(pauses),
        FaultKind::Loss | FaultKind::Delay => {
            let delay = fault.delay.map_or(200_000_000, |delay| nanos(delay.0));
            let late = delay.saturating_mul(SEGMENTS_IN_TURN);
            (late >= HARMLESS && between()).then_some(Hold::Pauses(from, until.saturating_add(late)))
        }
        FaultKind::SlowLink => {
            let rate = fault.bytes_per_s.unwrap_or(u64::MAX).max(1);
            let drained = BYTES_ON_THE_WAY.saturating_mul(1_000_000_000) / rate;
            between().then_some(Hold::Pauses(from, until.saturating_add(drained)))
        }
        FaultKind::Silence => between().then_some(Hold::Silences(from)),
        FaultKind::ConnectHangs => between().then_some(Hold::Swallows(from, until)),
        FaultKind::Pause | FaultKind::Unkillable => here().then_some(pauses),
        FaultKind::TaskStopped => {
            let pattern = fault.task.as_deref().unwrap_or("*");
            (here() && paths::needs(pattern, trade, client)).then_some(pauses)
        }
        FaultKind::ThreadBlocked => {
            let pattern = fault.task.as_deref().unwrap_or("*");
            let needed = paths::shares_threads(pattern) || paths::needs(pattern, trade, client);
            (here() && needed).then_some(pauses)
        }
        FaultKind::Reset
        | FaultKind::Kill
        | FaultKind::PowerLoss
        | FaultKind::Restart
        | FaultKind::Wipe
        | FaultKind::DiskStall
        | FaultKind::DiskSlow
        | FaultKind::DiskError
        | FaultKind::SyncFails
        | FaultKind::TornWrite
        | FaultKind::LostWrite
        | FaultKind::MisdirectedWrite
        | FaultKind::BitRot
        | FaultKind::DiskFull
        | FaultKind::ClockSkew
        | FaultKind::ClockJump
        | FaultKind::ClockDrift
        | FaultKind::LockDelay
        | FaultKind::ChannelDelay
        | FaultKind::ChannelFull => None,
    }
}
