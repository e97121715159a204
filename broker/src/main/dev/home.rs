//! The directory of all nodes, which belongs to one process. A temporary one goes at the end, unless somebody still needs it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::lock::{self, Taken};
use super::said::{Refused, warn};

const SECRET_FILE: &str = "secret";

pub struct Home {
    pub path: PathBuf,
    is_temporary: bool,
    /// Of the directory itself.
    _lock: Vec<fs::File>,
}

impl Home {
    /// The directory that was asked for, or a new one that is temporary. Where another process or a node runs in it, nothing
    /// of it is changed.
    pub fn open(asked: Option<&Path>) -> Result<Home, Refused> {
        let home = match asked {
            Some(path) => {
                let opened = directory(true).create(path).and_then(|()| path.canonicalize());
                Home::locked(opened.map_err(|error| Refused::directory(path, error))?, false)?
            }
            None => Home::locked(temporary()?, true)?,
        };
        let is_free = home.take_all().map(drop).map_err(|why| Refused::in_use(&home.path, why));
        let made =
            is_free.and_then(|()| home.make_secret().map_err(|error| Refused::directory(&home.path, error)));
        match made {
            Ok(()) => Ok(home),
            Err(refused) => {
                home.close(None, "chronik dev");
                Err(refused)
            }
        }
    }

    fn locked(path: PathBuf, is_temporary: bool) -> Result<Home, Refused> {
        match lock::make(&path) {
            Ok(Taken::Here(lock)) => Ok(Home { path, is_temporary, _lock: lock }),
            Ok(Taken::Elsewhere) => {
                let by = told(lock::holder(&path));
                Err(Refused::in_use(&path, format!("another `chronik dev`{by} has it")))
            }
            Err(error) => Err(Refused::directory(&path, error)),
        }
    }

    pub fn secret(&self) -> PathBuf {
        self.path.join(SECRET_FILE)
    }

    /// Of a node.
    pub fn directory(&self, number: u16) -> PathBuf {
        self.path.join(format!("node-{number}"))
    }

    fn make_secret(&self) -> io::Result<()> {
        let file = self.secret();
        if !file.exists() {
            let mut random = [0u8; 32];
            fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
            let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            let created = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
            writeln!(created?, "{secret}")?;
        }
        Ok(())
    }

    /// Removes it if it is temporary and no node runs in it; `needed` is for what else it has to stay. How one goes on with it
    /// is said by `again`.
    pub fn close(self, needed: Option<String>, again: &str) {
        if !self.is_temporary {
            return;
        }
        let path = self.path.display();
        match needed.map_or_else(|| self.take_all(), Err) {
            // As long as they are held, no node starts in it.
            Ok(locks) => {
                if let Err(error) = fs::remove_dir_all(&self.path) {
                    warn(&format!("{path} stays: {error}"));
                }
                drop(locks);
            }
            Err(why) => warn(&format!(
                "{path} is kept, for {why}. `{again} --data-dir {path}` goes on with it, and `rm -r {path}` removes it"
            )),
        }
    }

    /// The locks of the data of all nodes there ever were, or why they cannot be had.
    fn take_all(&self) -> Result<Vec<fs::File>, String> {
        let unknown = |error: io::Error| format!("nobody can tell whether a node runs in it ({error})");
        let mut locks = Vec::new();
        for entry in self.path.read_dir().map_err(unknown)? {
            let data = entry.map_err(unknown)?.path().join("data");
            match lock::take(&data) {
                Ok(Taken::Here(held)) => locks.extend(held),
                Ok(Taken::Elsewhere) => {
                    return Err(format!("a node{} runs in {}", told(lock::holder(&data)), data.display()));
                }
                // A file beside the nodes has no directory below it.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
                Err(error) => return Err(unknown(error)),
            }
        }
        Ok(locks)
    }
}

fn told(process: Option<u32>) -> String {
    process.map(|process| format!(" (process {process})")).unwrap_or_default()
}

/// The secret is in it.
fn directory(is_made_with_parents: bool) -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(is_made_with_parents).mode(0o700);
    builder
}

/// A new one: those of others stay, which an earlier process of this number may have left.
fn temporary() -> Result<PathBuf, Refused> {
    let mut name = format!("chronik-dev-{}", std::process::id());
    loop {
        let path = std::env::temp_dir().join(&name);
        match directory(false).create(&path).and_then(|()| path.canonicalize()) {
            Ok(path) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => name.push('+'),
            Err(error) => return Err(Refused::directory(&path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary_home() -> Home {
        let path = tempfile::tempdir().unwrap().keep();
        let home = Home::locked(path.canonicalize().unwrap(), true).unwrap();
        home.make_secret().unwrap();
        fs::create_dir_all(home.directory(1).join("data")).unwrap();
        fs::write(home.directory(1).join("data/LOCK"), "").unwrap();
        home
    }

    #[test]
    fn a_temporary_directory_goes_when_nobody_needs_it() {
        let home = temporary_home();
        let path = home.path.clone();
        home.close(None, "chronik dev");
        assert!(!path.exists());
    }

    #[test]
    fn a_temporary_directory_stays_below_a_node_that_runs_in_it_and_for_one_that_is_to_be_started_again() {
        let home = temporary_home();
        let path = home.path.clone();
        let Taken::Here(running) = lock::take(&home.directory(1).join("data")).unwrap() else { panic!() };
        let why = home.take_all().unwrap_err();
        assert!(why.contains(&format!("a node (process {}) runs in ", std::process::id())), "{why}");
        home.close(None, "chronik dev");
        assert!(path.join("node-1/data/LOCK").exists());
        drop(running);
        let home = Home::locked(path.clone(), true).unwrap();
        home.close(Some("node 1 ended by itself".into()), "chronik dev");
        assert!(path.exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_directory_that_was_asked_for_stays() {
        let directory = tempfile::tempdir().unwrap();
        Home::open(Some(directory.path())).unwrap().close(None, "chronik dev");
        assert!(directory.path().join(SECRET_FILE).exists());
    }

    #[test]
    fn a_directory_in_use_is_refused_and_left_as_it_is() {
        let home = temporary_home();
        let refused = Home::open(Some(&home.path)).err().unwrap();
        assert!(refused.what.contains("another `chronik dev` (process "), "{refused:?}");
        assert_eq!(refused.status as i32, 3);
        // What runs it was killed, and the nodes were not.
        let path = home.path.clone();
        fs::remove_file(home.secret()).unwrap();
        let Taken::Here(running) = lock::take(&home.directory(1).join("data")).unwrap() else { panic!() };
        drop(home);
        let refused = Home::open(Some(&path)).err().unwrap();
        assert!(refused.what.contains("node-1/data. Stop what runs in it, or choose"), "{refused:?}");
        assert!(!path.join(SECRET_FILE).exists(), "it has written before it asked");
        drop(running);
        Home::open(Some(&path)).unwrap();
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let refused = Home::open(Some(Path::new("/dev/null/cluster"))).err().unwrap();
        assert!(refused.what.contains("/dev/null/cluster: "), "{refused:?}");
        assert_eq!(refused.status as i32, 3);
    }
}
