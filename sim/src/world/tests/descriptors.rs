//! What a process may have open, and what happens at the limit.

use super::*;
use io_backend::{Listener, Network};

/// Beside what every process has open: two files or sockets.
fn two_free() -> Options {
    Options { descriptors: 14, ..Options::default() }
}

fn emfile<T>(result: Result<T, std::io::Error>) {
    assert_eq!(result.err().and_then(|error| error.raw_os_error()), Some(libc::EMFILE));
}

#[test]
fn an_open_beyond_the_limit_is_refused_until_something_is_closed() {
    let outcome = World::run(1, two_free(), |world| async move {
        let backend = world.client("node1");
        let own = backend.clone();
        on(&backend, async move {
            let disk = own.disk();
            let open = |name: &'static str| disk.open(Path::new(name), OpenHow::OrCreate, soon(&own));
            let (one, two) = (open("a").await.unwrap(), open("b").await.unwrap());
            emfile(open("c").await.map_err(|error| error.source));
            let clone = one.clone();
            drop(one);
            emfile(open("c").await.map_err(|error| error.source));
            drop(clone);
            drop(open("c").await.unwrap());
            drop(two);
        })
        .await;
        assert_eq!(world.node(1).counts().unwrap().descriptors, 12);
    });
    assert_eq!(outcome.result, Ok(()));
}

#[test]
fn an_open_that_nobody_waits_for_any_more_is_closed_again() {
    lived(2, |world| async move {
        let backend = world.client("node1");
        let own = backend.clone();
        let mut slow = fault(FaultKind::DiskSlow, Duration::ZERO, 100 * MS);
        slow.delay = Some(Span::millis(50));
        world.inject(&slow);
        on(&backend, async move {
            let late = Deadline::after(&own, 10 * MS);
            assert!(own.disk().open(Path::new("a"), OpenHow::OrCreate, late).await.is_err());
        })
        .await;
        world.sleep(100 * MS).await;
        assert_eq!(backend.registry().late_completions(), 1);
        assert_eq!(world.node(1).counts().unwrap().descriptors, 12);
    });
}

#[test]
fn a_connection_that_finds_no_descriptor_waits_in_the_backlog() {
    let outcome = World::run(3, two_free(), |world| async move {
        let (server, client) = (world.client("node1"), world.client("client-1"));
        let own = server.clone();
        let accepted = async move {
            let listener = own.network().listen("node1:9092").await.unwrap();
            let (one, two) = (listener.accept().await.unwrap(), listener.accept().await.unwrap());
            emfile(listener.accept().await);
            assert_eq!(own.process().counts().sockets, 2);
            drop(one);
            let three = listener.accept().await.unwrap();
            let peaks = own.process().counts();
            assert_eq!((peaks.sockets, peaks.sockets_peak), (2, 2));
            drop((two, three));
        };
        let own = client.clone();
        let many = world.client("client-2");
        client.spawn("connects", async move {
            let connect = || own.network().connect("node1:9092", soon(&own));
            let held = (connect().await.unwrap(), connect().await.unwrap());
            emfile(connect().await.map(|_| ()));
            let other = many.network().connect("node1:9092", soon(&many)).await.unwrap();
            std::future::pending::<()>().await;
            drop((held, other));
        });
        on(&server, accepted).await;
    });
    assert_eq!(outcome.result, Ok(()));
}
