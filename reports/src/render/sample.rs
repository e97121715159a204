//! A record for the tests of the renderings.

use std::collections::BTreeMap;

use crate::record::{FaultHit, Hash64, RunRecord, Standstill, Verdict, Violation};

pub(crate) fn freeze() -> RunRecord {
    RunRecord {
        version: crate::VERSION,
        scenario: "museum/fsync-without-deadline".into(),
        seed: 7,
        part: Some("fsync-without-deadline".into()),
        verdict: Verdict::Freeze,
        expected: Verdict::Freeze,
        trace_hash: Hash64(0x0123_4567_89ab_cdef),
        plan_hash: Hash64(0x42),
        events: 123_456,
        events_by_class: BTreeMap::from(
            [("disk", 10), ("polls", 20), ("wakes", 50)].map(|(n, c)| (n.into(), c)),
        ),
        hits: vec![FaultHit {
            fault: "disk-stall node1 journal sync at 10s for 3h 40m".into(),
            kind: "disk-stall".into(),
            hits: 23,
        }],
        hits_required: true,
        simulated_seconds: 14_400.0,
        wall_seconds: 4.25,
        probes: BTreeMap::from([("stall-hit-in-flight".into(), 1)]),
        probes_required: vec!["stall-hit-in-flight".into()],
        standstill: Some(Standstill {
            at_s: 64.5,
            why: "nothing was decided for 5 s".into(),
            class: "freeze".into(),
            component: Some("node1, task worker".into()),
            operation: Some("fdatasync of <wal>".into()),
            seam: Some("lock file".into()),
            fault: Some("1, disk-stall node1".into()),
        }),
        explanation: vec!["fdatasync of <wal> is in flight since 10 s".into()],
        violations: vec![Violation {
            checker: "answered".into(),
            verdict: Verdict::Freeze,
            what: "a request & its deadline".into(),
        }],
        plan: serde_json::json!({"fault": []}),
        ..RunRecord::default()
    }
}
