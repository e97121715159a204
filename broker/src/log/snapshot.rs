//! The snapshot beside the segments: producers and leader epochs as of a checkpoint.
//!
//! A file `<LSN, 20 digits>.snapshot`, written to a side file, synced, renamed and the directory synced,
//! before the checkpoint that relies on it is recorded. What cannot be read is as good as absent: the
//! state is rebuilt from the segments then.
//!
//! ```text
//! magic "CHRSNAP2" | lsn u64 | log start i64 | log end i64 | truncations u32
//! epochs: u32 times (epoch i32, start i64)
//! producers: u32 times (id i64, batches: u32 times (epoch i16, base sequence i32, last sequence i32,
//!                       base offset i64, end i64, append time i64))
//! crc-32c u32 of all before                                                              (big endian)
//! ```
//!
//! `CHRSNAP1` had no truncations, and u8 for the number of batches.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::producers::RememberedBatch;
use crate::formats::{PRODUCER_SNAPSHOT, PRODUCER_SNAPSHOT_1};
use crate::ids::{LeaderEpoch, Lsn, Offset, ProducerId};

/// Producers and leader epochs of a partition at a point of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The journal's last entry that is in it.
    pub lsn: Lsn,
    /// Where the log starts.
    pub log_start: Offset,
    /// Where what is in segments ends.
    pub log_end: Offset,
    /// How often the replica had been truncated: at one end of the log, other records may have stood before.
    pub truncations: u32,
    /// Leader epochs, and where each began.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Idempotent producers, and what is remembered of each, rising in offset.
    pub producers: Vec<(ProducerId, Vec<RememberedBatch>)>,
}

/// `<LSN, 20 digits>.snapshot`
pub fn file_name(lsn: Lsn) -> String {
    format!("{:020}.snapshot", lsn.0)
}

/// The LSN in the name of a snapshot file, if it is one.
pub fn parse_file_name(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(".snapshot")?;
    (digits.len() == 20).then(|| digits.parse().ok().map(Lsn))?
}

impl Snapshot {
    /// The bytes of the file.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(PRODUCER_SNAPSHOT);
        out.put_u64(self.lsn.0);
        out.put_i64(self.log_start.0);
        out.put_i64(self.log_end.0);
        out.put_u32(self.truncations);
        out.put_u32(self.epochs.len() as u32);
        for (epoch, start) in &self.epochs {
            out.put_i32(epoch.0);
            out.put_i64(start.0);
        }
        out.put_u32(self.producers.len() as u32);
        for (id, batches) in &self.producers {
            out.put_i64(id.0);
            out.put_u32(batches.len() as u32);
            for batch in batches {
                out.put_i16(batch.epoch);
                out.put_i32(batch.base_sequence);
                out.put_i32(batch.last_sequence);
                out.put_i64(batch.base_offset.0);
                out.put_i64(batch.end.0);
                out.put_i64(batch.append_time_ms);
            }
        }
        out.put_u32(crc32c::crc32c(&out));
        out.freeze()
    }

    /// `None`: this is no whole snapshot.
    pub fn decode(bytes: &[u8]) -> Option<Snapshot> {
        let (mut body, mut crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let first = body.starts_with(PRODUCER_SNAPSHOT_1);
        if crc.get_u32() != crc32c::crc32c(body) || !(first || body.starts_with(PRODUCER_SNAPSHOT)) {
            return None;
        }
        body.advance(PRODUCER_SNAPSHOT.len());
        let mut snapshot = Snapshot {
            lsn: Lsn(body.try_get_u64().ok()?),
            log_start: Offset(body.try_get_i64().ok()?),
            log_end: Offset(body.try_get_i64().ok()?),
            truncations: if first { 0 } else { body.try_get_u32().ok()? },
            ..Snapshot::default()
        };
        for _ in 0..body.try_get_u32().ok()? {
            let epoch = LeaderEpoch(body.try_get_i32().ok()?);
            snapshot.epochs.push((epoch, Offset(body.try_get_i64().ok()?)));
        }
        for _ in 0..body.try_get_u32().ok()? {
            let id = ProducerId(body.try_get_i64().ok()?);
            let mut batches = Vec::new();
            let count = if first { body.try_get_u8().ok()?.into() } else { body.try_get_u32().ok()? };
            for _ in 0..count {
                batches.push(RememberedBatch {
                    epoch: body.try_get_i16().ok()?,
                    base_sequence: body.try_get_i32().ok()?,
                    last_sequence: body.try_get_i32().ok()?,
                    base_offset: Offset(body.try_get_i64().ok()?),
                    end: Offset(body.try_get_i64().ok()?),
                    append_time_ms: body.try_get_i64().ok()?,
                });
            }
            snapshot.producers.push((id, batches));
        }
        body.is_empty().then_some(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let batch = RememberedBatch {
            epoch: 3,
            base_sequence: i32::MAX,
            last_sequence: 4,
            base_offset: Offset(90),
            end: Offset(96),
            append_time_ms: -1,
        };
        Snapshot {
            lsn: Lsn(12),
            log_start: Offset(1),
            log_end: Offset(100),
            truncations: 3,
            epochs: vec![(LeaderEpoch(0), Offset(0)), (LeaderEpoch(4), Offset(50))],
            producers: vec![(ProducerId(7), vec![batch, batch]), (ProducerId(8), vec![])],
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        assert_eq!(Snapshot::decode(&snapshot().encode()), Some(snapshot()));
    }

    #[test]
    fn any_damage_makes_it_unreadable_and_none_makes_it_panic() {
        let good = snapshot().encode();
        for at in 0..good.len() {
            let mut bytes = good.to_vec();
            bytes[at] ^= 0x10;
            assert_eq!(Snapshot::decode(&bytes), None, "byte {at} flipped");
            assert_eq!(Snapshot::decode(&good[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn golden_bytes() {
        let empty = Snapshot { lsn: Lsn(1), log_start: Offset(2), log_end: Offset(3), ..Snapshot::default() };
        let hex: String = empty.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex[..80],
            *"434852534e4150320000000000000001000000000000000200000000000000030000000000000000"
        );
        assert_eq!(hex.len(), 96);
    }
}
