//! What a node counts and measures. Names are part of the interface: dashboards use them.
//!
//! A metric whose cause cannot occur in this broker is still served, at zero, and its help says why.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The label of a count per rung of the stall ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RungLabel {
    /// `warn`, `stalled` or `resumed`.
    pub rung: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LockLabel {
    lock_name: &'static str,
}

/// The label of a count per reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// In the words of dashboards: `storage_stalled`.
    pub reason: &'static str,
}

/// The label of a count per kind of frame between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FrameLabel {
    /// `raft`, `handshake`, `received`, `refused` or `probe`.
    pub kind: &'static str,
}

/// The label of a value per other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BrokerLabel {
    /// Its number.
    pub broker: i32,
}

/// Declares a metric in one place: its field and type, how it begins, its name and what it tells.
macro_rules! metrics {
    ($($field:ident: $kind:ty = $begins:expr, $name:literal, $about:literal;)*) => {
        /// Shared by all parts of a node; each field is safe to use from any thread and cheap.
        #[derive(Debug)]
        pub struct Metrics {
            $(#[doc = $about] pub $field: $kind,)*
        }

        impl Default for Metrics {
            fn default() -> Metrics {
                Metrics { $($field: $begins,)* }
            }
        }

        impl Metrics {
            /// Each under its name.
            pub fn register(&self, registry: &mut Registry) {
                $(registry.register($name, $about, self.$field.clone());)*
                register_absent(registry);
            }
        }
    };
}

metrics! {
    wal_commit_batch_size: Histogram = entries(),
        "wal_commit_batch_size_histogram", "Entries in a journal commit group";
    wal_commit_duration_ms: Histogram = milliseconds(),
        "wal_commit_duration_ms", "Write and sync of a journal commit group, ms";
    wal_queue_depth: Gauge = Gauge::default(),
        "wal_queue_depth_gauge", "Entries that wait for the next commit group";
    wal_stall: Family<RungLabel, Counter> = Family::default(),
        "wal_stall", "Rungs of the stall ladder reached: warn, stalled, resumed";
    raft_propose_duration_ms: Histogram = milliseconds(),
        "raft_propose_duration_ms", "From a metadata proposal to its answer, ms";
    raft_proposals_found_elsewhere: Counter = Counter::default(),
        "raft_proposals_found_elsewhere", "Metadata changes whose outcome another node told: this node's own metadata stood still, or came by a snapshot";
    raft_proposals_repeated: Counter = Counter::default(),
        "raft_proposals_repeated", "Metadata changes that a change of the controller had come to nothing, and that were proposed anew";
    raft_proposal_bytes: Gauge = Gauge::default(),
        "raft_proposal_bytes", "Bytes of metadata proposals that are not decided";
    raft_apply_duration_ms: Histogram = milliseconds(),
        "raft_apply_duration_ms", "Applying committed entries to the metadata image, ms";
    produce_partition_concurrency: Gauge = Gauge::default(),
        "produce_partition_concurrency_gauge", "Appends to partitions that are not answered";
    produce_forward_count: Gauge = Gauge::default(),
        "produce_forward_count", "Batches forwarded to the leaders of their partitions (server.forward_produce)";
    produce_forward_duration_ms: Histogram = milliseconds(),
        "produce_forward_duration_ms", "From forwarding a batch to its leader to the answer, ms";
    produce_end_to_end_latency_ms: Histogram = milliseconds(),
        "produce_end_to_end_latency_ms", "From a produce request's last byte to its answer, ms";
    connections: Gauge = Gauge::default(), "connections", "Open client connections";
    requests_in_flight: Gauge = Gauge::default(), "requests_in_flight", "Requests being worked on";
    request_bytes: Gauge = Gauge::default(), "request_bytes", "Bytes of requests that arrive or are worked on";
    waiting_bytes: Gauge = Gauge::default(), "waiting_bytes", "Bytes of requests that wait";
    opening_bytes: Gauge = Gauge::default(),
        "opening_bytes", "Bytes of batches that are opened before they are appended, and of what opening takes";
    answer_bytes: Gauge = Gauge::default(), "answer_bytes", "Bytes of answers not written yet";
    fetch_sessions: Gauge = Gauge::default(), "fetch_sessions", "Fetch sessions that this node keeps";
    fetch_session_partitions: Gauge = Gauge::default(),
        "fetch_session_partitions", "Partitions in fetch sessions";
    fetch_session_bytes: Gauge = Gauge::default(), "fetch_session_bytes", "Bytes that fetch sessions take";
    fetch_sessions_evicted: Counter = Counter::default(),
        "fetch_session_evictions", "Fetch sessions that gave way to others";
    fetches_incremental: Counter = Counter::default(),
        "fetches_incremental", "Fetches of sessions: answered with what is new only";
    peers_connected: Gauge = Gauge::default(),
        "peers_connected", "Other nodes that this one is linked to";
    peer_bytes: Gauge = Gauge::default(),
        "peer_bytes", "Bytes of what other nodes sent and is not worked off";
    peer_frames_in: Family<FrameLabel, Counter> = Family::default(),
        "peer_frames_in", "Frames from other nodes, by kind";
    peer_bytes_in: Family<FrameLabel, Counter> = Family::default(),
        "peer_bytes_in", "Bytes of frames from other nodes, by kind";
    peer_frames_out: Family<FrameLabel, Counter> = Family::default(),
        "peer_frames_out", "Frames to other nodes, by kind";
    peer_bytes_out: Family<FrameLabel, Counter> = Family::default(),
        "peer_bytes_out", "Bytes of frames to other nodes, by kind";
    peer_messages_dropped: Family<FrameLabel, Counter> = Family::default(),
        "peer_messages_dropped", "Messages to other nodes that made way for later ones, by kind";
    peer_handshakes_refused: Family<ReasonLabel, Counter> = Family::default(),
        "peer_handshakes_refused", "Handshakes between nodes that this one refused, by reason";
    group_coordinators: Gauge = Gauge::default(),
        "group_coordinators", "Partitions of __consumer_offsets whose groups this node coordinates";
    group_loads: Counter = Counter::default(),
        "group_loads", "Partitions of __consumer_offsets that were read back to coordinate their groups";
    group_upgrades: Counter = Counter::default(),
        "group_upgrades", "Classic groups that became consumer groups while members were in them";
    group_downgrades: Counter = Counter::default(),
        "group_downgrades", "Consumer groups that became classic groups while members were in them";
    group_loads_failed: Counter = Counter::default(),
        "group_loads_failed", "Attempts to read one back that came to nothing, and were made again";
    group_appends_failed: Counter = Counter::default(),
        "group_appends_failed", "Decisions about groups that were not kept in time: who waited was told to ask again";
    cleanings: Counter = Counter::default(),
        "log_cleanings", "Compacted logs that were cleaned";
    cleanings_failed: Counter = Counter::default(),
        "log_cleanings_failed", "Cleanings of compacted logs that came to nothing, or ended early, and are made again";
    cleaned_records: Counter = Counter::default(),
        "log_cleaned_records", "Records that cleaning left out: a newer one of their key was there, or their time was over";
    tombstones_lacked: Counter = Counter::default(),
        "log_tombstones_lacked", "Tombstones that cleanings left although their time was over, for a replica lacks them: one that is away or far behind";
    cleaned_bytes: Counter = Counter::default(),
        "log_cleaned_bytes", "Bytes by which cleaning made segments smaller";
    active_controller: Gauge = Gauge::default(),
        "active_controller", "1 while this node is the controller of its cluster";
    fenced_brokers: Gauge = Gauge::default(),
        "fenced_brokers", "Brokers that the controller does not count on, as the last one that this node was knows";
    heartbeats_sent: Counter = Counter::default(),
        "heartbeats_sent", "Heartbeats of this node to the controller";
    heartbeats_failed: Counter = Counter::default(),
        "heartbeats_failed", "Heartbeats of this node that the controller did not take";
    waits_for_metadata: Counter = Counter::default(),
        "waits_for_metadata", "Requests that waited until this node knew what the controller knows";
    waits_for_leadership: Counter = Counter::default(),
        "waits_for_leadership", "Produce requests that waited until this node leads what it is to lead";
    hand_overs: Counter = Counter::default(),
        "hand_overs", "Times that this node, as the controller, had moved what a broker leads that takes no records";
    replication_under_replicated: Gauge = Gauge::default(),
        "chronik_replication_under_replicated_partitions", "Partitions led here whose ISR lacks a replica";
    replication_under_min_isr: Gauge = Gauge::default(),
        "chronik_replication_under_min_isr_partitions", "Partitions led here whose ISR is below its minimum";
    replication_offline: Gauge = Gauge::default(),
        "chronik_replication_offline_partitions", "Partitions with a replica here that nobody leads";
    replication_isr_shrinks: Counter = Counter::default(),
        "chronik_replication_isr_shrinks", "Followers that left an ISR at the request of this leader";
    replication_isr_expands: Counter = Counter::default(),
        "chronik_replication_isr_expands", "Followers that came into an ISR at the request of this leader";
    replication_lag: Family<BrokerLabel, Gauge> = Family::default(),
        "chronik_replication_lag_records", "Records that a follower has not synced, of all partitions led here";
    replication_fetches_sent: Counter = Counter::default(),
        "chronik_replication_fetches_sent", "Fetches of this node from leaders";
    replication_fetches_answered: Counter = Counter::default(),
        "chronik_replication_fetches_answered", "Fetches of followers that this node has answered";
    records_in: Counter = Counter::default(),
        "records_in", "Records that partitions took, repetitions of idempotent producers not among them";
    bytes_in: Counter = Counter::default(), "bytes_in", "Bytes of the record batches that partitions took";
    records_out: Counter = Counter::default(), "records_out", "Records in answers to fetches";
    bytes_out: Counter = Counter::default(), "bytes_out", "Bytes of record batches in answers to fetches";
    topic_records_in: Family<TopicLabel, Counter> = Family::default(),
        "topic_records_in", "The same as records_in, by topic";
    topic_bytes_in: Family<TopicLabel, Counter> = Family::default(),
        "topic_bytes_in", "The same as bytes_in, by topic";
    topic_records_out: Family<TopicLabel, Counter> = Family::default(),
        "topic_records_out", "The same as records_out, by topic";
    topic_bytes_out: Family<TopicLabel, Counter> = Family::default(),
        "topic_bytes_out", "The same as bytes_out, by topic";
}

/// The name of a topic that has partitions here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TopicLabel {
    topic: Arc<str>,
}

