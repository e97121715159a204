//! Every bound of the broker in one place, with the relations between them checked by the compiler.
//! What an operator may change is in `config`; these are the defaults there, or fixed.

use std::time::Duration;

/// A mebibyte, in bytes.
pub const MIB: usize = 1 << 20;

/// Largest request frame, and so the largest thing the broker ever buffers for one client.
pub const REQUEST_BYTES_MAX: usize = 100 * MIB;
/// Largest record batch, as it ships: Kafka's 1 MiB of records and the overhead of a batch.
pub const BATCH_BYTES_MAX: usize = MIB + 12;
/// A journal file; prefilled, so also what a node takes on disk at least (twice, with Raft's).
pub const JOURNAL_FILE_BYTES: usize = 64 * MIB;
/// A file of Raft's journal; prefilled.
pub const RAFT_JOURNAL_FILE_BYTES: usize = 8 * MIB;
/// Largest journal entry: a batch and its frame, or a checkpoint record.
pub const JOURNAL_ENTRY_BYTES_MAX: usize = 8 * MIB;
/// A journal lets go of what is checkpointed in steps of this.
pub const JOURNAL_RELEASE_STEP_BYTES: u64 = 1 << 20;
/// Failures of a journal's writes in a row, with no durable group in between, after which the disk is not believed any
/// more.
pub const JOURNAL_FAILURES_MAX: u32 = 3;
/// Released journal files kept for use; more are removed.
pub const JOURNAL_RELEASED_FILES_MAX: usize = 4;
/// A round of checkpoints begins when the journal has grown by this.
pub const CHECKPOINT_BYTES: u64 = 64 << 20;
/// Bytes that wait for a journal's next commit group at most (`journal.queue_bytes`, as it ships).
pub const JOURNAL_QUEUE_BYTES: usize = 64 * MIB;
/// Entries that wait for it at most (`journal.queue_records`).
pub const JOURNAL_QUEUE_ENTRIES: usize = 50_000;
/// Bytes of a commit group, which is written as one piece, at most (`journal.max_batch_bytes`).
pub const JOURNAL_GROUP_BYTES: usize = 4 * MIB;
/// Entries of a commit group at most (`journal.max_batch_records`).
pub const JOURNAL_GROUP_ENTRIES: usize = 10_000;

