//! Child processes that `compare` measures: the echo server and brokers under test, stopped when dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const READY_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// A running server and the line it announced itself with.
pub struct Server {
    child: Child,
    data_dir: Option<PathBuf>,
    pub ready_line: String,
}

impl Server {
    /// The bare echo, as a process of its own.
    pub fn echo() -> Result<(Self, String)> {
        let this = std::env::current_exe()?;
        let server = Self::start(Command::new(this).args(["echo-server", "127.0.0.1:0"]), None)?;
        let address = server
            .ready_line
            .strip_prefix("echo ready: ")
            .context("the echo server did not say where it listens")?
            .to_owned();
        Ok((server, address))
    }

    /// A chronik on free ports with a fresh data directory below `parent`.
    pub fn chronik(binary: &Path, disk: &str, parent: &Path) -> Result<(Self, String)> {
        let name = format!("chronik-bench-{}-{disk}", std::process::id());
        let data_dir = parent.join(name);
        std::fs::create_dir_all(&data_dir)?;
        let log = std::fs::File::create(data_dir.with_extension("log"))?;
        let mut command = Command::new(binary);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(data_dir.join("data"))
            .args(["--listen", "127.0.0.1:0", "--cluster", "127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0", "--disk", disk])
            .stderr(log);
        let server = Self::start(&mut command, Some(data_dir))
            .with_context(|| format!("starting {} --disk {disk}", binary.display()))?;
        let address = kafka_address(&server.ready_line)
            .with_context(|| format!("no Kafka address in {:?}", server.ready_line))?;
        Ok((server, address))
    }

    fn start(command: &mut Command, data_dir: Option<PathBuf>) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("running {:?}", command.get_program()))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let (send, receive) = mpsc::channel();
        // Reads on after the ready line, so that the child never meets a closed pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut server = Self { child, data_dir, ready_line: String::new() };
        let until = Instant::now() + READY_DEADLINE;
        while !server.ready_line.contains("ready:") {
            match receive.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => server.ready_line = line,
                Err(_) => {
                    let end = server.child.try_wait()?;
                    bail!("no ready line on stdout within {READY_DEADLINE:?} (ended: {end:?})");
                }
            }
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM first: a broker stops cleanly. `Child::kill` is the fallback.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let until = Instant::now() + STOP_DEADLINE;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(data_dir) = &self.data_dir {
            let _ = std::fs::remove_dir_all(data_dir);
            let _ = std::fs::remove_file(data_dir.with_extension("log"));
        }
    }
}

fn kafka_address(ready_line: &str) -> Option<String> {
    let (_, rest) = ready_line.split_once("kafka ")?;
    Some(rest.split_once(',')?.0.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kafka_address_is_read_from_the_ready_line() {
        let line = "chronik ready: kafka 127.0.0.1:40123, admin 127.0.0.1:9094, node 1, data ./d, disk uring";
        assert_eq!(kafka_address(line).as_deref(), Some("127.0.0.1:40123"));
        assert_eq!(kafka_address("chronik starting"), None);
    }
}
