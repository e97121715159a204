//! `chronik dev`: a cluster on one machine, each node a process of this binary with a configuration file of its own, so that
//! one can be killed and started again by hand.

#![allow(
    clippy::disallowed_types,
    reason = "the command line makes files before there is a node, and has no backend"
)]

use std::fs;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus as ChildStatus, Stdio};
use std::time::Duration;

use clap::Args;
use io_backend::ExitStatus;

use crate::stop::{STOP_DEADLINE, StopSignals};

/// How often it is looked whether a node is ready, or has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between the ports of one node and the next.
const PORTS_APART: u16 = 10;
/// A node of a cluster to try out has less of the machine's memory, and smaller journal files, than one that has it alone.
const MEMORY: &str = "128 MiB";

#[derive(Args)]
pub struct Dev {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Port of the first node for Kafka clients; its next two are for the other nodes and for metrics, and each further
    /// node has its ports ten above
    #[arg(long, value_name = "PORT", default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: u16,
    /// Directory of all nodes; what is in it is used again [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// One node of the cluster.
struct Node {
    number: u16,
    directory: PathBuf,
    port: u16,
    process: Child,
    ended: Option<ChildStatus>,
}

/// Where everything is; a temporary directory is removed with this.
struct Home {
    path: PathBuf,
    is_temporary: bool,
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("chronik: {} stays: {error}", self.path.display());
        }
    }
}

impl Dev {
    /// Runs until it is told to stop, or no node runs any more.
    pub fn run(&self) -> ExitStatus {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return failed("cannot start", &error),
        };
        runtime.block_on(self.run_nodes())
    }

    async fn run_nodes(&self) -> ExitStatus {
        let mut stop = match StopSignals::listen() {
            Ok(stop) => stop,
            Err(error) => return failed("cannot listen for SIGTERM and SIGINT", &error),
        };
        let home = match self.home() {
            Ok(home) => home,
            Err(error) => return failed("cannot use the directory", &error),
        };
        let mut nodes = Vec::new();
        let mut status = ExitStatus::Clean;
        for number in 1..=self.nodes {
            match self.start(&home.path, number) {
                Ok(node) => nodes.push(node),
                Err(error) => {
                    status = failed(&format!("cannot start node {number}"), &error);
                    break;
                }
            }
        }
        if status == ExitStatus::Clean {
            status = watch(&mut nodes, &mut stop).await;
        }
        end(&mut nodes, &mut stop).await;
        status
    }

    fn home(&self) -> std::io::Result<Home> {
        let (path, is_temporary) = match &self.data_dir {
            Some(path) => (path.clone(), false),
            None => (std::env::temp_dir().join(format!("chronik-dev-{}", std::process::id())), true),
        };
        // The secret is in it.
        fs::DirBuilder::new().recursive(!is_temporary).mode(0o700).create(&path)?;
        let path = path.canonicalize()?;
        let home = Home { path, is_temporary };
        let file = home.path.join(SECRET_FILE);
        if !file.exists() {
            let mut random = [0u8; 32];
            fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
            let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            let created = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
            writeln!(created?, "{secret}")?;
        }
        Ok(home)
    }

    fn start(&self, home: &Path, number: u16) -> std::io::Result<Node> {
        let directory = home.join(format!("node-{number}"));
        fs::create_dir_all(&directory)?;
        fs::write(configuration_file(&directory), self.configuration(home, number))?;
        let log = fs::File::create(log_file(&directory))?;
        let process = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--config")
            .arg(configuration_file(&directory))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Node { number, directory, port: self.port_of(number), process, ended: None })
    }

    fn port_of(&self, number: u16) -> u16 {
        self.port + PORTS_APART * (number - 1)
    }

    /// The nodes share the cores: with all of them each, threads wait for one another's turn.
    fn worker_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        (cores / usize::from(self.nodes)).max(1)
    }

    fn configuration(&self, home: &Path, number: u16) -> String {
        let peer = |number: u16| format!("{number}@127.0.0.1:{}", self.port_of(number) + 1);
        let peers: Vec<String> = (1..=self.nodes).map(peer).collect();
        let port = self.port_of(number);
        let text = |path: &Path| toml::Value::String(path.display().to_string());
        format!(
            "node_id = {number}\n\
             data_dir = {data}\n\
             listen = \"127.0.0.1:{port}\"\n\
             cluster = \"127.0.0.1:{cluster}\"\n\
             admin = \"127.0.0.1:{admin}\"\n\
             cluster.peers = \"{peers}\"\n\
             cluster.secret_file = {secret}\n\
             memory.bytes = \"{MEMORY}\"\n\
             server.worker_threads = {threads}\n",
            data = text(&home.join(format!("node-{number}")).join("data")),
            threads = self.worker_threads(),
            cluster = port + 1,
            admin = port + 2,
            peers = peers.join(","),
            secret = text(&home.join(SECRET_FILE)),
        )
    }
}