/// Requests that wait in a partition's mailbox before connections stop being read.
pub const PARTITION_MAILBOX: usize = 1_024;
/// Bytes of the appends that wait in a partition's mailbox and line, at most: one partition that stands still leaves
/// room to others. Where there is little memory it is a quarter of what requests have.
pub const PARTITION_WAITING_BYTES: usize = 16 * MIB;
/// Batches of a producer that may be in flight, and so come again.
pub const PRODUCER_BATCHES_REMEMBERED: usize = 5;
/// Idempotent producers remembered by a partition; above it those that may not try again any more are forgotten.
pub const PRODUCERS_PER_PARTITION_KEPT: usize = 10_000;
/// Where nobody can be forgotten, new producers are refused above this.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 20_000;
/// A producer silent for so long is forgotten (Kafka's `producer.id.expiration.ms`).
pub const PRODUCER_EXPIRATION: Duration = Duration::from_secs(24 * 3_600);
/// A producer silent for so long does not try a batch again: above Kafka's default `delivery.timeout.ms` of 2 minutes.
pub const PRODUCER_RETRIES_WITHIN: Duration = Duration::from_secs(5 * 60);
/// First batches of idempotent producers that were refused before they came to their partitions: so many are remembered.
pub const FIRST_REFUSED_MAX: usize = 4_096;
/// How often a partition with many producers looks for some to forget.
pub const PRODUCERS_LOOKED_THROUGH_EVERY: Duration = Duration::from_secs(1);
/// What a partition puts in the journal's queue at once, and one entry of it.
pub const PARTITION_SUBMIT_BYTES: usize = 4 * MIB;
/// Bytes that a checkpoint writes to a segment between two syncs: a disk never has more of it to write back
/// at once.
pub const PARTITION_ENTRY_BYTES: usize = MIB;
/// What a follower has fetched is not cut smaller than this where its journal takes little at once.
pub const PARTITION_ENTRY_BYTES_MIN: usize = 4096;
/// What a checkpoint writes at once, and between two syncs.
pub const WRITE_BACK_BYTES: usize = MIB;
/// Client connections open at a time, in the node (`server.connections`).
pub const WRITE_BACK_SYNC_BYTES: usize = 16 * MIB;
/// Segment files that stay open for readers.
pub const OPEN_SEGMENT_FILES: usize = 1_024;
/// Which share of the process's descriptors they may take at most: 1 / this.
pub const OPEN_SEGMENT_FILES_SHARE: u64 = 4;
/// Client connections open at a time from one address: the rest is for others.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Which share of the process's descriptors they may take at most: 1 / this.
pub const CONNECTIONS_SHARE: u64 = 2;
/// From one address: the rest is for others.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = connections_per_address(CONNECTIONS_MAX);
/// How many of so many connections one address may have: three quarters.
pub const fn connections_per_address(connections: usize) -> usize {
    connections - connections / 4
}
/// A connection without a request for so long is closed; Kafka's `connections.max.idle.ms`.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// One that has been idle for so long may be closed for a newcomer that finds no place.
pub const IDLE_BEFORE_NEWCOMERS: Duration = Duration::from_secs(1);
/// Requests in flight in the node; connections are not read above it.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1_000;
/// Everything that grows with load: the log's tails, requests, answers.
pub const MEMORY_BYTES: usize = 512 * MIB;
/// Less than this has no room for a few batches of the usual size in each of its shares.
pub const MEMORY_BYTES_MIN: usize = 64 * MIB;
/// Responses queued behind one slow reader.
pub const RESPONSES_QUEUED_MAX: usize = 100;
/// A connection's buffer to read into while no larger request is on its way; what fits is not charged to an
/// account.
pub const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Answers are added to what a connection has yet to write only below this.
pub const WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// Records that one Fetch answer carries, in bytes, at most: Kafka's `fetch.max.bytes`, as it ships.
pub const FETCH_BYTES_MAX: usize = 55 * MIB;
/// An answer that is not a fetch's waits for room of this size; what it is larger is charged when it is known.
pub const ANSWER_BYTES_LEAST: usize = 4 * 1024;
/// A fetch waits for records no longer than this, whatever it asks for. Kafka's clients ask for half a second.
pub const FETCH_WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// Fetch sessions of a node: Kafka's `max.incremental.fetch.session.cache.slots`, as it ships.
pub const FETCH_SESSIONS_MAX: usize = 1_000;
/// When they may give way to others, as in Kafka.
pub const FETCH_SESSIONS_EVICTABLE_AFTER: Duration = Duration::from_secs(120);

