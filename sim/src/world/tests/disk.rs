//! The disk under faults, as a process sees it.

use super::*;
use std::io::ErrorKind;

async fn open(backend: &SimBackend, path: &str) -> SimFile {
    let disk = backend.disk();
    let parent = Path::new(path).parent().unwrap();
    disk.create_dir_all(parent, soon(backend)).await.unwrap();
    let file = disk.open(Path::new(path), OpenHow::OrCreate, soon(backend)).await.unwrap();
    disk.sync_dir(parent, soon(backend)).await.unwrap();
    file
}

/// Writes 64 synced and 64 un-synced kilobytes, then the plug is pulled or the process killed.
fn after(seed: u64, end: impl FnOnce(&MachineHandle) + Send + 'static) -> (Vec<u8>, u64) {
    lived(seed, move |world| async move {
        let backend = world.client("node1");
        let own = backend.clone();
        on(&backend, async move {
            let file = open(&own, "data/journal").await;
            file.write_at(0, Bytes::from(vec![1; 65_536]), soon(&own)).await.unwrap();
            file.sync(soon(&own)).await.unwrap();
            file.write_at(65_536, Bytes::from(vec![2; 65_536]), soon(&own)).await.unwrap();
        })
        .await;
        let node = world.node(1);
        end(&node);
        let probes = world.probes().get("power loss with un-synced bytes in flight").copied();
        (node.disk().current_bytes(Path::new("data/journal")).unwrap(), probes.unwrap_or(0))
    })
}

#[test]
fn a_power_loss_keeps_what_was_synced_and_some_of_the_rest() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let (bytes, probes) = after(seed, |node| node.power_loss());
        assert_eq!(bytes[..65_536], vec![1; 65_536], "seed {seed}");
        assert_eq!(probes, 1);
        kept.insert(bytes[65_536..].iter().filter(|byte| **byte == 2).count());
    }
    assert!(kept.len() > 3 && kept.iter().any(|bytes| *bytes < 65_536), "{kept:?}");
}

#[test]
fn a_kill_keeps_everything_that_was_written() {
    let (bytes, _) = after(1, |node| assert!(node.kill()));
    assert_eq!(bytes, [vec![1; 65_536], vec![2; 65_536]].concat());
}

#[test]
fn a_stalled_sync_completes_when_the_stall_ends_and_its_waiter_is_long_gone() {
    let hits = lived(3, |world| async move {
        let mut stall = fault(FaultKind::DiskStall, 100 * MS, Duration::from_secs(3600));
        stall.operation = Some(crate::fault::Operation::Sync);
        world.inject(&stall);
        let backend = world.client("node1");
        let own = backend.clone();
        let error = on(&backend, async move {
            let file = open(&own, "data/journal").await;
            own.timer(Moment::ZERO + 200 * MS).await;
            file.write_at(0, Bytes::from_static(b"x"), soon(&own)).await.unwrap();
            file.sync(Deadline::after(&own, 50 * MS)).await.unwrap_err()
        })
        .await;
        assert!(error.timed_out(), "{error}");
        let told = waits::explain(&world.snapshots());
        assert_eq!(told.standstill, waits::Standstill::None, "it is not yet old: {told:?}");
        world.sleep(Duration::from_secs(1800)).await;
        let told = waits::explain(&world.snapshots());
        assert_eq!(told.operation.as_deref(), Some("fdatasync of data/journal"), "{told:?}");
        assert!(!world.node(1).disk().is_durable(Path::new("data/journal"), 0, 1));
        assert_eq!(backend.registry().late_completions(), 0);
        world.sleep(Duration::from_secs(1802)).await;
        assert_eq!(backend.registry().late_completions(), 1);
        assert!(world.node(1).disk().is_durable(Path::new("data/journal"), 0, 1));
        world.fault_hits()[0].hits
    });
    assert_eq!(hits, 1);
}

#[test]
fn a_stall_ends_also_when_others_are_busy_at_that_very_moment() {
    lived(4, |world| async move {
        let backend = world.client("node1");
        let end = 300 * MS;
        // Who runs takes some nanoseconds, so that the next thing comes late.
        for before in 1..20 {
            let (busy, at) = (backend.clone(), Moment::ZERO + (end - Duration::from_nanos(before)));
            let _detached = backend.spawn("busy", async move { busy.timer(at).await });
        }
        let own = backend.clone();
        world.sleep(50 * MS).await;
        world.inject(&fault(FaultKind::DiskStall, 100 * MS, end - 100 * MS));
        let synced = on(&backend, async move {
            own.timer(Moment::ZERO + 150 * MS).await;
            let file = open(&own, "data/journal").await;
            file.write_at(0, Bytes::from_static(b"x"), soon(&own)).await.unwrap();
            file.sync(Deadline::after(&own, 10_000 * MS)).await
        })
        .await;
        assert!(synced.is_ok() && world.now() < 400 * MS, "{synced:?} at {:?}", world.now());
    });
}

#[test]
fn a_stall_catches_what_is_in_flight_and_new_processes_and_can_be_healed() {
    lived(4, |world| async move {
        let node = world.node(1);
        node.start(|backend| async move {
            let file = open(&backend, "data/journal").await;
            loop {
                if file.write_at(0, Bytes::from_static(b"x"), soon(&backend)).await.is_err() {
                    backend.sleep(MS).await;
                }
            }
        });
        let id = world.inject(&fault(FaultKind::DiskStall, 10 * MS, Duration::MAX));
        world.sleep(20 * MS).await;
        assert_eq!(world.probes().get("stall hit an operation in flight"), Some(&1));
        node.restart();
        world.sleep(Duration::from_secs(3)).await;
        let writes = node.disk().counts().writes;
        let told = waits::explain(&world.snapshots());
        assert_eq!(told.operation.as_deref(), Some("create directory of data"), "{told:?}");
        world.heal(id);
        world.sleep(10 * MS).await;
        assert!(node.disk().counts().writes > writes);
    });
}

