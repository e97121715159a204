//! `chronik-bench`: a lean produce load for any Kafka-compatible broker, and the limits to hold it against.
//!
//! Without a subcommand it produces: one single-record produce in flight per connection. `echo-server`, `echo` and
//! `disk` measure what the machine gives without a broker; `compare` alternates all of them in one run.
//! Read in the order `load -> produce_frame -> inbox -> verify -> compare`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // A client, never simulated: real time and sockets.

mod compare;
mod disk;
mod echo;
mod inbox;
mod load;
mod produce_frame;
mod servers;
mod summary;
mod topic;
mod verify;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use load::{Gauge, Plan};
use summary::{Latency, LoadSummary, human, parse_duration};
use topic::TopicMode;

#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    load: LoadArguments,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Reflect every byte: the server side of the bare TCP limit.
    EchoServer { address: String },
    /// Measure the bare TCP limit against an echo-server.
    Echo {
        address: String,
        #[arg(long, default_value_t = 128)]
        concurrency: u32,
        #[arg(long, value_parser = parse_duration, default_value = "5s")]
        duration: Duration,
        #[arg(long, value_parser = parse_duration, default_value = "500ms")]
        warmup: Duration,
    },
    /// Measure what a synced 4 KiB write takes in a directory.
    Disk {
        dir: PathBuf,
        #[arg(long, value_parser = parse_duration, default_value = "3s")]
        duration: Duration,
    },
    /// Measure brokers beside the bare echo and the disk in one alternating run, and print ratios.
    Compare(Box<compare::Arguments>),
}

