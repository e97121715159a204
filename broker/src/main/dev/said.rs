//! What `chronik dev` says. Nodes run below it: an output that nobody reads any more is no reason to leave them.

use std::io::{self, Write};

pub fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

pub fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "chronik: {text}");
}