const SECRET_FILE: &str = "secret";

fn configuration_file(directory: &Path) -> PathBuf {
    directory.join("chronik.toml")
}

fn log_file(directory: &Path) -> PathBuf {
    directory.join("log")
}

fn failed(what: &str, error: &std::io::Error) -> ExitStatus {
    eprintln!("chronik: {what}: {error}");
    match error.kind() {
        std::io::ErrorKind::AddrInUse => ExitStatus::Network,
        _ => ExitStatus::Other,
    }
}

/// Until it is told to stop, or all have ended. A node that ends before all are ready ends the whole.
async fn watch(nodes: &mut [Node], stop: &mut StopSignals) -> ExitStatus {
    let mut is_told = false;
    loop {
        tokio::select! {
            biased;
            _ = stop.received() => return ExitStatus::Clean,
            () = pause() => {}
        }
        for node in nodes.iter_mut().filter(|node| node.ended.is_none()) {
            if let Ok(Some(status)) = node.process.try_wait() {
                node.ended = Some(status);
                println!("node {} has ended: {status}. It is started again with", node.number);
                println!("  chronik serve --config {}", configuration_file(&node.directory).display());
                if !is_told {
                    eprintln!(
                        "chronik: node {} did not come to be ready:\n{}",
                        node.number,
                        node.last_lines()
                    );
                    return ExitStatus::Other;
                }
            }
        }
        if !is_told && nodes.iter().all(Node::is_ready) {
            is_told = true;
            tell(nodes);
        }
        if nodes.iter().all(|node| node.ended.is_some()) {
            eprintln!("chronik: no node runs any more");
            return ExitStatus::Other;
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the command line waits for processes, and has no backend")]
async fn pause() {
    tokio::time::sleep(LOOK_EVERY).await;
}

fn tell(nodes: &[Node]) {
    println!("{:<6}{:<18}{:<18}{:<10}directory", "node", "kafka", "admin", "process");
    for node in nodes {
        println!(
            "{:<6}{:<18}{:<18}{:<10}{}",
            node.number,
            format!("127.0.0.1:{}", node.port),
            format!("127.0.0.1:{}", node.port + 2),
            node.process.id(),
            node.directory.display()
        );
    }
    let bootstrap: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    println!("chronik dev ready: {}. Ctrl-C stops all of them.", bootstrap.join(","));
}

/// Asks all that run to stop, the last first, and waits for them; who takes too long is killed.
async fn end(nodes: &mut [Node], stop: &mut StopSignals) {
    for node in nodes.iter_mut().rev() {
        node.ask_to_stop();
    }
    // A little more than a node takes for it.
    let mut looks = 2 * STOP_DEADLINE.as_millis() / LOOK_EVERY.as_millis();
    while nodes.iter_mut().any(|node| node.runs()) {
        looks = looks.saturating_sub(1);
        let hurried = tokio::select! {
            biased;
            _ = stop.received() => true,
            () = pause() => false,
        };
        if hurried || looks == 0 {
            for node in nodes.iter_mut().filter(|node| node.ended.is_none()) {
                let _ = node.process.kill();
            }
        }
    }
}

impl Node {
    /// It has said so.
    fn is_ready(&self) -> bool {
        fs::read_to_string(log_file(&self.directory)).is_ok_and(|log| log.contains("chronik ready:"))
    }

    fn runs(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    fn ask_to_stop(&mut self) {
        if self.runs()
            && let Ok(process) = libc::pid_t::try_from(self.process.id())
        {
            // SAFETY: a signal to a child that has not been waited for, so its number is nobody else's.
            unsafe { libc::kill(process, libc::SIGTERM) };
        }
    }

    fn last_lines(&self) -> String {
        let log = fs::read_to_string(log_file(&self.directory)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use broker::config::Config;

    use super::*;

    #[test]
    fn the_configurations_of_the_nodes_hold_together() {
        let dev = Dev { nodes: 3, port: 9092, data_dir: None };
        let home = Path::new("/tmp/a \"home\"");
        for number in 1..=3 {
            let text = dev.configuration(home, number);
            let path = PathBuf::from("chronik.toml");
            let config = Config::assemble(Some((path, text.as_str())), std::iter::empty(), Vec::new());
            let config = config.unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(config.node_id.0, i32::from(number));
            assert_eq!(config.peers.others(config.node_id).count(), 2);
            assert!(config.data_dir.starts_with(home));
        }
        assert_eq!((dev.port_of(1), dev.port_of(3)), (9092, 9112));
    }
}
