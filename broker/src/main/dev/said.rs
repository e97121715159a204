//! What `chronik dev` says. Nodes run below it: an output that nobody reads any more is no reason to leave them.

use std::io::{self, Write};
use std::path::Path;

use io_backend::ExitStatus;

/// Why there is no cluster: what is said of it, and how the process ends.
#[derive(Debug)]
pub struct Refused {
    pub what: String,
    pub status: ExitStatus,
}

impl Refused {
    /// It cannot be written, or made.
    pub fn directory(path: &Path, why: impl std::fmt::Display) -> Refused {
        Refused::of_directory(path, why, "Choose another one with --data-dir")
    }

    /// Somebody has it, or may have it.
    pub fn in_use(path: &Path, why: impl std::fmt::Display) -> Refused {
        Refused::of_directory(path, why, "Stop what runs in it, or choose another one with --data-dir")
    }

    fn of_directory(path: &Path, why: impl std::fmt::Display, advice: &str) -> Refused {
        Refused {
            what: format!("cannot use the directory {}: {why}. {advice}", path.display()),
            status: ExitStatus::DataDirectory,
        }
    }

    pub fn other(what: &str, error: &io::Error) -> Refused {
        Refused { what: format!("{what}: {error}"), status: ExitStatus::Other }
    }
}

pub fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

pub fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "chronik: {text}");
}
