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
    /// An expected failure did not happen, or no fault hit anything.
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
        if record.hits_required && record.total_hits() == 0 {
            return Status::NothingShown;
        }
        Status::Expected
    }

    /// Of several runs, with the probes that their scenarios require added up.
    pub fn of_runs<'a>(records: impl IntoIterator<Item = &'a RunRecord>) -> Status {
        let records: Vec<&RunRecord> = records.into_iter().collect();
        let probes = if missed_probes(records.iter().copied()).is_empty() {
            Status::Expected
        } else {
            Status::ProbeMissed
        };
        records.iter().map(|record| Status::of_run(record)).fold(probes, Ord::min)
    }
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
