//! Files through their lives.

#[cfg(test)]
use super::catalogue::*;
use super::commit_state::{Prepared, Sealed};
use crate::ids::Lsn;

const BYTES: u64 = 4096;

/// A catalogue with its first file in use and a spare ready.
fn running() -> Catalogue {
    let mut catalogue = Catalogue::new(BYTES, Found::default());
    prepare(&mut catalogue);
    catalogue.take_spare().expect("the first file");
    prepare(&mut catalogue);
    catalogue
}

fn prepare(catalogue: &mut Catalogue) -> FileWork {
    let work = catalogue.next_work().expect("a file to prepare");
    let (FileWork::Create(plan) | FileWork::Recycle { plan, .. }) = work else { panic!("{work:?}") };
    let file =
        Prepared { slot: plan.slot, sequence: plan.sequence, generation: 1, file_bytes: plan.file_bytes };
    catalogue.handle_prepared(file, &plan);
    work
}

/// The file in use is full; the spare takes its place.
fn roll(catalogue: &mut Catalogue, sequence: u64, last_lsn: u64, trusted: bool) {
    catalogue.handle_sealed(sealed(sequence, last_lsn, trusted));
    assert_eq!(catalogue.take_spare().map(|spare| spare.sequence), Some(sequence + 1));
}

fn sealed(sequence: u64, last_lsn: u64, trusted: bool) -> Sealed {
    Sealed { slot: sequence as u32, sequence, file_bytes: BYTES, last_lsn: Lsn(last_lsn), trusted }
}

#[test]
fn one_spare_is_prepared_ahead_and_then_there_is_nothing_to_do() {
    let mut catalogue = running();
    assert_eq!(catalogue.next_work(), None);
    roll(&mut catalogue, 1, 10, true);
    let FileWork::Create(plan) = prepare(&mut catalogue) else { panic!("nothing is released yet") };
    assert_eq!((plan.slot, plan.sequence, plan.oldest_sequence), (3, 3, 1));
    assert_eq!(catalogue.next_work(), None);
}

#[test]
fn a_file_is_used_again_only_when_all_of_it_is_released() {
    let mut catalogue = running();
    roll(&mut catalogue, 1, 10, true);
    catalogue.handle_released(Lsn(10));
    assert!(matches!(prepare(&mut catalogue), FileWork::Create(_)), "LSN 10 is still needed");
    roll(&mut catalogue, 2, 20, true);
    catalogue.handle_released(Lsn(11));
    let FileWork::Recycle { from, plan } = prepare(&mut catalogue) else { panic!("file 1 is released") };
    assert_eq!((from.sequence, plan.slot, plan.sequence, plan.oldest_sequence), (1, 1, 4, 2));
}

#[test]
fn with_everything_released_the_file_in_use_is_the_oldest_needed() {
    let mut catalogue = running();
    roll(&mut catalogue, 1, 10, true);
    catalogue.handle_released(Lsn(100));
    let FileWork::Recycle { plan, .. } = prepare(&mut catalogue) else { panic!("file 1 is released") };
    assert_eq!(plan.oldest_sequence, 2);
}

#[test]
fn a_file_that_failed_is_removed_once_a_header_says_that_it_is_not_needed() {
    let mut catalogue = running();
    roll(&mut catalogue, 1, 10, false);
    catalogue.handle_released(Lsn(11));
    let FileWork::Create(plan) = prepare(&mut catalogue) else { panic!("a failed file has no new life") };
    assert_eq!(plan.oldest_sequence, 2);
    assert_eq!(catalogue.next_work(), Some(FileWork::Remove(sealed(1, 10, false))));
    catalogue.handle_removed(sealed(1, 10, false));
    assert_eq!(catalogue.next_work(), None);
}

#[test]
fn a_file_whose_new_life_did_not_begin_is_not_tried_again() {
    let mut catalogue = running();
    roll(&mut catalogue, 1, 10, true);
    catalogue.handle_released(Lsn(11));
    let Some(FileWork::Recycle { from, .. }) = catalogue.next_work() else { panic!("file 1 is released") };
    catalogue.handle_recycling_failed(from);
    let FileWork::Create(plan) = prepare(&mut catalogue) else { panic!("another file is taken") };
    assert_eq!(plan.sequence, 3, "the sequence is still free");
    assert!(matches!(catalogue.next_work(), Some(FileWork::Remove(file)) if file.sequence == 1));
}

#[test]
fn released_files_beyond_a_few_are_removed() {
    let mut catalogue = running();
    for sequence in 1..=8 {
        roll(&mut catalogue, sequence, sequence * 10, true);
        prepare(&mut catalogue);
    }
    catalogue.handle_released(Lsn(1000));
    assert_eq!(catalogue.next_work(), None, "no durable header says yet that they are not needed");
    roll(&mut catalogue, 9, 90, true);
    prepare(&mut catalogue);
    let mut removed = Vec::new();
    while let Some(FileWork::Remove(file)) = catalogue.next_work() {
        catalogue.handle_removed(file);
        removed.push(file.sequence);
    }
    assert_eq!(removed, [2, 3, 4, 5], "1 has a new life, the last four wait for theirs");
}

#[test]
fn files_of_another_size_are_not_used_again() {
    let mut catalogue = running();
    catalogue.handle_sealed(Sealed { file_bytes: 2 * BYTES, ..sealed(1, 10, true) });
    catalogue.take_spare();
    catalogue.handle_released(Lsn(11));
    assert!(matches!(prepare(&mut catalogue), FileWork::Create(_)));
    assert!(matches!(catalogue.next_work(), Some(FileWork::Remove(file)) if file.sequence == 1));
}