/// Our own bound on a produce; the client's `timeout_ms` may be shorter.
pub const PRODUCE_DEADLINE: Duration = Duration::from_secs(30);
/// Bound on a single read from a segment, and on other small disk operations while serving.
pub const DISK_DEADLINE: Duration = Duration::from_secs(10);
/// Bound on a proposal to the metadata group.
pub const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);
/// Bound on a question to an owner task.
pub const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// How long a request waits for metadata that the controller may have and this node has not: as long as clients wait before they ask again.
pub const CATCH_UP_DEADLINE: Duration = Duration::from_millis(100);
/// Requests that wait at once to be told how far the controller's metadata are; further ones go by what this node has.
pub const LATENESS_WANTED_MAX: usize = 1_024;
/// A client that takes nothing of its answer, or sends nothing more of a request it began, for this long
/// is let go.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// How fast a client must be at least, beside [`WRITE_DEADLINE`], in sending a request it began and in taking an
/// answer that is not small.
pub const CLIENT_BYTES_PER_SECOND_MIN: usize = 64 * 1024;
/// Requests above this leave room for smaller ones.
pub const SMALL_REQUEST_BYTES: usize = 64 * 1024;
/// Room for a large request is asked for in steps of at most this.
pub const REQUEST_STEP_BYTES: usize = MIB;
/// Who has waited for room for so long has those looked for that hold it.
pub const ROOM_TIMEOUT: Duration = Duration::from_secs(1);
/// What is in flight at a clean stop has this long to be answered; the last checkpoint follows.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Nodes of a cluster.
pub const PEERS_MAX: usize = 64;
/// Frame between two nodes, in bytes without its length, at most: the largest batch goes in one.
pub const PEER_FRAME_BYTES_MAX: usize = JOURNAL_ENTRY_BYTES_MAX + MIB;
/// Messages of one frame.
pub const PEER_FRAME_MESSAGES_MAX: usize = 1_024;
/// Message to another node, in bytes, at most.
pub const PEER_MESSAGE_BYTES_MAX: usize = PEER_FRAME_BYTES_MAX - 4096;
/// Frame of a handshake, in bytes without its length, at most: nobody has proved anything yet.
pub const PEER_HELLO_BYTES_MAX: usize = 512;
/// Messages that wait to be sent to one node; the oldest make way.
pub const PEER_QUEUE_MESSAGES: usize = 4_096;
/// Bytes of them, where there is memory for it.
pub const PEER_QUEUE_BYTES: usize = 8 * MIB;
/// Connections to the cluster listener that have not proved anything, at a time; half of them from one address.
pub const PEER_STRANGERS_MAX: usize = 32;
/// Connecting to another node takes no longer than this.
pub const PEER_CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// A handshake between nodes takes no longer than this.
pub const PEER_HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);
/// A node that has received nothing for so long of what is on its way to it is not reached.
pub const PEER_SILENT_DEADLINE: Duration = Duration::from_secs(2);
/// What a node has read is said to whoever sent it within this: much less than the sender's patience.
pub const PEER_READ_SAID_WITHIN: Duration = Duration::from_millis(50);
/// Or when it is so much: little of what a connection holds.
pub const PEER_READ_SAID_BYTES: usize = 256 * 1024;
/// A frame that began to come goes on within this.
pub const PEER_FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// What came from another node finds room, and is taken, within this.
pub const PEER_TAKEN_DEADLINE: Duration = Duration::from_secs(30);
/// The first pause before a node is connected to again; each is twice the one before.
pub const PEER_BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest of them.
pub const PEER_BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Bytes that a partition takes while its ISR is below the minimum, so that nothing is committed.
pub const UNCOMMITTED_BYTES_MAX: usize = 16 * MIB;
/// Records of one answer to a follower, in bytes, but that one batch always goes.
pub const REPLICATION_ANSWER_BYTES: usize = MIB;
/// Partitions of one answer.
pub const REPLICATION_ANSWER_PARTITIONS: usize = 4_096;
/// Owners that are asked at the same time for what a follower gets.
pub const REPLICATION_PLANNED_AT_ONCE: usize = 64;
/// Bound on planning and on reading what a follower gets of one partition.
pub const REPLICATION_READ_DEADLINE: Duration = Duration::from_secs(2);
/// A follower's fetch for which there is nothing new is answered after this: Kafka's `replica.fetch.wait.max.ms`.
pub const REPLICATION_WAIT: Duration = Duration::from_millis(500);
/// An answer that has not come so long after that is lost.
pub const REPLICATION_ANSWER_PATIENCE: Duration = Duration::from_millis(500);
/// A follower's partitions whose owners have yet to take what came hold up the next fetch of the others no longer than this.
pub const REPLICATION_GATHER: Duration = Duration::from_millis(20);
/// A partition that makes trouble is left out for so long, and twice as long each time again.
pub const REPLICATION_PAUSE_MIN: Duration = Duration::from_millis(50);
/// But no longer than this.
pub const REPLICATION_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Messages of one follower that wait for its session; what is more is lost, and said again.
pub const REPLICATION_ASKED_MAX: usize = 1_024;
/// Messages of one leader that wait for their fetcher; their bytes are charged to what its node may send. What is more is
/// lost, and asked for again.
pub const REPLICATION_TOLD_MAX: usize = 64;
/// How long a follower may be behind and stay in sync: Kafka's `replica.lag.time.max.ms`.
pub const REPLICATION_LAG_MAX: Duration = Duration::from_secs(2);
/// Who is in sync is looked at eight times in the lag time, and at most so often.
pub const IN_SYNC_TICK_MIN: Duration = Duration::from_millis(50);
/// And at least so often.
pub const IN_SYNC_TICK_MAX: Duration = Duration::from_millis(500);
/// Partitions whose ISR is changed in one command.
pub const IN_SYNC_PROPOSED_AT_ONCE: usize = 1_000;
/// Bound on the controller's decision about them; it is asked again.
pub const IN_SYNC_PROPOSE_DEADLINE: Duration = Duration::from_secs(2);

