//! Reading a journal back: gathers the facts that [`super::decision`] judges, and mends the tail.
//!
//! Nothing is changed before everything has been judged. What no later group proves to have been synced (the
//! last group, the headers of spare files, the names in the directory) is written again and synced before it
//! counts: a process that was killed may have left it in the page cache alone, and after a failed sync
//! the cache may hold what the disk never got.

use std::collections::VecDeque;

use bytes::Bytes;
use io_backend::{Backend, Disk, DiskError, File};

use super::catalogue::Found;
use super::commit_state::{Active, Prepared, ResumePoint, Sealed};
use super::decision::{self, Corruption, LaterEvidence, TailVerdict};
use super::files::{JournalDir, file_path};
use super::format::{HEADER_BYTES, PAGE_BYTES};
use super::scan::{ADVICE, FileOf, FoundFile, ScannedFile, WINDOW_BYTES, list, scan};
use super::{JournalOpenError, RecoveredEntry};
use crate::ids::Lsn;

/// LSNs that a start leaves out: more than a process can have given out without leaving a trace.
pub const LSN_GAP: u64 = 1 << 20;

/// What the journal holds, and where to go on.
pub struct Recovered {
    pub entries: Vec<RecoveredEntry>,
    pub torn_tail: Option<String>,
    /// LSNs up to here may have been given out; this start gives out later ones.
    pub given_out: Lsn,
    pub start: ResumePoint,
    pub found: Found,
    /// First LSN and bytes of each file with groups.
    pub unreleased: Vec<(Lsn, u64)>,
}

pub async fn recover<B: Backend>(dir: &JournalDir<B>) -> Result<Recovered, JournalOpenError> {
    let mut listed = list(dir).await?;
    let oldest = listed.files.iter().map(|file| file.header.oldest_sequence).max().unwrap_or(0);
    let needed = listed.files.iter().position(|file| file.header.sequence >= oldest);
    let current = listed.files.split_off(needed.unwrap_or(listed.files.len()));
    let mut scanned = Vec::with_capacity(current.len());
    for file in current {
        scanned.push(scan(dir, file).await?);
    }
    let leftovers = drop_leftovers(dir, &mut scanned)?;
    let released_twice = drop_doubles(&mut listed.files);
    check_sequence(dir, oldest, &scanned)?;
    let ending = judge(dir, &mut scanned, oldest)?;

    // From here on the journal is known to be sound, and files are changed.
    for slot in listed.unprepared.into_iter().chain(leftovers) {
        dir.remove(slot).await?;
    }
    let torn_tail = match ending {
        Some(last) => repair_tail(dir, &scanned[..=last]).await?,
        None => None,
    };
    for file in scanned.iter().filter(|file| !file.has_traces()) {
        rewrite(dir, &file.found.file, 0, HEADER_BYTES).await?;
    }
    dir.backend.disk().sync_dir(&dir.directory, dir.deadline()).await?;
    // Not before: that they are released may be said by a header that has just become durable.
    for slot in released_twice {
        dir.remove(slot).await?;
    }
    Ok(summarise(listed.last_slot, listed.files, scanned, ending, oldest, torn_tail))
}

/// A preparation that failed may have left its header in one file and been done again in another: the
/// file without a trace of a group is the leftover.
fn drop_leftovers<B: Backend>(
    dir: &JournalDir<B>,
    scanned: &mut Vec<ScannedFile<B>>,
) -> Result<Vec<u32>, JournalOpenError> {
    let mut leftovers = Vec::new();
    let mut at = 1;
    while at < scanned.len() {
        if scanned[at - 1].sequence() != scanned[at].sequence() {
            at += 1;
        } else if !scanned[at].has_traces() {
            leftovers.push(scanned.remove(at).found.slot);
        } else if !scanned[at - 1].has_traces() {
            leftovers.push(scanned.remove(at - 1).found.slot);
        } else {
            let other = file_path(&dir.directory, scanned[at - 1].found.slot);
            return Err(JournalOpenError::Corrupt {
                path: scanned[at].found.path.clone(),
                position: 0,
                what: format!("it claims the same place in the journal as {}", other.display()),
                advice: "One is a copy of the other: move the copy elsewhere".into(),
            });
        }
    }
    Ok(leftovers)
}

