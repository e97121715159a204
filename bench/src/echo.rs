//! The bare TCP limit of a machine: ~200-byte frames to and fro, nothing else.
//!
//! The server is a single-threaded loop of read and write; the client is the load's own inbox and one write per
//! request. What a broker reaches beside it is therefore its own share of the work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::inbox::Inbox;
use crate::load::new_histogram;
use crate::wire;

/// Bytes of a frame, its length prefix included; about what a 100-byte produce takes.
pub const FRAME_BYTES: usize = 200;
const READ_BUFFER_BYTES: usize = 8192;

fn single_threaded() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_io().enable_time().build()?)
}

/// Serves until killed; prints the address first.
pub fn serve(address: &str) -> Result<()> {
    single_threaded()?.block_on(async {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        println!("echo ready: {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(reflect(stream));
        }
    })
}

async fn reflect(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

pub struct Echoed {
    pub exchanges: u64,
    pub elapsed: Duration,
    pub latency_ns: Histogram<u64>,
}

impl Echoed {
    pub fn per_second(&self) -> f64 {
        self.exchanges as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Keeps one frame in flight on each of `concurrency` connections for `duration`, after `warmup`.
pub fn run(address: &str, concurrency: u32, warmup: Duration, duration: Duration) -> Result<Echoed> {
    let shared = Arc::new(std::sync::Mutex::new(new_histogram()));
    let start = Instant::now();
    let measure_from = start + warmup;
    let until = measure_from + duration;
    single_threaded()?.block_on(async {
        let tasks: Vec<_> = (0..concurrency)
            .map(|_| {
                let address = address.to_owned();
                tokio::spawn(exchange(address, measure_from, until, shared.clone()))
            })
            .collect();
        for task in tasks {
            task.await.context("an echo task died")??;
        }
        anyhow::Ok(())
    })?;
    let elapsed = Instant::now().min(until) - measure_from;
    let latency_ns = shared.lock().expect("no holder panics").clone();
    Ok(Echoed { exchanges: latency_ns.len(), elapsed, latency_ns })
}

async fn exchange(
    address: String,
    measure_from: Instant,
    until: Instant,
    latency_ns: Arc<std::sync::Mutex<Histogram<u64>>>,
) -> Result<()> {
    let mut stream = wire::open(&address).await?;
    let mut inbox = Inbox::new();
    let mut frame = vec![b'e'; FRAME_BYTES];
    frame[..4].copy_from_slice(&(FRAME_BYTES as u32 - 4).to_be_bytes());
    let mut sent = Instant::now();
    while sent < until {
        stream.write_all(&frame).await?;
        if let Err(broken) = inbox.frame(&mut stream, sent).await {
            anyhow::bail!("echo: {}", broken.name());
        }
        let now = Instant::now();
        if sent >= measure_from {
            let nanos = u64::try_from((now - sent).as_nanos()).unwrap_or(u64::MAX);
            let mut histogram = latency_ns.lock().expect("no holder panics");
            histogram.saturating_record(nanos);
        }
        sent = now;
    }
    Ok(())
}
