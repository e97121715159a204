//! Writes past the page cache (`O_DIRECT`), for what is synced at once and hardly ever read: a write and its sync take less of the processor, and
//! the cache stays for what is read.
//!
//! Such a write takes whole pages from a buffer that is aligned to them. What does not fit that, and files of systems that refuse it, are
//! written as ever; both ways may be mixed in one file, since the kernel keeps its cache in step.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const PAGE_BYTES: usize = 4096;
/// Of the buffer that is kept. More at a time is written as ever.
const BYTES_MAX: usize = 1 << 20;

/// A file of one thread that is written to past the page cache where that works.
pub(super) struct DirectFile {
    plain: std::fs::File,
    direct: Option<std::fs::File>,
    /// The system opened it so, and takes no such writes.
    refused: Cell<bool>,
    /// A page longer than what was written at most, so that whole pages lie in it wherever it begins.
    buffer: RefCell<Vec<u8>>,
}

impl DirectFile {
    /// Opens an existing file for writing.
    pub(super) fn open(path: &Path) -> io::Result<DirectFile> {
        let mut options = std::fs::OpenOptions::new();
        let plain = options.read(true).write(true).open(path)?;
        let direct = match options.custom_flags(libc::O_DIRECT).open(path) {
            Ok(direct) => Some(direct),
            // The file system has no such thing.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => None,
            Err(error) => return Err(error),
        };
        Ok(DirectFile { plain, direct, refused: Cell::new(false), buffer: RefCell::default() })
    }

    /// Writes all of it.
    pub(super) fn write(&self, position: u64, data: &[u8]) -> io::Result<()> {
        if let Some(direct) = self.direct.as_ref().filter(|_| !self.refused.get() && fits(position, data)) {
            match self.write_past_cache(direct, position, data) {
                // The pages of the device are larger, or what was written of it ended within one: nothing is lost by writing it again.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.refused.set(true),
                written => return written,
            }
        }
        self.plain.write_all_at(data, position)
    }

    /// `fdatasync`.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.plain.sync_data()
    }

    fn write_past_cache(&self, direct: &std::fs::File, position: u64, data: &[u8]) -> io::Result<()> {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.len() < data.len() + PAGE_BYTES {
            buffer.resize(data.len() + PAGE_BYTES, 0);
        }
        let from = buffer.as_ptr().align_offset(PAGE_BYTES);
        let aligned = &mut buffer[from..from + data.len()];
        aligned.copy_from_slice(data);
        direct.write_all_at(aligned, position)
    }
}

fn fits(position: u64, data: &[u8]) -> bool {
    let is_whole = data.len().is_multiple_of(PAGE_BYTES) && position.is_multiple_of(PAGE_BYTES as u64);
    is_whole && !data.is_empty() && data.len() <= BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![0; 16 * PAGE_BYTES]).unwrap();
        (directory, path)
    }

    #[test]
    fn what_fits_and_what_does_not_end_up_in_one_file() {
        let (_directory, path) = file();
        let file = DirectFile::open(&path).unwrap();
        let mut expected = vec![0; 16 * PAGE_BYTES];
        for (position, bytes, fill) in [
            (PAGE_BYTES, 2 * PAGE_BYTES, 1),
            (PAGE_BYTES + 100, 300, 2),
            (2 * PAGE_BYTES, PAGE_BYTES, 3),
            (10, 5, 4),
        ] {
            file.write(position as u64, &vec![fill; bytes]).unwrap();
            expected[position..position + bytes].fill(fill);
        }
        file.sync().unwrap();
        assert!(std::fs::read(&path).unwrap() == expected);
    }

    #[test]
    fn what_is_larger_than_the_buffer_may_be_is_written_all_the_same() {
        let (_directory, path) = file();
        let file = DirectFile::open(&path).unwrap();
        let data = vec![7; BYTES_MAX + PAGE_BYTES];
        file.write(0, &data).unwrap();
        assert!(std::fs::read(&path).unwrap() == data);
        assert_eq!(file.buffer.borrow().capacity(), 0);
    }

    #[test]
    fn a_file_that_refuses_such_writes_is_written_as_ever() {
        let (_directory, path) = file();
        let mut file = DirectFile::open(&path).unwrap();
        file.direct = Some(std::fs::File::open(&path).unwrap());
        let error = file.write(0, &[7; PAGE_BYTES]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "what is no refusal is told");
        file.refused.set(true);
        file.write(0, &[7; PAGE_BYTES]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[..PAGE_BYTES], [7; PAGE_BYTES]);
    }
}
