//! `chronik-sim`: runs scenarios, sweeps seeds, replays records, and says with its exit status what came of it.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
