use std::future::{pending, ready};
use std::panic::Location;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use crate::mutex::lock;
use crate::registry::{Entry, Observer, Registry, WaitKind};
use crate::task::Named;
use crate::testing::{poll_with, run, some_task};
use crate::time::{Deadline, Moment, within};
use crate::{Backend, Clock};

#[test]
fn a_wait_is_an_entry_from_its_first_pending_until_it_is_dropped() {
    run(async |backend| {
        let registry = backend.registry();
        let site = Location::caller();
        let before = backend.now();
        let waiting = || registry.waiting(&backend, WaitKind::Change, "news", site).on("state".into());
        {
            let mut wait = pin!(Named::new(some_task("reader"), waiting().during(pending::<()>())));
            assert!(registry.is_empty(), "a wait that was never polled is shown");
            assert!(poll_with(wait.as_mut(), Waker::noop()).is_pending());
            assert!(poll_with(wait.as_mut(), Waker::noop()).is_pending());
            let [entry] = &registry.snapshot()[..] else { panic!("one wait, one entry") };
            assert_eq!(
                (entry.kind, entry.what, entry.target.as_deref()),
                (WaitKind::Change, "news", Some("state"))
            );
            assert_eq!(entry.task.as_ref().map(|task| task.name.role), Some("reader"));
            assert_eq!(entry.site, site);
            assert!(entry.since >= before && entry.since <= backend.now());
            assert!(!entry.operation && entry.bounded);
        }
        assert!(registry.is_empty(), "a wait that was given up is still shown");
        waiting().during(ready(())).await;
        assert!(registry.is_empty());
    });
}

#[test]
fn a_wait_without_a_bound_is_shown_as_such() {
    run(async |backend| {
        for (deadline, bounded) in
            [(Deadline::Unbounded("test"), false), (Deadline::after(&backend, Duration::from_secs(9)), true)]
        {
            let wait = backend.registry().waiting(&backend, WaitKind::Timer, "idle", Location::caller());
            let mut wait =
                pin!(within(&backend, deadline, wait.bounded_by(deadline).during(pending::<()>())));
            assert!(poll_with(wait.as_mut(), Waker::noop()).is_pending());
            let [entry] = &backend.registry().snapshot()[..] else { panic!("one wait, one entry") };
            assert_eq!(entry.bounded, bounded);
        }
    });
}

#[test]
fn the_oldest_operation_of_a_kind_is_found_among_many_tasks() {
    let registry = Registry::new();
    let begin = |at, kind, target: &str| {
        let mut task = pin!(Named::new(some_task("worker"), async {
            registry.operation_at(Moment(at), kind, "test", target.into(), Location::caller())
        }));
        match poll_with(task.as_mut(), Waker::noop()) {
            std::task::Poll::Ready(operation) => operation,
            std::task::Poll::Pending => unreachable!("nothing is awaited"),
        }
    };
    let oldest = || {
        let sync = registry.oldest_operation(|entry| entry.kind == WaitKind::DiskSync);
        sync.map(|entry| entry.target.as_deref().unwrap_or("").to_owned())
    };
    assert_eq!(oldest(), None);
    let _write = begin(1, WaitKind::DiskWrite, "a write is no sync");
    let young = begin(7, WaitKind::DiskSync, "young");
    let old = begin(5, WaitKind::DiskSync, "old");
    assert_eq!(oldest().as_deref(), Some("old"));
    assert_eq!(registry.snapshot().len(), 3);
    old.end(Moment(9));
    assert_eq!(oldest().as_deref(), Some("young"));
    drop(young);
    assert_eq!(oldest(), None);
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Observer for Notes {
    fn began(&self, entry: &Entry) {
        lock(&self.0).push(format!("{} began at {}", entry.what, entry.since.0));
    }

    fn ended(&self, entry: &Entry, now: Moment) {
        lock(&self.0).push(format!("{} ended at {}", entry.what, now.0));
    }
}

#[test]
fn the_observer_is_told_of_each_beginning_and_end() {
    let registry = Registry::new();
    let notes = Notes::default();
    registry.observe(Box::new(notes.clone()));
    registry.observe(Box::new(Notes::default()));
    let begin = |at, what| {
        registry.operation_at(Moment(at), WaitKind::DiskSync, what, "f".into(), Location::caller())
    };
    let first = begin(1, "first");
    let second = begin(2, "second");
    first.end(Moment(5));
    second.end(Moment(6));
    let told = lock(&notes.0).clone();
    assert_eq!(told, ["first began at 1", "second began at 2", "first ended at 5", "second ended at 6"]);
}

#[test]
fn the_observer_may_look_into_the_registry() {
    struct Looks(Arc<Registry>, Arc<Mutex<Vec<usize>>>);
    impl Observer for Looks {
        fn began(&self, _: &Entry) {
            lock(&self.1).push(self.0.snapshot().len());
        }
        fn ended(&self, _: &Entry, _: Moment) {
            lock(&self.1).push(self.0.snapshot().len());
        }
    }
    let registry = Registry::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    registry.observe(Box::new(Looks(registry.clone(), seen.clone())));
    drop(registry.operation_at(Moment(1), WaitKind::DiskSync, "sync", "f".into(), Location::caller()));
    assert_eq!(*lock(&seen), [0, 0]);
}

#[test]
fn places_in_the_registry_are_used_again() {
    let registry = Registry::new();
    for round in 0..1_000 {
        let operation =
            registry.operation_at(Moment(round), WaitKind::DiskRead, "read", "f".into(), Location::caller());
        assert_eq!(registry.snapshot().len(), 1);
        operation.end(Moment(round));
    }
    assert!(registry.is_empty());
    let slots: usize = registry.shards.iter().map(|shard| lock(shard).slots.len()).sum();
    assert_eq!(slots, 1);
}
