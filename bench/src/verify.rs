//! Reads a load's records back and holds them against what was acknowledged.
//!
//! Lost: acknowledged and not readable. Doubled: acknowledged once and readable more than once. Records of
//! other runs in the same topic are ignored; reading starts where the partitions ended before the load.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use kafka_protocol::records::RecordBatchDecoder;

use crate::load::{Ledger, Outcome};
use crate::produce_frame::Identity;
use crate::topic::{self, Leaders, topic_name};
use crate::wire::{Wire, check};

/// Newest version that names topics.
const FETCH_VERSION_MAX: i16 = 12;
/// No progress for this long ends the verification with an error.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Verdict {
    pub read: u64,
    pub lost: u64,
    pub doubled: u64,
    /// Refused or unanswered, and stored all the same: legal, and good to know.
    pub stored_unacknowledged: u64,
    /// First few of what is wrong, for people.
    pub examples: Vec<String>,
}

/// One bit per record of a connection, and how often a bit was already set.
struct Seen {
    bits: Vec<u64>,
}

impl Seen {
    fn new(records: u64) -> Self {
        Self { bits: vec![0; records.div_ceil(64) as usize] }
    }

    /// Returns whether it was there before.
    fn insert(&mut self, sequence: u64) -> bool {
        let word = &mut self.bits[(sequence / 64) as usize];
        let bit = 1 << (sequence % 64);
        let before = *word & bit != 0;
        *word |= bit;
        before
    }

    fn contains(&self, sequence: u64) -> bool {
        self.bits[(sequence / 64) as usize] & (1 << (sequence % 64)) != 0
    }
}

/// Holds what was read against the ledgers.
pub struct Audit<'a> {
    run: u64,
    ledgers: &'a [Ledger],
    seen: Vec<Seen>,
    verdict: Verdict,
}

const EXAMPLES_MAX: usize = 10;

impl<'a> Audit<'a> {
    pub fn new(run: u64, ledgers: &'a [Ledger]) -> Self {
        Self {
            run,
            ledgers,
            seen: ledgers.iter().map(|ledger| Seen::new(ledger.sent)).collect(),
            verdict: Verdict::default(),
        }
    }

    pub fn record(&mut self, partition: usize, offset: i64, value: &[u8]) {
        let Some(identity) = Identity::read(value).filter(|identity| identity.run == self.run) else {
            return;
        };
        let connection = identity.connection as usize;
        let Some(ledger) = self.ledgers.get(connection).filter(|ledger| identity.sequence < ledger.sent)
        else {
            self.complain(format!("offset {offset}: a record that nobody sent"));
            self.verdict.doubled += 1;
            return;
        };
        self.verdict.read += 1;
        if !self.seen[connection].insert(identity.sequence) {
            return;
        }
        if ledger.not_acknowledged.binary_search(&identity.sequence).is_err() {
            self.verdict.doubled += 1;
            self.complain(format!(
                "doubled: connection {connection}, record {}, again at partition {partition} offset {offset}",
                identity.sequence
            ));
        }
    }

    pub fn finish(mut self) -> Verdict {
        for (connection, ledger) in self.ledgers.iter().enumerate() {
            let mut excused = ledger.not_acknowledged.iter().peekable();
            for sequence in 0..ledger.sent {
                let present = self.seen[connection].contains(sequence);
                if excused.next_if(|next| **next == sequence).is_some() {
                    self.verdict.stored_unacknowledged += u64::from(present);
                } else if !present {
                    self.verdict.lost += 1;
                    self.complain(format!("lost: connection {connection}, record {sequence}"));
                }
            }
        }
        self.verdict
    }

    fn complain(&mut self, example: String) {
        if self.verdict.examples.len() < EXAMPLES_MAX {
            self.verdict.examples.push(example);
        }
    }
}

/// Fetches everything from `from` to the present ends.
pub async fn verify(leaders: &Leaders, topic: &str, from: &[i64], outcome: &Outcome) -> Result<Verdict> {
    let mut audit = Audit::new(outcome.run, &outcome.ledgers);
    let ends = topic::end_offsets(leaders, topic).await?;
    for (partition, address) in leaders.addresses.iter().enumerate() {
        let mut wire = Wire::connect(address).await?;
        let start = from.get(partition).copied().unwrap_or(0);
        read_partition(&mut wire, topic, partition, start, ends[partition], &mut audit)
            .await
            .with_context(|| format!("reading back {topic}-{partition}"))?;
    }
    Ok(audit.finish())
}

