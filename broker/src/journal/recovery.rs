//! Reading a journal back: gathers the facts that [`decision`](super::decision) judges, and mends the tail.
//!
//! Nothing is changed before everything has been judged. What no later group proves to have been synced (the
//! last group, the headers of spare files, the names in the directory) is written again and synced before it
//! counts: a process that was killed may have left it in the page cache alone, and after a failed sync
//! the cache may hold what the disk never got.

use std::collections::VecDeque;
use std::path::PathBuf;

use bytes::Bytes;
use io_backend::{Backend, Disk, DiskError, File, OpenHow};

use super::catalogue::Found;
use super::decision::{self, Corruption, EndVerdict, FileVerdict, Header, HeaderFacts, Later, Spot};
use super::files::{Place, file_path, slot_of};
use super::format::{
    self, BodyFault, FileHeader, GROUP_HEADER_BYTES, GroupHeader, HEADER_BYTES, HeaderBlock, PAGE_BYTES,
    VERSION,
};
use super::machine::{Active, Prepared, Sealed, StartAt};
use super::{JournalOpenError, RecoveredEntry};
use crate::ids::Lsn;

/// Read at once.
const WINDOW_BYTES: usize = 1 << 20;
/// LSNs that a start leaves out: more than a process can have given out without leaving a trace.
pub const LSN_GAP: u64 = 1 << 20;

const ADVICE: &str = "Records that were acknowledged may be lost, so the node does not start. Put the directory \
                      back from a copy; or move the whole data directory away and start empty, giving up what it holds";

/// What the journal holds, and where to go on.
pub struct Recovered {
    pub entries: Vec<RecoveredEntry>,
    pub torn_tail: Option<String>,
    /// LSNs up to here may have been given out; this start gives out later ones.
    pub given_out: Lsn,
    pub start: StartAt,
    pub found: Found,
    /// First LSN and bytes of each file with groups.
    pub unreleased: Vec<(Lsn, u64)>,
}

type FileOf<B> = <<B as Backend>::Disk as Disk>::File;

pub async fn recover<B: Backend>(place: &Place<B>) -> Result<Recovered, JournalOpenError> {
    let mut listed = list(place).await?;
    let oldest = listed.files.iter().map(|file| file.header.oldest_sequence).max().unwrap_or(0);
    let needed = listed.files.iter().position(|file| file.header.sequence >= oldest);
    let current = listed.files.split_off(needed.unwrap_or(listed.files.len()));
    let mut scanned = Vec::with_capacity(current.len());
    for file in current {
        scanned.push(scan(place, file).await?);
    }
    let leftovers = drop_leftovers(place, &mut scanned)?;
    check_sequence(place, oldest, &scanned)?;
    let ending = judge(place, &mut scanned, oldest)?;

    // From here on the journal is known to be sound, and files are changed.
    for slot in listed.unprepared.into_iter().chain(leftovers) {
        place.remove(slot).await?;
    }
    let torn_tail = match ending {
        Some(last) => mend(place, &scanned[..=last]).await?,
        None => None,
    };
    for file in scanned.iter().filter(|file| !file.has_traces()) {
        rewrite(place, &file.found.file, 0, HEADER_BYTES).await?;
    }
    place.backend.disk().sync_dir(&place.directory, place.deadline()).await?;
    Ok(summarise(listed.last_slot, listed.files, scanned, ending, oldest, torn_tail))
}

struct Listed<B: Backend> {
    /// In order of sequence.
    files: Vec<FoundFile<B>>,
    unprepared: Vec<u32>,
    last_slot: u32,
}

struct FoundFile<B: Backend> {
    slot: u32,
    path: PathBuf,
    file: FileOf<B>,
    header: FileHeader,
}

