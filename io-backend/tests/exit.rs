//! How a process ends that ends itself: with its own status, at once, although a thread of it hangs.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use io_backend::real::{DiskKind, RealBackend};
use io_backend::{Backend, ExitStatus, Listener, Network};

/// Set for the process that is to end.
const ROLE: &str = "IO_BACKEND_TEST_EXITS";

#[test]
fn a_process_that_no_longer_trusts_its_storage_closes_its_connections_and_says_so_by_its_status() {
    if std::env::var_os(ROLE).is_some() {
        return serve_and_exit();
    }
    let name = "a_process_that_no_longer_trusts_its_storage_closes_its_connections_and_says_so_by_its_status";
    let mut child = Command::new(std::env::current_exe().expect("this test's binary"))
        .args(["--exact", name, "--nocapture"])
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let address = loop {
        let line = lines.next().expect("the process says where it listens").expect("text");
        if let Some((_, address)) = line.split_once("listening on ") {
            break address.to_owned();
        }
    };
    let mut connection = TcpStream::connect(&address).expect("it listens");
    let mut rest = Vec::new();
    let closed = connection.read_to_end(&mut rest);
    assert!(closed.is_err() || rest.is_empty(), "the process sent {rest:?}");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(ExitStatus::StorageNotTrusted as i32));
    assert!(TcpStream::connect(&address).is_err(), "somebody still accepts");
}

fn serve_and_exit() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let backend = RealBackend::with_disk(DiskKind::Threads).expect("a backend");
        // Neither a destructor nor the end of a thread may be waited for.
        runtime.spawn_blocking(|| {
            loop {
                std::thread::park();
            }
        });
        let listener = backend.network().listen("127.0.0.1:0").await.expect("a port");
        println!("listening on {}", listener.local_address());
        let _connection = listener.accept().await.expect("a connection");
        backend.exit(ExitStatus::StorageNotTrusted, "a sync failed");
    });
}
