//! The simulated backend, held to the same contracts as the real ones.

use std::path::Path;

use io_backend::conformance;
use sim::world::{Options, World};

#[test]
fn the_contracts_hold_in_a_world() {
    for seed in 1..=6 {
        let outcome = World::run(seed, Options::default(), |world| async move {
            let backend = world.client("node1");
            let (sender, mut receiver) = io_backend::channel(&backend, "report", 1);
            let within = backend.clone();
            io_backend::Backend::spawn(&backend, "conformance", async move {
                let report = conformance::all(&within, Path::new("/conformance")).await;
                let _ = sender.try_send(report);
            });
            receiver.receive(io_backend::Deadline::Unbounded("the run has a limit of its own")).await
        });
        let report = outcome.result.unwrap_or_else(|stop| panic!("seed {seed}: {stop}")).unwrap();
        println!("seed {seed}: {report}");
        assert!(report.passed(), "seed {seed}: {report}");
    }
}
