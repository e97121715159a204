//! What the log of a compacted topic comes to: replicas compact it when they like, so they have the same records at the
//! same offsets, and the same last record of each key, but not the same batches.

use std::collections::BTreeMap;

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRecord {
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    /// It has no value.
    pub tombstone: bool,
    /// Of its value, headers and time.
    pub digest: u64,
}

/// Opens the batches that stand behind one another in some bytes.
pub type OpenBatches = fn(&[u8]) -> Result<Vec<KeptRecord>, String>;

/// The records of one replica by their offsets, and where each key has its last one.
#[derive(Debug, Default)]
struct Kept {
    records: BTreeMap<i64, KeptRecord>,
    last: BTreeMap<Vec<u8>, i64>,
}

impl Kept {
    fn of<'a>(batches: impl Iterator<Item = &'a Vec<u8>>, open: OpenBatches) -> Result<Kept, String> {
        let mut kept = Kept::default();
        for batch in batches {
            for record in open(batch)? {
                if let Some(key) = &record.key {
                    kept.last.insert(key.clone(), record.offset);
                }
                kept.records.insert(record.offset, record);
            }
        }
        Ok(kept)
    }

    /// The last record of a key.
    fn last(&self, key: &[u8]) -> Option<&KeptRecord> {
        self.records.get(self.last.get(key)?)
    }

    /// Whether this replica may do without a record that `other` has.
    fn may_lack(&self, record: &KeptRecord, other: &Kept) -> bool {
        let Some(key) = record.key.as_deref() else { return false };
        match self.last(key) {
            Some(last) => last.offset > record.offset,
            // A tombstone made it forgotten, and went.
            None => other.last(key).is_some_and(|last| last.tombstone),
        }
    }
}

/// What two replicas of a compacted topic do not agree about, if anything.
pub(super) fn disagreement<'a>(
    one: impl Iterator<Item = &'a Vec<u8>>,
    other: impl Iterator<Item = &'a Vec<u8>>,
    open: OpenBatches,
) -> Option<String> {
    let (one, other) = match (Kept::of(one, open), Kept::of(other, open)) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(what), _) | (_, Err(what)) => return Some(what),
    };
    let lacks = |from: &Kept, to: &Kept| {
        let lacking = from.records.values().find(|record| match to.records.get(&record.offset) {
            Some(there) => there != *record,
            None => !to.may_lack(record, from),
        });
        lacking.map(|record| record.offset)
    };
    let at = lacks(&one, &other).into_iter().chain(lacks(&other, &one)).min()?;
    let show = |kept: &Kept| match kept.records.get(&at) {
        Some(KeptRecord { key, tombstone, digest, .. }) => {
            let kind = if *tombstone { "tombstone" } else { "record" };
            let key = key.as_deref().map(String::from_utf8_lossy);
            format!("a {kind} of key {key:?} ({digest:016x})")
        }
        None => "nothing, and nothing later of its key".to_owned(),
    };
    Some(format!("offset {at} holds {} here and {} there", show(&one), show(&other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three bytes a record: its offset, its key and its value, 0 for none.
    fn open(bytes: &[u8]) -> Result<Vec<KeptRecord>, String> {
        let (records, rest) = bytes.as_chunks::<3>();
        if !rest.is_empty() {
            return Err("torn".into());
        }
        let record = |[offset, key, value]: &[u8; 3]| KeptRecord {
            offset: i64::from(*offset),
            key: (*key > 0).then(|| vec![*key]),
            tombstone: *value == 0,
            digest: u64::from(*value),
        };
        Ok(records.iter().map(record).collect())
    }

    fn agree(one: &[[u8; 3]], other: &[[u8; 3]]) -> bool {
        let log = |records: &[[u8; 3]]| vec![records.concat()];
        let (one, other) = (log(one), log(other));
        let there = disagreement(other.iter(), one.iter(), open).is_none();
        assert_eq!(disagreement(one.iter(), other.iter(), open).is_none(), there);
        there
    }

    #[test]
    fn replicas_agree_however_far_each_has_compacted() {
        let whole = [[0, 1, 10], [1, 2, 20], [2, 1, 11], [3, 2, 0], [4, 3, 30]];
        assert!(agree(&whole, &whole));
        assert!(agree(&whole, &[[2, 1, 11], [3, 2, 0], [4, 3, 30]]));
        assert!(agree(&whole, &[[1, 2, 20], [2, 1, 11], [3, 2, 0], [4, 3, 30]]));
        assert!(agree(&whole, &[[2, 1, 11], [4, 3, 30]]), "the tombstone is gone");
    }

    #[test]
    fn another_record_a_last_one_that_is_missing_and_one_that_is_back_are_found() {
        let whole = [[0, 1, 10], [1, 2, 20], [2, 1, 11], [3, 2, 0]];
        for (what, other) in [
            ("another value", &[[2, 1, 12], [3, 2, 0]][..]),
            ("another key", &[[2, 3, 11], [3, 2, 0]]),
            ("the last of key 1 is gone", &[[0, 1, 10], [3, 2, 0]]),
            ("nothing of key 1", &[[3, 2, 0]]),
            ("the tombstone went before what it makes forgotten", &[[1, 2, 20], [2, 1, 11]]),
        ] {
            assert!(!agree(&whole, other), "{what}");
        }
        assert!(!agree(&[[0, 0, 10]], &[]), "without a key nothing goes");
    }

    #[test]
    fn batches_that_cannot_be_opened_are_told() {
        let (sound, torn) = (vec![vec![0, 1, 10]], vec![vec![0, 1]]);
        assert_eq!(disagreement(sound.iter(), torn.iter(), open), Some("torn".into()));
    }
}
