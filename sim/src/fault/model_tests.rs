use super::*;

fn parse(text: &str) -> FaultPlan {
    toml::from_str(text).unwrap()
}

#[test]
fn a_plan_reads_well_in_toml() {
    let plan = parse(
        r#"
        [[fault]]
        kind = "disk-stall"
        node = 1
        path = "journal"
        operation = "sync"
        at = "10s"
        for = "3h 40m"

        [[fault]]
        kind = "partition"
        link = "client-* <-> node1"
        at = "1m"
        for = "forever"

        [[fault]]
        kind = "power-loss"
        node = 1
        at = "5s"
        when = "raft-group-in-flight"
        nth = 3
        for = "1s"
        "#,
    );
    assert_eq!(plan.faults[2].to_string(), "power-loss node1 in raft-group-in-flight no. 3 after 5s for 1s");
    assert_eq!(plan.faults[0].to_string(), "disk-stall node1 journal sync at 10s for 3h 40m");
    assert_eq!(plan.faults[1].to_string(), "partition client-* <-> node1 at 1m for forever");
    assert!(plan.faults.iter().all(|fault| fault.check().is_ok()));
}

#[test]
fn an_unknown_key_or_kind_is_refused() {
    let error = toml::from_str::<FaultPlan>("[[fault]]\nkind = \"disk-stall\"\nnod = 1\n").unwrap_err();
    assert!(error.to_string().contains("nod"), "{error}");
    assert!(toml::from_str::<FaultPlan>("[[fault]]\nkind = \"disk-stal\"\n").is_err());
}

#[test]
fn a_plan_survives_writing_and_reading() {
    let mut fault = Fault::new(FaultKind::ClockSkew).on(2);
    fault.by = Some("-5s".parse().unwrap());
    let aimed = Fault { when: Some("write:9".parse().unwrap()), ..Fault::new(FaultKind::Kill).on(1) };
    let plan = FaultPlan { faults: vec![fault, Fault::new(FaultKind::Kill).on(1), aimed] };
    let json: FaultPlan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    let toml: FaultPlan = toml::from_str(&toml::to_string(&plan).unwrap()).unwrap();
    assert_eq!(json, plan);
    assert_eq!(toml, plan);
    assert_eq!(json.hash(), plan.hash());
}

#[test]
fn different_plans_have_different_hashes() {
    let one = FaultPlan { faults: vec![Fault::new(FaultKind::Kill).on(1)] };
    let two = FaultPlan { faults: vec![Fault::new(FaultKind::Kill).on(2)] };
    assert_ne!(one.hash(), two.hash());
}

#[test]
fn a_fault_that_cannot_be_carried_out_says_what_is_missing() {
    let says = |fault: Fault, text: &str| {
        let error = fault.check().unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    says(Fault::new(FaultKind::DiskStall), "needs a node");
    says(Fault::new(FaultKind::DiskSlow).on(1), "needs delay");
    says(Fault::new(FaultKind::TaskStopped).on(1), "needs task");
    says(Fault { lock: Some("x".into()), ..Fault::new(FaultKind::Kill).on(1) }, "takes no lock");
    let aimed = |when: &str, nth| Fault {
        when: Some(when.parse().unwrap()),
        nth,
        ..Fault::new(FaultKind::Kill).on(1)
    };
    says(Fault { nth: Some(1), ..Fault::new(FaultKind::Kill).on(1) }, "no when");
    says(aimed("write:3", Some(2)), "write:N");
    says(aimed("checkpoint", Some(0)), "the first is 1");
    let anywhere = Fault { link: Some("a <-> b".parse().unwrap()), ..Fault::new(FaultKind::Partition) };
    says(Fault { when: Some("recovery".parse().unwrap()), ..anywhere }, "whose state");
    says(Fault { per_mille: Some(0), ..Fault::new(FaultKind::LostWrite).on(1) }, "per_mille");
}

#[test]
fn every_kind_has_a_name_that_reads_back() {
    for kind in FaultKind::ALL {
        let back: FaultKind = serde_json::from_value(serde_json::Value::String(kind.name())).unwrap();
        assert_eq!(back, kind);
    }
}
