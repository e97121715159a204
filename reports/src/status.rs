//! Exit statuses: what a script learns of a run or a sweep without reading anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{RunRecord, Verdict};

/// In order of weight: of several, the first one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Nondeterminism,
    Crash,
    Safety,
    Freeze,
    Budget,
    /// An expected failure did not happen or came from elsewhere, or a fault that the scenario lists hit nothing.
    NothingShown,
    ProbeMissed,
    Expected,
}

impl Status {
    pub fn code(self) -> u8 {
        match self {
            Status::Expected => 0,
            Status::Safety => 10,
            Status::Freeze => 11,
            Status::Crash => 12,
            Status::Nondeterminism => 13,
            Status::Budget => 14,
            Status::NothingShown => 15,
            Status::ProbeMissed => 16,
        }
    }

    /// Of one run, probes apart: those are asked of a sweep.
    pub fn of_run(record: &RunRecord) -> Status {
        if record.verdict != record.expected {
            return match record.verdict {
                Verdict::Pass => Status::NothingShown,
                Verdict::Safety => Status::Safety,
                Verdict::Freeze => Status::Freeze,
                Verdict::Crash => Status::Crash,
                Verdict::Budget => Status::Budget,
                Verdict::Nondeterminism => Status::Nondeterminism,
            };
        }
        if Shortfall::of(record).is_some() { Status::NothingShown } else { Status::Expected }
    }

    /// The gravest of several runs, whatever probes they missed.
    pub fn gravest<'a>(records: impl IntoIterator<Item = &'a RunRecord>) -> Status {
        records.into_iter().map(Status::of_run).fold(Status::Expected, Ord::min)
    }

    /// Of several runs, with the probes that their scenarios require added up.
    pub fn of_runs<'a>(records: impl IntoIterator<Item = &'a RunRecord>) -> Status {
        let records: Vec<&RunRecord> = records.into_iter().collect();
        let probes = if missed_probes(records.iter().copied()).is_empty() {
            Status::Expected
        } else {
            Status::ProbeMissed
        };
        Status::gravest(records).min(probes)
    }
}

/// Why a run with the expected verdict shows nothing all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// Not one fault hit anything.
    NoHit,
    /// These faults of the scenario hit nothing.
    Missed(Vec<String>),
    /// The failure came from these checkers and not from the one that the scenario names.
    Checker { expected: String, came: Vec<String> },
    /// Neither a finding nor the explanation contains the text that the scenario names.
    Text { expected: String },
}

impl Shortfall {
    pub fn of(record: &RunRecord) -> Option<Shortfall> {
        if record.verdict != record.expected {
            return None;
        }
        if record.hits_required && record.total_hits() == 0 {
            return Some(Shortfall::NoHit);
        }
        if !record.missed_faults.is_empty() {
            return Some(Shortfall::Missed(record.missed_faults.clone()));
        }
        let grave = || record.violations.iter().filter(|violation| violation.verdict == record.verdict);
        if let Some(expected) = &record.expected_checker
            && !grave().any(|violation| violation.checker == *expected)
        {
            let mut came: Vec<String> = grave().map(|violation| violation.checker.clone()).collect();
            came.dedup();
            return Some(Shortfall::Checker { expected: expected.clone(), came });
        }
        // A text is looked for in what the named checker says, where one is named.
        let named = |checker: &str| record.expected_checker.as_deref().is_none_or(|name| name == checker);
        if let Some(expected) = &record.expected_text
            && !grave().any(|found| named(&found.checker) && found.what.contains(expected))
            && !record.explanation.iter().any(|line| line.contains(expected))
        {
            return Some(Shortfall::Text { expected: expected.clone() });
        }
        None
    }
}

impl std::fmt::Display for Shortfall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Shortfall::NoHit => f.write_str("no fault hit anything"),
            Shortfall::Missed(faults) => {
                write!(f, "{} hit nothing: {}", count(faults.len(), "fault"), faults.join("; "))
            }
            Shortfall::Checker { expected, came } => {
                let came = if came.is_empty() { "no checker".to_owned() } else { came.join(", ") };
                write!(f, "it was to come from the checker {expected}, and came from {came}")
            }
            Shortfall::Text { expected } => {
                write!(f, "neither finding nor explanation says \"{expected}\"")
            }
        }
    }
}

