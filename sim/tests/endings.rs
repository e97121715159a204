//! A run always ends with a verdict, and a freeze with an explanation.

use reports::{RunRecord, Status, Verdict};
use sim::fault::Span;
use sim::run::{Choice, Order, run};
use sim::scenario::ScenarioDir;

fn order(name: &str) -> Order {
    let mut scenario = ScenarioDir::find().unwrap().load(name).unwrap();
    scenario.scenario.duration = Span::secs(20);
    Order::new(scenario, 1)
}

fn tells(record: &RunRecord) -> String {
    reports::render::terminal::run(record)
}

#[test]
fn a_run_beyond_its_budget_of_events_is_a_livelock_that_names_who_ran() {
    let mut order = order("smoke/single-node");
    order.scenario.scenario.liveness.events_max = Some(30_000);
    let record = run(&order);
    let text = tells(&record);
    assert_eq!((record.verdict, record.events), (Verdict::Freeze, run(&order).events), "{text}");
    assert!((30_000..31_000).contains(&record.events), "{text}");
    assert!(text.contains("livelock: at ") && text.contains("these were polled most: task "), "{text}");
    assert_eq!(record.standstill.as_ref().map(|still| still.class.as_str()), Some("livelock"), "{text}");
    assert!(!record.explanation.is_empty(), "{text}");
    assert_eq!(Status::of_run(&record).code(), 11);
}

#[test]
fn a_broker_whose_fetches_bring_nothing_although_there_is_something_does_not_run_for_ever() {
    let mut order = order("smoke/single-node");
    order.scenario.scenario.liveness.events_max = Some(1_000_000);
    order.choice = Choice::Part("fetch-answers-nothing".to_owned());
    let record = run(&order);
    assert_ne!(record.verdict, Verdict::Pass, "{}", tells(&record));
}
