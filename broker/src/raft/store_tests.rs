use bytes::Bytes;
use raft::Storage;

use super::*;
use crate::journal::JournalEntry;
use crate::raft::entries::{conf_state_entry, hard_state_entry, journal_entry, log_entry, snapshot};
use crate::raft::pieces;

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: Bytes::from(vec![b'x'; 10]), ..Entry::default() }
}

fn conf() -> ConfState {
    ConfState { voters: vec![1], ..ConfState::default() }
}

fn hard(term: u64, commit: u64) -> HardState {
    HardState { term, commit, ..HardState::default() }
}

/// Entries as a journal gives them back, from this LSN on.
fn journal(first: u64, entries: Vec<JournalEntry>) -> Vec<RecoveredEntry> {
    (first..).map(Lsn).zip(entries).map(|(lsn, entry)| RecoveredEntry { lsn, entry }).collect()
}

fn recover(entries: Vec<JournalEntry>) -> Result<Store, String> {
    match Store::recover(journal(1, entries)) {
        Ok(store) => Ok(store.expect("a journal with entries")),
        Err(error) => Err(error.to_string()),
    }
}

fn indices_and_terms(store: &Store) -> Vec<(u64, u64)> {
    store.entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

fn snapshot_of(index: u64, bytes: usize) -> Snapshot {
    let data: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
    snapshot(index, 1, conf(), Bytes::from(data))
}

fn snapshot_entries(snapshot: &Snapshot, piece_bytes: usize) -> Vec<JournalEntry> {
    pieces::snapshot_entries(snapshot, piece_bytes, false)
}

#[test]
fn an_empty_journal_is_no_group() {
    assert!(Store::recover(Vec::new()).unwrap().is_none());
}

#[test]
fn the_last_word_in_the_journal_counts() {
    let store = recover(vec![
        conf_state_entry(&conf()),
        hard_state_entry(&hard(1, 0)),
        log_entry(&entry(1, 1)),
        log_entry(&entry(2, 1)),
        log_entry(&entry(3, 1)),
        hard_state_entry(&hard(2, 1)),
        // A leader of the next term overwrote entry 2 and all after it.
        log_entry(&entry(2, 2)),
    ])
    .unwrap();
    assert_eq!(indices_and_terms(&store), [(1, 1), (2, 2)]);
    assert_eq!(store.lsns, [Lsn(3), Lsn(7)]);
    assert_eq!((store.hard.term, store.hard.commit), (2, 1));
}

#[test]
fn a_snapshot_replaces_what_came_before_it_wherever_that_stands() {
    let mut entries = vec![conf_state_entry(&conf()), log_entry(&entry(4, 1)), log_entry(&entry(5, 1))];
    entries.extend(snapshot_entries(&snapshot_of(4, 250), 100));
    entries.push(hard_state_entry(&hard(1, 3)));
    entries.push(log_entry(&entry(6, 1)));
    let store = recover(entries).unwrap();
    assert_eq!(store.snapshot.data, snapshot_of(4, 250).data, "three pieces make one snapshot");
    assert_eq!(indices_and_terms(&store), [(5, 1), (6, 1)]);
    assert_eq!(store.first_lsn(), Some(Lsn(3)));
    assert_eq!(store.hard.commit, 4, "what a snapshot holds was committed");
}

#[test]
fn a_snapshot_of_which_pieces_are_missing_does_not_count() {
    let whole = snapshot_entries(&snapshot_of(2, 20), 100);
    let torn = snapshot_entries(&snapshot_of(3, 250), 100);
    let before = vec![
        conf_state_entry(&conf()),
        hard_state_entry(&hard(1, 1)),
        log_entry(&entry(1, 1)),
        log_entry(&entry(2, 1)),
        log_entry(&entry(3, 1)),
    ];
    let cases = [
        ("the last is torn off", torn[..2].to_vec()),
        ("the first has been released", torn[1..].to_vec()),
        ("one is missing in between", vec![torn[0].clone(), torn[2].clone()]),
    ];
    for (case, pieces) in cases {
        let journal = [before.clone(), whole.clone(), pieces].concat();
        assert_eq!(recover(journal).unwrap().snapshot.get_metadata().index, 2, "{case}");
    }
}

#[test]
fn a_snapshot_brings_its_configuration_and_a_torn_one_leaves_the_one_before() {
    let later = ConfState { voters: vec![1, 2], learners: vec![3], ..ConfState::default() };
    let mut grown = snapshot_of(3, 250);
    grown.mut_metadata().set_conf_state(later.clone());
    let mut journal = vec![conf_state_entry(&conf()), hard_state_entry(&hard(1, 0))];
    journal.extend((1..=3).map(|index| log_entry(&entry(index, 1))));
    let pieces = snapshot_entries(&grown, 100);
    journal.extend(pieces.clone());
    assert_eq!(recover(journal.clone()).unwrap().conf, later);
    journal.pop();
    assert_eq!(recover(journal).unwrap().conf, conf());
}

#[test]
fn a_snapshot_of_the_first_version_has_its_configuration_beside_it() {
    let of_version_1 = |number: u32, bytes: &[u8]| {
        let mut payload = vec![1];
        payload.extend(2u64.to_be_bytes());
        payload.extend(1u64.to_be_bytes());
        payload.extend(number.to_be_bytes());
        payload.extend(2u32.to_be_bytes());
        payload.extend(bytes);
        journal_entry(EntryKind::RaftSnapshot, 2, 1, Bytes::from(payload))
    };
    let journal = vec![
        of_version_1(0, b"im"),
        of_version_1(1, b"age"),
        conf_state_entry(&conf()),
        hard_state_entry(&hard(1, 2)),
        log_entry(&entry(3, 1)),
    ];
    let store = recover(journal).unwrap();
    assert_eq!((&store.snapshot.data[..], store.snapshot.get_metadata().index), (&b"image"[..], 2));
    assert_eq!(store.conf, conf());
    assert_eq!(indices_and_terms(&store), [(3, 1)]);
}

#[test]
fn a_leaders_snapshot_takes_the_place_of_all_that_stood_before_it() {
    // Entries 4 to 6 were never committed: another leader's log goes on differently.
    let mut journal = vec![conf_state_entry(&conf()), hard_state_entry(&hard(1, 1))];
    journal.extend((1..=6).map(|index| log_entry(&entry(index, 1))));
    let mut leaders = snapshot_of(4, 50);
    leaders.mut_metadata().term = 2;
    journal.push(hard_state_entry(&hard(2, 1)));
    journal.extend(pieces::snapshot_entries(&leaders, 100, true));
    assert_eq!(indices_and_terms(&recover(journal.clone()).unwrap()), []);
    journal.push(hard_state_entry(&hard(2, 4)));
    journal.push(log_entry(&entry(5, 2)));
    let store = recover(journal.clone()).unwrap();
    assert_eq!((indices_and_terms(&store), store.hard.commit), (vec![(5, 2)], 4));
    // Its own snapshot later does not bring them back.
    let mut own = snapshot_of(5, 50);
    own.mut_metadata().term = 2;
    journal.extend(snapshot_entries(&own, 100));
    assert_eq!(indices_and_terms(&recover(journal).unwrap()), []);
}

#[test]
fn what_was_overwritten_needs_nothing_before_it() {
    // The file with entry 3 of term 1 has been released; that of entry 4 has not.
    let mut journal = vec![log_entry(&entry(4, 1))];
    journal.extend([hard_state_entry(&hard(2, 2)), log_entry(&entry(3, 2))]);
    journal.extend(snapshot_entries(&snapshot_of(2, 20), 100));
    journal.push(hard_state_entry(&hard(2, 2)));
    assert_eq!(indices_and_terms(&recover(journal.clone()).unwrap()), [(3, 2)]);
    journal.push(log_entry(&entry(5, 2)));
    let error = recover(journal).unwrap_err();
    assert!(error.contains("entry 5 of the Raft log follows entry 3"), "{error}");
}

#[test]
fn wherever_a_journal_ends_its_commit_index_is_in_its_log() {
    // The commit index of the second group counts the entries of its own: written so, it ends beyond the log where
    // the group is torn, and what it counts there is the old entry 2 where it is not.
    let journal = [
        conf_state_entry(&conf()),
        hard_state_entry(&hard(1, 0)),
        log_entry(&entry(1, 1)),
        hard_state_entry(&hard(2, 2)),
        log_entry(&entry(2, 2)),
    ];
    for end in [4, 5] {
        let error = recover(journal[..end].to_vec()).unwrap_err();
        assert!(error.contains("damaged at entry 4: entries up to 2 were committed"), "{error}");
    }
}

#[test]
fn who_only_waits_for_a_group_has_none_after_a_restart() {
    let waiting = recover(vec![hard_state_entry(&hard(4, 0))]).unwrap();
    assert!(!waiting.has_group());
    assert_eq!(waiting.hard.term, 4);
    let torn = snapshot_entries(&snapshot_of(3, 250), 100)[..2].to_vec();
    let heard = [vec![hard_state_entry(&hard(4, 0))], torn.clone()].concat();
    assert!(!recover(heard).unwrap().has_group());
    assert!(Store::recover(journal(1, torn)).unwrap().is_none(), "nobody ever heard of it");
}

#[test]
fn a_member_is_sent_a_snapshot_that_it_is_in() {
    let mut store = Store::alone(1);
    store.append(&[entry(1, 1)]);
    assert!(Storage::snapshot(&store, 0, 2).is_err() && store.take_snapshot_wanted());
    store.compact(snapshot_of(1, 10));
    assert!(Storage::snapshot(&store, 0, 2).is_err() && store.take_snapshot_wanted());
    assert!(!store.take_snapshot_wanted(), "asked for once");
    store.conf.set_learners(vec![1]);
    assert!(
        Storage::snapshot(&store, 0, 1).is_err() && store.take_snapshot_wanted(),
        "a learner as a learner"
    );
    store.conf = conf();
    assert!(Storage::snapshot(&store, 0, 1).is_ok() && !store.take_snapshot_wanted());
}

#[test]
fn a_journal_that_is_no_raft_log_says_what_is_wrong() {
    let strange = |kind, payload: &[u8]| journal_entry(kind, 0, 0, Bytes::copy_from_slice(payload));
    let with = |entry: JournalEntry| vec![conf_state_entry(&conf()), entry];
    let table = [
        (vec![hard_state_entry(&hard(1, 0)), log_entry(&entry(1, 1))], "no configuration"),
        (with(log_entry(&entry(2, 1))), "entry 2 of the Raft log follows entry 0"),
        (with(hard_state_entry(&hard(1, 9))), "entries up to 9 were committed and the log ends at 0"),
        (with(strange(EntryKind::RaftEntry, b"\xff\xff")), "not a Raft message"),
        (with(strange(EntryKind::RaftSnapshot, b"\x01")), "only 1 bytes"),
        (with(strange(EntryKind::RaftSnapshot, &[9; 40])), "version 9"),
        (with(strange(EntryKind::RaftSnapshot, &[0; 40])), "version 0"),
        (with(strange(EntryKind::Batch, b"")), "does not belong there"),
        (vec![hard_state_entry(&hard(2, 0)), hard_state_entry(&hard(1, 0))], "term 1 follows term 2"),
        (
            vec![conf_state_entry(&conf()), hard_state_entry(&hard(1, 0)), log_entry(&entry(1, 2))],
            "the log ends with term 2",
        ),
    ];
    for (entries, part) in table {
        let error = recover(entries).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_store_reads_as_raft_expects_before_and_after_compaction() {
    let mut store = Store::alone(1);
    assert_eq!((store.first_index().unwrap(), store.last_index().unwrap()), (1, 0));
    assert_eq!(store.term(0).unwrap(), 0);
    store.append(&[entry(1, 1), entry(2, 1), entry(3, 2)]);
    store.submitted(&[(1, 1), (2, 1), (3, 2)], Lsn(10));
    assert_eq!(store.lsns, [Lsn(8), Lsn(9), Lsn(10)]);
    let read = |store: &Store, low, high, max: Option<u64>| {
        store.entries(low, high, max, GetEntriesContext::empty(false)).map(|entries| entries.len())
    };
    assert_eq!(read(&store, 1, 4, None).unwrap(), 3);
    assert_eq!(read(&store, 1, 4, Some(1)).unwrap(), 1, "one at least, however small the limit");
    store.compact(snapshot_of(2, 10));
    assert_eq!((store.first_index().unwrap(), store.last_index().unwrap()), (3, 3));
    assert_eq!(store.term(2).unwrap(), 1);
    assert!(matches!(store.term(1), Err(raft::Error::Store(StorageError::Compacted))));
    assert!(matches!(store.term(4), Err(raft::Error::Store(StorageError::Unavailable))));
    assert!(matches!(read(&store, 2, 4, None), Err(raft::Error::Store(StorageError::Compacted))));
    assert_eq!(store.first_lsn(), Some(Lsn(10)));
    assert_eq!(Storage::snapshot(&store, 0, 1).unwrap().get_metadata().index, 2);
    assert!(Storage::snapshot(&store, 3, 1).is_err());
}

#[test]
fn a_change_of_members_counts_once_it_is_committed() {
    let change = |index| Entry { entry_type: EntryType::EntryConfChangeV2, ..entry(index, 1) };
    let store = |commit| {
        let entries = [entry(1, 1), change(2), entry(3, 1), change(4)];
        let mut journal = vec![conf_state_entry(&conf()), hard_state_entry(&hard(1, 0))];
        journal.extend(entries.iter().map(log_entry));
        journal.push(hard_state_entry(&hard(1, commit)));
        recover(journal).unwrap()
    };
    for (commit, applied, changes) in
        [(1, 0, false), (2, 0, true), (3, 1, true), (3, 2, false), (3, 3, false), (4, 2, true), (4, 4, false)]
    {
        let store = store(commit);
        assert_eq!(store.members_change_behind(applied), changes, "committed {commit}, applied {applied}");
    }
}
