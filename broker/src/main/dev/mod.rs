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

use std::net::TcpListener;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use io_backend::ExitStatus;

use crate::stop::{STOP_DEADLINE, StopSignals};
use home::Home;
use node::Node;
use said::{Refused, say, warn};

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
            Err(error) => return refused(&Refused::other("cannot start", &error)),
        };
        match runtime.block_on(self.run_nodes()) {
            Ok(status) => status,
            Err(why) => refused(&why),
        }
    }

    async fn run_nodes(&self) -> Result<ExitStatus, Refused> {
        let mut stop = StopSignals::listen()
            .map_err(|error| Refused::other("cannot listen for SIGTERM and SIGINT", &error))?;
        self.check_ports()?;
        let home = Home::open(self.data_dir.as_deref())?;
        let mut nodes = Vec::new();
        let status = match self.run_in(&home, &mut nodes, &mut stop).await {
            Ok(status) => status,
            // At once: it may take the others a while to end.
            Err(why) => refused(&why),
        };
        end(&mut nodes, &mut stop).await;
        home.close(lost(&nodes), &self.again());
        Ok(status)
    }

    async fn run_in(
        &self,
        home: &Home,
        nodes: &mut Vec<Node>,
        stop: &mut StopSignals,
    ) -> Result<ExitStatus, Refused> {
        for number in 1..=self.nodes {
            let configuration = self.configuration(home, number);
            nodes.push(Node::start(home.directory(number), number, self.port_of(number), &configuration)?);
        }
        if !are_ready(nodes, stop).await? {
            return Ok(ExitStatus::Clean);
        }
        tell(nodes);
        Ok(watch(nodes, stop).await)
    }

    /// A node would name the flag of `chronik serve`, which is none here.
    fn check_ports(&self) -> Result<(), Refused> {
        for number in 1..=self.nodes {
            let port = self.port_of(number);
            for (port, purpose) in [(port, "Kafka clients"), (port + 1, "other nodes"), (port + 2, "metrics")]
            {
                if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
                    return Err(Refused {
                        what: format!(
                            "cannot listen on 127.0.0.1:{port} for {purpose} of node {number}: {error}. Choose other \
                             ports with --port, or stop what uses this one"
                        ),
                        status: ExitStatus::Network,
                    });
                }
            }
        }
        Ok(())
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

fn refused(why: &Refused) -> ExitStatus {
    warn(&why.what);
    why.status
}

/// Whether all have come to be ready: not if it is told to stop before. A node that ends meanwhile ends the whole.
async fn are_ready(nodes: &mut [Node], stop: &mut StopSignals) -> Result<bool, Refused> {
    loop {
        if is_told_to_stop(stop).await || (has_news(nodes) && is_told_to_stop(stop).await) {
            return Ok(false);
        }
        for node in nodes.iter_mut() {
            if let Some(status) = node.ended() {
                return Err(node.refused(status));
            }
        }
        if nodes.iter().all(Node::is_ready) {
            return Ok(true);
        }
    }
}

/// Until it is told to stop, or all have ended, those that were started by hand included.
async fn watch(nodes: &mut [Node], stop: &mut StopSignals) -> ExitStatus {
    let mut is_by_hand = false;
    while !is_told_to_stop(stop).await {
        if has_news(nodes) {
            if is_told_to_stop(stop).await {
                break;
            }
            nodes.iter_mut().for_each(tell_end);
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

/// A process has ended. Ctrl-C goes to the nodes as well: whether that was it is known a moment later.
fn has_news(nodes: &mut [Node]) -> bool {
    nodes.iter_mut().any(|node| !node.is_lost && node.ended().is_some())
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
