//! JUnit XML: a suite per scenario, a case per seed, for the machines that collect test results.

use std::fmt::Write;

use super::{escaped, terminal};
use crate::status::Status;
use crate::sweep::SweepRecord;

pub fn sweep(sweep: &SweepRecord) -> String {
    let missed = sweep.missed_probes();
    let bad = sweep.runs.iter().filter(|run| Status::of_run(run) != Status::Expected).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites tests=\"{}\" failures=\"{}\" time=\"{:.3}\">",
        sweep.runs.len() + missed.len(),
        bad + missed.len(),
        sweep.wall_seconds
    );
    for line in sweep.summaries() {
        let runs = || sweep.runs.iter().filter(|r| r.scenario == line.scenario && r.part == line.part);
        let probes = || missed.iter().filter(|(scenario, _)| *scenario == line.scenario);
        let failures =
            runs().filter(|run| Status::of_run(run) != Status::Expected).count() + probes().count();
        let suite = escaped(&match &line.part {
            Some(part) => format!("{} [{part}]", line.scenario),
            None => line.scenario.clone(),
        });
        let _ = writeln!(
            out,
            "  <testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failures}\" time=\"{:.3}\">",
            runs().count() + probes().count(),
            line.wall_seconds
        );
        for run in runs() {
            let _ = write!(
                out,
                "    <testcase classname=\"{suite}\" name=\"seed {}\" time=\"{:.3}\"",
                run.seed, run.wall_seconds
            );
            if Status::of_run(run) == Status::Expected {
                out.push_str("/>\n");
                continue;
            }
            let _ = writeln!(
                out,
                ">\n      <failure message=\"{} (expected {}), replay: {}\">{}</failure>\n    </testcase>",
                run.verdict,
                run.expected,
                escaped(&run.replay_command()),
                escaped(&terminal::run(run))
            );
        }
        for (_, probe) in probes() {
            let _ = writeln!(
                out,
                "    <testcase classname=\"{suite}\" name=\"probe {0}\"><failure message=\"no seed hit the required probe {0}\"/></testcase>",
                escaped(probe)
            );
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Verdict;
    use crate::render::sample;

    #[test]
    fn expected_failures_are_green_and_others_carry_their_text_escaped() {
        let expected = sample::freeze();
        let mut unexpected = sample::freeze();
        unexpected.expected = Verdict::Pass;
        unexpected.seed = 8;
        let xml = sweep(&SweepRecord::new(vec![expected, unexpected], 1.0));
        assert!(xml.contains("<testsuites tests=\"2\" failures=\"1\""), "{xml}");
        assert!(xml.contains("name=\"seed 7\" time=\"4.250\"/>"), "{xml}");
        assert!(xml.contains("&lt;wal&gt;") && !xml.contains("<wal>"), "{xml}");
    }
}
