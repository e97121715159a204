//! `check-determinism`: the same seed is the same course, in this process and in another one that lives in other
//! surroundings. Two seeds are two courses, or the hash would be worth nothing.

use std::path::Path;
use std::process::Command;

use reports::Status;
use sim::run::{Order, traced};
use sim::scenario::Shelf;

use super::seeds::Seeds;
use super::{CommandError, write};

pub(super) fn check(files: &[String], seeds: Seeds) -> Result<u8, CommandError> {
    let shelf = Shelf::find()?;
    let mut same = true;
    for file in files {
        let scenario = shelf.load(file)?;
        let mut hashes = std::collections::BTreeMap::new();
        for seed in seeds.all() {
            let order = Order::new(scenario.clone(), seed);
            let (first, second) = (sim::run::run(&order), sim::run::run(&order));
            let here = (first.events, first.trace_hash);
            println!("{} seed {seed}: {} events, trace hash {}", scenario.id, here.0, here.1);
            if let Some(other) = hashes.insert(first.trace_hash, seed) {
                println!("  seeds {other} and {seed} have the same hash: the seed is not used");
                same = false;
            }
            if here != (second.events, second.trace_hash) {
                println!(
                    "  again in this process: {} events, trace hash {}",
                    second.events, second.trace_hash
                );
                println!("  {}", first_difference(&traced(&order), &traced(&order)));
                same = false;
                continue;
            }
            match elsewhere(&scenario.path, seed, None)? {
                there if there == format!("{} {}", here.0, here.1) => {}
                there => {
                    println!("  in another process: {there}");
                    let path = std::env::temp_dir().join(format!("chronik-trace-{}", std::process::id()));
                    elsewhere(&scenario.path, seed, Some(&path))?;
                    let theirs: Vec<String> = super::read(&path)?.lines().map(str::to_owned).collect();
                    let _ = std::fs::remove_file(&path);
                    println!("  {}", first_difference(&traced(&order), &theirs));
                    same = false;
                }
            }
        }
    }
    println!("{}", if same { "deterministic" } else { "verdict: nondeterminism" });
    Ok(if same { 0 } else { Status::Nondeterminism.code() })
}

/// The same run in a process with another directory, time zone and environment.
fn elsewhere(scenario: &Path, seed: u64, out: Option<&Path>) -> Result<String, CommandError> {
    let failed = |what: String| CommandError::Usage(format!("cannot run in a second process: {what}"));
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let scenario = scenario.canonicalize().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    command
        .arg("trace")
        .arg(scenario)
        .args(["--seed", &seed.to_string()])
        .current_dir(std::env::temp_dir())
        .env("TZ", "Pacific/Chatham")
        .env("LANG", "C")
        .env("CHRONIK_SIM_ELSEWHERE", "a variable that changes where everything lies on the stack");
    if let Some(out) = out {
        command.arg("--out").arg(out);
    }
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn first_difference(ours: &[String], theirs: &[String]) -> String {
    let same = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let show = |events: &[String]| events.get(same).map_or("nothing", String::as_str).to_owned();
    if same == ours.len() && same == theirs.len() {
        return "this time both took the same course".into();
    }
    format!("the first difference is event {}: {} | {}", same + 1, show(ours), show(theirs))
}

/// For the second process: events and hash on one line, all events into a file on request.
pub(super) fn trace(file: &str, seed: u64, out: Option<&Path>) -> Result<u8, CommandError> {
    let order = Order::new(Shelf::find()?.load(file)?, seed);
    match out {
        Some(path) => write(path, &traced(&order).join("\n"))?,
        None => {
            let record = sim::run::run(&order);
            println!("{} {}", record.events, record.trace_hash);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named_by_its_first_event() {
        let events = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let text = first_difference(&events(&["a", "b", "c"]), &events(&["a", "x", "c"]));
        assert!(text.contains("event 2: b | x"), "{text}");
        let text = first_difference(&events(&["a", "b"]), &events(&["a"]));
        assert!(text.contains("event 2: b | nothing"), "{text}");
    }
}