/// The same of files that are released, of which nothing is read: which of them is the leftover does not matter.
fn drop_doubles<B: Backend>(released: &mut Vec<FoundFile<B>>) -> Vec<u32> {
    let mut doubles = Vec::new();
    released.dedup_by(|later, kept| {
        let is_double = later.header.sequence == kept.header.sequence;
        doubles.extend(is_double.then_some(later.slot));
        is_double
    });
    doubles
}

fn check_sequence<B: Backend>(
    dir: &JournalDir<B>,
    oldest: u64,
    scanned: &[ScannedFile<B>],
) -> Result<(), JournalOpenError> {
    for (expected, file) in (oldest..).zip(scanned) {
        if file.sequence() != expected {
            return Err(JournalOpenError::Corrupt {
                path: dir.directory.clone(),
                position: 0,
                what: format!(
                    "the file number {expected} of the journal is missing (number {} is {})",
                    file.sequence(),
                    file.found.path.display()
                ),
                advice: ADVICE.into(),
            });
        }
    }
    Ok(())
}

/// Judges the end of every file, drops the groups that failed, and returns the file that the
/// journal ends in: the last one with a trace of a group.
fn judge<B: Backend>(
    dir: &JournalDir<B>,
    scanned: &mut [ScannedFile<B>],
    oldest: u64,
) -> Result<Option<usize>, JournalOpenError> {
    let Some(last) = scanned.iter().rposition(|file| file.has_traces()) else { return Ok(None) };
    let mut durable: Option<Lsn> = None;
    let mut number = None;
    for at in 0..=last {
        let next = scanned[at + 1..=last].iter().find_map(ScannedFile::evidence);
        let file = &mut scanned[at];
        if let (Some(expected), Some((first, _))) = (number, file.groups.first())
            && first.number != expected
        {
            let cause = "the first group of the file does not follow the last one of the file before it";
            return Err(corrupt(dir, file, HEADER_BYTES as u64, Corruption::GroupOutOfOrder, cause));
        }
        let sound = |file: &ScannedFile<B>| file.groups.last().map(|(header, _)| header.last_lsn);
        let later = match (file.later, next) {
            (Some(_), _) => LaterEvidence::SameFile,
            (None, None) => LaterEvidence::Nothing,
            (None, Some(next)) => {
                let before = file.groups.len();
                file.groups.retain(|(header, _)| header.last_lsn <= next.durable_up_to);
                // Before the first group that is still there only the pointer back tells what there was.
                let unknown = if next.previous_file < oldest { next.durable_up_to } else { Lsn(0) };
                let kept = sound(file).or(durable).unwrap_or(unknown);
                match kept < next.durable_up_to {
                    true => LaterEvidence::ProvesMore,
                    false if file.groups.len() < before => LaterEvidence::ProvesLess,
                    false => LaterEvidence::ProvesThis,
                }
            }
        };
        durable = sound(file).or(durable);
        number = file.groups.last().map(|(header, _)| header.number + 1).or(number);
        let decision::End { verdict, cause } = decision::classify_tail(file.spot, later);
        if let TailVerdict::Corrupt(corruption) = verdict {
            return Err(corrupt(dir, file, file.end, corruption, cause));
        }
        file.verdict = Some(verdict);
    }
    Ok(Some(last))
}

fn corrupt<B: Backend>(
    dir: &JournalDir<B>,
    file: &ScannedFile<B>,
    position: u64,
    corruption: Corruption,
    cause: &str,
) -> JournalOpenError {
    let advice = match corruption {
        Corruption::UnknownEntryKind => "Start a newer chronik on this directory",
        _ => ADVICE,
    };
    JournalOpenError::Corrupt {
        path: file_path(&dir.directory, file.found.slot),
        position,
        what: cause.to_owned(),
        advice: advice.into(),
    }
}

/// Makes the last group durable and wipes a torn tail. `scanned` ends with the file that the journal ends in.
async fn repair_tail<B: Backend>(
    dir: &JournalDir<B>,
    scanned: &[ScannedFile<B>],
) -> Result<Option<String>, DiskError> {
    if let Some((file, group)) = scanned.iter().rev().find_map(|file| Some((file, file.groups.last()?.0))) {
        rewrite(dir, &file.found.file, group.position, group.file_bytes() as usize).await?;
    }
    match scanned.last() {
        Some(file) if file.verdict == Some(TailVerdict::CutTornTail) => {
            wipe(dir, file).await?;
            Ok(Some(file.describe_torn_tail(dir)))
        }
        _ => Ok(None),
    }
}