/// A request to the admin port and its answer take no longer than this.
pub const ADMIN_DEADLINE: Duration = Duration::from_secs(5);
/// Head of a request to the admin port, in bytes, at most.
pub const ADMIN_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Requests to the admin port at a time; more connections are closed at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Lines of `/health/ready` beside the state itself.
pub const ADMIN_WARNINGS_MAX: usize = 20;

/// Kafka's longest topic name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// A value of a configuration that clients set.
pub const CONFIG_VALUE_BYTES_MAX: usize = 1_024;
/// Partitions in which a coordinator shows how far groups are, without being asked: 50 coordinators keep 5 MiB of it.
pub const GROUP_PROGRESS_MAX: usize = 2_000;
/// Partitions of groups of which `/metrics` tells the lag.
pub const GROUP_LAGS_SHOWN_MAX: usize = 10_000;
/// Of one group.
pub const GROUP_LAGS_SHOWN_OF_ONE_MAX: usize = 1_000;
/// The id of a group of which it does.
pub const GROUP_LAG_NAME_BYTES_MAX: usize = 249;
/// Groups of consumers that have configurations of their own: all nodes keep them, and a snapshot of metadata has them all, a message that
/// other nodes take (2 MiB of them at most).
pub const CONFIGURED_GROUPS_MAX: usize = 3_000;
/// The id of such a group.
pub const CONFIGURED_GROUP_BYTES_MAX: usize = 249;
/// Partitions of one topic.
pub const TOPIC_PARTITIONS_MAX: usize = 10_000;
/// Partitions of a node: each has a task, channels and files.
pub const PARTITIONS_MAX: usize = 20_000;
/// Largest block of producer ids given out at once.
pub const PRODUCER_ID_BLOCK_MAX: i64 = 1_000_000;

/// Names of groups, members and topics, expressions for these, and what else members say in texts: in records their length takes two bytes.
pub const GROUP_TEXT_BYTES_MAX: usize = 8 * 1024;
/// What all members of a classic group say of themselves, and what they all are assigned, each: both stand in one record of the group.
pub const GROUP_RECORD_HALF_BYTES: usize = (BATCH_BYTES_MAX - 64 * 1024) / 2;
/// A question about a group that takes no more than this, decoded, counts as any request that waits.
pub const SMALL_QUESTION_BYTES: usize = 64 * 1024;
/// Members of one group that were told an id and have not joined with it. Each makes the others wait.
pub const GROUP_MEMBERS_TOLD_MAX: usize = 10_000;
/// Members have at least so long to come back to a rebalance, whatever they ask for.
pub const REBALANCE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Questions about the groups of one partition that wait for their coordinator.
pub const COORDINATOR_MAILBOX: usize = 4_096;
/// A member that never saw the end of a join phase waits for it so long at most: should its client be gone, nobody else could tell.
pub const NEW_MEMBER_WAITS_MAX: Duration = Duration::from_secs(5 * 60);

/// Proposals that wait for the Raft task, and that it works on at a time.
pub const PROPOSALS_MAX: usize = 1_000;
/// Bytes of all proposals that are not decided.
pub const PROPOSAL_BYTES_IN_FLIGHT_MAX: usize = 32 * MIB;
/// Largest proposal. A smaller Raft journal lowers it to a quarter of a file.
pub const PROPOSAL_BYTES_MAX: usize = 2 * MIB;
/// A snapshot of the metadata image is journaled in pieces of at most this.
pub const SNAPSHOT_PIECE_BYTES: usize = MIB;
/// `metadata.snapshot_entries`, as it ships.
pub const SNAPSHOT_EVERY_ENTRIES: u64 = 10_000;
/// Bytes of the Raft log after which a snapshot is taken.
pub const SNAPSHOT_EVERY_BYTES: usize = 4 * MIB;

