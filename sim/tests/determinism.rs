//! Equal orders are equal runs, to the last event, and two seeds are two runs.

use sim::run::{Choice, Order, divergence, run};
use sim::scenario::ScenarioDir;

#[test]
fn the_whole_broker_under_faults_takes_the_same_course_twice() {
    let shelf = ScenarioDir::find().unwrap();
    let mut scenario = shelf.load("safety/everything").unwrap();
    scenario.scenario.duration = sim::fault::Span::secs(15);
    let order = |seed| Order::new(scenario.clone(), seed);
    let (one, two, other) = (run(&order(7)), run(&order(7)), run(&order(8)));
    assert_eq!((one.trace_hash, one.events), (two.trace_hash, two.events));
    assert_eq!(one.last_events, two.last_events);
    assert_eq!(one.violations, two.violations);
    assert_ne!(one.trace_hash, other.trace_hash);
    assert!(one.events > 10_000, "{}", one.events);
}

#[test]
fn a_message_in_the_order_of_a_hash_map_is_found_and_its_first_event_named() {
    let mut scenario = ScenarioDir::find().unwrap().load("smoke/single-node").unwrap();
    scenario.scenario.duration = sim::fault::Span::secs(8);
    let mut order = Order::new(scenario, 7);
    assert_eq!(divergence(&order), None);
    order.choice = Choice::Part("hashmap-order".to_owned());
    let found = divergence(&order).expect("two orders of twelve names");
    assert!(found.event.is_some_and(|event| event > 100), "{found}");
    let sent = |lines: &[String]| lines.first().is_some_and(|line| line.contains(" Sent "));
    assert!(sent(&found.one) && sent(&found.two) && !found.before.is_empty(), "{found}");
}