#[test]
fn a_failed_sync_loses_the_pages_and_a_later_one_does_not_bring_them_back() {
    lived(5, |world| async move {
        let mut fails = fault(FaultKind::SyncFails, Duration::ZERO, Duration::from_secs(60));
        fails.count = Some(1);
        world.inject(&fails);
        let backend = world.client("node1");
        let own = backend.clone();
        on(&backend, async move {
            let file = open(&own, "data/journal").await;
            file.write_at(0, Bytes::from_static(b"lost"), soon(&own)).await.unwrap();
            assert!(file.sync(soon(&own)).await.is_err());
            file.sync(soon(&own)).await.unwrap();
        })
        .await;
        assert!(!world.node(1).disk().is_durable(Path::new("data/journal"), 0, 4));
        let syncs: Vec<bool> = world.node(1).disk().syncs().iter().map(|sync| sync.ok).collect();
        assert_eq!(syncs, [false, true]);
    });
}

#[test]
fn errors_and_a_full_disk_are_told_as_such() {
    lived(6, |world| async move {
        let backend = world.client("node1");
        let (own, inject) = (backend.clone(), world.clone());
        let file = {
            let own = own.clone();
            on(&backend, async move { open(&own, "data/journal").await }).await
        };
        let now = world.now();
        inject.inject(&fault(FaultKind::DiskFull, now, 10 * MS));
        let (own2, file2) = (own.clone(), file.clone());
        let full = on(&backend, async move {
            file2.write_at(0, Bytes::from_static(b"x"), soon(&own2)).await.unwrap_err()
        })
        .await;
        assert!(full.is_full(), "{full}");
        world.sleep(10 * MS).await;
        inject.inject(&fault(FaultKind::DiskError, world.now(), 10 * MS));
        let own2 = own.clone();
        let error = on(&backend, async move { file.read_at(0, 1, soon(&own2)).await.unwrap_err() }).await;
        assert_eq!(error.source.raw_os_error(), Some(libc::EIO));
        assert_eq!(error.path, Path::new("data/journal"));
    });
}

#[test]
fn a_lost_write_reports_success_and_a_disk_of_its_own_size_is_full_at_its_end() {
    let options = Options { disk_capacity: 1_000, ..Options::default() };
    let outcome = World::run(7, options, |world| async move {
        world.inject(&fault(FaultKind::LostWrite, Duration::ZERO, 2 * MS));
        let backend = world.client("node1");
        let own = backend.clone();
        on(&backend, async move {
            let file = open(&own, "data/journal").await;
            file.write_at(0, Bytes::from_static(b"lost"), soon(&own)).await.unwrap();
            assert_eq!(file.len(soon(&own)).await.unwrap(), 0);
            own.sleep(3 * MS).await;
            file.write_at(0, Bytes::from(vec![1; 1_000]), soon(&own)).await.unwrap();
            let full = file.write_at(1_000, Bytes::from_static(b"x"), soon(&own)).await.unwrap_err();
            assert_eq!(full.kind(), ErrorKind::StorageFull);
            file.write_at(0, Bytes::from_static(b"rewritten"), soon(&own)).await.unwrap();
        })
        .await;
        world.fault_hits()[0].hits
    });
    assert_eq!(outcome.result, Ok(1));
}

#[test]
fn a_removed_file_gives_its_room_back_when_it_is_needed_whether_its_directory_was_synced_or_not() {
    let options = Options { disk_capacity: 1_000, ..Options::default() };
    let outcome = World::run(7, options, |world| async move {
        let backend = world.client("node1");
        let own = backend.clone();
        on(&backend, async move {
            let (old, new) = (open(&own, "data/old").await, open(&own, "data/new").await);
            old.write_at(0, Bytes::from(vec![1; 1_000]), soon(&own)).await.unwrap();
            own.disk().sync_dir(Path::new("data"), soon(&own)).await.unwrap();
            drop(old);
            let full = new.write_at(0, Bytes::from_static(b"x"), soon(&own)).await.unwrap_err();
            assert_eq!(full.kind(), ErrorKind::StorageFull);
            own.disk().remove_file(Path::new("data/old"), soon(&own)).await.unwrap();
            new.write_at(0, Bytes::from(vec![1; 1_000]), soon(&own)).await.unwrap();
        })
        .await;
    });
    assert_eq!(outcome.result, Ok(()));
}

#[test]
fn markers_tell_when_a_record_was_durable() {
    let options = Options { marker: Some(*b"CHRONIKR"), ..Options::default() };
    let outcome = World::run(8, options, |world| async move {
        let backend = world.client("node1");
        let (own, disk) = (backend.clone(), world.node(1).disk().clone());
        on(&backend, async move {
            let file = open(&own, "data/journal").await;
            let record = [b"CHRONIKR".as_slice(), &77u64.to_be_bytes()].concat();
            file.write_at(5, Bytes::from(record), soon(&own)).await.unwrap();
            assert_eq!(disk.marker(77).durable, None);
            file.sync(soon(&own)).await.unwrap();
        })
        .await;
        let times = world.node(1).disk().marker(77);
        assert!(times.written.unwrap() < times.durable.unwrap());
        assert!(times.durable.unwrap() <= world.kernel().now());
    });
    assert_eq!(outcome.result, Ok(()));
}
