//! The run record: everything that one run of one seed came to, as JSON with a version.
//!
//! Invariant: what a record says of the run (not of the machine it ran on) depends on scenario, seed, part
//! and code only. `wall_seconds` is the one exception, and nothing compares it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Format of records that this code writes, and the newest that it reads.
pub const VERSION: u32 = 2;

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    #[default]
    Pass,
    /// Something acknowledged was lost, doubled, reordered or never sent.
    Safety,
    /// Nothing moved although it could have.
    Freeze,
    /// A node ended by itself, or panicked.
    Crash,
    /// It worked, beyond a limit that the scenario names.
    Budget,
    /// The same seed took two courses.
    Nondeterminism,
}

impl Verdict {
    pub const ALL: [Verdict; 6] = [
        Verdict::Pass,
        Verdict::Safety,
        Verdict::Freeze,
        Verdict::Crash,
        Verdict::Budget,
        Verdict::Nondeterminism,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Safety => "safety",
            Verdict::Freeze => "freeze",
            Verdict::Crash => "crash",
            Verdict::Budget => "budget",
            Verdict::Nondeterminism => "nondeterminism",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A hash as people compare it: 16 hexadecimal digits, also in JSON (where numbers lose bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash64(pub u64);

impl fmt::Display for Hash64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Hash64 {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Hash64, Self::Err> {
        u64::from_str_radix(text, 16).map(Hash64)
    }
}

impl Serialize for Hash64 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Hash64, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A fault of the plan and how often it touched something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultHit {
    /// The fault in one line.
    pub fault: String,
    /// Its kind, the key under which hits are added up.
    pub kind: String,
    pub hits: u64,
}

/// What stood still when the trouble was first seen: the head of the explanation, each thing in a field of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standstill {
    /// When it was looked at, in seconds of the world's time.
    pub at_s: f64,
    /// What made somebody look.
    pub why: String,
    /// `freeze`, `deadlock`, `latent deadlock`, `livelock`, or `none` where nothing was seen to stand still.
    pub class: String,
    /// The machine and the task where it begins.
    #[serde(default)]
    pub component: Option<String>,
    /// The operation that does not complete, and its file.
    #[serde(default)]
    pub operation: Option<String>,
    /// The lock or channel behind which others wait.
    #[serde(default)]
    pub seam: Option<String>,
    /// The planned fault that holds it, if one does.
    #[serde(default)]
    pub fault: Option<String>,
}

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The checker's name, as in the guide: `lost-write`.
    pub checker: String,
    pub verdict: Verdict,
    pub what: String,
}

/// A limit that the scenario names, and what was measured. Units stand in the name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BudgetFigure {
    pub name: String,
    pub limit: f64,
    pub measured: f64,
    pub kept: bool,
}

/// One run of one seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub version: u32,
    /// The file as it is given on the command line: `museum/fsync-without-deadline`.
    pub scenario: String,
    pub seed: u64,
    /// The replaced part; none is the production code.
    pub part: Option<String>,
    /// The run was asked to ignore the scenario's part.
    #[serde(default)]
    pub production: bool,
    pub verdict: Verdict,
    pub expected: Verdict,
    /// The checker that the expected failure has to come from, where the scenario names it.
    #[serde(default)]
    pub expected_checker: Option<String>,
    /// What a finding of it, or the explanation, has to contain.
    #[serde(default)]
    pub expected_text: Option<String>,
    pub trace_hash: Hash64,
    pub plan_hash: Hash64,
    pub events: u64,
    /// Events by class: polls, wakes, timers, disk, ...
    #[serde(default)]
    pub events_by_class: BTreeMap<String, u64>,
    pub hits: Vec<FaultHit>,
    /// The scenario lists faults itself, so a run that hits nothing has shown nothing.
    #[serde(default)]
    pub hits_required: bool,
    /// Faults that the scenario lists and that touched nothing.
    #[serde(default)]
    pub missed_faults: Vec<String>,
    pub simulated_seconds: f64,
    pub wall_seconds: f64,
    /// How often each interesting situation came up.
    pub probes: BTreeMap<String, u64>,
    /// Probes that the scenario wants to see at least once in a sweep.
    #[serde(default)]
    pub probes_required: Vec<String>,
    /// What stood still, for a run with a finding of that kind.
    #[serde(default)]
    pub standstill: Option<Standstill>,
    /// Why it stood still, as a chain of who waits for whom.
    #[serde(default)]
    pub explanation: Vec<String>,
    #[serde(default)]
    pub violations: Vec<Violation>,
    #[serde(default)]
    pub budgets: Vec<BudgetFigure>,
    /// Counts and times worth seeing: acknowledged records, requests by outcome, latencies.
    #[serde(default)]
    pub figures: BTreeMap<String, f64>,
    /// The fault plan, as it can be given back with `--plan`.
    pub plan: serde_json::Value,
    /// The file that the plan was read from, where the seed did not draw it.
    #[serde(default)]
    pub plan_file: Option<String>,
    /// What the seed drew for the settings of nodes and machines, key by key.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// The scenario file as it was run.
    #[serde(default)]
    pub scenario_text: String,
    /// The commit that the code was at; `+changes` when the tree was not clean.
    #[serde(default)]
    pub commit: Option<String>,
    /// Of a standstill those before and after the last decision, of any other run those at the end.
    #[serde(default)]
    pub last_events: Vec<String>,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("this is no run record: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error(
        "this run record has version {found}, and this chronik-sim reads up to {VERSION}: \
         replay it with the newer chronik-sim that wrote it"
    )]
    Newer { found: u32 },
}