/// Overwrites a torn tail with zeros, so that it never reads as valid later: all but its first page, which
/// the group that records this start replaces. Until then that page proves what this start has seen: were it
/// wiped, groups that failed before it would come back.
async fn wipe<B: Backend>(dir: &JournalDir<B>, file: &ScannedFile<B>) -> Result<(), DiskError> {
    let handle = &file.found.file;
    let zeros = Bytes::from(vec![0; WINDOW_BYTES]);
    let mut position = file.end + PAGE_BYTES as u64;
    while position < file.torn_end() {
        let piece = (file.torn_end() - position).min(WINDOW_BYTES as u64);
        handle.write_at(position, zeros.slice(..piece as usize), dir.deadline()).await?;
        position += piece;
    }
    handle.sync(dir.deadline()).await
}

/// Makes durable what was read, whatever the process before us did about it.
async fn rewrite<B: Backend>(
    dir: &JournalDir<B>,
    file: &FileOf<B>,
    position: u64,
    len: usize,
) -> Result<(), DiskError> {
    let bytes = file.read_at(position, len, dir.deadline()).await?;
    file.write_at(position, bytes, dir.deadline()).await?;
    file.sync(dir.deadline()).await
}

fn summarise<B: Backend>(
    last_slot: u32,
    released: Vec<FoundFile<B>>,
    scanned: Vec<ScannedFile<B>>,
    ending: Option<usize>,
    oldest: u64,
    torn_tail: Option<String>,
) -> Recovered {
    let sealed_of = |file: &FoundFile<B>, last_lsn| Sealed {
        slot: file.slot,
        sequence: file.header.sequence,
        file_bytes: file.header.file_bytes,
        last_lsn,
        trusted: true,
    };
    let mut found = Found {
        last_slot,
        said_oldest: oldest,
        last_sequence: scanned.last().map_or(0, |file| file.sequence()),
        sealed: released.iter().map(|file| sealed_of(file, Lsn(0))).collect::<VecDeque<_>>(),
        ..Found::default()
    };
    let mut start = ResumePoint::default();
    let mut entries = Vec::new();
    let mut unreleased = Vec::new();
    let mut seen = Lsn(0);
    let is_new = scanned.is_empty();
    for (at, file) in scanned.into_iter().enumerate() {
        let header = file.found.header;
        seen = seen.max(Lsn(header.first_lsn.0.saturating_sub(1)));
        seen = seen.max(file.torn.or(file.later).map_or(Lsn(0), |group| group.last_lsn));
        let prepared = Prepared {
            slot: file.found.slot,
            sequence: header.sequence,
            generation: header.generation,
            file_bytes: header.file_bytes,
        };
        if let Some((first, _)) = file.groups.first() {
            unreleased.push((first.first_lsn, file.end - HEADER_BYTES as u64));
        }
        for (group, group_entries) in file.groups {
            start.next_number = group.number + 1;
            start.durable = group.last_lsn;
            start.durable_file = header.sequence;
            entries.extend(group_entries);
        }
        if let Some(torn) = file.torn.filter(|_| start.next_number == 0) {
            // All groups before it are released: it says itself what it follows.
            start.next_number = torn.number;
            start.durable = torn.durable_up_to;
            start.durable_file = torn.previous_file;
        }
        seen = seen.max(start.durable);
        match ending.map(|last| at.cmp(&last)) {
            Some(std::cmp::Ordering::Less) => {
                found.sealed.push_back(Sealed { trusted: true, ..sealed_of(&file.found, start.durable) });
            }
            Some(std::cmp::Ordering::Equal) => {
                found.active = Some(header.sequence);
                start.active = Some(Active { file: prepared, position: file.end });
            }
            _ => found.spares.push_back(prepared),
        }
    }
    let given_out = if is_new { Lsn(0) } else { Lsn(seen.0 + LSN_GAP) };
    Recovered { entries, torn_tail, given_out, start, found, unreleased }
}
