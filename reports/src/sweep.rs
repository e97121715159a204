//! A sweep: many seeds of several scenarios, and what they add up to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::record::{ReadError, RunRecord, Verdict, check_version};
use crate::status::{Status, missed_probes};

/// All runs of one sweep, ordered by scenario and seed whatever the order they finished in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepRecord {
    pub version: u32,
    /// Of the whole sweep, all workers together.
    pub wall_seconds: f64,
    /// Which share of the seeds this is, `I/N`: probes are asked of all shares together.
    #[serde(default)]
    pub shard: Option<String>,
    /// Orders that were not run since one before them failed.
    #[serde(default)]
    pub not_run: usize,
    pub runs: Vec<RunRecord>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct ScenarioSummary {
    pub scenario: String,
    pub part: Option<String>,
    pub expected: Verdict,
    pub seeds: Vec<u64>,
    pub verdicts: BTreeMap<Verdict, u64>,
    pub events: u64,
    pub hits: u64,
    pub simulated_seconds: f64,
    /// Of its runs added up, so more than the sweep took when several run at once.
    pub wall_seconds: f64,
    pub status: Status,
}

impl SweepRecord {
    pub fn new(mut runs: Vec<RunRecord>, wall_seconds: f64) -> SweepRecord {
        runs.sort_by(|a, b| (&a.scenario, &a.part, a.seed).cmp(&(&b.scenario, &b.part, b.seed)));
        SweepRecord { version: crate::VERSION, wall_seconds, shard: None, not_run: 0, runs }
    }

    /// Several sweeps as one: shards of a sweep above all. A run that two of them hold counts once.
    pub fn merged(sweeps: impl IntoIterator<Item = SweepRecord>) -> SweepRecord {
        let (mut runs, mut wall_seconds, mut not_run) = (Vec::new(), 0.0f64, 0);
        for sweep in sweeps {
            wall_seconds = wall_seconds.max(sweep.wall_seconds);
            not_run += sweep.not_run;
            runs.extend(sweep.runs);
        }
        let mut merged = SweepRecord::new(runs, wall_seconds);
        merged.not_run = not_run;
        let key = |run: &RunRecord| {
            (run.scenario.clone(), run.part.clone(), run.production, run.seed, run.trace_hash, run.plan_hash)
        };
        merged.runs.dedup_by(|a, b| key(a) == key(b));
        merged
    }

    /// Probes are judged where all runs are: neither of a share of them nor of a sweep that was broken off.
    pub fn judges_probes(&self) -> bool {
        self.shard.is_none() && self.not_run == 0
    }

    pub fn missed_probes(&self) -> BTreeSet<(&str, &str)> {
        if self.judges_probes() { missed_probes(&self.runs) } else { BTreeSet::new() }
    }

    pub fn status(&self) -> Status {
        if self.judges_probes() { Status::of_runs(&self.runs) } else { Status::gravest(&self.runs) }
    }

    /// Per scenario and part, in order.
    pub fn summaries(&self) -> Vec<ScenarioSummary> {
        let mut lines: Vec<ScenarioSummary> = Vec::new();
        for run in &self.runs {
            let same = |line: &ScenarioSummary| line.scenario == run.scenario && line.part == run.part;
            if !lines.last().is_some_and(same) {
                lines.push(ScenarioSummary {
                    scenario: run.scenario.clone(),
                    part: run.part.clone(),
                    expected: run.expected,
                    seeds: Vec::new(),
                    verdicts: BTreeMap::new(),
                    events: 0,
                    hits: 0,
                    simulated_seconds: 0.0,
                    wall_seconds: 0.0,
                    status: Status::Expected,
                });
            }
            let Some(line) = lines.last_mut() else { continue };
            line.seeds.push(run.seed);
            *line.verdicts.entry(run.verdict).or_insert(0) += 1;
            line.events += run.events;
            line.hits += run.total_hits();
            line.simulated_seconds += run.simulated_seconds;
            line.wall_seconds += run.wall_seconds;
            line.status = line.status.min(Status::of_run(run));
        }
        lines
    }

    /// Probes added up per scenario; those that are required and were missed are there with zero.
    pub fn probes(&self) -> BTreeMap<(&str, &str), (u64, bool)> {
        let mut probes: BTreeMap<(&str, &str), (u64, bool)> = BTreeMap::new();
        for run in &self.runs {
            for (name, count) in &run.probes {
                probes.entry((&run.scenario, name)).or_default().0 += count;
            }
            for name in &run.probes_required {
                probes.entry((&run.scenario, name)).or_default().1 = true;
            }
        }
        probes
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    pub fn from_json(text: &str) -> Result<SweepRecord, ReadError> {
        check_version(text)?;
        Ok(serde_json::from_str(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_in_order_however_they_finished() {
        let run =
            |scenario: &str, seed| RunRecord { scenario: scenario.into(), seed, ..RunRecord::default() };
        let sweep = SweepRecord::new(vec![run("b", 1), run("a", 2), run("a", 1)], 1.0);
        let order: Vec<(&str, u64)> = sweep.runs.iter().map(|r| (r.scenario.as_str(), r.seed)).collect();
        assert_eq!(order, [("a", 1), ("a", 2), ("b", 1)]);
        let seeds: Vec<usize> = sweep.summaries().iter().map(|line| line.seeds.len()).collect();
        assert_eq!(seeds, [2, 1]);
    }

    #[test]
    fn a_shard_does_not_judge_probes_and_all_shards_together_do() {
        let shard = |name: &str, seed, hits| {
            let mut run = RunRecord { scenario: "a".into(), seed, ..RunRecord::default() };
            run.probes_required = vec!["torn-tail-cut".into()];
            run.probes.insert("torn-tail-cut".into(), hits);
            let mut sweep = SweepRecord::new(vec![run], 1.0);
            sweep.shard = Some(name.into());
            sweep
        };
        let (dry, hit) = (shard("1/2", 1, 0), shard("2/2", 2, 3));
        assert_eq!(dry.status(), Status::Expected);
        assert!(dry.missed_probes().is_empty());
        let merged = SweepRecord::merged([dry.clone(), hit.clone(), hit]);
        assert_eq!((merged.runs.len(), merged.status()), (2, Status::Expected));
        assert_eq!(SweepRecord::merged([dry]).status(), Status::ProbeMissed);
    }

    #[test]
    fn one_bad_seed_colours_its_scenario() {
        let mut sweep = SweepRecord::new(vec![RunRecord::default(), RunRecord::default()], 1.0);
        sweep.runs[1].verdict = Verdict::Safety;
        assert_eq!(sweep.summaries()[0].status, Status::Safety);
        assert_eq!(sweep.status().code(), 10);
    }
}
