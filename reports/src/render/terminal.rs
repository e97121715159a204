//! Text for a terminal. Scripts read the closing lines of a run: their form does not change.

use std::fmt::Write;

use crate::record::{RunRecord, Standstill, Verdict};
use crate::status::{Shortfall, Status};
use crate::sweep::SweepRecord;

/// How many violations of one run are printed; the record holds them all.
const VIOLATIONS_SHOWN: usize = 10;

/// What there is to say of a run, then its closing lines.
pub fn run(record: &RunRecord) -> String {
    let mut out = String::new();
    for violation in record.violations.iter().take(VIOLATIONS_SHOWN) {
        let _ = writeln!(out, "{}: {}", violation.checker, violation.what);
    }
    if record.violations.len() > VIOLATIONS_SHOWN {
        let more = record.violations.len() - VIOLATIONS_SHOWN;
        let _ = writeln!(out, "... and {more} more (all of them in the JSON record)");
    }
    if let Some(still) = &record.standstill {
        let _ = writeln!(out, "{}", standstill(still));
    }
    if !record.explanation.is_empty() {
        let _ = writeln!(out, "who waits for whom:");
        for line in &record.explanation {
            let _ = writeln!(out, "  {line}");
        }
    }
    for figure in &record.budgets {
        let _ = writeln!(
            out,
            "budget {}: {} of {}{}",
            figure.name,
            number(figure.measured),
            number(figure.limit),
            if figure.kept { "" } else { ", exceeded" }
        );
    }
    if !record.figures.is_empty() {
        let figures: Vec<String> =
            record.figures.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
        let _ = writeln!(out, "seen: {}", figures.join(", "));
    }
    if !record.probes.is_empty() {
        let probes: Vec<String> =
            record.probes.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(out, "probes: {}", probes.join(", "));
    }
    if !record.settings.is_empty() {
        let settings: Vec<String> =
            record.settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let _ = writeln!(out, "settings drawn: {}", settings.join(", "));
    }
    if !record.events_by_class.is_empty() {
        let mut classes: Vec<(&String, &u64)> = record.events_by_class.iter().collect();
        classes.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
        let classes: Vec<String> = classes.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(out, "events by class: {}", classes.join(", "));
    }
    out.push_str(&closing_lines(record));
    out
}

fn standstill(still: &Standstill) -> String {
    let mut line = format!("what stands still at {:.3} s ({}): {}", still.at_s, still.why, still.class);
    let mut add = |what: &str, value: &Option<String>| {
        if let Some(value) = value {
            line.push_str(what);
            line.push_str(value);
        }
    };
    add(" of ", &still.component);
    add("; in ", &still.operation);
    add("; behind it ", &still.seam);
    add("; held by the planned fault ", &still.fault);
    line
}

/// The lines that every run ends with.
pub fn closing_lines(record: &RunRecord) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "verdict: {} (expected {})", record.verdict, expectation(record));
    let _ = writeln!(out, "trace hash: {}", record.trace_hash);
    let _ = writeln!(out, "plan hash: {}", record.plan_hash);
    let _ = writeln!(out, "events: {}", record.events);
    let _ = writeln!(out, "fault hits: {}", hits(record));
    let _ = writeln!(out, "simulated: {:.1} s in {:.2} s", record.simulated_seconds, record.wall_seconds);
    if record.verdict != Verdict::Pass || Status::of_run(record) != Status::Expected {
        let _ = writeln!(out, "replay: {}", record.replay_command());
    }
    out
}

fn expectation(record: &RunRecord) -> String {
    match (Status::of_run(record), record.expected, &record.part) {
        (Status::Expected, Verdict::Pass, _) => "pass".into(),
        (Status::Expected, failure, Some(part)) => {
            format!("{failure}: this scenario is here to show what the part {part} does")
        }
        (Status::Expected, failure, None) => format!("{failure}: this scenario is here to show it"),
        (Status::NothingShown, expected, _) if record.verdict == expected => {
            let why = Shortfall::of(record).map(|short| short.to_string()).unwrap_or_default();
            format!("{expected}, but {why}, so this shows nothing")
        }
        (Status::NothingShown, failure, _) => format!("{failure}, which did not happen"),
        (_, expected, _) => expected.to_string(),
    }
}

