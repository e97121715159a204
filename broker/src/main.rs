//! `chronik`: the command line of the broker.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use broker::config::Config;
use broker::config::kafka::KAFKA_NAMES;
use broker::node::Node;
use broker::parts::Parts;
use clap::{Args, CommandFactory, Parser, Subcommand};
use io_backend::real::{self, MemoryReturn, RealBackend, SAID_WITHIN, log_lines};
use io_backend::{Deadline, ExitStatus};
use tracing::{Level, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// A message broker that speaks the Kafka protocol; every acknowledged record has been synced to disk.
#[derive(Parser)]
#[command(name = "chronik", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[path = "main/stop.rs"]
mod stop;
#[path = "main/dev/mod.rs"]
mod dev;
#[path = "main/client/mod.rs"]
mod client;
#[path = "main/commands/mod.rs"]
mod commands;

use commands::{Cluster, Configs, Consume, Groups, Produce, Topics};
use stop::{STOP_DEADLINE, StopSignals};

#[derive(Subcommand)]
enum Command {
    /// Run a node.
    Serve(Serve),
    /// Run a cluster of several nodes on this machine, to try it out: each is a process of its own, and all end with this one.
    Dev(dev::Dev),
    /// Print every configuration key with its default, legal values, environment variable and Kafka's names.
    Keys {
        /// As docs/configuration.md, with what topics may have and what is refused.
        #[arg(long)]
        markdown: bool,
    },
    /// List, describe, create, grow, empty and delete topics.
    Topics(Topics),
    /// List and describe groups of consumers; see how far behind they are; set their offsets.
    Groups(Groups),
    /// Show and change what is configured, for a topic, a broker or all brokers.
    Configs(Configs),
    /// Nodes, the quorum of the metadata, and partitions that move.
    Cluster(Cluster),
    /// Write lines to a topic.
    Produce(Produce),
    /// Read a topic.
    Consume(Consume),
    /// Print a script that completes commands in a shell.
    Completions {
        /// Whose
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
struct Serve {
    /// Configuration file (TOML). Environment and flags override it.
    #[arg(long, env = "CHRONIK_CONFIG")]
    config: Option<PathBuf>,
    /// Directory of all data [default: ./chronik-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where the Kafka protocol is served; port 0 picks a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// What clients are told to connect to [default: the listening address]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where other nodes connect to [default: 127.0.0.1:9093]
    #[arg(long, value_name = "HOST:PORT")]
    cluster: Option<String>,
    /// Where metrics, health and stalls are served [default: 127.0.0.1:9094]
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Number of this node [default: 1]
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// How the disk is driven: auto, uring or threads [default: auto]
    #[arg(long, value_name = "KIND")]
    disk: Option<String>,
}

impl Serve {
    /// The flags that were given, as configuration keys.
    fn keys(&self) -> Vec<(String, String)> {
        [
            ("data_dir", &self.data_dir),
            ("listen", &self.listen),
            ("advertise", &self.advertise),
            ("cluster", &self.cluster),
            ("admin", &self.admin),
            ("node_id", &self.node_id),
            ("disk", &self.disk),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_string(), value.clone()?)))
        .collect()
    }

    fn config(&self) -> Result<Config, String> {
        let text = match &self.config {
            None => None,
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => Some((path.clone(), text)),
                Err(error) => {
                    return Err(format!("cannot read the configuration {}: {error}", path.display()));
                }
            },
        };
        let file = text.as_ref().map(|(path, text)| (path.clone(), text.as_str()));
        Config::assemble(file, std::env::vars(), self.keys()).map_err(|error| error.to_string())
    }
}

fn main() -> ExitCode {
    let status = match Cli::parse().command {
        Command::Keys { markdown: true } => commands::end(commands::say(&broker::metadata::document())),
        Command::Keys { markdown: false } => commands::end(commands::say(&keys())),
        Command::Topics(topics) => commands::end(topics.run()),
        Command::Groups(groups) => commands::end(groups.run()),
        Command::Configs(configs) => commands::end(configs.run()),
        Command::Cluster(cluster) => commands::end(cluster.run()),
        Command::Produce(produce) => commands::end(produce.run()),
        Command::Consume(consume) => commands::end(consume.run()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "chronik", &mut script);
            commands::end(commands::say(&String::from_utf8_lossy(&script)))
        }
        Command::Dev(dev) => dev.run(),
        Command::Serve(serve) => {
            log_to_stderr();
            match serve.config() {
                Ok(config) => run(config),
                Err(message) => {
                    eprintln!("chronik: {message}");
                    ExitStatus::Configuration
                }
            }
        }
    };
    log_lines::flush(SAID_WITHIN);
    ExitCode::from(status as u8)
}