/// How much, in records and in bytes of their batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Records in them.
    pub records: u64,
    /// Bytes of the batches, headers included.
    pub bytes: u64,
}

impl Volume {
    /// Takes in `more`.
    pub fn add(&mut self, more: Volume) {
        self.records += more.records;
        self.bytes += more.bytes;
    }
}

/// What is counted for a topic, and for all of them, as a partition holds it.
#[derive(Clone, Debug, Default)]
pub struct TopicCounters {
    records_in: [Counter; 2],
    bytes_in: [Counter; 2],
    records_out: [Counter; 2],
    bytes_out: [Counter; 2],
}

impl TopicCounters {
    /// A partition took records.
    pub fn took(&self, taken: Volume) {
        count(&self.records_in, taken.records);
        count(&self.bytes_in, taken.bytes);
    }

    /// A reader is given records.
    pub fn gave(&self, given: Volume) {
        count(&self.records_out, given.records);
        count(&self.bytes_out, given.bytes);
    }
}

fn count(counters: &[Counter], more: u64) {
    for counter in counters {
        counter.inc_by(more);
    }
}

impl Metrics {
    /// The counters of a topic, for each of its partitions that opens here.
    pub fn of_topic(&self, topic: &Arc<str>) -> TopicCounters {
        let label = TopicLabel { topic: topic.clone() };
        let both = |all: &Counter, by_topic: &Family<TopicLabel, Counter>| {
            [all.clone(), by_topic.get_or_create(&label).clone()]
        };
        TopicCounters {
            records_in: both(&self.records_in, &self.topic_records_in),
            bytes_in: both(&self.bytes_in, &self.topic_bytes_in),
            records_out: both(&self.records_out, &self.topic_records_out),
            bytes_out: both(&self.bytes_out, &self.topic_bytes_out),
        }
    }

