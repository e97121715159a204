//! One alternating run over everything that shares a machine: bare echo, brokers, disk.
//!
//! Machines are noisy, so only figures of the same round are divided by one another, and the median round
//! speaks. Per round and connection count: the echo, then each broker with a topic made beforehand and one
//! that comes into being by producing to it; per round the disk's sync. Depth 1 compares latencies:
//! twice the sync plus the echo is what a synced acknowledgement may take.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::disk::Probe;
use crate::load::{self, Gauge, Plan};
use crate::servers::Server;
use crate::summary::{Latency, parse_duration};
use crate::topic::{self, TopicMode};
use crate::{echo, summary};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A broker that is running already, as NAME=HOST:PORT; repeatable.
    #[arg(long = "target", value_name = "NAME=HOST:PORT")]
    targets: Vec<String>,
    /// Start this chronik binary on free ports, once for each --disk, and stop it afterwards.
    #[arg(long, value_name = "BINARY", requires = "dir")]
    start_chronik: Option<PathBuf>,
    /// Disks to start chronik with.
    #[arg(long, value_delimiter = ',', default_value = "threads,uring")]
    disk: Vec<String>,
    /// Where data directories and the disk probe go. Not tmpfs: a sync costs nothing there.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Connection counts.
    #[arg(long, value_delimiter = ',', default_value = "1,8,16,32,64,128")]
    connections: Vec<u32>,
    /// How often everything is measured; the median round counts.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Length of one measurement.
    #[arg(long, value_parser = parse_duration, default_value = "3s")]
    duration: Duration,
    /// Not measured, before each measurement.
    #[arg(long, value_parser = parse_duration, default_value = "500ms")]
    warmup: Duration,
    /// Bytes of a record.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Partitions of the pre-created topics.
    #[arg(long, default_value_t = 3)]
    partitions: i32,
    /// Threads of the load generator.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Exit with status 1 when a broker stays below this share of the echo at the highest connection count.
    #[arg(long, value_name = "SHARE")]
    min_share: Option<f64>,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One measurement of one round.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    round: u32,
    connections: u32,
    target: String,
    topic: &'static str,
    per_second: f64,
    #[serde(flatten)]
    latency: Latency,
    errors: u64,
    /// Rate divided by the echo's of this round.
    echo_share: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    machine: String,
    dir: String,
    rounds: u32,
    sync_p50_us: Vec<f64>,
    samples: Vec<Sample>,
}

const ECHO: &str = "bare echo";

pub fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.connections.is_empty() || arguments.rounds == 0 {
        bail!("nothing to measure: give --connections and at least one round");
    }
    let mut probe = arguments.dir.as_deref().map(Probe::create).transpose()?;
    let mut servers = Vec::new();
    let mut targets = Vec::new();
    for target in &arguments.targets {
        let (name, address) =
            target.split_once('=').with_context(|| format!("--target {target}: expected NAME=HOST:PORT"))?;
        targets.push((name.to_owned(), address.to_owned()));
    }
    if let (Some(binary), Some(dir)) = (&arguments.start_chronik, &arguments.dir) {
        for disk in &arguments.disk {
            let (server, address) = Server::chronik(binary, disk, dir)?;
            eprintln!("{}", server.ready_line);
            servers.push(server);
            targets.push((format!("chronik {disk}"), address));
        }
    }
    let (_echo_server, echo_address) = Server::echo()?;
    let mut report = Report {
        version: 1,
        machine: machine(),
        dir: arguments
            .dir
            .as_ref()
            .map_or_else(|| "none given, sync not measured".into(), |dir| dir.display().to_string()),
        rounds: arguments.rounds,
        sync_p50_us: Vec::new(),
        samples: Vec::new(),
    };
    for round in 0..arguments.rounds {
        if let Some(probe) = &mut probe {
            let sync = probe.run(arguments.duration.min(Duration::from_secs(2)))?;
            report.sync_p50_us.push(Latency::of(&sync).p50_us);
        }
        for &connections in &arguments.connections {
            measure(arguments, round, connections, &echo_address, &targets, &mut report)?;
        }
    }
    drop(servers);
    let table = Table::of(arguments, &targets, &report);
    table.print(&report);
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(table.acceptable(arguments.min_share))
}