#[derive(Debug, clap::Args)]
struct LoadArguments {
    /// Brokers to ask for the topic's leaders.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:9092")]
    bootstrap_servers: Vec<String>,
    #[arg(long, default_value = "chronik-bench")]
    topic: String,
    /// Let the topic come into being by producing to it, instead of creating it first.
    #[arg(long)]
    auto_create: bool,
    /// Records to send; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    message_count: u64,
    /// How long to send, as 30s or 24h. Without it and without a count: 30s.
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Sent before measuring starts; in no figure, but verified.
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    warmup: Duration,
    /// Connections, each with one produce in flight.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: u32,
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_parser = clap::value_parser!(i16).range(-1..=1))]
    acks: i16,
    /// Partitions of the topic, if it is to be created.
    #[arg(long, default_value_t = 3)]
    partitions: i32,
    /// Replicas of the topic, if it is to be created; the broker's default without it.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    replication_factor: i16,
    /// Bytes of a record's value; the first 20 identify it.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Threads of the generator; each has its own runtime.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Exit with status 1 below this many acknowledged records per second.
    #[arg(long, value_name = "N")]
    min_throughput: Option<f64>,
    /// Read everything back; exit with status 1 on any lost or doubled acknowledged record.
    #[arg(long)]
    verify: bool,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let command = CommandLine::parse();
    let result = match command.other {
        None => produce(&command.load),
        Some(Other::EchoServer { address }) => echo::serve(&address).map(|()| true),
        Some(Other::Echo { address, concurrency, duration, warmup }) => {
            measure_echo(&address, concurrency, warmup, duration).map(|()| true)
        }
        Some(Other::Disk { dir, duration }) => measure_disk(&dir, duration).map(|()| true),
        Some(Other::Compare(arguments)) => compare::run(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("chronik-bench: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn measure_echo(address: &str, concurrency: u32, warmup: Duration, duration: Duration) -> Result<()> {
    let echoed = echo::run(address, concurrency, warmup, duration)?;
    let latency = Latency::of(&echoed.latency_ns);
    println!(
        "{:.0} exchanges/s of {} B, {concurrency} connections; p50 {}  p99 {}",
        echoed.per_second(),
        echo::FRAME_BYTES,
        human(latency.p50_us),
        human(latency.p99_us)
    );
    Ok(())
}

fn measure_disk(dir: &std::path::Path, duration: Duration) -> Result<()> {
    let latency = Latency::of(&disk::Probe::create(dir)?.run(duration)?);
    println!(
        "4 KiB pwrite + fdatasync, prefilled: p50 {}  p95 {}  p99 {}  max {}",
        human(latency.p50_us),
        human(latency.p95_us),
        human(latency.p99_us),
        human(latency.max_us)
    );
    Ok(())
}

fn produce(arguments: &LoadArguments) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let message_count = Some(arguments.message_count).filter(|count| *count > 0);
    let unlimited = message_count.is_none() && arguments.duration.is_none();
    let plan = Plan {
        bootstrap: arguments.bootstrap_servers.clone(),
        topic: arguments.topic.clone(),
        acks: arguments.acks,
        size: arguments.size,
        concurrency: arguments.concurrency,
        threads: arguments.threads,
        warmup: arguments.warmup,
        duration: arguments.duration.or_else(|| unlimited.then_some(Duration::from_secs(30))),
        message_count,
    };
    let mode = if arguments.auto_create { TopicMode::AutoCreated } else { TopicMode::PreCreated };
    let leaders = runtime.block_on(topic::prepare(
        &plan.bootstrap,
        &plan.topic,
        mode,
        arguments.partitions,
        arguments.replication_factor,
    ))?;
    let from = if arguments.verify {
        runtime.block_on(topic::end_offsets(&leaders, &plan.topic))?
    } else {
        Vec::new()
    };
    let outcome = run_with_progress(&plan, &leaders)?;
    let verdict = if arguments.verify {
        Some(runtime.block_on(verify::verify(&leaders, &plan.topic, &from, &outcome))?)
    } else {
        None
    };
    let summary = LoadSummary {
        version: 1,
        topic: plan.topic,
        concurrency: plan.concurrency,
        acks: plan.acks,
        size: plan.size,
        acknowledged: outcome.acknowledged,
        seconds: outcome.elapsed.as_secs_f64(),
        per_second: outcome.per_second(),
        latency: Latency::of(&outcome.latency_ns),
        errors: outcome.errors,
        verify: verdict,
    };
    summary.print();
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&summary)?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let fast_enough = arguments.min_throughput.is_none_or(|least| summary.per_second >= least);
    if !fast_enough {
        eprintln!("chronik-bench: below --min-throughput");
    }
    let intact = summary.verify.as_ref().is_none_or(|verdict| verdict.lost == 0 && verdict.doubled == 0);
    Ok(fast_enough && intact)
}

/// The load on a thread of its own, the bar (hidden where stderr is no terminal) and Ctrl-C on this one.
fn run_with_progress(plan: &Plan, leaders: &topic::Leaders) -> Result<load::Outcome> {
    let gauge = Arc::new(Gauge::default());
    let bar = match (plan.message_count, plan.duration) {
        (Some(count), _) => ProgressBar::new(count),
        (None, _) => ProgressBar::no_length(),
    };
    bar.set_style(ProgressStyle::with_template(
        "{elapsed_precise} {bar:30} {pos} acknowledged, {per_sec}, {msg}",
    )?);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| load::run(plan, leaders, &gauge));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            // One for all of it: what comes while nobody listens is lost.
            let mut interrupts = signal(SignalKind::interrupt())?;
            while !running.is_finished() {
                let tick = tokio::time::sleep(Duration::from_millis(100));
                tokio::pin!(tick);
                std::future::poll_fn(|context| {
                    if interrupts.poll_recv(context).is_ready() {
                        gauge.interrupted.store(true, Ordering::Relaxed);
                        return std::task::Poll::Ready(());
                    }
                    tick.as_mut().poll(context)
                })
                .await;
                bar.set_position(gauge.acknowledged.load(Ordering::Relaxed));
                let failed = gauge.failed.load(Ordering::Relaxed);
                bar.set_message(format!("{failed} errors"));
            }
            anyhow::Ok(())
        })?;
        bar.finish_and_clear();
        running.join().map_err(|_| anyhow::anyhow!("the load panicked"))?
    })
}
