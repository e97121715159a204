use std::collections::{BTreeMap, BTreeSet};

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
families = { disk = 3, network = 2, process = 3, clock = 1, task = 1, sync-point = 1 }
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
            if fault.outlives_the_healing() {
                continue;
            }
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
fn a_third_of_the_disk_and_process_faults_is_aimed_at_a_state() {
    let (mut aimed, mut all) = (0, 0);
    let mut states = BTreeSet::new();
    for fault in (0..500).flat_map(|seed| plan(&swarm(), seed).faults) {
        if matches!(fault.kind.family(), Family::Disk | Family::Process) {
            all += 1;
            aimed += usize::from(fault.when.is_some());
            states.extend(fault.when.map(|when| when.to_string().split(':').next().unwrap().to_owned()));
        }
    }
    assert!(aimed * 6 > all && aimed * 2 < all, "{aimed} of {all}");
    assert_eq!(states.len(), 6, "{states:?}");
}

#[test]
fn no_wall_clock_falls_back_so_far_that_records_are_refused_for_good() {
    let mut often = swarm();
    often.swarm.as_mut().unwrap().faults = (30, 40);
    let mut furthest = 0;
    for seed in 0..200 {
        let mut fallen: BTreeMap<Option<String>, i64> = BTreeMap::new();
        for fault in plan(&often, seed).faults {
            *fallen.entry(fault.node.map(|node| node.machine())).or_default() +=
                fault.by.map_or(0, |by| by.nanos.min(0));
        }
        furthest = furthest.min(fallen.into_values().min().unwrap_or(0));
    }
    let minute = 60_000_000_000;
    assert!((-55 * minute..-50 * minute).contains(&furthest), "{furthest}");
}

#[test]
fn what_never_completes_is_a_few_operations_on_files_that_can_be_done_without() {
    let all: Vec<Fault> = (0..500).flat_map(|seed| plan(&swarm(), seed).faults).collect();
    let lasting: Vec<&Fault> = all.iter().filter(|fault| fault.outlives_the_healing()).collect();
    assert!(lasting.len() > 10, "{}", lasting.len());
    for fault in lasting {
        let path = fault.path.as_ref().unwrap();
        for kept in ["data/journal/000001.journal", "data/raft/000001.journal", "data/identity.json"] {
            assert!(!path.matches(std::path::Path::new(kept)), "{fault}");
        }
        assert!(fault.count.is_some_and(|count| count <= 3), "{fault}");
    }
}

#[test]
fn damage_is_drawn_only_where_a_checker_can_judge_it() {
    let mut corrupting = swarm();
    corrupting.swarm.as_mut().unwrap().corrupting = true;
    let kinds = |scenario: &Scenario| -> BTreeSet<FaultKind> {
        (0..200).flat_map(|seed| plan(scenario, seed).faults).map(|fault| fault.kind).collect()
    };
    use FaultKind::{BitRot, LostWrite, MisdirectedWrite, TornWrite, Wipe};
    let damage = BTreeSet::from([BitRot, LostWrite, MisdirectedWrite, TornWrite]);
    assert!(kinds(&swarm()).is_disjoint(&damage));
    assert!(kinds(&corrupting).is_superset(&damage));
    assert!(!kinds(&corrupting).contains(&Wipe));
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

#[test]
fn of_several_nodes_one_loses_data_and_links_between_any_two_break() {
    let three = SWARM.replace("[swarm]", "[cluster]\nnodes = 3\n[swarm]");
    let scenario = parse("x.toml", &three).unwrap();
    let (mut victims, mut links) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..500 {
        let faults = plan(&scenario, seed).faults;
        let destroyed = faults.iter().filter(|fault| fault.kind.destroys_data());
        let nodes: BTreeSet<String> = destroyed.map(|fault| format!("{:?}", fault.node)).collect();
        assert!(nodes.len() <= 1, "seed {seed}: {nodes:?}");
        victims.extend(nodes);
        links.extend(faults.iter().filter_map(|fault| fault.link.as_ref()).map(|link| format!("{link:?}")));
    }
    assert_eq!(victims.len(), 3);
    assert!(links.len() > 20, "{links:?}");
}
