//! `check-determinism`: the same seed is the same course, in this process and in another one that lives in other
//! surroundings. Two seeds are two courses, or the hash would be worth nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use reports::{Hash64, Status};
use sim::run::{Choice, Course, Order, first_divergence, here};
use sim::scenario::ScenarioDir;

use super::said::say;
use super::seeds::Seeds;
use super::{CommandError, read, write};

pub(super) fn check(files: &[String], seeds: Seeds, part: Option<String>) -> Result<u8, CommandError> {
    let mut same = true;
    for scenario in ScenarioDir::find()?.select(files)? {
        let mut hashes = BTreeMap::new();
        for seed in seeds.all() {
            let mut order = Order::new(scenario.clone(), seed);
            if let Some(part) = &part {
                order.choice = Choice::Part(part.clone());
            }
            let course = Course::run(&order);
            say(&format!("{} seed {seed}: {}", scenario.id, told(&course)))?;
            if let Some(other) = hashes.insert(course.trace_hash, seed) {
                say(&format!("  seeds {other} and {seed} have the same hash: the seed is not used"))?;
                same = false;
            }
            let again = |from, to| here(&order, from, to);
            if let Some(found) = first_divergence(&order, course.clone(), again(0, 0).0, again) {
                say(&format!("  again in this process: {found}"))?;
                same = false;
                continue;
            }
            let (there, _) = elsewhere(&order, (0, 0))?;
            if there != course {
                say(&format!("  in another process: {}", told(&there)))?;
                let mut failed = None;
                let found = first_divergence(&order, course, there, |from, to| {
                    elsewhere(&order, (from, to)).unwrap_or_else(|error| {
                        failed = Some(error);
                        Default::default()
                    })
                });
                if let Some(error) = failed {
                    return Err(error);
                }
                match found {
                    Some(found) => say(&format!("  {found}"))?,
                    None => say("  this time both took the same course")?,
                }
                same = false;
            }
        }
    }
    say(if same { "deterministic" } else { "verdict: nondeterminism" })?;
    Ok(if same { 0 } else { Status::Nondeterminism.code() })
}

fn told(course: &Course) -> String {
    format!("{} events, trace hash {}", course.events, Hash64(course.trace_hash))
}

/// The same run in a process with another directory, time zone and environment.
fn elsewhere(order: &Order, window: (u64, u64)) -> Result<(Course, Vec<String>), CommandError> {
    let failed = |what: String| CommandError::Usage(format!("cannot run in a second process: {what}"));
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let scenario = order.scenario.path.canonicalize().map_err(|error| failed(error.to_string()))?;
    let out = std::env::temp_dir().join(format!("chronik-trace-{}", std::process::id()));
    let mut command = Command::new(program);
    command
        .arg("trace")
        .arg(scenario)
        .args(["--seed", &order.seed.to_string()])
        .args(["--window", &format!("{}..{}", window.0, window.1)])
        .arg("--out")
        .arg(&out)
        .current_dir(std::env::temp_dir())
        .env("TZ", "Pacific/Chatham")
        .env("LANG", "C")
        .env("CHRONIK_SIM_ELSEWHERE", "a variable that changes where everything lies on the stack");
    if let Choice::Part(part) = &order.choice {
        command.args(["--part", part]);
    }
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let text = read(&out)?;
    let _ = std::fs::remove_file(&out);
    parsed(&text).ok_or_else(|| failed("its answer is cut short".into()))
}

/// For the second process: events and hash on one line, all digests on the next, then the events of the window.
pub(super) fn trace(
    file: &str,
    seed: u64,
    part: Option<String>,
    window: (u64, u64),
    out: &Path,
) -> Result<u8, CommandError> {
    let mut order = Order::new(ScenarioDir::find()?.load(file)?, seed);
    if let Some(part) = part {
        order.choice = Choice::Part(part);
    }
    let (course, events) = here(&order, window.0, window.1);
    write(out, &printed(&course, &events))?;
    Ok(0)
}

fn printed(course: &Course, events: &[String]) -> String {
    let digests: Vec<String> = course.digests.iter().map(|digest| Hash64(*digest).to_string()).collect();
    let mut text = format!("{} {}\n{}\n", course.events, Hash64(course.trace_hash), digests.join(" "));
    for event in events {
        // An event is a line, whatever a name in it contains.
        text.push_str(&event.replace('\n', " "));
        text.push('\n');
    }
    text
}

fn parsed(text: &str) -> Option<(Course, Vec<String>)> {
    let mut lines = text.lines();
    let (events, hash) = lines.next()?.split_once(' ')?;
    let digests = lines.next()?.split_whitespace().map(|digest| Some(digest.parse::<Hash64>().ok()?.0));
    let course = Course {
        events: events.parse().ok()?,
        trace_hash: hash.parse::<Hash64>().ok()?.0,
        digests: digests.collect::<Option<_>>()?,
    };
    Some((course, lines.map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_second_process_prints_is_read_back() {
        let course = Course { events: 9_000, trace_hash: 0xab, digests: vec![1, u64::MAX] };
        let events = vec!["1.0 Poll task 1".to_owned(), "1.1 Note a\nb".to_owned()];
        let (read, lines) = parsed(&printed(&course, &events)).unwrap();
        assert_eq!(read, course);
        assert_eq!(lines, ["1.0 Poll task 1", "1.1 Note a b"]);
        let (short, none) = parsed(&printed(&Course::default(), &[])).unwrap();
        assert_eq!((short, none.len()), (Course::default(), 0));
        assert!(parsed("").is_none());
    }
}
