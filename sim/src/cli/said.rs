//! What a command says on stdout.

use std::io::{self, ErrorKind, Write};

use super::CommandError;

/// Lines, the last one with its end or without. That nobody reads it any more (`| head`) is no failure: the files that were asked for are still written,
/// and the status is that of what was found.
pub(super) fn say(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    let mut written = stdout.write_all(text.as_bytes());
    if written.is_ok() && !text.ends_with('\n') {
        written = stdout.write_all(b"\n");
    }
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CommandError::Output(error)),
        _ => Ok(()),
    }
}
