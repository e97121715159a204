//! `chronik dev`: a cluster on one machine, each node a process of this binary with a configuration file of its own, so that
//! one can be killed and started again by hand. Such a one is waited for, and stopped, as those that were started here.

#![allow(
    clippy::disallowed_types,
    reason = "the command line makes files before there is a node, and has no backend"
)]

mod said;
mod lock;
mod home;
mod node;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use io_backend::ExitStatus;

use crate::stop::{STOP_DEADLINE, StopSignals};
use home::Home;
use node::Node;
use said::{say, warn};

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
    /// Directory of all nodes; what is in it is used again [default: a temporary one, removed at the end unless a node in it
    /// runs, or ended by itself]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
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
        let home = match Home::open(self.data_dir.as_deref()) {
            Ok(home) => home,
            Err(error) => return failed("cannot use the directory", &error),
        };
        let mut nodes = Vec::new();
        let mut status = ExitStatus::Clean;
        for number in 1..=self.nodes {
            let configuration = self.configuration(&home, number);
            match Node::start(home.directory(number), number, self.port_of(number), &configuration) {
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
        home.close(lost(&nodes), &self.again());
        status
    }

    /// This command, but for the directory.
    fn again(&self) -> String {
        format!("chronik dev --nodes {} --port {}", self.nodes, self.port)
    }

    fn port_of(&self, number: u16) -> u16 {
        self.port + PORTS_APART * (number - 1)
    }

    /// The nodes share the cores: with all of them each, threads wait for one another's turn.
    fn worker_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        (cores / usize::from(self.nodes)).max(1)
    }

    fn configuration(&self, home: &Home, number: u16) -> String {
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
            data = text(&home.directory(number).join("data")),
            threads = self.worker_threads(),
            cluster = port + 1,
            admin = port + 2,
            peers = peers.join(","),
            secret = text(&home.secret()),
        )
    }
}

fn failed(what: &str, error: &std::io::Error) -> ExitStatus {
    warn(&format!("{what}: {error}"));
    match error.kind() {
        std::io::ErrorKind::AddrInUse => ExitStatus::Network,
        _ => ExitStatus::Other,
    }
}

/// Until it is told to stop, or all have ended, those that were started by hand included. A node that ends before all are
/// ready ends the whole.
async fn watch(nodes: &mut [Node], stop: &mut StopSignals) -> ExitStatus {
    let mut is_told = false;
    let mut is_by_hand = false;
    while !is_told_to_stop(stop).await {
        if nodes.iter_mut().any(|node| !node.is_lost && node.ended().is_some()) {
            // Ctrl-C goes to the nodes as well: who ended by it is not lost, and it is here by now.
            if is_told_to_stop(stop).await {
                break;
            }
            for node in nodes.iter_mut() {
                tell_end(node);
            }
            if !is_told && let Some(node) = nodes.iter().find(|node| node.is_lost) {
                let lines = node.last_lines();
                warn(&format!("node {} did not come to be ready:\n{lines}", node.number));
                return ExitStatus::Other;
            }
        }
        if !is_told && nodes.iter().all(Node::is_ready) {
            is_told = true;
            tell(nodes);
        }
        if nodes.iter().all(|node| node.is_lost) {
            if !nodes.iter_mut().any(|node| node.successor().is_some()) {
                warn("no node runs any more");
                return ExitStatus::Other;
            }
            if !is_by_hand {
                is_by_hand = true;
                let by_hand: Vec<String> = nodes.iter_mut().filter_map(by_hand).collect();
                say(&format!("what runs was started by hand, and is waited for: {}", by_hand.join(", ")));
            }
        }
    }
    ExitStatus::Clean
}

/// Within a short time.
#[allow(clippy::disallowed_methods, reason = "the command line waits for processes, and has no backend")]
async fn is_told_to_stop(stop: &mut StopSignals) -> bool {
    tokio::select! {
        biased;
        _ = stop.received() => true,
        () = tokio::time::sleep(LOOK_EVERY) => false,
    }
}

/// Once, of a node that has ended.
fn tell_end(node: &mut Node) {
    if !node.is_lost
        && let Some(status) = node.ended()
    {
        node.is_lost = true;
        say(&format!(
            "node {} has ended: {status}. It is started again with\n  chronik serve --config {}",
            node.number,
            node.configuration().display()
        ));
    }
}

fn by_hand(node: &mut Node) -> Option<String> {
    let process = node.successor()?;
    Some(format!("node {} (process {process})", node.number))
}

fn tell(nodes: &[Node]) {
    say(&format!("{:<6}{:<18}{:<18}{:<10}directory", "node", "kafka", "admin", "process"));
    for node in nodes {
        say(&format!(
            "{:<6}{:<18}{:<18}{:<10}{}",
            node.number,
            format!("127.0.0.1:{}", node.port),
            format!("127.0.0.1:{}", node.port + 2),
            node.process(),
            node.directory.display()
        ));
    }
    let bootstrap: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    say(&format!("chronik dev ready: {}. Ctrl-C stops all of them.", bootstrap.join(",")));
}

/// Asks all that run to stop, the last first, and waits for them; who takes too long is killed.
async fn end(nodes: &mut [Node], stop: &mut StopSignals) {
    for node in nodes.iter_mut().rev() {
        if let Some(process) = node.ask_to_stop() {
            say(&format!(
                "node {} was started by hand, as process {process}: it is stopped as well",
                node.number
            ));
        }
    }
    // A little more than a node takes for it.
    let mut looks = 2 * STOP_DEADLINE.as_millis() / LOOK_EVERY.as_millis();
    while !nodes.iter_mut().all(Node::has_stopped) {
        looks = looks.saturating_sub(1);
        if is_told_to_stop(stop).await || looks == 0 {
            nodes.iter_mut().for_each(Node::kill);
        }
    }
}

/// Those that have ended by themselves, and do not run again.
fn lost(nodes: &[Node]) -> Option<String> {
    let lost = nodes.iter().filter(|node| node.is_lost);
    let lost: Vec<String> = lost.map(|node| format!("node {}", node.number)).collect();
    (!lost.is_empty()).then(|| format!("{} ended by itself", lost.join(", ")))
}

#[cfg(test)]
mod tests {
    use broker::config::Config;

    use super::*;

    #[test]
    fn the_configurations_of_the_nodes_hold_together() {
        let dev = Dev { nodes: 3, port: 9092, data_dir: None };
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(Some(&directory.path().join("a \"home\""))).unwrap();
        for number in 1..=3 {
            let text = dev.configuration(&home, number);
            let path = PathBuf::from("chronik.toml");
            let config = Config::assemble(Some((path, text.as_str())), std::iter::empty(), Vec::new());
            let config = config.unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(config.node_id.0, i32::from(number));
            assert_eq!(config.peers.others(config.node_id).count(), 2);
            assert!(config.data_dir.starts_with(&home.path));
        }
        assert_eq!((dev.port_of(1), dev.port_of(3)), (9092, 9112));
    }
}
