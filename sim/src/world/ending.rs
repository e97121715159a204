//! How processes end.

use io_backend::ExitStatus;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its program returned or called exit.
    Exited(ExitStatus, String),
    Killed,
    PowerLost,
}

/// One process's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub machine: String,
    pub incarnation: u64,
    pub at: u64,
    pub cause: Cause,
}
