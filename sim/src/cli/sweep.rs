//! `sweep`: many runs on several threads, one table, one report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use reports::{RunRecord, Status, SweepRecord, render};
use sim::run::{Choice, Order};
use sim::scenario::{ScenarioDir, ShelvedScenario};

use super::said::say;
use super::{CommandError, known_part, read, seeds, write};

pub(super) fn sweep(arguments: super::Sweep) -> Result<u8, CommandError> {
    let shelf = ScenarioDir::find()?;
    let scenarios: Vec<ShelvedScenario> =
        if arguments.files.is_empty() { shelf.all()? } else { shelf.select(&arguments.files)? };
    let part = known_part(arguments.part.clone())?;
    let mut orders = Vec::new();
    for scenario in scenarios {
        let seeds: Vec<u64> = match arguments.seeds {
            Some(range) => range.all().collect(),
            None => seeds::usual(scenario.scenario.swarm.is_some(), &shelf.repository()),
        };
        for seed in seeds {
            let mut order = Order::new(scenario.clone(), seed);
            order.choice = match (arguments.production, &part) {
                (true, _) => Choice::Production,
                (false, Some(part)) => Choice::Part(part.clone()),
                (false, None) => Choice::AsTheScenarioSays,
            };
            orders.push(order);
        }
    }
    if let Some(shard) = arguments.shard {
        let mut position = 0;
        orders.retain(|_| {
            position += 1;
            shard.holds(position - 1)
        });
    }
    if orders.is_empty() {
        return Err(CommandError::Usage("there is nothing to run".into()));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(cores).clamp(1, orders.len());
    let began = sim::run::wall_clock();
    let records = run_all(&orders, jobs, arguments.fail_fast);
    let mut sweep = SweepRecord::new(records, began.elapsed().as_secs_f64());
    sweep.shard = arguments.shard.map(|shard| shard.to_string());
    sweep.not_run = orders.len() - sweep.runs.len();
    let outputs = arguments.outputs;
    outputs.write(&sweep, &shelf)?;
    Ok(sweep.status().code())
}

/// What several sweeps found, as one.
pub(super) fn merge(records: &[PathBuf], outputs: Outputs) -> Result<u8, CommandError> {
    let mut sweeps = Vec::new();
    for path in records {
        let sweep = SweepRecord::from_json(&read(path)?);
        sweeps.push(
            sweep.map_err(|error| CommandError::Content { path: path.clone(), what: error.to_string() })?,
        );
    }
    check_shards(&sweeps).map_err(CommandError::Usage)?;
    let merged = SweepRecord::merged(sweeps);
    outputs.write(&merged, &ScenarioDir::find()?)?;
    Ok(merged.status().code())
}

/// A share that was forgotten would pass for one that found nothing.
fn check_shards(sweeps: &[SweepRecord]) -> Result<(), String> {
    let mut shards = BTreeMap::new();
    for name in sweeps.iter().filter_map(|sweep| sweep.shard.as_deref()) {
        if let Some((index, of)) = name.split_once('/') {
            shards.entry(of).or_insert_with(BTreeSet::new).insert(index);
        }
    }
    for (of, found) in shards {
        if of.parse() != Ok(found.len()) {
            let found: Vec<&str> = found.into_iter().collect();
            return Err(format!(
                "of {of} shards only {} are here: probes cannot be judged",
                found.join(", ")
            ));
        }
    }
    Ok(())
}

/// Where results go beside the terminal.
#[derive(clap::Args)]
pub(super) struct Outputs {
    /// Write all run records
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write test results for CI
    #[arg(long)]
    junit: Option<PathBuf>,
    /// Write a self-contained page into this directory
    #[arg(long)]
    html: Option<PathBuf>,
}

impl Outputs {
    fn write(&self, sweep: &SweepRecord, shelf: &ScenarioDir) -> Result<(), CommandError> {
        let said = say(&render::terminal::sweep(sweep));
        if let Some(path) = &self.json {
            write(path, &sweep.to_json())?;
        }
        if let Some(path) = &self.junit {
            write(path, &render::junit::sweep(sweep))?;
        }
        let page = self.page(shelf);
        write(&page, &render::html::sweep(sweep))?;
        for record in sweep.runs.iter().filter(|record| Status::of_run(record) != Status::Expected) {
            let name = format!("{}-seed-{}.json", record.scenario.replace('/', "-"), record.seed);
            write(&page.with_file_name(name), &record.to_json())?;
        }
        said?;
        say(&format!("report: {}", page.display()))
    }

    fn page(&self, shelf: &ScenarioDir) -> PathBuf {
        match &self.html {
            Some(directory) => directory.join("sweep.html"),
            None => {
                let here = std::env::current_dir().unwrap_or_default();
                let page = shelf.repository().join("reports/out/sweep.html");
                page.strip_prefix(&here).map(PathBuf::from).unwrap_or(page)
            }
        }
    }
}

/// Longest first, so that no core sits idle behind the last long one; results come back in any order.
fn run_all(orders: &[Order], jobs: usize, fail_fast: bool) -> Vec<RunRecord> {
    let bar = ProgressBar::new(orders.len() as u64);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {pos}/{len} runs, {elapsed} gone, {eta} to go {msg}")
    {
        bar.set_style(style);
    }
    let mut queue: Vec<&Order> = orders.iter().collect();
    queue.sort_by_key(|order| std::cmp::Reverse(order.scenario.scenario.duration));
    let next = AtomicUsize::new(0);
    let records = Mutex::new(Vec::with_capacity(queue.len()));
    let failures = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(order) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if fail_fast && failures.load(Ordering::Relaxed) > 0 {
                        return;
                    }
                    let record = sim::run::run(order);
                    if Status::of_run(&record) != Status::Expected {
                        let count = failures.fetch_add(1, Ordering::Relaxed) + 1;
                        bar.set_message(format!("({count} not as expected)"));
                    }
                    if let Ok(mut records) = records.lock() {
                        records.push(record);
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    records.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_wants_all_shards() {
        let shard = |name: &str| SweepRecord { shard: Some(name.into()), ..SweepRecord::default() };
        assert_eq!(check_shards(&[shard("1/2"), shard("2/2")]), Ok(()));
        assert_eq!(check_shards(&[SweepRecord::default()]), Ok(()));
        let error = check_shards(&[shard("1/3"), shard("3/3"), shard("3/3")]).unwrap_err();
        assert!(error.contains("of 3 shards only 1, 3 are here"), "{error}");
    }
}
