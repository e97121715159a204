//! `run` and `replay`: one seed of one scenario.

use std::path::Path;

use reports::{RunRecord, Status, render};
use sim::run::{Choice, Order};
use sim::scenario::Shelf;

use super::{CommandError, known_part, read, write};

pub(super) fn run(arguments: super::Run) -> Result<u8, CommandError> {
    if let Some(filter) = &arguments.log {
        sim::world::logs::to_stderr(filter).map_err(CommandError::Usage)?;
    }
    let shelved = Shelf::find()?.load(&arguments.file)?;
    let mut order = Order::new(shelved, arguments.seed);
    order.choice = match (arguments.production, known_part(arguments.part)?) {
        (true, _) => Choice::Production,
        (false, Some(part)) => Choice::Part(part),
        (false, None) => Choice::AsTheScenarioSays,
    };
    if let Some(path) = &arguments.plan {
        let plan = sim::plan::read(&read(path)?);
        order.plan = Some(plan.map_err(|what| CommandError::Content { path: path.clone(), what })?);
    }
    println!("{}", heading(&order));
    let record = sim::run::run(&order);
    print!("{}", render::terminal::run(&record));
    if let Some(path) = &arguments.json {
        write(path, &record.to_json())?;
    }
    if let Some(path) = &arguments.html {
        write(path, &render::html::run(&record))?;
    }
    Ok(Status::of_run(&record).code())
}

fn heading(order: &Order) -> String {
    let part = match order.part() {
        Some(part) => format!("with the part {part}"),
        None => "with the production code".into(),
    };
    format!("{} seed {} {part}", order.scenario.id, order.seed)
}

/// Runs what a record describes, with its plan, and tells whether it came out the same.
pub(super) fn replay(path: &Path) -> Result<u8, CommandError> {
    let content = |what: String| CommandError::Content { path: path.to_path_buf(), what };
    let before = RunRecord::from_json(&read(path)?).map_err(|error| content(error.to_string()))?;
    let mut order = Order::new(Shelf::find()?.load(&before.scenario)?, before.seed);
    order.choice = match (&before.part, before.production) {
        (_, true) => Choice::Production,
        (Some(part), false) => Choice::Part(part.clone()),
        (None, false) => Choice::AsTheScenarioSays,
    };
    order.plan = Some(sim::plan::read(&before.plan.to_string()).map_err(content)?);
    println!("{}", heading(&order));
    let record = sim::run::run(&order);
    let same = record.trace_hash == before.trace_hash && record.events == before.events;
    if same {
        println!("same course as recorded: {} events, trace hash {}", record.events, record.trace_hash);
    } else {
        println!(
            "another course than recorded: {} events with trace hash {} then, {} with {} now; the code has changed since, or something is not deterministic",
            before.events, before.trace_hash, record.events, record.trace_hash
        );
    }
    print!("{}", render::terminal::run(&record));
    Ok(Status::of_run(&record).code())
}
