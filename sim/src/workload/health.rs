//! A machine that asks every node twice a second whether it is ready, over HTTP as a load balancer does. It falls
//! silent with the clients, and asks once more when the last read is over.

use std::time::Duration;

use bytes::BytesMut;
use io_backend::{Backend, Deadline, Network, TaskName, stream};

use super::client::Client;
use crate::history::{HealthCheck, Readiness};
use crate::probe::Probe;

const EVERY: Duration = Duration::from_millis(500);
const WITHIN: Duration = Duration::from_secs(2);
const REQUEST: &[u8] = b"GET /health/ready HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
const ANSWER_BYTES_MAX: usize = 8 * 1024;

pub(super) fn start<B: Backend>(client: Client<B>, node: u32) {
    let name = TaskName::of("health", client.name.clone());
    let _detached = client.backend.clone().spawn(name, watch(client, node));
}

/// Asks once. Done when the client's task is.
pub fn check_health<B: Backend>(client: Client<B>, node: u32) {
    client.clone().begin("last health check", async move { check(&client, node).await });
}

async fn watch<B: Backend>(client: Client<B>, node: u32) {
    loop {
        client.backend.sleep(EVERY).await;
        if client.field.is_done() {
            return;
        }
        check(&client, node).await;
    }
}

async fn check<B: Backend>(client: &Client<B>, node: u32) {
    let asked = client.now();
    let answer = ask(&client.backend, &format!("node{node}:9094")).await.unwrap_or(Readiness::Silent);
    let check = HealthCheck { node, asked, at: client.now(), answer };
    let mut notes = client.field.notes.write();
    if matches!(check.answer, Readiness::Starting(_)) {
        notes.count(Probe::StartTold.name());
    }
    notes.health.push(check);
}

async fn ask<B: Backend>(backend: &B, address: &str) -> std::io::Result<Readiness> {
    let deadline = Deadline::after(backend, WITHIN);
    let mut stream = backend.network().connect(address, deadline).await?;
    stream::write_all(backend, &mut stream, REQUEST, "health request", deadline).await?;
    let mut answer = BytesMut::with_capacity(1024);
    while answer.len() < ANSWER_BYTES_MAX {
        if stream::read(backend, &mut stream, &mut answer, "health answer", deadline).await? == 0 {
            break;
        }
        answer.reserve(1024);
    }
    Ok(read(&answer))
}

/// `HTTP/1.1 200 ...`, or another status with the reason in its body.
fn read(answer: &[u8]) -> Readiness {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    match head.split(' ').nth(1) {
        Some("200") if body.trim().lines().count() > 1 || body.contains("but") => {
            Readiness::ReadyBut(body.trim().to_owned())
        }
        Some("200") => Readiness::Ready,
        Some(_) if body.starts_with("starting: ") => Readiness::Starting(body.trim().to_owned()),
        Some(_) => Readiness::NotReady(body.trim().to_owned()),
        None => Readiness::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_ready_or_why_not() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"), Readiness::Ready);
        let partly = read(b"HTTP/1.1 200 OK\r\n\r\nready, but partition x-0 does not open\n");
        assert_eq!(partly, Readiness::ReadyBut("ready, but partition x-0 does not open".into()));
        let not = read(b"HTTP/1.1 503 Service Unavailable\r\n\r\nthe disk stands still\n");
        assert_eq!(not, Readiness::NotReady("the disk stands still".into()));
        let yet = read(b"HTTP/1.1 503 Service Unavailable\r\n\r\nstarting: opening the partitions for 3 s\n");
        assert_eq!(yet, Readiness::Starting("starting: opening the partitions for 3 s".into()));
        assert_eq!(read(b""), Readiness::Silent);
    }
}