fn hits(record: &RunRecord) -> String {
    if record.hits.is_empty() {
        return "none (no faults in the plan)".into();
    }
    let by_kind: Vec<String> =
        record.hits_by_kind().iter().map(|(kind, hits)| format!("{kind} {hits}")).collect();
    format!("{} ({})", record.total_hits(), by_kind.join(", "))
}

/// The table of a sweep, its probes, its failures with their replay lines, and one closing line.
pub fn sweep(sweep: &SweepRecord) -> String {
    let mut out = String::new();
    let mut rows = vec![
        ["scenario", "seeds", "verdict", "expected", "faults hit", "events", "simulated", "wall"]
            .map(str::to_owned),
    ];
    for line in sweep.summaries() {
        let verdicts: Vec<String> =
            line.verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
        let name = match (&line.part, line.expected) {
            (Some(part), Verdict::Pass) => format!("{} [{part}]", line.scenario),
            _ => line.scenario.clone(),
        };
        let mark = if line.status == Status::Expected { "ok" } else { "FAILED" };
        rows.push([
            name,
            line.seeds.len().to_string(),
            format!("{} {mark}", verdicts.join(", ")),
            line.expected.to_string(),
            line.hits.to_string(),
            thousands(line.events),
            format!("{:.0} s", line.simulated_seconds),
            format!("{:.2} s", line.wall_seconds),
        ]);
    }
    table(&mut out, &rows);
    if sweep.runs.iter().any(|run| run.expected != Verdict::Pass) {
        let _ = writeln!(
            out,
            "Scenarios under museum/ put a historical defect into the broker: their failure is expected and counts as ok."
        );
    }
    probes(&mut out, sweep);
    failures(&mut out, sweep);
    match &sweep.shard {
        Some(shard) => {
            let _ =
                writeln!(out, "shard {shard}: required probes are judged by `merge` of all shards' --json");
        }
        None if sweep.not_run > 0 => {
            let _ = writeln!(out, "broken off at the first failure: {} runs were not made", sweep.not_run);
        }
        None => {}
    }
    let runs = sweep.runs.len();
    let bad = sweep.runs.iter().filter(|run| Status::of_run(run) != Status::Expected).count();
    let missed = sweep.missed_probes().len();
    let events: u64 = sweep.runs.iter().map(|run| run.events).sum();
    let _ = writeln!(
        out,
        "sweep: {runs} runs, {} as expected, {bad} not, {missed} required probes missed, {} events, in {:.1} s ({:.2} seeds/s)",
        runs - bad,
        thousands(events),
        sweep.wall_seconds,
        runs as f64 / sweep.wall_seconds.max(1e-3)
    );
    out
}

fn probes(out: &mut String, sweep: &SweepRecord) {
    let required: Vec<String> = sweep
        .probes()
        .into_iter()
        .filter(|(_, (_, required))| *required)
        .map(|((scenario, probe), (count, _))| {
            let missed = if count == 0 && sweep.judges_probes() { " MISSED" } else { "" };
            format!("  {scenario}: {probe} {count}{missed}")
        })
        .collect();
    if !required.is_empty() {
        let _ = writeln!(out, "required probes:\n{}", required.join("\n"));
    }
}

fn failures(out: &mut String, sweep: &SweepRecord) {
    const SHOWN: usize = 10;
    let bad: Vec<&RunRecord> =
        sweep.runs.iter().filter(|run| Status::of_run(run) != Status::Expected).collect();
    for run in bad.iter().take(SHOWN) {
        let why = run
            .violations
            .first()
            .map(|violation| format!("{}: {}", violation.checker, violation.what))
            .unwrap_or_else(|| format!("expected {}", expectation(run)));
        let _ = writeln!(out, "{} seed {}: {}, {why}", run.scenario, run.seed, run.verdict);
        let _ = writeln!(out, "  replay: {}", run.replay_command());
    }
    if bad.len() > SHOWN {
        let _ = writeln!(out, "... and {} more failures (in the report)", bad.len() - SHOWN);
    }
}