async fn list<B: Backend>(place: &Place<B>) -> Result<Listed<B>, JournalOpenError> {
    let disk = place.backend.disk();
    let mut listed = Listed { files: Vec::new(), unprepared: Vec::new(), last_slot: 0 };
    for entry in disk.read_dir(&place.directory, place.deadline()).await? {
        let Some(slot) = slot_of(&entry.name).filter(|_| !entry.is_dir) else { continue };
        listed.last_slot = listed.last_slot.max(slot);
        let path = file_path(&place.directory, slot);
        let file = disk.open(&path, OpenHow::Existing, place.deadline()).await?;
        let head = file.read_at(0, HEADER_BYTES + PAGE_BYTES, place.deadline()).await?;
        let block = format::decode_header(&head[..head.len().min(HEADER_BYTES)]);
        let other = matches!(&block, HeaderBlock::Good(header) if header.name != place.name);
        let whole = match &block {
            HeaderBlock::Good(header) => file.len(place.deadline()).await? >= header.file_bytes,
            _ => true,
        };
        let facts = HeaderFacts {
            header: if other { Header::Other } else { Header::from(&block) },
            whole,
            body: head.get(HEADER_BYTES..).is_some_and(|body| body.iter().any(|byte| *byte != 0)),
        };
        match (decision::judge_file(facts), block) {
            (FileVerdict::Use, HeaderBlock::Good(header)) => {
                listed.files.push(FoundFile { slot, path, file, header });
            }
            (FileVerdict::Unprepared, _) => listed.unprepared.push(slot),
            (verdict, block) => return Err(refuse(path, verdict, &block)),
        }
    }
    listed.files.sort_by_key(|file| (file.header.sequence, file.slot));
    Ok(listed)
}

fn refuse(path: PathBuf, verdict: FileVerdict, block: &HeaderBlock) -> JournalOpenError {
    let corrupt = |path, what: &str| JournalOpenError::Corrupt {
        path,
        position: 0,
        what: what.into(),
        advice: ADVICE.into(),
    };
    match verdict {
        FileVerdict::Newer => {
            let found = if let HeaderBlock::Newer(version) = block { *version } else { 0 };
            JournalOpenError::Newer { path, found, known: VERSION }
        }
        FileVerdict::Foreign => {
            JournalOpenError::Foreign { path, what: "it does not begin like one; move it elsewhere".into() }
        }
        FileVerdict::OtherJournal => JournalOpenError::Foreign {
            path,
            what: "it belongs to another journal of the node; move it back to that directory".into(),
        },
        FileVerdict::Shortened => corrupt(path, "the file is shorter than its header says"),
        FileVerdict::HeaderLost => corrupt(path, "the file's header is gone, and something is below it"),
        FileVerdict::HeaderDamaged | FileVerdict::Use | FileVerdict::Unprepared => {
            corrupt(path, "the file's header is damaged")
        }
    }
}

/// A file that has been read through.
struct ScannedFile<B: Backend> {
    found: FoundFile<B>,
    groups: Vec<(GroupHeader, Vec<RecoveredEntry>)>,
    /// Where the sound groups end, and how.
    end: u64,
    spot: Spot,
    torn: Option<GroupHeader>,
    /// The first group further on.
    later: Option<GroupHeader>,
    /// What is not zero ends here, in a file that was zeros.
    debris_end: u64,
    verdict: Option<EndVerdict>,
}

impl<B: Backend> ScannedFile<B> {
    fn sequence(&self) -> u64 {
        self.found.header.sequence
    }

    /// The first thing in it that tells what was durable when it was written.
    fn evidence(&self) -> Option<GroupHeader> {
        let sound = self.groups.first().map(|(header, _)| *header);
        sound.or(self.torn).or(self.later)
    }

    fn has_traces(&self) -> bool {
        self.evidence().is_some() || self.spot == Spot::Debris
    }

    fn torn_end(&self) -> u64 {
        let group_end = self.torn.map_or(self.end, |torn| self.end + torn.file_bytes());
        group_end.max(self.debris_end).min(self.found.header.file_bytes)
    }

    fn torn_bytes(&self) -> u64 {
        self.torn_end().saturating_sub(self.end)
    }

    fn describe_torn_tail(&self, place: &Place<B>) -> String {
        let path = file_path(&place.directory, self.found.slot);
        let what = match self.torn {
            Some(torn) => format!("group {} (LSN {} to {})", torn.number, torn.first_lsn, torn.last_lsn),
            None => "a group without its header".into(),
        };
        let bytes = self.torn_bytes();
        format!("{bytes} bytes at byte {} of {}: {what} was not written to its end", self.end, path.display())
    }
}

