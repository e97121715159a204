//! Reading the files of a journal: which there are, what groups they hold, and what stands behind the last.
//!
//! Reads only; gathers facts and leaves their meaning to [`super::decision`].

use std::path::PathBuf;

use bytes::Bytes;
use io_backend::{Backend, Disk, DiskError, File, OpenHow};

use super::decision::{self, FileVerdict, Header, HeaderFacts, TailState, TailVerdict};
use super::files::{JournalDir, file_path, slot_of};
use super::format::{
    self, BodyFault, FileHeader, GROUP_HEADER_BYTES, GroupHeader, HEADER_BYTES, HeaderBlock, PAGE_BYTES,
};
use super::{JournalOpenError, RecoveredEntry};

/// Read at once.
pub(super) const WINDOW_BYTES: usize = 1 << 20;

pub(super) const ADVICE: &str = "Records that were acknowledged may be lost, so the node does not start. Put the directory \
                      back from a copy; or move the whole data directory away and start empty, giving up what it holds";
pub(super) type FileOf<B> = <<B as Backend>::Disk as Disk>::File;

pub(super) struct Listed<B: Backend> {
    /// In order of sequence.
    pub(super) files: Vec<FoundFile<B>>,
    pub(super) unprepared: Vec<u32>,
    pub(super) last_slot: u32,
}

pub(super) struct FoundFile<B: Backend> {
    pub(super) slot: u32,
    pub(super) path: PathBuf,
    pub(super) file: FileOf<B>,
    pub(super) header: FileHeader,
}

