use std::collections::BTreeSet;

use super::*;
use crate::fault::{Family, FaultKind};
use crate::scenario::parse;

const SWARM: &str = r#"
name = "x"
about = "x"
duration = "30s"
part = "idle-thrash"
[swarm]
faults = [2, 8]
families = { disk = 3, network = 2, process = 3, clock = 1, task = 1, seam = 1 }
"#;

fn swarm() -> Scenario {
    parse("x.toml", SWARM).unwrap()
}

#[test]
fn the_plan_is_the_seed_and_not_the_part() {
    let mut other = swarm();
    other.part = None;
    for seed in 0..50 {
        assert_eq!(plan(&swarm(), seed), plan(&other, seed));
    }
    let hashes: BTreeSet<u64> = (0..50).map(|seed| plan(&swarm(), seed).hash()).collect();
    assert_eq!(hashes.len(), 50);
}

#[test]
fn every_drawn_fault_can_be_carried_out_and_is_over_with_the_safety_phase() {
    for seed in 0..500 {
        for fault in plan(&swarm(), seed).faults {
            fault.check().unwrap();
            assert!(fault.at.0 < Duration::from_secs(30), "{fault}");
            let Extent::For(length) = fault.for_ else { panic!("{fault} never ends") };
            assert!(fault.at.0 + length <= Duration::from_secs(30), "{fault}");
        }
    }
}

#[test]
fn seeds_differ_in_climate_and_together_they_draw_every_family() {
    let families = |seed| -> BTreeSet<Family> {
        plan(&swarm(), seed).faults.iter().map(|fault| fault.kind.family()).collect()
    };
    let all: BTreeSet<Family> = (0..100).flat_map(families).collect();
    assert_eq!(all.len(), 6);
    let single = (0..100).filter(|seed| families(*seed).len() == 1).count();
    assert!((5..80).contains(&single), "{single} of 100 seeds have one family only");
}

#[test]
fn one_node_is_not_asked_to_survive_the_loss_of_its_only_copy() {
    for seed in 0..500 {
        for fault in plan(&swarm(), seed).faults {
            assert!(!fault.kind.destroys_data() || fault.kind == FaultKind::SyncFails, "{fault}");
        }
    }
}

#[test]
fn what_is_explicit_stays_and_forever_ends_with_the_phase() {
    let scenario = parse(
        "x.toml",
        "name = \"x\"\nabout = \"x\"\nduration = \"30s\"\n[[fault]]\nkind = \"disk-stall\"\nnode = 1\nat = \"10s\"\n",
    )
    .unwrap();
    let plan = plan(&scenario, 1);
    assert_eq!(plan.faults.len(), 1);
    assert_eq!(plan.faults[0].for_, Extent::For(Duration::from_secs(20)));
}

#[test]
fn a_plan_reads_back_from_both_forms() {
    let plan = plan(&swarm(), 3);
    assert_eq!(read(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
    assert_eq!(read(&toml::to_string(&plan).unwrap()).unwrap(), plan);
    assert!(read("[[fault]]\nkind = \"disk-slow\"\nnode = 1\n").unwrap_err().contains("delay"));
}
