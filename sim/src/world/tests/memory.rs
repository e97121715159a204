//! What is on a process's account.

use super::*;

const MIB: u64 = 1 << 20;

fn memory(world: &World) -> (u64, u64) {
    let counts = world.node(1).counts().unwrap();
    (counts.memory / MIB, counts.memory_peak / MIB)
}

#[test]
fn a_process_pays_for_what_it_holds_and_a_machine_remembers_the_most() {
    lived(1, |world| async move {
        let node = world.node(1);
        node.start(|backend| async move {
            if backend.process().incarnation > 1 {
                return std::future::pending().await;
            }
            let held = vec![1u8; 8 * MIB as usize];
            backend.sleep(10 * MS).await;
            drop(held);
            std::future::pending().await
        });
        world.sleep(5 * MS).await;
        assert_eq!(memory(&world), (8, 8));
        world.sleep(10 * MS).await;
        assert_eq!(memory(&world), (0, 8));
        node.restart();
        world.sleep(MS).await;
        assert_eq!(memory(&world), (0, 8));
    });
}

#[test]
fn the_page_cache_is_not_the_writers_and_what_is_read_is_the_readers() {
    lived(2, |world| async move {
        let backend = world.client("node1");
        let own = backend.clone();
        let file = on(&backend, async move {
            let file = own.disk().open(Path::new("a"), OpenHow::OrCreate, soon(&own)).await.unwrap();
            file.write_at(0, Bytes::from(vec![1; 8 * MIB as usize]), soon(&own)).await.unwrap();
            file
        })
        .await;
        assert_eq!(memory(&world), (0, 8));
        let own = backend.clone();
        let read = on(&backend, async move { file.read_at(0, 8 * MIB as usize, soon(&own)).await.unwrap() });
        let read = read.await;
        assert_eq!(memory(&world).0, 8);
        drop(read);
        assert_eq!(memory(&world).0, 0);
    });
}
