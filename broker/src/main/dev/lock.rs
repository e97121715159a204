//! Locks of directories: who holds that of a node's data, whoever has started it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// As a node names that of its data. It holds the directory as well, for the file may be removed under it.
const FILE: &str = "LOCK";

/// What one finds who wants a directory for himself.
pub enum Taken {
    /// Until they are dropped, a node that starts in it is refused.
    Here(Vec<File>),
    Elsewhere,
}

/// Takes a directory, with the lock that was left in it, and leaves nothing behind. One that is not there is nobody's.
pub fn take(directory: &Path) -> io::Result<Taken> {
    let itself = match File::open(directory) {
        Ok(itself) => itself,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Taken::Here(Vec::new())),
        Err(error) => return Err(error),
    };
    let mut held = Vec::new();
    match OpenOptions::new().read(true).write(true).open(directory.join(FILE)) {
        Ok(file) if !is_ours(&file)? => return Ok(Taken::Elsewhere),
        Ok(file) => held.push(file),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match is_ours(&itself) {
        Ok(false) => return Ok(Taken::Elsewhere),
        Ok(true) => held.push(itself),
        // Over a network directories may have no locks.
        Err(_) => {}
    }
    Ok(Taken::Here(held))
}

/// The same, with a lock in it for all file systems.
pub fn make(directory: &Path) -> io::Result<Taken> {
    OpenOptions::new().write(true).create(true).truncate(false).open(directory.join(FILE))?;
    take(directory)
}

fn is_ours(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The process that holds the lock of a directory, as far as the system tells. It is not disturbed by the question.
pub fn holder(directory: &Path) -> Option<u32> {
    let locks = [directory.join(FILE), directory.to_owned()];
    let processes = Path::new("/proc").read_dir().ok()?.flatten();
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.find(|number| holds(*number, &locks))
}

fn holds(process: u32, locks: &[PathBuf]) -> bool {
    let of_process = PathBuf::from(format!("/proc/{process}"));
    // Of a process that has ended meanwhile, or is another user's, nothing is told.
    let Ok(opened) = of_process.join("fd").read_dir() else { return false };
    opened.flatten().any(|descriptor| {
        let told = of_process.join("fdinfo").join(descriptor.file_name());
        descriptor.path().read_link().is_ok_and(|target| locks.contains(&target))
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
        let Taken::Here(held) = take(&path).unwrap() else { panic!("nobody has it") };
        assert_eq!((held.len(), path.join(FILE).exists()), (1, false), "it leaves nothing behind");
        drop(held);
        let file = File::create(path.join(FILE)).unwrap();
        assert_eq!(holder(&path), None, "an open file is no lock");
        drop(file);
        let Taken::Here(held) = make(&path).unwrap() else { panic!("nobody has it") };
        for _ in 0..2 {
            assert_eq!(holder(&path), Some(std::process::id()));
            assert!(matches!(take(&path).unwrap(), Taken::Elsewhere));
            assert!(matches!(make(&path).unwrap(), Taken::Elsewhere));
            // The second time without what says that it is held.
            std::fs::remove_file(path.join(FILE)).unwrap();
        }
        drop(held);
        assert_eq!(holder(&path), None);
        assert!(matches!(take(&path).unwrap(), Taken::Here(_)));
        assert!(matches!(take(&path.join("none")).unwrap(), Taken::Here(held) if held.is_empty()));
    }
}
