//! What a journal directory holds, for people: reads, and changes nothing.

use std::fmt;
use std::path::PathBuf;

use io_backend::Backend;

use super::JournalOpenError;
use super::decision::TailState;
use super::files::JournalDir;
use super::format::journal_name;
use super::scan::{ScannedFile, list, scan};
use crate::ids::Lsn;
use crate::limits;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSummary {
    /// Where it is.
    pub path: PathBuf,
    /// Its place in the order of the journal's files, rising; each life of a file has a new one.
    pub sequence: u64,
    /// How often the file has been used, this time included.
    pub lives: u32,
    /// Its entries are kept elsewhere; the file waits for its next life.
    pub released: bool,
    /// Sound commit groups.
    pub groups: usize,
    /// Entries in them.
    pub entries: usize,
    /// First and last LSN of its entries.
    pub lsns: Option<(Lsn, Lsn)>,
    /// Where the sound groups end, of how many bytes.
    pub end: u64,
    /// Length of the file; what it is larger than `end` is zeros, bytes of an earlier life, or `remark`.
    pub file_bytes: u64,
    /// What stands at the end, if it is more than nothing.
    pub remark: Option<&'static str>,
}

impl<B: Backend> From<(ScannedFile<B>, bool)> for FileSummary {
    fn from((file, released): (ScannedFile<B>, bool)) -> FileSummary {
        let entries = || file.groups.iter().flat_map(|(_, entries)| entries);
        let remark = match (file.spot, file.later.is_some()) {
            (TailState::FileEnd | TailState::Blank, false) => None,
            (TailState::Debris | TailState::TornGroup, false) => Some("then a group that is not whole"),
            (TailState::OutOfOrder, _) => Some("then a group out of order"),
            (TailState::UnknownKind, _) => Some("then an entry of an unknown kind"),
            (_, true) => Some("then damage, with a sound group behind it"),
        };
        FileSummary {
            released,
            sequence: file.found.header.sequence,
            lives: file.found.header.lives,
            groups: file.groups.len(),
            entries: entries().count(),
            lsns: entries().next().zip(entries().last()).map(|(first, last)| (first.lsn, last.lsn)),
            end: file.end,
            file_bytes: file.found.header.file_bytes,
            remark,
            path: file.found.path,
        }
    }
}

impl fmt::Display for FileSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileSummary { sequence, groups, entries, end, file_bytes, .. } = self;
        write!(f, "{}: number {sequence}, ", self.path.display())?;
        match self.lsns {
            Some((first, last)) => write!(f, "{entries} entries in {groups} groups, LSN {first} to {last}")?,
            None => write!(f, "no entries")?,
        }
        write!(f, ", {end} of {file_bytes} bytes used, life {}", self.lives)?;
        if self.released {
            write!(f, ", released")?;
        }
        self.remark.map_or(Ok(()), |remark| write!(f, ", {remark}"))
    }
}

/// The files of a journal in their order. `name` is the journal's, as in [`super::JournalContext`].
///
/// # Errors
///
/// The directory or one of its files cannot be read within [`limits::START_DISK_DEADLINE`], or has a file of
/// another journal, of a later format or with a damaged header.
pub async fn inspect<B: Backend>(
    backend: &B,
    directory: PathBuf,
    name: &str,
) -> Result<Vec<FileSummary>, JournalOpenError> {
    let dir = JournalDir {
        backend: backend.clone(),
        directory,
        name: journal_name(name),
        operation_timeout: Some(limits::START_DISK_DEADLINE),
    };
    let listed = list(&dir).await?;
    let oldest = listed.files.iter().map(|file| file.header.oldest_sequence).max().unwrap_or(0);
    let mut summaries = Vec::with_capacity(listed.files.len());
    for file in listed.files {
        let released = file.header.sequence < oldest;
        summaries.push(FileSummary::from((scan(&dir, file).await?, released)));
    }
    Ok(summaries)
}
