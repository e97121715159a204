//! `/metrics`: what a node counted, and beside it what only a look at the node tells.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::lags::GroupLags;
use crate::metrics::{Metrics, ReasonLabel, RequestMetrics};
use crate::stall::contact::Lost;
use crate::stall::writes::Refusal;

/// Without `requests` as long as the node answers none.
pub fn render(
    metrics: &Metrics,
    requests: Option<&RequestMetrics>,
    looked_up: &LookedUp,
    lags: &GroupLags,
) -> String {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    if let Some(requests) = requests {
        requests.register(&mut registry);
    }
    looked_up.register(&mut registry);
    lags.register(&mut registry);
    let mut text = String::new();
    // Writing into a String does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

/// What is looked up when asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct LookedUp {
    /// Age of the oldest disk operation in flight, seconds.
    pub oldest_operation_s: f64,
    pub late_completions: u64,
    pub storage_healthy: bool,
    pub partitions: i64,
    /// Those that do not open.
    pub partitions_damaged: i64,
    /// Those that could not begin to serve for reasons that are not their own.
    pub partitions_not_led: i64,
    /// Why no records are taken, if that lasts.
    pub refusal: Option<&'static str>,
    /// Why this node may not lead, as far as the controller says.
    pub contact_lost: Option<&'static str>,
    /// Raft's term, and the last entry that is applied here.
    pub metadata_term: i64,
    pub metadata_index: i64,
}

impl LookedUp {
    fn register(self, registry: &mut Registry) {
        let oldest = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        oldest.set(self.oldest_operation_s);
        registry.register(
            "wal_inflight_oldest_seconds",
            "Age of the oldest disk operation in flight",
            oldest,
        );
        let late = Counter::<u64>::default();
        late.inc_by(self.late_completions);
        registry.register(
            "wal_late_completion",
            "Disk operations that ended after their waiter had given up",
            late,
        );
        let healthy = Gauge::<i64>::default();
        healthy.set(i64::from(self.storage_healthy));
        registry.register("storage_healthy", "1 while the storage takes records", healthy);
        let partitions = Gauge::<i64>::default();
        partitions.set(self.partitions);
        registry.register("partitions", "Partitions that this node has", partitions);
        let damaged = Gauge::<i64>::default();
        damaged.set(self.partitions_damaged);
        registry.register(
            "partitions_damaged",
            "Partitions that do not open: /health/ready says why",
            damaged,
        );
        let not_led = Gauge::<i64>::default();
        not_led.set(self.partitions_not_led);
        registry.register(
            "partitions_not_led",
            "Partitions that could not begin to serve: /health/ready says why",
            not_led,
        );
        let refused = Family::<ReasonLabel, Gauge>::default();
        for reason in Refusal::NAMES {
            refused.get_or_create(&ReasonLabel { reason }).set(i64::from(self.refusal == Some(reason)));
        }
        registry.register("writes_refused", "1 while no records are taken, and why", refused);
        let lost = Family::<ReasonLabel, Gauge>::default();
        for reason in Lost::NAMES {
            lost.get_or_create(&ReasonLabel { reason }).set(i64::from(self.contact_lost == Some(reason)));
        }
        registry.register(
            "controller_contact_lost",
            "1 while this node may not lead, since the controller may not count on it, and why",
            lost,
        );
        let term = Gauge::<i64>::default();
        term.set(self.metadata_term);
        registry.register("metadata_term", "Term of the metadata's Raft group, as this node knows it", term);
        let index = Gauge::<i64>::default();
        index.set(self.metadata_index);
        registry.register(
            "metadata_index",
            "The last entry of the metadata that this node has applied",
            index,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::RungLabel;

    #[test]
    fn every_name_that_dashboards_use_is_served() {
        let metrics = Metrics::default();
        metrics.wal_stall.get_or_create(&RungLabel { rung: "stalled" }).inc();
        let requests =
            RequestMetrics::new([(0, "Produce".to_owned()), (19, "CreateTopics".to_owned())].into_iter());
        requests.count_request(0, 120);
        requests.count_error(0, 6);
        requests.count_error(0, 0);
        requests.count_error(19, 999);
        requests.count_done(0, std::time::Duration::from_millis(2));
        requests.count_response(0, 80);
        let text = render(&metrics, Some(&requests), &LookedUp::default(), &GroupLags::default());
        for name in [
            "wal_commit_batch_size_histogram_count",
            "wal_commit_duration_ms_count",
            "wal_queue_depth_gauge ",
            "wal_queue_lock_contention_count 0",
            "wal_inflight_oldest_seconds ",
            "wal_stall_total{rung=\"stalled\"} 1",
            "wal_late_completion_total 0",
            "raft_propose_duration_ms_count",
            "raft_apply_duration_ms_count",
            "raft_lock_hold_duration_us_count 0",
            "metadata_state_clone_duration_us_count 0",
            "produce_forward_count 0",
            "produce_forward_duration_ms_count 0",
            "produce_partition_concurrency_gauge ",
            "produce_end_to_end_latency_ms_count",
            "lock_acquisition_duration_us_count{lock_name=\"none\"} 0",
            "lock_contention_count{lock_name=\"none\"} 0",
            "writes_refused{reason=\"checkpoints_behind\"} 0",
            "controller_contact_lost{reason=\"cut_off\"} 0",
            "active_controller 0",
            "fenced_brokers 0",
            "heartbeats_sent_total 0",
            "heartbeats_failed_total 0",
            "hand_overs_total 0",
            "metadata_term 0",
            "metadata_index 0",
            "partitions_damaged 0",
            "partitions_not_led 0",
            "kafka_requests_total{api=\"Produce\"} 1",
            "kafka_requests_total{api=\"CreateTopics\"} 0",
            "kafka_request_errors_total{api=\"Produce\",error=\"NOT_LEADER_OR_FOLLOWER\"} 1",
            "kafka_request_errors_total{api=\"CreateTopics\",error=\"999\"} 1",
            "kafka_request_duration_seconds_bucket{le=\"0.0025\",api=\"Produce\"} 1",
            "kafka_request_bytes_total{api=\"Produce\"} 120",
            "kafka_response_bytes_total{api=\"Produce\"} 80",
            "leader_stepdown_total{reason=\"storage_stalled\"} 0",
        ] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }
}
