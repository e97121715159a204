//! Equal orders are equal runs, to the last event, and two seeds are two runs.

use sim::run::{Order, run};
use sim::scenario::Shelf;

#[test]
fn the_whole_broker_under_faults_takes_the_same_course_twice() {
    let shelf = Shelf::find().unwrap();
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
