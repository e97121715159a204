//! Slips between what recovery finds and what it hands on.

use broker::journal::{EntryKind, OpenedJournal};
use broker::parts::Parts;
use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, RecordBatchDecoder, RecordBatchEncoder,
    RecordEncodeOptions,
};

use super::beginnings::without_starts;
use crate::world::SimBackend;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    DropsLast,
    ForgetsProducers,
    ForgetsLogStarts,
}

pub(super) fn plant(parts: &mut Parts<SimBackend>, slip: Mutation) {
    let inner = std::mem::replace(&mut parts.journal, Box::new(broker::journal::open));
    parts.journal = Box::new(move |context| {
        let opening = inner(context);
        Box::pin(async move {
            let mut opened = opening.await?;
            match slip {
                Mutation::DropsLast => drop_last(&mut opened),
                Mutation::ForgetsProducers => forget_producers(&mut opened),
                Mutation::ForgetsLogStarts => {
                    opened.entries.retain(|found| found.entry.kind != EntryKind::LogStart);
                    for found in &mut opened.entries {
                        if found.entry.kind == EntryKind::Checkpoint {
                            found.entry.payload = without_starts(&found.entry.payload);
                        }
                    }
                }
            }
            Ok(opened)
        })
    });
}

fn drop_last(opened: &mut OpenedJournal) {
    if let Some(last) = opened.entries.iter().rposition(|found| found.entry.kind == EntryKind::Batch) {
        opened.entries.truncate(last);
    }
}

fn forget_producers(opened: &mut OpenedJournal) {
    for found in opened.entries.iter_mut().filter(|found| found.entry.kind == EntryKind::Batch) {
        if let Some(payload) = without_producer(found.entry.payload.clone()) {
            found.entry.payload = payload;
        }
    }
}

/// The same batches as a producer without an id would have sent them.
fn without_producer(mut payload: Bytes) -> Option<Bytes> {
    let mut out = BytesMut::new();
    while !payload.is_empty() {
        let mut set = RecordBatchDecoder::decode(&mut payload).ok()?;
        for (index, record) in set.records.iter_mut().enumerate() {
            record.producer_id = NO_PRODUCER_ID;
            record.producer_epoch = NO_PRODUCER_EPOCH;
            record.sequence = index as i32 - 1;
        }
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut out, &set.records, &options).ok()?;
    }
    Some(out.freeze())
}

/// Configurations that end in `.ms` are found under names that nobody asks for.
pub(super) fn plant_in_metadata(parts: &mut Parts<SimBackend>) {
    let inner = std::mem::replace(&mut parts.raft_journal, Box::new(broker::journal::open));
    parts.raft_journal = Box::new(move |context| {
        let opening = inner(context);
        Box::pin(async move {
            let mut opened = opening.await?;
            for found in &mut opened.entries {
                let mut payload = found.entry.payload.to_vec();
                for at in 0..payload.len().saturating_sub(3) {
                    if payload[at..].starts_with(b".ms\"") {
                        payload[at + 2] = b'z';
                    }
                }
                found.entry.payload = payload.into();
            }
            Ok(opened)
        })
    });
}