fn count(of: usize, what: &str) -> String {
    if of == 1 { format!("1 {what}") } else { format!("{of} {what}s") }
}

/// Required probes that no run of their scenario hit, as `(scenario, probe)`.
pub fn missed_probes<'a>(records: impl IntoIterator<Item = &'a RunRecord>) -> BTreeSet<(&'a str, &'a str)> {
    let mut hits: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for record in records {
        for probe in &record.probes_required {
            let seen = record.probes.get(probe).copied().unwrap_or(0);
            *hits.entry((&record.scenario, probe)).or_insert(0) += seen;
        }
    }
    hits.into_iter().filter(|(_, hits)| *hits == 0).map(|(probe, _)| probe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FaultHit;

    fn run(verdict: Verdict, expected: Verdict) -> RunRecord {
        RunRecord { verdict, expected, ..RunRecord::default() }
    }

    #[test]
    fn every_outcome_has_its_status() {
        use Verdict::*;
        for (verdict, expected, code) in [
            (Pass, Pass, 0),
            (Freeze, Freeze, 0),
            (Safety, Pass, 10),
            (Freeze, Pass, 11),
            (Crash, Pass, 12),
            (Nondeterminism, Pass, 13),
            (Budget, Pass, 14),
            (Pass, Freeze, 15),
            (Safety, Freeze, 10),
        ] {
            assert_eq!(Status::of_run(&run(verdict, expected)).code(), code, "{verdict} for {expected}");
        }
    }

    #[test]
    fn a_run_whose_faults_hit_nothing_shows_nothing() {
        let mut record = run(Verdict::Pass, Verdict::Pass);
        record.hits_required = true;
        assert_eq!(Status::of_run(&record), Status::NothingShown);
        record.hits.push(FaultHit { fault: "kill node1".into(), kind: "kill".into(), hits: 1 });
        assert_eq!(Status::of_run(&record), Status::Expected);
    }

    #[test]
    fn every_fault_that_the_scenario_lists_has_to_hit() {
        let mut record = run(Verdict::Pass, Verdict::Pass);
        record.hits_required = true;
        record.hits.push(FaultHit { fault: "kill node1".into(), kind: "kill".into(), hits: 7 });
        record.missed_faults.push("disk-stall node1 at 3s".into());
        assert_eq!(Status::of_run(&record), Status::NothingShown);
        let text = Shortfall::of(&record).unwrap().to_string();
        assert!(text.contains("1 fault hit nothing: disk-stall node1 at 3s"), "{text}");
    }

    #[test]
    fn an_expected_failure_has_to_come_from_the_checker_that_is_named() {
        let mut record = crate::render::sample::freeze();
        record.expected_checker = Some("answered".into());
        assert_eq!(Status::of_run(&record), Status::Expected);
        record.expected_checker = Some("standstill".into());
        assert_eq!(Status::of_run(&record).code(), 15);
        let text = Shortfall::of(&record).unwrap().to_string();
        assert!(text.contains("from the checker standstill, and came from answered"), "{text}");
    }

    #[test]
    fn an_expected_failure_has_to_say_the_text_that_is_named() {
        let mut record = crate::render::sample::freeze();
        for (text, status) in [
            ("its deadline", Status::Expected),
            ("fdatasync of <wal>", Status::Expected),
            ("another file", Status::NothingShown),
        ] {
            record.expected_text = Some(text.into());
            assert_eq!(Status::of_run(&record), status, "{text}");
        }
    }

    #[test]
    fn of_several_the_gravest_counts() {
        use Verdict::*;
        let all = [Pass, Budget, Freeze, Safety, Crash, Nondeterminism].map(|verdict| run(verdict, Pass));
        let codes: Vec<u8> = (1..=all.len()).map(|n| Status::of_runs(&all[..n]).code()).collect();
        assert_eq!(codes, [0, 14, 11, 10, 12, 13]);
    }

    #[test]
    fn a_probe_has_to_be_hit_once_in_a_sweep_and_not_in_each_run() {
        let mut first = run(Verdict::Pass, Verdict::Pass);
        first.probes_required = vec!["torn-tail-cut".into()];
        let mut second = first.clone();
        assert_eq!(Status::of_runs([&first, &second]), Status::ProbeMissed);
        second.probes.insert("torn-tail-cut".into(), 1);
        assert_eq!(Status::of_runs([&first, &second]), Status::Expected);
    }
}