fn table<const N: usize>(out: &mut String, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
        if index == 0 {
            let _ = writeln!(out, "{}", "-".repeat(widths.iter().sum::<usize>() + 2 * (N - 1)));
        }
    }
}

/// `1234567` as `1 234 567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn a_run_ends_with_the_lines_that_scripts_read() {
        let text = run(&sample::freeze());
        let closing: Vec<&str> = text.lines().rev().take(7).collect::<Vec<_>>().into_iter().rev().collect();
        assert_eq!(
            closing,
            [
                "verdict: freeze (expected freeze: this scenario is here to show what the part fsync-without-deadline does)",
                "trace hash: 0123456789abcdef",
                "plan hash: 0000000000000042",
                "events: 123456",
                "fault hits: 23 (disk-stall 23)",
                "simulated: 14400.0 s in 4.25 s",
                "replay: cargo sim run museum/fsync-without-deadline --seed 7",
            ]
        );
        assert!(text.contains("fdatasync of <wal> is in flight since 10 s"), "{text}");
    }

    #[test]
    fn a_pass_needs_no_replay_line() {
        let record = RunRecord::default();
        let text = closing_lines(&record);
        assert!(text.starts_with("verdict: pass (expected pass)\n"), "{text}");
        assert!(!text.contains("replay:"), "{text}");
    }

    #[test]
    fn an_expected_failure_that_did_not_happen_says_so() {
        let mut record = sample::freeze();
        record.verdict = Verdict::Pass;
        assert!(closing_lines(&record).starts_with("verdict: pass (expected freeze, which did not happen)"));
        record.expected = Verdict::Pass;
        record.hits.clear();
        assert!(closing_lines(&record).contains("no fault hit anything"));
    }

    #[test]
    fn an_expected_failure_from_elsewhere_says_what_was_expected_and_what_came() {
        let mut record = sample::freeze();
        record.expected_checker = Some("standstill".into());
        let text = closing_lines(&record);
        let wanted = "verdict: freeze (expected freeze, but it was to come from the checker standstill, and came from \
                      answered, so this shows nothing)";
        assert!(text.starts_with(wanted), "{text}");
    }

    #[test]
    fn what_stands_still_is_one_line_before_who_waits_for_whom() {
        let text = run(&sample::freeze());
        let line = "what stands still at 64.500 s (nothing was decided for 5 s): freeze of node1, task worker; in fdatasync of \
                    <wal>; behind it lock file; held by the planned fault 1, disk-stall node1\nwho waits for whom:";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn events_are_told_by_class_the_most_frequent_first() {
        let text = run(&sample::freeze());
        assert!(text.contains("\nevents by class: wakes 50, polls 20, disk 10\n"), "{text}");
        assert!(text.contains("\nevents: 123456\n"), "{text}");
    }

    #[test]
    fn the_table_names_failures_with_the_line_to_paste() {
        let mut bad = RunRecord { scenario: "safety/power-loss".into(), seed: 3, ..RunRecord::default() };
        bad.verdict = Verdict::Safety;
        bad.probes_required = vec!["torn-tail-cut".into()];
        let text = sweep(&SweepRecord::new(vec![sample::freeze(), bad], 2.0));
        assert!(text.contains("replay: cargo sim run safety/power-loss --seed 3"), "{text}");
        assert!(text.contains("safety/power-loss: torn-tail-cut 0 MISSED"), "{text}");
        assert!(text.contains("sweep: 2 runs, 1 as expected, 1 not, 1 required probes missed"), "{text}");
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1 000", "1 234 567"]);
    }
}
