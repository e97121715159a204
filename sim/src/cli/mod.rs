//! The command line. Each command is a file; all of them end in one of the statuses that scripts rely on.

mod said;
mod determinism;
mod one;
mod seeds;
mod sweep;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sim::scenario::{ScenarioDir, ShelfError, ShelvedScenario};

use said::say;
use seeds::{Seeds, Shard};

/// Wrong usage: an unknown scenario, an unreadable plan.
const USAGE: u8 = 2;
/// What was found could not be told.
const OUTPUT: u8 = 17;

#[derive(Parser)]
#[command(
    name = "chronik-sim",
    version,
    about = "Runs the Chronik broker in a simulated kernel that is broken on purpose",
    after_help = "Exit status: 0 every verdict is the expected one (a museum scenario expects its failure), 2 usage, \
                  10 safety, 11 freeze, 12 crash, 13 nondeterminism, 14 budget exceeded, 15 an expected failure did \
                  not happen or came from elsewhere, or a listed fault hit nothing, 16 a required probe was missed, \
                  17 stdout cannot be written (that nobody reads it is no failure)."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show all scenarios with their stories
    List,
    /// Run one seed of one scenario
    Run(Run),
    /// Run many seeds of many scenarios; without files all of them
    Sweep(Sweep),
    /// Run again what a record describes, and compare
    Replay {
        /// A JSON record written by `run --json`, or one run's part of a sweep's
        record: PathBuf,
    },
    /// Run seeds twice, in one process and in two, and compare every event
    CheckDeterminism {
        /// Scenarios by name or path
        #[arg(required = true)]
        files: Vec<String>,
        /// Both ends included
        #[arg(long, default_value = "1..3")]
        seeds: Seeds,
        /// Put this part in place of ours
        #[arg(long)]
        part: Option<String>,
    },
    /// Merge the JSON records of sweeps, shards of one above all, and judge them together
    Merge {
        /// Written by `sweep --json`
        #[arg(required = true)]
        records: Vec<PathBuf>,
        #[command(flatten)]
        outputs: sweep::Outputs,
    },
    /// Write the course of a run, and some of its events, to a file, for `check-determinism`
    #[command(hide = true)]
    Trace {
        file: String,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        part: Option<String>,
        /// Events of these numbers, counted from 0: FROM..TO, the end excluded
        #[arg(long, value_parser = seeds::window, default_value = "0..0")]
        window: (u64, u64),
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Args)]
struct Run {
    /// A scenario by name (museum/offset-reset) or path
    file: String,
    #[arg(long)]
    seed: u64,
    /// Ignore the scenario's part: our code under the same faults
    #[arg(long, conflicts_with = "part")]
    production: bool,
    /// Put this part in place of ours
    #[arg(long)]
    part: Option<String>,
    /// Take the faults from this file (TOML or JSON) instead of drawing them
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Show what the broker logs, with the simulated time: info, debug, broker::journal=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Write the run record
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write a self-contained page
    #[arg(long)]
    html: Option<PathBuf>,
}

#[derive(Args)]
struct Sweep {
    /// Scenarios by name, path, folder (safety) or pattern ('safety/*'); all when there are none
    files: Vec<String>,
    /// Both ends included; a fixed handful and some from the commit's hash when missing
    #[arg(long)]
    seeds: Option<Seeds>,
    /// Seeds that run at the same time
    #[arg(long)]
    jobs: Option<usize>,
    /// Begin no further run once one has not come out as expected
    #[arg(long)]
    fail_fast: bool,
    /// Run every N-th seed only, beginning with the I-th; `merge` judges what all shards found
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Put this part in place of ours, in every scenario
    #[arg(long)]
    part: Option<String>,
    /// Ignore the scenarios' parts
    #[arg(long, conflicts_with = "part")]
    production: bool,
    #[command(flatten)]
    outputs: sweep::Outputs,
}

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::List => list(),
        Command::Run(run) => one::run(run),
        Command::Sweep(sweep) => sweep::sweep(sweep),
        Command::Replay { record } => one::replay(&record),
        Command::CheckDeterminism { files, seeds, part } => {
            known_part(part).and_then(|part| determinism::check(&files, seeds, part))
        }
        Command::Merge { records, outputs } => sweep::merge(&records, outputs),
        Command::Trace { file, seed, part, window, out } => {
            determinism::trace(&file, seed, part, window, &out)
        }
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "chronik-sim: {error}");
            ExitCode::from(error.status())
        }
    }
}

/// What ends a command without a verdict.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    ScenarioDir(#[from] ShelfError),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: {what}", path.display())]
    Content { path: PathBuf, what: String },
    #[error("cannot write to stdout: {0}")]
    Output(std::io::Error),
    #[error("{0}")]
    Usage(String),
}

impl CommandError {
    fn status(&self) -> u8 {
        match self {
            CommandError::Output(_) => OUTPUT,
            _ => USAGE,
        }
    }
}

fn read(path: &std::path::Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|source| CommandError::File { path: path.to_path_buf(), source })
}

fn write(path: &std::path::Path, text: &str) -> Result<(), CommandError> {
    let failed = |source| CommandError::File { path: path.to_path_buf(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

fn list() -> Result<u8, CommandError> {
    say(&listed(&ScenarioDir::find()?.all()?))?;
    Ok(0)
}

fn listed(scenarios: &[ShelvedScenario]) -> String {
    let mut folder = "";
    let mut text = String::new();
    for shelved in scenarios {
        let scenario = &shelved.scenario;
        let (inside, name) = shelved.id.rsplit_once('/').unwrap_or(("", &shelved.id));
        if inside != folder {
            folder = inside;
            let _ = writeln!(text, "{folder}/\n");
        }
        let _ = writeln!(text, "  {name} ({folder}/{name}, expects {})", expectation(scenario));
        for line in scenario.about.trim().lines() {
            let _ = writeln!(text, "      {line}");
        }
        text.push('\n');
    }
    text.push_str("parts for --part:\n");
    for exhibit in sim::museum::EXHIBITS.iter().chain(sim::planted::all()) {
        let _ = writeln!(text, "    {}: {}", exhibit.name, exhibit.about);
    }
    text
}

fn expectation(scenario: &sim::scenario::Scenario) -> String {
    let checker = scenario.expect_checker.as_ref().map(|name| format!(" from {name}")).unwrap_or_default();
    format!("{}{checker}", scenario.expect)
}

/// `--part NAME`, checked.
fn known_part(name: Option<String>) -> Result<Option<String>, CommandError> {
    if let Some(name) = &name
        && !sim::museum::is_part(name)
    {
        let names = sim::museum::part_names();
        let meant = sim::scenario::load::nearest(name, names.iter().copied());
        let meant = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
        return Err(CommandError::Usage(format!("unknown part `{name}`{meant}")));
    }
    Ok(name)
}
