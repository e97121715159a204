//! What a node counts and measures. Names are part of the interface: dashboards use them.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// Shared by all parts of a node; each field is safe to use from any thread and cheap.
#[derive(Debug)]
pub struct Metrics {
    pub wal_commit_batch_size: Histogram,
    pub wal_commit_duration_ms: Histogram,
    pub wal_queue_depth: Gauge,
    pub wal_late_completion: Counter,
    pub raft_propose_duration_ms: Histogram,
    pub raft_apply_duration_ms: Histogram,
    pub produce_partition_concurrency: Gauge,
    pub produce_end_to_end_latency_ms: Histogram,
    pub connections: Gauge,
    pub requests_in_flight: Gauge,
    pub records_in: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let milliseconds = || Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1e3, 5e3, 3e4]);
        Metrics {
            wal_commit_batch_size: Histogram::new([1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 5e3, 1e4]),
            wal_commit_duration_ms: milliseconds(),
            wal_queue_depth: Gauge::default(),
            wal_late_completion: Counter::default(),
            raft_propose_duration_ms: milliseconds(),
            raft_apply_duration_ms: milliseconds(),
            produce_partition_concurrency: Gauge::default(),
            produce_end_to_end_latency_ms: milliseconds(),
            connections: Gauge::default(),
            requests_in_flight: Gauge::default(),
            records_in: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
        }
    }
}
