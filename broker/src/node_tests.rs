use io_backend::real::{DiskChoice, RealBackend};
use io_backend::stream;

use super::*;

/// What the admin port answers: the whole of it.
async fn get(backend: &RealBackend, address: &str, path: &str) -> String {
    let soon = Deadline::after(backend, Duration::from_secs(30));
    let mut stream = backend.network().connect(address, soon).await.expect("the admin port listens");
    let request = format!("GET {path} HTTP/1.1\r\n\r\n");
    stream::write_all(backend, &mut stream, request.as_bytes(), "test", soon).await.unwrap();
    let mut answer = bytes::BytesMut::with_capacity(1024);
    while stream::read(backend, &mut stream, &mut answer, "test", soon).await.unwrap() > 0 {
        answer.reserve(1024);
    }
    String::from_utf8(answer.to_vec()).unwrap()
}

/// Where nobody listens until the test does. The system hands out none of these ports by itself (Linux begins at 32768):
/// one of its choice, once let go, may be the near end of any connection before the test has it.
pub(super) fn free_address() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(31).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let address = format!("127.0.0.1:{}", 12_000 + number % 20_000);
        if std::net::TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

#[test]
fn the_admin_port_tells_of_a_start_that_takes_long() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (backend, _) = RealBackend::start(DiskChoice::Threads, home.path()).unwrap();
        let mut config = Config { data_dir: home.path().to_owned(), ..Config::default() };
        config.listen = "127.0.0.1:0".into();
        config.admin = free_address();
        let admin = config.admin.clone();
        // A journal that is read back when the test says so.
        let (reached, goes_on) = (Published::new("reached", false), Published::new("goes on", false));
        let mut parts = Parts::production();
        let (told, until, waiting) = (reached.clone(), goes_on.clone(), backend.clone());
        parts.journal = Box::new(move |context| {
            Box::pin(async move {
                told.publish(true);
                let soon = Deadline::after(&waiting, Duration::from_secs(60));
                until.until(&waiting, soon, |goes_on| *goes_on).await.unwrap();
                crate::journal::open(context).await
            })
        });
        let soon = Deadline::after(&backend, Duration::from_secs(60));
        let asking = async {
            reached.until(&backend, soon, |reached| *reached).await.unwrap();
            let ready = get(&backend, &admin, "/health/ready").await;
            assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
            assert!(ready.ends_with("starting: reading the journal back for 0 s\n"), "{ready}");
            for (path, status, part) in [
                ("/health/live", 200, "live"),
                ("/metrics", 200, "wal_queue_depth_gauge 0"),
                ("/debug/stalls", 200, "\"storage\": \"good\""),
                ("/", 200, "/health/ready"),
                ("/config", 503, "starting"),
            ] {
                let answer = get(&backend, &admin, path).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
                assert!(answer.contains(part), "{path}: {answer}");
            }
            goes_on.publish(true);
        };
        let (node, ()) = futures::join!(Node::start(backend.clone(), parts, config), asking);
        let node = node.unwrap();
        assert!(get(&backend, &admin, "/health/ready").await.ends_with("\r\n\r\nready\n"));
        assert!(get(&backend, &admin, "/config").await.starts_with("HTTP/1.1 200 "));
        node.stop(soon).await;
    });
}

#[test]
fn nodes_that_are_told_of_one_another_are_linked_and_show_their_secret_to_nobody() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (backend, _) = RealBackend::start(DiskChoice::Threads, home.path()).unwrap();
        let secret_file = home.path().join("secret");
        let addresses = [free_address(), free_address()];
        let peers = format!("1@{},2@{}", addresses[0], addresses[1]);
        let config = |node: usize| {
            let mut config = Config { data_dir: home.path().join(node.to_string()), ..Config::default() };
            let file = secret_file.display().to_string();
            for (key, value) in [
                ("node_id", node.to_string().as_str()),
                ("listen", "127.0.0.1:0"),
                ("admin", "127.0.0.1:0"),
                ("cluster", &addresses[node - 1]),
                ("cluster.peers", &peers),
                ("cluster.secret_file", &file),
                ("broker.rack", "a"),
            ] {
                config.set(key, value).unwrap();
            }
            assert_eq!(config.check(), Ok(()));
            config
        };
        let started = Node::start(backend.clone(), Parts::production(), config(1)).await;
        let error = started.err().expect("there is no secret");
        assert!(matches!(&error, StartError::Secret(SecretError::Disk(_))), "{error}");
        assert_eq!(error.exit_status(), ExitStatus::Configuration);
        std::fs::write(&secret_file, "too short\n").unwrap();
        // The process of before is to end; another directory stands for the next one.
        let mut other = config(1);
        other.data_dir = home.path().join("other");
        let error = Node::start(backend.clone(), Parts::production(), other).await.err().unwrap();
        assert!(error.to_string().contains("holds no secret: it is shorter than 16 characters"), "{error}");
        std::fs::write(&secret_file, "correct horse battery\n").unwrap();
        // They begin a cluster together, in directories of their own.
        let starts = [2, 1].map(|number| {
            let mut config = config(number);
            config.data_dir = home.path().join(format!("started {number}"));
            Node::start(backend.clone(), Parts::production(), config)
        });
        let started = futures::future::join_all(starts).await;
        let nodes: Vec<_> = started.into_iter().map(|node| node.unwrap()).collect();
        let soon = Deadline::after(&backend, Duration::from_secs(30));
        for node in &nodes {
            let reachable = node.peers().expect("it has peers").reachable();
            reachable.until(&backend, soon, |reachable| reachable.len() == 1).await.unwrap();
            let image = node.context().metadata.image();
            let known = image.brokers.values().next().map(|broker| &broker.registration);
            let known = known.expect("it is registered");
            assert_eq!(known.rack.as_deref(), Some("a"));
            let cluster = known.listener(CLUSTER_LISTENER).map(ToString::to_string);
            assert!(cluster.is_some_and(|cluster| addresses.contains(&cluster)));
        }
        let shown = get(&backend, nodes[0].admin_address(), "/config").await;
        assert!(shown.contains("cluster.secret_file = ") && !shown.contains("horse"), "{shown}");
        let metrics = get(&backend, nodes[0].admin_address(), "/metrics").await;
        assert!(metrics.contains("\npeers_connected 1\n"), "{metrics}");
        for node in nodes {
            node.stop(Deadline::after(&backend, Duration::from_secs(30))).await;
        }
    });
}
