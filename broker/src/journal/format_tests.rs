//! Golden, damaged and old bytes.

#[cfg(test)]
use super::format::*;
use super::tests::entry;
use super::*;

const GENERATION: u64 = 0x1122_3344_5566_7788;

fn header() -> FileHeader {
    FileHeader {
        sequence: 2,
        generation: GENERATION,
        first_lsn: Lsn(5),
        oldest_sequence: 1,
        file_bytes: 65_536,
        lives: 1,
        name: journal_name("journal"),
    }
}

fn place() -> GroupPlace {
    GroupPlace { number: 9, durable_up_to: Lsn(6), position: 8192, previous_file: 2 }
}

fn group() -> Vec<u8> {
    let mut encoder = GroupEncoder::new(Vec::new(), GENERATION);
    encoder.push(Lsn(7), &entry(1, 100, b"seven"));
    encoder.push(Lsn(9), &JournalEntry { kind: EntryKind::Truncate, ..entry(2, -1, b"") });
    encoder.finish(&place())
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(8).map(|eight| eight.iter().map(|b| format!("{b:02x}")).collect::<String>() + " ").collect()
}

fn decode(bytes: &[u8], generation: u64) -> Option<Result<Vec<RecoveredEntry>, BodyFault>> {
    let header = decode_group_header(bytes, generation, 8192)?;
    Some(decode_entries(&header, &Bytes::copy_from_slice(bytes), generation))
}

#[test]
fn a_header_has_these_bytes() {
    let block = encode_header(&header());
    assert_eq!(block.len(), HEADER_BYTES);
    assert_eq!(
        hex(&block[..80]).trim(),
        "4348524f4e494b4a 01000000d843c410 0200000000000000 8877665544332211 0500000000000000 \
         0100000000000000 0000010000000000 0100000000000000 6a6f75726e616c00 0000000000000000"
    );
    assert!(block[80..].iter().all(|byte| *byte == 0));
    assert_eq!(decode_header(&block), HeaderBlock::Good(header()));
}

#[test]
fn a_group_has_these_bytes() {
    let bytes = group();
    assert_eq!(bytes.len(), PAGE_BYTES);
    assert_eq!(
        hex(&bytes[..192]).trim(),
        "434b475251ab6475 0900000000000000 0600000000000000 0700000000000000 \
         0900000000000000 0020000000000000 0200000000000000 7d00000002000000 \
         05000000523f7f63 0700000000000000 0100000001000000 0000000000000000 \
         0000000000000007 0300000000000000 0500000064000000 0000000073657665 \
         6e0000000011a48a 5e09000000000000 0002000000020000 0000000000000000 \
         0000000000000000 0703000000000000 0005000000ffffff ffffffffff000000"
    );
    assert!(bytes[192..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_is_encoded_is_decoded() {
    let entries = decode(&group(), GENERATION).expect("a group").expect("sound");
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0], RecoveredEntry { lsn: Lsn(7), entry: entry(1, 100, b"seven") });
    assert_eq!(entries[1].lsn, Lsn(9));
    assert_eq!(entries[1].entry, JournalEntry { kind: EntryKind::Truncate, ..entry(2, -1, b"") });
}

#[test]
fn every_flipped_bit_of_a_group_is_seen() {
    let sound = group();
    for at in 0..64 + 60 + 5 + 60 {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            match decode(&bytes, GENERATION) {
                None => assert!(at < GROUP_HEADER_BYTES, "byte {at}"),
                Some(Err(BodyFault::Damaged { .. })) => assert!(at >= GROUP_HEADER_BYTES, "byte {at}"),
                Some(other) => panic!("byte {at} bit {bit}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_a_header_is_seen() {
    let sound = encode_header(&header());
    for at in 0..512 {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            let expected = if at < 8 { HeaderBlock::Foreign } else { HeaderBlock::Damaged };
            assert_eq!(decode_header(&bytes), expected, "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_shortened_group_is_damaged_wherever_it_ends() {
    let sound = group();
    for len in 0..64 + 60 + 5 + 60 {
        match decode(&sound[..len], GENERATION) {
            None => assert!(len < GROUP_HEADER_BYTES, "{len} bytes"),
            Some(outcome) => {
                assert!(matches!(outcome, Err(BodyFault::Damaged { .. })), "{len} bytes: {outcome:?}")
            }
        }
    }
}

#[test]
fn an_earlier_life_and_another_place_read_as_empty() {
    assert_eq!(decode(&group(), GENERATION + 1), None);
    assert_eq!(decode_group_header(&group(), GENERATION, 4096), None);
    // An old entry under a header of this life is damage, not an entry.
    let mut bytes = group();
    let mut old = GroupEncoder::new(Vec::new(), GENERATION - 1);
    old.push(Lsn(7), &entry(1, 100, b"seven"));
    let old = old.finish(&place());
    bytes[64..129].copy_from_slice(&old[64..129]);
    assert_eq!(decode(&bytes, GENERATION), Some(Err(BodyFault::Damaged { at: 64 })));
}

#[test]
fn an_unknown_kind_is_not_taken_for_damage() {
    let mut bytes = group();
    bytes[64 + 16] = 15;
    let seed = crc32c::crc32c(&GENERATION.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &bytes[64..68]), &bytes[72..129]);
    bytes[68..72].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(decode(&bytes, GENERATION), Some(Err(BodyFault::UnknownKind { at: 64, kind: 15 })));
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut block = encode_header(&header());
    block[8] = 2;
    assert_eq!(decode_header(&block), HeaderBlock::Damaged);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&block[..12]), &block[16..512]);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(decode_header(&block), HeaderBlock::Newer(2));
}

#[test]
fn a_group_without_entries_covers_lsns() {
    let mut encoder = GroupEncoder::new(Vec::new(), GENERATION);
    encoder.cover(Lsn(70));
    let bytes = encoder.finish(&place());
    let header = decode_group_header(&bytes, GENERATION, 8192).expect("a group");
    assert_eq!((header.first_lsn, header.last_lsn, header.entries), (Lsn(70), Lsn(70), 0));
    assert_eq!(header.file_bytes(), PAGE_BYTES as u64);
}

#[test]
fn all_kinds_keep_their_numbers() {
    use EntryKind::*;
    let kinds = [
        (Batch, 1),
        (Truncate, 2),
        (EpochStart, 3),
        (LogStart, 4),
        (ReplicaCreate, 5),
        (ReplicaDelete, 6),
        (Checkpoint, 7),
        (RaftEntry, 16),
        (RaftHardState, 17),
        (RaftConfState, 18),
        (RaftSnapshot, 19),
    ];
    for (kind, number) in kinds {
        let mut encoder = GroupEncoder::new(Vec::new(), GENERATION);
        encoder.push(Lsn(7), &JournalEntry { kind, ..entry(0, 0, b"") });
        let bytes = encoder.finish(&place());
        assert_eq!(bytes[64 + 16], number);
        assert_eq!(decode(&bytes, GENERATION).expect("a group").expect("sound")[0].entry.kind, kind);
    }
}