async fn scan<B: Backend>(place: &Place<B>, found: FoundFile<B>) -> Result<ScannedFile<B>, DiskError> {
    let header = found.header;
    let mut window = Window::new(found.file.clone(), header.file_bytes);
    let mut scanned = ScannedFile {
        found,
        groups: Vec::new(),
        end: HEADER_BYTES as u64,
        spot: Spot::FileEnd,
        torn: None,
        later: None,
        debris_end: 0,
        verdict: None,
    };
    while scanned.end < header.file_bytes {
        let head = window.get(place, scanned.end, GROUP_HEADER_BYTES).await?;
        let Some(group) = format::decode_group_header(&head, header.generation, scanned.end) else {
            scanned.spot = Spot::Blank;
            break;
        };
        if let Some((before, _)) = scanned.groups.last()
            && (group.number != before.number + 1 || group.durable_up_to != before.last_lsn)
        {
            scanned.spot = Spot::OutOfOrder;
            break;
        }
        let bytes = window.get(place, scanned.end, GROUP_HEADER_BYTES + group.body_bytes as usize).await?;
        match format::decode_entries(&group, &bytes, header.generation) {
            Ok(entries) => {
                scanned.end += group.file_bytes();
                scanned.groups.push((group, entries));
            }
            Err(BodyFault::Damaged { .. }) => {
                scanned.spot = Spot::TornGroup;
                scanned.torn = Some(group);
                break;
            }
            Err(BodyFault::UnknownKind { .. }) => {
                scanned.spot = Spot::UnknownKind;
                break;
            }
        }
    }
    look_beyond(place, &mut window, &mut scanned).await?;
    Ok(scanned)
}

/// Whatever stands behind the last sound group: a later group, or bytes where zeros should be.
async fn look_beyond<B: Backend>(
    place: &Place<B>,
    window: &mut Window<B>,
    scanned: &mut ScannedFile<B>,
) -> Result<(), DiskError> {
    let header = scanned.found.header;
    let mut position = scanned.end;
    while position < header.file_bytes {
        let page = window.get(place, position, PAGE_BYTES).await?;
        if position > scanned.end
            && let Some(group) = format::decode_group_header(&page, header.generation, position)
        {
            scanned.later = Some(group);
            return Ok(());
        }
        if header.lives == 1 && page.iter().any(|byte| *byte != 0) {
            scanned.debris_end = position + PAGE_BYTES as u64;
        }
        position += PAGE_BYTES as u64;
    }
    if scanned.spot == Spot::Blank && scanned.debris_end > 0 {
        scanned.spot = Spot::Debris;
    }
    Ok(())
}

