//! One node: its files, its process, and the one that somebody has started in its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use io_backend::ExitStatus as OurStatus;

use super::lock;
use super::said::Refused;

pub struct Node {
    pub number: u16,
    pub port: u16,
    pub directory: PathBuf,
    process: Child,
    ended: Option<ExitStatus>,
    /// It ended, and nobody here had asked it to.
    pub is_lost: bool,
    /// A process that was started by hand after this one, and that was asked to stop.
    again: Option<u32>,
}

impl Node {
    pub fn start(directory: PathBuf, number: u16, port: u16, configuration: &str) -> Result<Node, Refused> {
        let log = fs::create_dir_all(&directory)
            .and_then(|()| fs::write(configuration_file(&directory), configuration))
            .and_then(|()| fs::File::create(log_file(&directory)))
            .map_err(|error| Refused::directory(&directory, error))?;
        let process = spawned(&directory, log)
            .map_err(|error| Refused::other(&format!("cannot start node {number}"), &error))?;
        Ok(Node { number, port, directory, process, ended: None, is_lost: false, again: None })
    }

    pub fn process(&self) -> u32 {
        self.process.id()
    }

    pub fn configuration(&self) -> PathBuf {
        configuration_file(&self.directory)
    }

    /// It has said so.
    pub fn is_ready(&self) -> bool {
        fs::read_to_string(log_file(&self.directory)).is_ok_and(|log| log.contains("chronik ready:"))
    }

    /// How the process ended that was started here; nothing as long as it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().ok().flatten();
        }
        self.ended
    }

    /// The process that somebody has started where this one ended.
    pub fn successor(&mut self) -> Option<u32> {
        self.ended().and_then(|_| lock::holder(&self.directory.join("data")))
    }

    /// Asks whichever process runs; it is returned if it was started by hand.
    pub fn ask_to_stop(&mut self) -> Option<u32> {
        if self.ended().is_none() {
            signal(self.process.id(), libc::SIGTERM);
            return None;
        }
        self.again = self.successor();
        if let Some(process) = self.again {
            signal(process, libc::SIGTERM);
        }
        self.again
    }

    /// After it was asked: whether it has ended.
    pub fn has_stopped(&mut self) -> bool {
        if self.ended().is_none() || (self.again.is_some() && self.successor() == self.again) {
            return false;
        }
        if self.again.take().is_some() {
            self.is_lost = false;
        }
        true
    }

    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.process.kill();
        } else if let Some(process) = self.again.filter(|process| self.successor() == Some(*process)) {
            signal(process, libc::SIGKILL);
        }
    }

    /// Of a node that ended before it was ready: what it said last, and its own status.
    pub fn refused(&self, ended: ExitStatus) -> Refused {
        let log = fs::read_to_string(log_file(&self.directory)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n");
        let mut what = format!("node {} did not come to be ready ({ended}):\n{last}", self.number);
        // What it names is a flag of `chronik serve`.
        if last.contains("cannot listen on") {
            what.push_str("\nchronik: `chronik dev` chooses other addresses with --port");
        }
        Refused { what, status: passed_on(ended) }
    }
}

fn passed_on(ended: ExitStatus) -> OurStatus {
    use OurStatus::{Configuration, DataDirectory, Network, StorageNotTrusted, StorageStalled};
    let known = [Configuration, DataDirectory, Network, StorageNotTrusted, StorageStalled];
    let same = known.into_iter().find(|status| ended.code() == Some(*status as i32));
    same.unwrap_or(OurStatus::Other)
}

fn spawned(directory: &Path, log: fs::File) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg("serve")
        .arg("--config")
        .arg(configuration_file(directory))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// To a child that has not been waited for, or to who was just seen to hold a lock: its number is nobody else's.
fn signal(process: u32, signal: libc::c_int) {
    if let Ok(process) = libc::pid_t::try_from(process) {
        // SAFETY: takes no pointers.
        unsafe { libc::kill(process, signal) };
    }
}

fn configuration_file(directory: &Path) -> PathBuf {
    directory.join("chronik.toml")
}

fn log_file(directory: &Path) -> PathBuf {
    directory.join("log")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_status_of_a_node_is_passed_on() {
        for (raw, status) in
            [(4 << 8, OurStatus::Network), (3 << 8, OurStatus::DataDirectory), (9, OurStatus::Other)]
        {
            assert_eq!(passed_on(ExitStatus::from_raw(raw)), status);
        }
        assert_eq!(passed_on(ExitStatus::from_raw(0)), OurStatus::Other, "a node that ended is no success");
    }
}
