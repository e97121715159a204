//! The commands for people, and for scripts: each asks a cluster by the client beside this, and tells what it heard as a table, or
//! with `--json` under names that stay.
//!
//! What was asked for goes to stdout, all else to stderr. Exit status: 0 it was done, 1 it was not, or not all of it, 2 it was not
//! asked for rightly.

mod output;
mod arguments;
mod names;
mod configs;
mod topics;
mod lag;
mod reset;
mod groups;
mod cluster;
mod lines;
mod input;
mod produce;
mod consume;

pub use cluster::Cluster;
pub use configs::Configs;
pub use consume::Consume;
pub use groups::Groups;
pub use output::say;
pub use produce::Produce;
pub use topics::Topics;

use io_backend::ExitStatus;

use crate::client::Failure;

/// How the process ends after a command.
pub fn end(done: Result<(), Failure>) -> ExitStatus {
    match done {
        Ok(()) => ExitStatus::Clean,
        Err(failure) if failure.is_broken_pipe() => ExitStatus::Clean,
        Err(failure) => {
            output::warn(&failure.to_string());
            if failure.is_usage() { ExitStatus::Configuration } else { ExitStatus::Other }
        }
    }
}