fn measure(
    arguments: &Arguments,
    round: u32,
    connections: u32,
    echo_address: &str,
    targets: &[(String, String)],
    report: &mut Report,
) -> Result<()> {
    let (warmup, duration) = (arguments.warmup, arguments.duration);
    let echoed = echo::run(echo_address, connections, warmup, duration)?;
    let echo_rate = echoed.per_second();
    report.samples.push(Sample {
        round,
        connections,
        target: ECHO.into(),
        topic: "",
        per_second: echo_rate,
        latency: Latency::of(&echoed.latency_ns),
        errors: 0,
        echo_share: 1.0,
    });
    for (name, address) in targets {
        for (mode, label) in
            [(TopicMode::PreCreated, "pre-created"), (TopicMode::AutoCreated, "auto-created")]
        {
            let plan = Plan {
                bootstrap: vec![address.clone()],
                topic: format!("compare-{}-{label}-{connections}-{round}", std::process::id()),
                acks: -1,
                size: arguments.size,
                concurrency: connections,
                threads: arguments.threads,
                warmup,
                duration: Some(duration),
                message_count: None,
            };
            let leaders =
                block_on(topic::prepare(&plan.bootstrap, &plan.topic, mode, arguments.partitions, -1))?
                    .with_context(|| format!("{name}: preparing {}", plan.topic))?;
            let outcome = load::run(&plan, &leaders, &Arc::new(Gauge::default()))?;
            for (what, count) in &outcome.errors {
                eprintln!("{name}, {label}, {connections} connections: {count} x {what}");
            }
            report.samples.push(Sample {
                round,
                connections,
                target: name.clone(),
                topic: label,
                per_second: outcome.per_second(),
                latency: Latency::of(&outcome.latency_ns),
                errors: outcome.errors.values().sum(),
                echo_share: outcome.per_second() / echo_rate,
            });
        }
    }
    Ok(())
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?.block_on(future))
}

/// The median round of each (connections, target, topic).
struct Table {
    rows: Vec<Row>,
    connections_max: u32,
}

struct Row {
    connections: u32,
    target: String,
    topic: &'static str,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    share: f64,
    share_least: f64,
    share_most: f64,
    errors: u64,
    /// Depth 1 only: p50 divided by (sync p50 + echo p50), each of the same round.
    times_floor: Option<f64>,
}

impl Table {
    fn of(arguments: &Arguments, targets: &[(String, String)], report: &Report) -> Self {
        let mut keys = vec![(ECHO.to_owned(), "")];
        for (name, _) in targets {
            keys.push((name.clone(), "pre-created"));
            keys.push((name.clone(), "auto-created"));
        }
        let mut rows = Vec::new();
        for &connections in &arguments.connections {
            for (target, topic) in &keys {
                let samples: Vec<&Sample> = report
                    .samples
                    .iter()
                    .filter(|sample| {
                        sample.connections == connections
                            && sample.target == *target
                            && sample.topic == *topic
                    })
                    .collect();
                let of = |figure: fn(&Sample) -> f64| {
                    median(samples.iter().map(|sample| figure(sample)).collect())
                };
                let shares = samples.iter().map(|sample| sample.echo_share);
                let floors = samples.iter().filter_map(|sample| {
                    let sync = report.sync_p50_us.get(sample.round as usize)?;
                    let echo = report.samples.iter().find(|other| {
                        other.round == sample.round && other.connections == 1 && other.target == ECHO
                    })?;
                    Some(sample.latency.p50_us / (sync + echo.latency.p50_us))
                });
                rows.push(Row {
                    connections,
                    target: target.clone(),
                    topic,
                    per_second: of(|sample| sample.per_second),
                    p50_us: of(|sample| sample.latency.p50_us),
                    p99_us: of(|sample| sample.latency.p99_us),
                    share: of(|sample| sample.echo_share),
                    share_least: shares.clone().fold(f64::INFINITY, f64::min),
                    share_most: shares.fold(0.0, f64::max),
                    errors: samples.iter().map(|sample| sample.errors).sum(),
                    times_floor: (connections == 1 && target != ECHO).then(|| median(floors.collect())),
                });
            }
        }
        Self { rows, connections_max: arguments.connections.iter().copied().max().unwrap_or(0) }
    }

    fn print(&self, report: &Report) {
        println!("{}; {} rounds, medians; data in {}", report.machine, report.rounds, report.dir);
        if !report.sync_p50_us.is_empty() {
            println!(
                "disk: 4 KiB pwrite + fdatasync, prefilled: p50 {}",
                summary::human(median(report.sync_p50_us.clone()))
            );
        }
        println!();
        println!("| connections | what | topic | acks/s | of echo (least-most) | p50 | p99 | errors |");
        println!("|---:|---|---|---:|---:|---:|---:|---:|");
        for row in &self.rows {
            println!(
                "| {} | {} | {} | {:.0} | {:.2} ({:.2}-{:.2}) | {} | {} | {} |",
                row.connections,
                row.target,
                row.topic,
                row.per_second,
                row.share,
                row.share_least,
                row.share_most,
                summary::human(row.p50_us),
                summary::human(row.p99_us),
                row.errors
            );
        }
        for row in &self.rows {
            if let Some(times) = row.times_floor.filter(|times| times.is_finite()) {
                println!("depth 1, {}, {}: p50 is {times:.2} x (sync p50 + echo p50)", row.target, row.topic);
            }
        }
    }

    fn acceptable(&self, min_share: Option<f64>) -> bool {
        let errors: u64 = self.rows.iter().map(|row| row.errors).sum();
        let too_slow = self.rows.iter().any(|row| {
            row.connections == self.connections_max && min_share.is_some_and(|least| row.share < least)
        });
        errors == 0 && !too_slow
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => figures[odd / 2],
        even => f64::midpoint(figures[even / 2 - 1], figures[even / 2]),
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_round_speaks() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }
}
