//! Locks of directories: who holds that of a node's data, whoever has started it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// As a node names that of its data.
const FILE: &str = "LOCK";

/// A directory's lock, if nobody has it and there is one.
pub enum Taken {
    Here(File),
    Elsewhere,
    /// Nothing ever took it.
    NoLock,
}

/// Takes the lock that was left in a directory, until what is returned is dropped. A node that starts meanwhile is refused.
pub fn take(directory: &Path) -> io::Result<Taken> {
    match OpenOptions::new().read(true).write(true).open(directory.join(FILE)) {
        Ok(file) => taken(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Taken::NoLock),
        Err(error) => Err(error),
    }
}

/// The same, and makes the lock where there is none.
pub fn make(directory: &Path) -> io::Result<Taken> {
    taken(OpenOptions::new().read(true).write(true).create(true).truncate(false).open(directory.join(FILE))?)
}

fn taken(file: File) -> io::Result<Taken> {
    match file.try_lock() {
        Ok(()) => Ok(Taken::Here(file)),
        Err(TryLockError::WouldBlock) => Ok(Taken::Elsewhere),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The process that holds the lock of a directory, as far as the system tells. It is not disturbed by the question.
pub fn holder(directory: &Path) -> Option<u32> {
    let lock = directory.join(FILE);
    let processes = Path::new("/proc").read_dir().ok()?.flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.find(|number| holds(*number, &lock))
}

fn holds(process: u32, lock: &Path) -> bool {
    let of_process = PathBuf::from(format!("/proc/{process}"));
    // Of a process that has ended meanwhile, or is another user's, nothing is told.
    let Ok(opened) = of_process.join("fd").read_dir() else { return false };
    opened.flatten().any(|descriptor| {
        let told = of_process.join("fdinfo").join(descriptor.file_name());
        descriptor.path().read_link().is_ok_and(|target| target == lock)
            && std::fs::read_to_string(told).is_ok_and(|told| told.contains("FLOCK"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_is_known_and_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        assert!(matches!(take(&path).unwrap(), Taken::NoLock));
        assert_eq!(holder(&path), None);
        let file = File::create(path.join(FILE)).unwrap();
        assert_eq!(holder(&path), None, "an open file is no lock");
        drop(file);
        let Taken::Here(held) = make(&path).unwrap() else { panic!("nobody has it") };
        assert_eq!(holder(&path), Some(std::process::id()));
        assert!(matches!(take(&path).unwrap(), Taken::Elsewhere));
        assert!(matches!(make(&path).unwrap(), Taken::Elsewhere));
        drop(held);
        assert_eq!(holder(&path), None);
        assert!(matches!(take(&path).unwrap(), Taken::Here(_)));
    }
}
