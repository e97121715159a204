//! `run` and `replay`: one seed of one scenario.

use std::path::Path;

use reports::{RunRecord, Status, render};
use sim::run::{Choice, Order};
use sim::scenario::{ScenarioDir, ShelfError, ShelvedScenario};

use super::said::say;
use super::{CommandError, known_part, read, write};

pub(super) fn run(arguments: super::Run) -> Result<u8, CommandError> {
    if let Some(filter) = &arguments.log {
        sim::world::logs::to_stderr(filter).map_err(CommandError::Usage)?;
    }
    let shelved = ScenarioDir::find()?.load(&arguments.file)?;
    let mut order = Order::new(shelved, arguments.seed);
    order.choice = match (arguments.production, known_part(arguments.part)?) {
        (true, _) => Choice::Production,
        (false, Some(part)) => Choice::Part(part),
        (false, None) => Choice::AsTheScenarioSays,
    };
    if let Some(path) = &arguments.plan {
        let plan = sim::plan::read(&read(path)?);
        order.plan = Some(plan.map_err(|what| CommandError::Content { path: path.clone(), what })?);
        order.plan_file = Some(path.display().to_string());
    }
    say(&heading(&order))?;
    let record = sim::run::run(&order);
    let said = say(&render::terminal::run(&record));
    if let Some(path) = &arguments.json {
        write(path, &record.to_json())?;
    }
    if let Some(path) = &arguments.html {
        write(path, &render::html::run(&record))?;
    }
    said?;
    Ok(Status::of_run(&record).code())
}

fn heading(order: &Order) -> String {
    let part = match order.part() {
        Some(part) => format!("with the part {part}"),
        None => "with the production code".into(),
    };
    format!("{} seed {} {part}", order.scenario.id, order.seed)
}

/// The scenario as it was run: its file may have changed or gone since.
fn recorded(before: &RunRecord) -> Result<ShelvedScenario, CommandError> {
    let shelf = ScenarioDir::find();
    if before.scenario_text.is_empty() {
        // Records of the first version hold the name only.
        return Ok(shelf?.load(&before.scenario)?);
    }
    let now = shelf.and_then(|shelf| shelf.load(&before.scenario));
    if now.is_ok_and(|now| now.text == before.scenario_text) {
        return Ok(ScenarioDir::find()?.load(&before.scenario)?);
    }
    say(&format!("{} is not what it was: what was recorded is run", before.scenario))?;
    Ok(ShelvedScenario::from_text(&before.scenario, &before.scenario_text).map_err(ShelfError::from)?)
}

/// Runs what a record describes, with its plan, and tells whether it came out the same; of the same code it has to.
pub(super) fn replay(path: &Path) -> Result<u8, CommandError> {
    let content = |what: String| CommandError::Content { path: path.to_path_buf(), what };
    let before = RunRecord::from_json(&read(path)?).map_err(|error| content(error.to_string()))?;
    let mut order = Order::new(recorded(&before)?, before.seed);
    order.choice = match (&before.part, before.production) {
        (_, true) => Choice::Production,
        (Some(part), false) => Choice::Part(part.clone()),
        (None, false) => Choice::AsTheScenarioSays,
    };
    order.plan = Some(sim::plan::read(&before.plan.to_string()).map_err(content)?);
    order.plan_file.clone_from(&before.plan_file);
    order.settings = Some(before.settings.clone());
    say(&heading(&order))?;
    let record = sim::run::run(&order);
    if is_same(&before, &record) {
        say(&format!("same course as recorded: {} events, trace hash {}", record.events, record.trace_hash))?;
    } else {
        say(&format!(
            "another course than recorded: {} events with trace hash {} then, {} with {} now",
            before.events, before.trace_hash, record.events, record.trace_hash
        ))?;
        say(&format!("  {}", why_other(before.commit.as_deref(), record.commit.as_deref())))?;
    }
    say(&render::terminal::run(&record))?;
    Ok(status_of(&before, &record).code())
}

fn is_same(before: &RunRecord, now: &RunRecord) -> bool {
    now.trace_hash == before.trace_hash && now.events == before.events
}

/// Another course of the same code is a defect of its own, whatever the verdict.
fn status_of(before: &RunRecord, now: &RunRecord) -> Status {
    if !is_same(before, now) && is_of_same_code(before.commit.as_deref(), now.commit.as_deref()) {
        return Status::Nondeterminism;
    }
    Status::of_run(now)
}

fn is_of_same_code(then: Option<&str>, now: Option<&str>) -> bool {
    then.is_some_and(|then| now == Some(then) && !then.ends_with("+changes"))
}

fn why_other(then: Option<&str>, now: Option<&str>) -> String {
    match (then, now) {
        (Some(_), Some(now)) if is_of_same_code(then, Some(now)) => {
            format!(
                "both are of commit {now}: something is not deterministic (exit status 13), see `check-determinism`"
            )
        }
        (Some(then), Some(now)) => format!("it was recorded at commit {then}, and this is {now}"),
        _ => "the code has changed since, or something is not deterministic".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_course_of_the_same_commit_is_a_defect_and_of_another_one_is_none() {
        assert!(why_other(Some("abc"), Some("abc")).contains("not deterministic"));
        for (then, now) in [("abc", "def"), ("abc+changes", "abc+changes")] {
            assert!(why_other(Some(then), Some(now)).contains("recorded at commit"), "{then} {now}");
        }
    }

    #[test]
    fn a_replay_that_takes_another_course_ends_with_the_status_of_nondeterminism() {
        let record =
            |commit: &str, events| RunRecord { commit: Some(commit.into()), events, ..RunRecord::default() };
        let before = record("abc", 7);
        assert_eq!(status_of(&before, &record("abc", 7)), Status::Expected);
        assert_eq!(status_of(&before, &record("abc", 8)).code(), 13);
        let other_hash = RunRecord { trace_hash: reports::Hash64(9), ..record("abc", 7) };
        assert_eq!(status_of(&before, &other_hash).code(), 13);
        assert_eq!(status_of(&before, &record("def", 8)), Status::Expected, "the code is another");
        let changed = record("abc+changes", 7);
        assert_eq!(
            status_of(&changed, &record("abc+changes", 8)),
            Status::Expected,
            "the code may be another"
        );
        let unknown = RunRecord { commit: None, ..record("", 7) };
        assert_eq!(status_of(&unknown, &RunRecord { events: 8, ..unknown.clone() }), Status::Expected);
    }
}
