//! What clients may take of the node.

use std::time::Duration;

use super::super::values::{bytes, duration, number, shown};
use super::key::{DAY, GIB, Key};

/// In the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key!(
        "server.worker_threads",
        "threads that work on requests, beside those of the disk; 0: one for each core. Less where several nodes share a machine",
        "0..=1024",
        |c, v| {
            c.server.worker_threads = number(v, 0, 1_024)?;
            Ok(())
        },
        |c| c.server.worker_threads.to_string()
    ),
    key!(
        "server.connections",
        "client connections at most; never more than half of the process's descriptors; from one address three quarters, unless the next key says otherwise",
        "1..=1000000",
        |c, v| {
            c.apply_connections(number(v, 1, 1_000_000)?);
            Ok(())
        },
        |c| c.server.connections.to_string()
    ),
    key!(
        "server.connections_per_address",
        "client connections from one address at most; above it the one that is idle for the longest gives way",
        "1..=1000000",
        |c, v| {
            c.server.connections_per_address = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.server.connections_per_address.to_string()
    ),
    key!(
        "server.idle_timeout",
        "a connection without a request for so long is closed",
        "1s..=365d",
        |c, v| {
            c.server.idle_timeout = duration(v, Duration::from_secs(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.server.idle_timeout)
    ),
    key!(
        "server.requests_in_flight",
        "requests being worked on at most",
        "1..=1000000",
        |c, v| {
            c.server.requests_in_flight = number(v, 1, 1_000_000)?;
            Ok(())
        },
        |c| c.server.requests_in_flight.to_string()
    ),
    key!(
        "server.request_bytes",
        "largest request",
        "64 KiB..=1 GiB",
        |c, v| {
            c.server.request_bytes = bytes(v, 64 << 10, GIB)? as usize;
            Ok(())
        },
        |c| c.server.request_bytes.to_string()
    ),
    key!(
        "server.request_bytes_in_flight",
        "bytes of requests being worked on at most",
        "1 MiB..=64 GiB",
        |c, v| {
            c.server.request_bytes_in_flight = bytes(v, 1 << 20, 64 * GIB)? as usize;
            Ok(())
        },
        |c| c.server.request_bytes_in_flight.to_string()
    ),
    key!(
        "server.waiting_bytes",
        "bytes of requests that wait for their turn or for records at most; above it fetches are answered at once",
        "256 KiB..=64 GiB",
        |c, v| {
            c.server.waiting_bytes = bytes(v, 256 << 10, 64 * GIB)? as usize;
            Ok(())
        },
        |c| c.server.waiting_bytes.to_string()
    ),
    key!(
        "server.answer_bytes",
        "bytes of answers that are not written yet at most",
        "1 MiB..=64 GiB",
        |c, v| {
            c.server.answer_bytes = bytes(v, 1 << 20, 64 * GIB)? as usize;
            Ok(())
        },
        |c| c.server.answer_bytes.to_string()
    ),
    key!(
        "server.responses_queued",
        "responses queued behind a slow reader before its requests wait",
        "1..=10000",
        |c, v| {
            c.server.responses_queued = number(v, 1, 10_000)?;
            Ok(())
        },
        |c| c.server.responses_queued.to_string()
    ),
    key!(
        "server.fetch_sessions",
        "fetch sessions at most, in which consumers are told what is new only; who finds no place is told everything each time",
        "0..=1000000",
        |c, v| {
            c.server.fetch_sessions = number(v, 0, 1_000_000)?;
            Ok(())
        },
        |c| c.server.fetch_sessions.to_string()
    ),
    key!(
        "server.fetch_session_bytes",
        "bytes that fetch sessions keep at most, one of them a quarter",
        "64 KiB..=64 GiB",
        |c, v| {
            c.server.fetch_session_bytes = bytes(v, 64 << 10, 64 * GIB)? as usize;
            Ok(())
        },
        |c| c.server.fetch_session_bytes.to_string()
    ),
    key!(
        "server.fetch_sessions_evictable_after",
        "a fetch session that was not used for so long gives way to others, and one that is so old to those with more partitions",
        "1ms..=365d",
        |c, v| {
            c.server.fetch_sessions_evictable_after = duration(v, Duration::from_millis(1), 365 * DAY)?;
            Ok(())
        },
        |c| shown(c.server.fetch_sessions_evictable_after)
    ),
    key!(
        "server.fetch_wait_max",
        "a fetch waits for records no longer than this; the client's own time counts where shorter",
        "0ms..=1h",
        |c, v| {
            c.server.fetch_wait_max = duration(v, Duration::ZERO, Duration::from_secs(3_600))?;
            Ok(())
        },
        |c| shown(c.server.fetch_wait_max)
    ),
    key!(
        "server.produce_deadline",
        "a produce is answered by then; the client's own time-out counts where shorter",
        "100ms..=10m",
        |c, v| {
            c.server.produce_deadline = duration(v, Duration::from_millis(100), Duration::from_secs(600))?;
            Ok(())
        },
        |c| shown(c.server.produce_deadline)
    ),
    key!(
        "server.forward_produce",
        "a produce for a partition that another node leads is forwarded to it, for clients that reach this node only; otherwise its client is told who leads",
        "true, false",
        |c, v| {
            c.server.forward_produce = v.parse().map_err(|_| "neither true nor false".to_string())?;
            Ok(())
        },
        |c| c.server.forward_produce.to_string()
    ),
    key!(
        "server.rack_aware_fetch",
        "a consumer that says in which rack it stands (client.rack) is sent to a replica in sync there; followers serve it either way",
        "true, false",
        |c, v| {
            c.server.rack_aware_fetch = v.parse().map_err(|_| "neither true nor false".to_string())?;
            Ok(())
        },
        |c| c.server.rack_aware_fetch.to_string()
    ),
];