    /// A topic is deleted.
    pub fn forget_topic(&self, topic: &str) {
        let label = TopicLabel { topic: topic.into() };
        for family in
            [&self.topic_records_in, &self.topic_bytes_in, &self.topic_records_out, &self.topic_bytes_out]
        {
            family.remove(&label);
        }
    }
}

/// What is counted for each API, by its key.
#[derive(Debug)]
pub struct RequestMetrics {
    by_key: Vec<Option<ApiMetrics>>,
    requests: Family<ApiLabel, Counter>,
    errors: Family<ApiErrorLabel, Counter>,
    duration: Family<ApiLabel, Histogram>,
    request_bytes: Family<ApiLabel, Counter>,
    response_bytes: Family<ApiLabel, Counter>,
}

#[derive(Debug)]
struct ApiMetrics {
    label: ApiLabel,
    requests: Counter,
    duration: Histogram,
    request_bytes: Counter,
    response_bytes: Counter,
}

/// Kafka's name of the API, `Produce`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabel {
    api: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiErrorLabel {
    api: Arc<str>,
    error: ErrorName,
}

/// A code of the protocol; told by its name, `NOT_LEADER_OR_FOLLOWER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ErrorName(i16);

impl EncodeLabelValue for ErrorName {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let Some(error) = ResponseError::try_from_code(self.0) else { return Ok(()) };
        if let ResponseError::Unknown(code) = error {
            return write!(encoder, "{code}");
        }
        for (at, letter) in format!("{error:?}").char_indices() {
            if at > 0 && letter.is_ascii_uppercase() {
                encoder.write_char('_')?;
            }
            encoder.write_char(letter.to_ascii_uppercase())?;
        }
        Ok(())
    }
}

