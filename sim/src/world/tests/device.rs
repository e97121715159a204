//! What takes how long on a simulated device, and how many operations a process has in flight.

use io_backend::disk::DiskClass;

use super::*;

/// A megabyte takes 100 ms.
fn slow_device() -> Options {
    Options { disk_bytes_per_s: 10_000_000, ..Options::default() }
}

async fn file(backend: &SimBackend, name: &str) -> SimFile {
    backend.disk().open(Path::new(name), OpenHow::OrCreate, soon(backend)).await.unwrap()
}

/// How long `work` takes.
async fn took<T>(backend: &SimBackend, work: impl Future<Output = T>) -> Duration {
    let before = backend.now().0;
    work.await;
    Duration::from_nanos(backend.now().0 - before)
}

fn about(duration: Duration, ms: u32) -> bool {
    (ms * MS..(ms + 3) * MS).contains(&duration)
}

#[test]
fn a_sync_takes_what_is_dirty_and_a_write_does_not() {
    let outcome = World::run(1, slow_device(), |world| async move {
        let backend = world.client("node1");
        let own = backend.clone();
        on(&backend, async move {
            let file = file(&own, "a").await;
            let data = Bytes::from(vec![1; 1_000_000]);
            let write = took(&own, file.write_at(0, data.clone(), soon(&own))).await;
            assert!(about(write, 0), "{write:?}");
            let sync = took(&own, file.sync(soon(&own))).await;
            assert!(about(sync, 100), "{sync:?}");
            let again = took(&own, file.sync(soon(&own))).await;
            assert!(about(again, 0), "{again:?}");
            let read = took(&own, file.read_at(0, 500_000, soon(&own))).await;
            assert!(about(read, 50), "{read:?}");
        })
        .await;
    });
    assert_eq!(outcome.result, Ok(()));
}

#[test]
fn a_small_sync_waits_behind_the_large_one_of_another_file() {
    let outcome = World::run(2, slow_device(), |world| async move {
        let backend = world.client("node1");
        let own = backend.clone();
        on(&backend, async move {
            let (large, small) = (file(&own, "segment").await, file(&own, "journal").await);
            large.write_at(0, Bytes::from(vec![1; 1_000_000]), soon(&own)).await.unwrap();
            small.write_at(0, Bytes::from_static(b"commit"), soon(&own)).await.unwrap();
            let other = own.clone();
            own.spawn("checkpoint", async move {
                large.sync(soon(&other)).await.unwrap();
            });
            own.sleep(10 * MS).await;
            let commit = took(&own, small.sync(soon(&own))).await;
            assert!(about(commit, 90), "{commit:?}");
        })
        .await;
    });
    assert_eq!(outcome.result, Ok(()));
}

#[test]
fn operations_that_hang_use_up_the_permits_of_their_class_although_nobody_waits_for_them() {
    lived(3, |world| async move {
        let backend = world.client("node1");
        let own = backend.clone();
        let (one, other) = on(&backend, async move { (file(&own, "a").await, file(&own, "b").await) }).await;
        let mut stall = fault(FaultKind::DiskStall, world.now(), Duration::from_secs(60));
        stall.path = Some("*a".parse().unwrap());
        let stall = world.inject(&stall);
        world.sleep(MS).await;
        let most = DiskClass::Read.operations_max();
        for _ in 0..most {
            let (own, one) = (backend.clone(), one.clone());
            backend.spawn("reads", async move {
                assert!(one.read_at(0, 1, Deadline::after(&own, 10 * MS)).await.is_err());
            });
        }
        world.sleep(20 * MS).await;
        assert_eq!(backend.registry().snapshot().len(), most);
        let (own, written) = (backend.clone(), other.clone());
        on(&backend, async move {
            let began = own.now();
            written.write_at(0, vec![1; 4096].into(), soon(&own)).await.unwrap();
            written.sync(soon(&own)).await.unwrap();
            own.disk().rename(Path::new("b"), Path::new("c"), soon(&own)).await.unwrap();
            assert!(own.now().since(began) < 10 * MS, "the reads held up other classes");
        })
        .await;
        let own = backend.clone();
        backend.spawn("waits", async move {
            other.read_at(0, 1, soon(&own)).await.unwrap();
        });
        world.sleep(MS).await;
        let waits = backend.registry().snapshot().into_iter().find(|entry| !entry.operation);
        assert_eq!(waits.unwrap().what, "read", "the wait for a permit is in the registry");
        world.heal(stall);
        world.sleep(MS).await;
        assert!(backend.registry().snapshot().is_empty());
    });
}
