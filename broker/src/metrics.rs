//! What a node counts and measures. Names are part of the interface: dashboards use them.
//!
//! A metric whose cause cannot occur in this broker is still served, at zero, and its help says why.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RungLabel {
    pub rung: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LockLabel {
    lock_name: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: &'static str,
}

/// Shared by all parts of a node; each field is safe to use from any thread and cheap.
#[derive(Debug)]
pub struct Metrics {
    pub wal_commit_batch_size: Histogram,
    pub wal_commit_duration_ms: Histogram,
    pub wal_queue_depth: Gauge,
    pub wal_stall: Family<RungLabel, Counter>,
    pub raft_propose_duration_ms: Histogram,
    pub raft_proposal_bytes: Gauge,
    pub raft_apply_duration_ms: Histogram,
    pub produce_partition_concurrency: Gauge,
    pub produce_end_to_end_latency_ms: Histogram,
    pub connections: Gauge,
    pub requests_in_flight: Gauge,
    pub request_bytes: Gauge,
    pub waiting_bytes: Gauge,
    pub answer_bytes: Gauge,
    pub records_in: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
}

/// One in a gauge for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    pub fn among(gauge: &Gauge) -> Counted {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn milliseconds() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1e3, 5e3, 3e4])
}

fn microseconds() -> Histogram {
    Histogram::new([1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6])
}

impl Default for Metrics {
    fn default() -> Metrics {
        let sizes = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 5e3, 1e4];
        Metrics {
            wal_commit_batch_size: Histogram::new(sizes),
            wal_commit_duration_ms: milliseconds(),
            wal_queue_depth: Gauge::default(),
            wal_stall: Family::default(),
            raft_propose_duration_ms: milliseconds(),
            raft_proposal_bytes: Gauge::default(),
            raft_apply_duration_ms: milliseconds(),
            produce_partition_concurrency: Gauge::default(),
            produce_end_to_end_latency_ms: milliseconds(),
            connections: Gauge::default(),
            requests_in_flight: Gauge::default(),
            request_bytes: Gauge::default(),
            waiting_bytes: Gauge::default(),
            answer_bytes: Gauge::default(),
            records_in: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
        }
    }
}

impl Metrics {
    /// Each under its name.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "wal_commit_batch_size_histogram",
            "Entries in a journal commit group",
            self.wal_commit_batch_size.clone(),
        );
        registry.register(
            "wal_commit_duration_ms",
            "Write and sync of a journal commit group, ms",
            self.wal_commit_duration_ms.clone(),
        );
        registry.register(
            "wal_queue_depth_gauge",
            "Entries that wait for the next commit group",
            self.wal_queue_depth.clone(),
        );
        registry.register(
            "wal_stall",
            "Rungs of the stall ladder reached: warn, stalled, resumed",
            self.wal_stall.clone(),
        );
        registry.register(
            "raft_propose_duration_ms",
            "From a metadata proposal to its answer, ms",
            self.raft_propose_duration_ms.clone(),
        );
        registry.register(
            "raft_proposal_bytes",
            "Bytes of metadata proposals that are not decided",
            self.raft_proposal_bytes.clone(),
        );
        registry.register(
            "raft_apply_duration_ms",
            "Applying committed entries to the metadata image, ms",
            self.raft_apply_duration_ms.clone(),
        );
        registry.register(
            "produce_partition_concurrency_gauge",
            "Appends to partitions that are not answered",
            self.produce_partition_concurrency.clone(),
        );
        registry.register(
            "produce_end_to_end_latency_ms",
            "From a produce request's last byte to its answer, ms",
            self.produce_end_to_end_latency_ms.clone(),
        );
        registry.register("connections", "Open client connections", self.connections.clone());
        registry.register("requests_in_flight", "Requests being worked on", self.requests_in_flight.clone());
        registry.register(
            "request_bytes",
            "Bytes of requests that arrive or are worked on",
            self.request_bytes.clone(),
        );
        registry.register("waiting_bytes", "Bytes of requests that wait", self.waiting_bytes.clone());
        registry.register("answer_bytes", "Bytes of answers not written yet", self.answer_bytes.clone());
        registry.register("records_in", "Records appended", self.records_in.clone());
        registry.register("bytes_in", "Bytes of requests", self.bytes_in.clone());
        registry.register("bytes_out", "Bytes of responses", self.bytes_out.clone());
        register_absent(registry);
    }
}

/// Metrics of causes that this broker does not have.
fn register_absent(registry: &mut Registry) {
    let locks: Family<LockLabel, Histogram> = Family::new_with_constructor(microseconds);
    drop(locks.get_or_create(&LockLabel { lock_name: "none" }));
    let contention: Family<LockLabel, Gauge> = Family::default();
    drop(contention.get_or_create(&LockLabel { lock_name: "none" }));
    let stepdown: Family<ReasonLabel, Counter> = Family::default();
    drop(stepdown.get_or_create(&ReasonLabel { reason: "storage_stalled" }));
    let no_lock = "Zero: state has owner tasks, nothing on the produce path waits for a lock";
    registry.register("lock_acquisition_duration_us", no_lock, locks);
    registry.register("lock_contention_count", no_lock, contention);
    registry.register("wal_queue_lock_contention_count", no_lock, Gauge::<i64>::default());
    registry.register(
        "raft_lock_hold_duration_us",
        "Zero: the Raft group has an owner task and no lock",
        microseconds(),
    );
    registry.register(
        "metadata_state_clone_duration_us",
        "Zero: images share structure, nothing clones the whole state",
        microseconds(),
    );
    let no_forwarding = "Zero: a produce for another node is answered with the leader's endpoint";
    registry.register("produce_forward_count", no_forwarding, Gauge::<i64>::default());
    registry.register("produce_forward_duration_ms", no_forwarding, milliseconds());
    registry.register("leader_stepdown", "Leaderships given up, by reason", stepdown);
}