impl RequestMetrics {
    /// For APIs with these keys and names. Others are not counted.
    pub fn new(apis: impl Iterator<Item = (i16, String)>) -> RequestMetrics {
        let mut metrics = RequestMetrics {
            by_key: Vec::new(),
            requests: Family::default(),
            errors: Family::default(),
            duration: Family::new_with_constructor(|| {
                Histogram::new([
                    1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
                ])
            }),
            request_bytes: Family::default(),
            response_bytes: Family::default(),
        };
        for (key, name) in apis {
            let Ok(at) = usize::try_from(key) else { continue };
            let label = ApiLabel { api: name.into() };
            let api = ApiMetrics {
                requests: metrics.requests.get_or_create(&label).clone(),
                duration: metrics.duration.get_or_create(&label).clone(),
                request_bytes: metrics.request_bytes.get_or_create(&label).clone(),
                response_bytes: metrics.response_bytes.get_or_create(&label).clone(),
                label,
            };
            metrics.by_key.resize_with(metrics.by_key.len().max(at + 1), || None);
            metrics.by_key[at] = Some(api);
        }
        metrics
    }

    fn of(&self, key: i16) -> Option<&ApiMetrics> {
        self.by_key.get(usize::try_from(key).ok()?)?.as_ref()
    }

    /// A request was read, with its header.
    pub fn count_request(&self, key: i16, bytes: usize) {
        if let Some(api) = self.of(key) {
            api.requests.inc();
            api.request_bytes.inc_by(bytes as u64);
        }
    }

    /// An answer carries an error code; 0 is none.
    pub fn count_error(&self, key: i16, code: i16) {
        if code != 0
            && let Some(api) = self.of(key)
        {
            let label = ApiErrorLabel { api: api.label.api.clone(), error: ErrorName(code) };
            self.errors.get_or_create(&label).inc();
        }
    }

    /// The answer is found, so long after the request came with its last byte.
    pub fn count_done(&self, key: i16, took: Duration) {
        if let Some(api) = self.of(key) {
            api.duration.observe(took.as_secs_f64());
        }
    }

    /// An answer was encoded, so large with its header and length.
    pub fn count_response(&self, key: i16, bytes: usize) {
        if let Some(api) = self.of(key) {
            api.response_bytes.inc_by(bytes as u64);
        }
    }

    /// Each under its name.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("kafka_requests", "Requests received, by API", self.requests.clone());
        registry.register(
            "kafka_request_errors",
            "Error codes in answers, by API and code: a request for many partitions may have many",
            self.errors.clone(),
        );
        registry.register_with_unit(
            "kafka_request_duration",
            "From a request's last byte to its answer, what the client asked to wait for included",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register_with_unit(
            "kafka_request",
            "Size of requests received, by API",
            Unit::Bytes,
            self.request_bytes.clone(),
        );
        registry.register_with_unit(
            "kafka_response",
            "Size of answers, by API",
            Unit::Bytes,
            self.response_bytes.clone(),
        );
    }
}

/// One in a gauge for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Counts one more in `gauge` until it is dropped.
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

fn entries() -> Histogram {
    Histogram::new([1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 5e3, 1e4])
}

fn milliseconds() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1e3, 5e3, 3e4])
}

fn microseconds() -> Histogram {
    Histogram::new([1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6])
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
    registry.register("leader_stepdown", "Leaderships given up, by reason", stepdown);
}
