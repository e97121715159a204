//! The disks there are, and what an operator may ask for.

use std::fmt;
use std::str::FromStr;

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskChoice {
    /// The faster of the two, measured on the data directory.
    #[default]
    Auto,
    /// io_uring.
    Uring,
    /// Blocking calls.
    Threads,
}

impl FromStr for DiskChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DiskChoice, String> {
        match text {
            "auto" => Ok(DiskChoice::Auto),
            "uring" => Ok(DiskChoice::Uring),
            "threads" => Ok(DiskChoice::Threads),
            other => Err(format!("unknown disk {other:?}: auto, uring or threads")),
        }
    }
}

impl fmt::Display for DiskChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskChoice::Auto => "auto",
            DiskChoice::Uring => "uring",
            DiskChoice::Threads => "threads",
        })
    }
}

/// What is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskKind {
    /// io_uring, driven by threads of its own.
    Uring,
    /// Blocking calls on threads that may block.
    Threads,
}

impl fmt::Display for DiskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskKind::Uring => "uring",
            DiskKind::Threads => "threads",
        })
    }
}