/// A preparation that failed may have left its header in one file and been done again in another: the
/// file without a trace of a group is the leftover.
fn drop_leftovers<B: Backend>(
    place: &Place<B>,
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
            let other = file_path(&place.directory, scanned[at - 1].found.slot);
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

fn check_sequence<B: Backend>(
    place: &Place<B>,
    oldest: u64,
    scanned: &[ScannedFile<B>],
) -> Result<(), JournalOpenError> {
    for (expected, file) in (oldest..).zip(scanned) {
        if file.sequence() != expected {
            return Err(JournalOpenError::Corrupt {
                path: place.directory.clone(),
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
    place: &Place<B>,
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
            return Err(corrupt(place, file, HEADER_BYTES as u64, Corruption::GroupOutOfOrder));
        }
        let sound = |file: &ScannedFile<B>| file.groups.last().map(|(header, _)| header.last_lsn);
        let later = match (file.later, next) {
            (Some(_), _) => Later::SameFile,
            (None, None) => Later::Nothing,
            (None, Some(next)) => {
                let before = file.groups.len();
                file.groups.retain(|(header, _)| header.last_lsn <= next.durable_up_to);
                // Before the first group that is still there only the pointer back tells what there was.
                let unknown = if next.previous_file < oldest { next.durable_up_to } else { Lsn(0) };
                let kept = sound(file).or(durable).unwrap_or(unknown);
                match kept < next.durable_up_to {
                    true => Later::ProvesMore,
                    false if file.groups.len() < before => Later::ProvesLess,
                    false => Later::ProvesThis,
                }
            }
        };
        durable = sound(file).or(durable);
        number = file.groups.last().map(|(header, _)| header.number + 1).or(number);
        let verdict = decision::judge_end(file.spot, later);
        if let EndVerdict::Corrupt(corruption) = verdict {
            return Err(corrupt(place, file, file.end, corruption));
        }
        file.verdict = Some(verdict);
    }
    Ok(Some(last))
}

fn corrupt<B: Backend>(
    place: &Place<B>,
    file: &ScannedFile<B>,
    position: u64,
    corruption: Corruption,
) -> JournalOpenError {
    let advice = match corruption {
        Corruption::UnknownEntryKind => "Start a newer chronik on this directory",
        _ => ADVICE,
    };
    JournalOpenError::Corrupt {
        path: file_path(&place.directory, file.found.slot),
        position,
        what: corruption.to_string(),
        advice: advice.into(),
    }
}

/// Makes the last group durable and wipes a torn tail. `scanned` ends with the file that the journal ends in.
async fn mend<B: Backend>(place: &Place<B>, scanned: &[ScannedFile<B>]) -> Result<Option<String>, DiskError> {
    if let Some((file, group)) = scanned.iter().rev().find_map(|file| Some((file, file.groups.last()?.0))) {
        rewrite(place, &file.found.file, group.position, group.file_bytes() as usize).await?;
    }
    match scanned.last() {
        Some(file) if file.verdict == Some(EndVerdict::CutTornTail) => {
            wipe(place, file).await?;
            Ok(Some(file.describe_torn_tail(place)))
        }
        _ => Ok(None),
    }
}

/// Overwrites a torn tail with zeros, so that it never reads as valid later: all but its first page, which
/// the group that records this start replaces. Until then that page proves what this start has seen: were it
/// wiped, groups that failed before it would come back.
async fn wipe<B: Backend>(place: &Place<B>, file: &ScannedFile<B>) -> Result<(), DiskError> {
    let handle = &file.found.file;
    let zeros = Bytes::from(vec![0; WINDOW_BYTES]);
    let mut position = file.end + PAGE_BYTES as u64;
    while position < file.torn_end() {
        let piece = (file.torn_end() - position).min(WINDOW_BYTES as u64);
        handle.write_at(position, zeros.slice(..piece as usize), place.deadline()).await?;
        position += piece;
    }
    handle.sync(place.deadline()).await
}

/// Makes durable what was read, whatever the process before us did about it.
async fn rewrite<B: Backend>(
    place: &Place<B>,
    file: &FileOf<B>,
    position: u64,
    len: usize,
) -> Result<(), DiskError> {
    let bytes = file.read_at(position, len, place.deadline()).await?;
    file.write_at(position, bytes, place.deadline()).await?;
    file.sync(place.deadline()).await
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
    let mut start = StartAt::default();
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

/// Reads a file in large pieces, and hands out small ones of them.
struct Window<B: Backend> {
    file: FileOf<B>,
    file_bytes: u64,
    start: u64,
    bytes: Bytes,
}

impl<B: Backend> Window<B> {
    fn new(file: FileOf<B>, file_bytes: u64) -> Window<B> {
        Window { file, file_bytes, start: 0, bytes: Bytes::new() }
    }

    /// `len` bytes from `position`, fewer only at the end of the file.
    async fn get(&mut self, place: &Place<B>, position: u64, len: usize) -> Result<Bytes, DiskError> {
        let left = usize::try_from(self.file_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let end = position + len as u64;
        if position < self.start || end > self.start + self.bytes.len() as u64 {
            let ahead = len.max(WINDOW_BYTES.min(left));
            self.bytes = self.file.read_at(position, ahead, place.deadline()).await?;
            self.start = position;
        }
        let from = (position - self.start) as usize;
        Ok(self.bytes.slice(from..self.bytes.len().min(from + len)))
    }
}