pub(super) async fn list<B: Backend>(dir: &JournalDir<B>) -> Result<Listed<B>, JournalOpenError> {
    let disk = dir.backend.disk();
    let mut listed = Listed { files: Vec::new(), unprepared: Vec::new(), last_slot: 0 };
    for entry in disk.read_dir(&dir.directory, dir.deadline()).await? {
        let Some(slot) = slot_of(&entry.name).filter(|_| !entry.is_dir) else { continue };
        listed.last_slot = listed.last_slot.max(slot);
        let path = file_path(&dir.directory, slot);
        let file = disk.open(&path, OpenHow::Existing, dir.deadline()).await?;
        let head = file.read_at(0, HEADER_BYTES + PAGE_BYTES, dir.deadline()).await?;
        let block = format::decode_header(&head[..head.len().min(HEADER_BYTES)]);
        let other = matches!(&block, HeaderBlock::Good(header) if header.name != dir.name);
        let whole = match &block {
            HeaderBlock::Good(header) => file.len(dir.deadline()).await? >= header.file_bytes,
            _ => true,
        };
        let facts = HeaderFacts {
            header: if other { Header::Other } else { Header::from(&block) },
            whole,
            body: head.get(HEADER_BYTES..).is_some_and(|body| body.iter().any(|byte| *byte != 0)),
        };
        match (decision::classify_file(facts), block) {
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
    let what = verdict.cause().to_owned();
    match verdict {
        FileVerdict::Newer => {
            let found = if let HeaderBlock::Newer(version) = block { *version } else { 0 };
            JournalOpenError::Newer { path, found, known: crate::formats::JOURNAL }
        }
        FileVerdict::Foreign | FileVerdict::OtherJournal => JournalOpenError::Foreign { path, what },
        FileVerdict::Shortened | FileVerdict::HeaderLost | FileVerdict::HeaderDamaged => {
            JournalOpenError::Corrupt { path, position: 0, what, advice: ADVICE.into() }
        }
        FileVerdict::Use | FileVerdict::Unprepared => unreachable!("{}: {what}", path.display()),
    }
}

/// A file that has been read through.
pub(super) struct ScannedFile<B: Backend> {
    pub(super) found: FoundFile<B>,
    pub(super) groups: Vec<(GroupHeader, Vec<RecoveredEntry>)>,
    /// Where the sound groups end, and how.
    pub(super) end: u64,
    pub(super) spot: TailState,
    pub(super) torn: Option<GroupHeader>,
    /// The first group further on.
    pub(super) later: Option<GroupHeader>,
    /// What is not zero ends here, in a file that was zeros.
    pub(super) debris_end: u64,
    pub(super) verdict: Option<TailVerdict>,
}

impl<B: Backend> ScannedFile<B> {
    pub(super) fn sequence(&self) -> u64 {
        self.found.header.sequence
    }

    /// The first thing in it that tells what was durable when it was written.
    pub(super) fn evidence(&self) -> Option<GroupHeader> {
        let sound = self.groups.first().map(|(header, _)| *header);
        sound.or(self.torn).or(self.later)
    }

    pub(super) fn has_traces(&self) -> bool {
        self.evidence().is_some() || self.spot == TailState::Debris
    }

    pub(super) fn torn_end(&self) -> u64 {
        let group_end = self.torn.map_or(self.end, |torn| self.end + torn.file_bytes());
        group_end.max(self.debris_end).min(self.found.header.file_bytes)
    }

    pub(super) fn torn_bytes(&self) -> u64 {
        self.torn_end().saturating_sub(self.end)
    }

    pub(super) fn describe_torn_tail(&self, dir: &JournalDir<B>) -> String {
        let path = file_path(&dir.directory, self.found.slot);
        let what = match self.torn {
            Some(torn) => format!("group {} (LSN {} to {})", torn.number, torn.first_lsn, torn.last_lsn),
            None => "a group without its header".into(),
        };
        let bytes = self.torn_bytes();
        format!("{bytes} bytes at byte {} of {}: {what} was not written to its end", self.end, path.display())
    }
}

pub(super) async fn scan<B: Backend>(
    dir: &JournalDir<B>,
    found: FoundFile<B>,
) -> Result<ScannedFile<B>, DiskError> {
    let header = found.header;
    let mut window = Window::new(found.file.clone(), header.file_bytes);
    let mut scanned = ScannedFile {
        found,
        groups: Vec::new(),
        end: HEADER_BYTES as u64,
        spot: TailState::FileEnd,
        torn: None,
        later: None,
        debris_end: 0,
        verdict: None,
    };
    while scanned.end < header.file_bytes {
        let head = window.get(dir, scanned.end, GROUP_HEADER_BYTES).await?;
        let Some(group) = format::decode_group_header(&head, header.generation, scanned.end) else {
            scanned.spot = TailState::Blank;
            break;
        };
        if let Some((before, _)) = scanned.groups.last()
            && (group.number != before.number + 1 || group.durable_up_to != before.last_lsn)
        {
            scanned.spot = TailState::OutOfOrder;
            break;
        }
        let bytes = window.get(dir, scanned.end, GROUP_HEADER_BYTES + group.body_bytes as usize).await?;
        match format::decode_entries(&group, &bytes, header.generation) {
            Ok(entries) => {
                scanned.end += group.file_bytes();
                scanned.groups.push((group, entries));
            }
            Err(BodyFault::Damaged { .. }) => {
                scanned.spot = TailState::TornGroup;
                scanned.torn = Some(group);
                break;
            }
            Err(BodyFault::UnknownKind { .. }) => {
                scanned.spot = TailState::UnknownKind;
                break;
            }
        }
    }
    look_beyond(dir, &mut window, &mut scanned).await?;
    Ok(scanned)
}

/// Whatever stands behind the last sound group: a later group, or bytes where zeros should be.
async fn look_beyond<B: Backend>(
    dir: &JournalDir<B>,
    window: &mut Window<B>,
    scanned: &mut ScannedFile<B>,
) -> Result<(), DiskError> {
    let header = scanned.found.header;
    let mut position = scanned.end;
    while position < header.file_bytes {
        let page = window.get(dir, position, PAGE_BYTES).await?;
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
    if scanned.spot == TailState::Blank && scanned.debris_end > 0 {
        scanned.spot = TailState::Debris;
    }
    Ok(())
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
    async fn get(&mut self, dir: &JournalDir<B>, position: u64, len: usize) -> Result<Bytes, DiskError> {
        let left = usize::try_from(self.file_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let end = position + len as u64;
        if position < self.start || end > self.start + self.bytes.len() as u64 {
            let ahead = len.max(WINDOW_BYTES.min(left));
            self.bytes = self.file.read_at(position, ahead, dir.deadline()).await?;
            self.start = position;
        }
        let from = (position - self.start) as usize;
        Ok(self.bytes.slice(from..self.bytes.len().min(from + len)))
    }
}