/// Batches of Raft's messages from other nodes that wait for the Raft task; more are lost, as a network would lose them.
pub const RAFT_MESSAGES_WAITING_MAX: usize = 1_024;
/// Questions of other nodes that wait, and that are worked on at a time. More are not answered, or wait.
pub const PEER_QUESTIONS_WAITING_MAX: usize = 1_024;
/// See above.
pub const PEER_QUESTIONS_AT_ONCE: usize = 256;
/// Produces of one node's clients that another has forwarded and that are not answered; more wait.
pub const PRODUCES_FORWARDED_AT_ONCE: usize = 1_024;
/// Of these, such as wait behind another one of their partition: where all stands still it takes no more of the places for all.
pub const PRODUCES_FORWARDED_BEHIND_MAX: usize = PRODUCES_FORWARDED_AT_ONCE / 8;
/// And that wait to be appended. More are lost: their clients are told that nobody knows.
pub const PRODUCES_FORWARDED_WAITING_MAX: usize = 1_024;
/// Heartbeats of other nodes that wait for the controller; more are not answered, and come again.
pub const HEARTBEATS_WAITING_MAX: usize = 4 * PEERS_MAX;
/// Heartbeats of a node that are not answered; it sends no more then.
pub const HEARTBEATS_UNANSWERED_MAX: usize = 4;
/// A heartbeat that is not answered within this is lost.
pub const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(1);
/// Commands of the controller that are not decided; more are said again later.
pub const CONTROLLER_PROPOSALS_AT_ONCE: usize = 256;
/// Bound on the decision of one: after that it is said again, where it still holds.
pub const CONTROLLER_PROPOSE_DEADLINE: Duration = Duration::from_secs(1);
/// At a clean stop, others take over what this node leads within this, or when it is gone.
pub const HAND_OVER_DEADLINE: Duration = Duration::from_secs(5);
/// What the latest entries of the metadata log came to is kept for those who know where theirs stands.
pub const OUTCOMES_KEPT: usize = 1_024;
/// What a change came to is told another node up to this: it shares its link with heartbeats.
pub const OUTCOME_BYTES_MAX: usize = 1 << 20;
/// Messages of Raft that wait for the journal, for they say what must be durable first; more are dropped, as a network would.
pub const RAFT_MESSAGES_HELD_MAX: usize = 4_096;
/// Bytes of Raft's log that wait for the journal. A follower that has so many takes no more entries from its
/// leader, who sends them again.
pub const RAFT_BYTES_IN_LINE_MAX: usize = 64 * MIB;

/// Partitions that are opened, or checkpointed, at the same time.
pub const REPLICAS_OPENED_AT_ONCE: usize = 32;
/// Partitions that are checkpointed at the same time.
pub const CHECKPOINTS_AT_ONCE: usize = 16;
/// Bound on one disk operation while the journals are opened: a disk that stands still for less only delays the start.
pub const START_DISK_DEADLINE: Duration = Duration::from_secs(60);
/// Bound on waiting for places in the journal for the beginnings of partitions.
pub const BEGIN_DEADLINE: Duration = Duration::from_secs(1);
/// Bound on opening a batch of partitions: each replays what the journal holds of it.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(120);
/// Bound on copying aside what the journal has of partitions that do not open.
pub const RESCUE_DEADLINE: Duration = Duration::from_secs(60);
/// A checkpoint of many partitions is recorded in entries of at most this.
pub const CHECKPOINT_ENTRY_BYTES: usize = MIB;
/// Bound on what a round of checkpoints asks of partitions, and then on its record.
pub const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(120);
/// Partitions that a round of retention asks to let go of what they may, and at the same time.
pub const RETENTION_PARTITIONS_PER_ROUND: usize = 256;
/// Partitions that are asked at the same time.
pub const RETENTION_ASKED_AT_ONCE: usize = 16;
/// Segments whose files are removed between two looks at what else may go.
pub const RETENTION_FILES_PER_ROUND: usize = 48;
/// Partitions of one DeleteRecords or DescribeLogDirs request that are asked at the same time.
pub const PARTITIONS_ASKED_AT_ONCE: usize = 64;
/// Partitions whose leadership begins at the same time: their epoch starts share a journal group.
pub const LEADERSHIPS_AT_ONCE: usize = 4_096;