impl RunRecord {
    pub fn total_hits(&self) -> u64 {
        self.hits.iter().map(|hit| hit.hits).sum()
    }

    /// Hits added up by kind of fault, in order of kind.
    pub fn hits_by_kind(&self) -> BTreeMap<&str, u64> {
        let mut sums = BTreeMap::new();
        for hit in &self.hits {
            *sums.entry(hit.kind.as_str()).or_insert(0) += hit.hits;
        }
        sums
    }

    /// The command that repeats this run.
    pub fn replay_command(&self) -> String {
        let mut command = format!("cargo sim run {} --seed {}", self.scenario, self.seed);
        if self.production {
            command.push_str(" --production");
        } else if let Some(part) = &self.part
            && !self.part_is_the_scenarios_own()
        {
            command.push_str(" --part ");
            command.push_str(part);
        }
        if let Some(plan) = &self.plan_file {
            command.push_str(" --plan ");
            command.push_str(&quoted(plan));
        }
        command
    }

    /// An exhibit's own part needs no naming: its scenario expects the failure.
    fn part_is_the_scenarios_own(&self) -> bool {
        self.expected != Verdict::Pass
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Reads a record, or says that it is a newer one before complaining about its fields.
    pub fn from_json(text: &str) -> Result<RunRecord, ReadError> {
        check_version(text)?;
        Ok(serde_json::from_str(text)?)
    }
}

/// As a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

pub(crate) fn check_version(text: &str) -> Result<(), ReadError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let found = serde_json::from_str::<Versioned>(text)?.version;
    if found > VERSION {
        return Err(ReadError::Newer { found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_writing_and_reading() {
        let record = crate::render::sample::freeze();
        assert_eq!(RunRecord::from_json(&record.to_json()).unwrap(), record);
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let newer = r#"{"version": 99, "fields_of_the_future": true}"#;
        let error = RunRecord::from_json(newer).unwrap_err().to_string();
        assert!(error.contains("version 99") && error.contains("up to 2"), "{error}");
    }

    #[test]
    fn what_is_no_record_is_refused_as_such() {
        for text in ["", "[]", "{}", "{\"version\": 1}"] {
            assert!(matches!(RunRecord::from_json(text), Err(ReadError::Unreadable(_))), "{text}");
        }
    }

    #[test]
    fn hashes_keep_their_leading_zeros() {
        assert_eq!(Hash64(0xab).to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse::<Hash64>().unwrap(), Hash64(0xab));
    }

    #[test]
    fn the_replay_command_names_what_was_swapped() {
        let mut record = crate::render::sample::freeze();
        assert_eq!(record.replay_command(), "cargo sim run museum/fsync-without-deadline --seed 7");
        record.expected = Verdict::Pass;
        assert!(record.replay_command().ends_with("--seed 7 --part fsync-without-deadline"));
        record.production = true;
        assert!(record.replay_command().ends_with("--seed 7 --production"));
    }

    #[test]
    fn the_replay_command_names_the_plan_that_was_given() {
        let mut record = crate::render::sample::freeze();
        record.plan_file = Some("target/plan-3.toml".into());
        assert!(record.replay_command().ends_with("--seed 7 --plan target/plan-3.toml"));
        record.plan_file = Some("my plan's.toml".into());
        assert!(
            record.replay_command().ends_with(r"--plan 'my plan'\''s.toml'"),
            "{}",
            record.replay_command()
        );
    }

    #[test]
    fn a_record_of_the_first_version_is_still_read() {
        let mut old = serde_json::to_value(crate::render::sample::freeze()).unwrap();
        for new in ["events_by_class", "missed_faults", "standstill", "settings", "scenario_text", "commit"] {
            old.as_object_mut().unwrap().remove(new);
        }
        old["version"] = 1.into();
        old["skipped"] = serde_json::json!([]);
        let read = RunRecord::from_json(&old.to_string()).unwrap();
        assert_eq!((read.version, read.seed, read.scenario_text.as_str()), (1, 7, ""));
    }
}