async fn read_partition(
    wire: &mut Wire,
    topic: &str,
    partition: usize,
    start: i64,
    end: i64,
    audit: &mut Audit<'_>,
) -> Result<()> {
    let mut next = start;
    let mut progress = Instant::now();
    while next < end {
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(16 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![
                        FetchPartition::default()
                            .with_partition(partition as i32)
                            .with_current_leader_epoch(-1)
                            .with_fetch_offset(next)
                            .with_partition_max_bytes(16 << 20),
                    ])]);
        let answer = wire.call(&request, FETCH_VERSION_MAX).await?;
        check(answer.error_code)?;
        let data = answer
            .responses
            .into_iter()
            .next()
            .and_then(|topic| topic.partitions.into_iter().next())
            .context("Fetch answered without the partition")?;
        check(data.error_code)?;
        let before = next;
        for mut batch in whole_batches(data.records.unwrap_or_default()) {
            for record in RecordBatchDecoder::decode(&mut batch)?.records {
                if record.offset < next {
                    continue;
                }
                if record.offset != next {
                    bail!("offset {} follows {}", record.offset, next - 1);
                }
                next = record.offset + 1;
                audit.record(partition, record.offset, &record.value.unwrap_or_default());
            }
        }
        if next > before {
            progress = Instant::now();
        } else if progress.elapsed() > PROGRESS_DEADLINE {
            bail!("stuck at offset {next} of {end} for {PROGRESS_DEADLINE:?}");
        }
    }
    Ok(())
}

/// Cuts fetched bytes at batch borders; a partial batch at the end is left out, as every consumer does.
fn whole_batches(mut bytes: Bytes) -> Vec<Bytes> {
    const BEFORE_LENGTH: usize = 8;
    const BEFORE_BODY: usize = 12;
    let mut batches = Vec::new();
    while let Some(length) = bytes.get(BEFORE_LENGTH..).and_then(|rest| rest.first_chunk::<4>()) {
        let end = BEFORE_BODY + u32::from_be_bytes(*length) as usize;
        if bytes.len() < end {
            break;
        }
        batches.push(bytes.split_to(end));
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(run: u64, connection: u32, sequence: u64) -> Vec<u8> {
        let mut value = vec![0; 30];
        let identity = Identity { run, connection, sequence };
        identity.write(&mut value);
        value
    }

    fn ledgers() -> Vec<Ledger> {
        vec![Ledger { sent: 4, not_acknowledged: vec![2] }]
    }

    #[test]
    fn everything_read_once_is_clean() {
        let ledgers = ledgers();
        let mut audit = Audit::new(1, &ledgers);
        for sequence in [0, 1, 3] {
            audit.record(0, sequence as i64, &value(1, 0, sequence));
        }
        audit.record(0, 9, &value(2, 0, 0));
        let verdict = audit.finish();
        assert_eq!((verdict.lost, verdict.doubled, verdict.read), (0, 0, 3));
        assert_eq!(verdict.stored_unacknowledged, 0);
    }

    #[test]
    fn a_missing_acknowledged_record_is_lost_and_a_second_copy_is_doubled() {
        let ledgers = ledgers();
        let mut audit = Audit::new(1, &ledgers);
        for sequence in [0, 0, 2, 2, 3] {
            audit.record(0, 0, &value(1, 0, sequence));
        }
        let verdict = audit.finish();
        assert_eq!((verdict.lost, verdict.doubled), (1, 1));
        assert_eq!(verdict.stored_unacknowledged, 1);
        assert_eq!(verdict.examples.len(), 2);
    }

    #[test]
    fn a_record_that_nobody_sent_is_wrong() {
        let ledgers = ledgers();
        let mut audit = Audit::new(1, &ledgers);
        audit.record(0, 0, &value(1, 0, 4));
        assert_eq!(audit.finish().doubled, 1);
    }

    #[test]
    fn partial_batches_are_left_out() {
        let mut bytes = vec![0; 8];
        bytes.extend([0, 0, 0, 2, 7, 7]);
        bytes.extend([0; 8]);
        bytes.extend([0, 0, 0, 9, 7]);
        let batches = whole_batches(Bytes::from(bytes));
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].len(), 14);
    }
}