const _: () = assert!(2 * (CHECKPOINT_BYTES + JOURNAL_RELEASE_STEP_BYTES) < MEMORY_BYTES as u64 / 2);
const _: () = assert!(JOURNAL_FILE_BYTES <= MEMORY_BYTES / 2 / 4);
const _: () = assert!(PRODUCERS_PER_PARTITION_KEPT < PRODUCERS_PER_PARTITION_MAX);
const _: () = assert!(PRODUCER_RETRIES_WITHIN.as_secs() < PRODUCER_EXPIRATION.as_secs());
const _: () = assert!(PROPOSAL_BYTES_MAX * 4 <= RAFT_JOURNAL_FILE_BYTES);
const _: () = assert!(PROPOSAL_BYTES_MAX + 65_536 <= PEER_MESSAGE_BYTES_MAX);
const _: () = assert!(PEER_MESSAGE_BYTES_MAX + 64 <= PEER_FRAME_BYTES_MAX);
const _: () = assert!(JOURNAL_ENTRY_BYTES_MAX + 64 * REPLICATION_ANSWER_PARTITIONS < PEER_MESSAGE_BYTES_MAX);
const _: () = assert!(PEER_SILENT_DEADLINE.as_secs() < PEER_FRAME_DEADLINE.as_secs());
const _: () = assert!(10 * PEER_READ_SAID_WITHIN.as_millis() < PEER_SILENT_DEADLINE.as_millis());
const _: () = assert!(SNAPSHOT_PIECE_BYTES <= PROPOSAL_BYTES_MAX);
const _: () = assert!(PROPOSAL_BYTES_IN_FLIGHT_MAX < JOURNAL_QUEUE_BYTES);
const _: () = assert!(CHECKPOINT_ENTRY_BYTES + 4096 <= JOURNAL_ENTRY_BYTES_MAX);
const _: () = assert!(LEADERSHIPS_AT_ONCE < JOURNAL_QUEUE_ENTRIES);
const _: () = assert!(BATCH_BYTES_MAX + 4096 <= JOURNAL_ENTRY_BYTES_MAX);
const _: () = assert!(JOURNAL_ENTRY_BYTES_MAX + 65_536 <= JOURNAL_FILE_BYTES);
const _: () = assert!(CONNECTIONS_PER_ADDRESS_MAX <= CONNECTIONS_MAX);
const _: () = assert!(JOURNAL_ENTRY_BYTES_MAX <= JOURNAL_QUEUE_BYTES);
const _: () = assert!(PARTITION_SUBMIT_BYTES + JOURNAL_ENTRY_BYTES_MAX <= JOURNAL_QUEUE_BYTES);
const _: () = assert!(PARTITION_WAITING_BYTES <= MEMORY_BYTES / 4 / 4);
const _: () = assert!(PARTITION_SUBMIT_BYTES * 2 <= PARTITION_WAITING_BYTES);
const _: () = assert!(PARTITION_ENTRY_BYTES <= JOURNAL_ENTRY_BYTES_MAX);
const _: () = assert!(JOURNAL_GROUP_BYTES <= JOURNAL_FILE_BYTES);
const _: () = assert!(REQUEST_BYTES_MAX <= MEMORY_BYTES / 4 / 8 * 7);
const _: () = assert!(BATCH_BYTES_MAX * 2 <= MEMORY_BYTES_MIN / 64 * 3);
const _: () = assert!(TOPIC_PARTITIONS_MAX <= PARTITIONS_MAX);
const _: () = assert!(FETCH_BYTES_MAX < REQUEST_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX < MEMORY_BYTES / 16 * 3);
const _: () = assert!(GROUP_TEXT_BYTES_MAX <= i16::MAX as usize);