fn keys() -> String {
    let defaults = Config::default();
    let mut text = String::new();
    for key in broker::config::KEYS {
        let default = (key.show)(&defaults);
        let names = KAFKA_NAMES.iter().filter(|known| known.key().is_some_and(|of| of.path == key.path));
        let names: Vec<&str> = names.map(|known| known.name).collect();
        let kafka = if names.is_empty() { String::new() } else { format!("; Kafka: {}", names.join(", ")) };
        text.push_str(&format!(
            "{} = {default:?}\n    {}\n    legal: {}; {}{kafka}\n",
            key.path,
            key.about,
            key.range,
            key.environment()
        ));
    }
    text
}

/// Filtered by `CHRONIK_LOG`, for example `debug` or `broker::journal=trace`.
fn log_to_stderr() {
    let started = log_lines::start();
    let asked = std::env::var("CHRONIK_LOG").unwrap_or_else(|_| "info".into());
    let (filter, error) = match asked.parse::<Targets>() {
        Ok(filter) => (filter, None),
        Err(error) => (Targets::new().with_default(Level::INFO), Some(error)),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| log_lines::LogLine)
        .log_internal_errors(false)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(filter).with(lines).init();
    if let Err(error) = started {
        warn!(%error, "no thread for the log: whoever logs waits for standard error");
    }
    if let Some(error) = error {
        warn!(%error, "CHRONIK_LOG=\"{asked}\" is no filter (info, or broker::journal=trace,info): info it is");
    }
}

/// A task that panicked has left its state to nobody: a process that served on without it would be half dead and look
/// alive. The whole process ends, connections included, and the journal says at the next start what was acknowledged.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Standard error may be a pipe that nobody empties.
        if real::exit_after(SAID_WITHIN, ExitStatus::Other as i32).is_ok() {
            report(panic);
            const ENDS: &str = "internal error, the process ends; what was acknowledged is in the journal";
            let _ = writeln!(io::stderr(), "chronik: {ENDS}");
        }
        real::exit_now(ExitStatus::Other as i32);
    }));
}

fn run(mut config: Config) -> ExitStatus {
    end_on_panic();
    match real::raise_descriptor_limit() {
        Ok(limit) => {
            let wanted = config.server.connections;
            config.share_descriptors(limit);
            let connections = config.server.connections;
            if connections < wanted {
                warn!(
                    limit,
                    connections,
                    wanted,
                    "fewer connections than server.connections: raise the limit of open files (ulimit -n)"
                );
            }
        }
        Err(error) => info!(%error, "the limit of open files stays as it is"),
    }
    let memory = MemoryReturn::start();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.server.worker_threads > 0 {
        runtime.worker_threads(config.server.worker_threads);
    }
    let runtime = runtime
        .enable_all()
        .thread_name("chronik")
        .max_blocking_threads(real::BLOCKING_THREADS_MAX)
        .on_thread_park(move || memory.activity())
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("chronik: cannot start threads: {error}");
            return ExitStatus::Other;
        }
    };
    let status = runtime.block_on(serve(config));
    // A thread that hangs in the disk must not keep a stopped process alive.
    runtime.shutdown_timeout(Duration::from_millis(100));
    status
}

async fn serve(config: Config) -> ExitStatus {
    // Before anything else: whoever stops us while we start, or right at the ready line, is to see a clean stop.
    let mut stop = match StopSignals::listen() {
        Ok(stop) => stop,
        Err(error) => {
            eprintln!("chronik: cannot listen for SIGTERM and SIGINT: {error}");
            return ExitStatus::Other;
        }
    };
    let (backend, disk) = match RealBackend::start(config.disk, &config.data_dir) {
        Ok(started) => started,
        Err(error) => {
            let path = config.data_dir.display();
            eprintln!("chronik: cannot use the data directory {path}: {error}");
            return ExitStatus::DataDirectory;
        }
    };
    if let Some(reason) = &disk.uring_refused {
        info!(reason, "io_uring is not used");
    }
    let data_dir = config.data_dir.clone();
    let started = tokio::select! {
        biased;
        // What a start leaves half done, the next start finds like after a crash.
        signal = stop.received() => {
            info!(signal, "stopped while starting");
            return ExitStatus::Clean;
        }
        started = Node::start(backend.clone(), Parts::production(), config) => started,
    };
    let node = match started {
        Ok(node) => node,
        Err(error) => {
            eprintln!("chronik: {error}");
            return error.exit_status();
        }
    };
    // Whoever started it may not care.
    let _ = writeln!(
        io::stdout(),
        "chronik ready: kafka {}, admin {}, node {}, data {}, disk {disk}",
        node.kafka_address(),
        node.admin_address(),
        node.context().node,
        data_dir.display(),
    );
    let signal = stop.received().await;
    info!(signal, "stopping");
    node.stop(Deadline::after(&backend, STOP_DEADLINE)).await;
    ExitStatus::Clean
}
