//! Each planted bug is caught on at least 80 % of seeds that nobody chose, by the scenario that ours passes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use reports::Verdict;
use sim::planted::BUGS;
use sim::run::{Choice, Order, run};
use sim::scenario::Shelf;

const SEEDS: u64 = 5;

#[test]
fn planted_bugs_are_caught_and_the_same_seeds_are_clean_without_them() {
    let scenario = Shelf::find().unwrap().load("safety/power-loss").unwrap();
    let choices = BUGS.iter().map(|bug| Choice::Part(bug.name.to_owned())).chain([Choice::Production]);
    let orders: Vec<Order> = choices
        .flat_map(|choice| (101..=100 + SEEDS).map(move |seed| (choice.clone(), seed)))
        .map(|(choice, seed)| Order { choice, ..Order::new(scenario.clone(), seed) })
        .collect();
    let verdicts = Mutex::new(vec![Verdict::Pass; orders.len()]);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(order) = orders.get(index) else { return };
                    let verdict = run(order).verdict;
                    verdicts.lock().unwrap()[index] = verdict;
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().unwrap();
    let caught = |choice: &Choice| {
        orders
            .iter()
            .zip(&verdicts)
            .filter(|(order, verdict)| order.choice == *choice && **verdict != Verdict::Pass)
            .map(|(order, _)| order.seed)
            .collect::<Vec<u64>>()
    };
    assert_eq!(caught(&Choice::Production), Vec::<u64>::new(), "seeds on which our code fails");
    for bug in &BUGS {
        let seeds = caught(&Choice::Part(bug.name.to_owned()));
        assert!(seeds.len() as u64 * 10 >= SEEDS * 8, "{} is caught on {seeds:?} only", bug.name);
    }
}
