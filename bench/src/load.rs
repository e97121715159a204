//! The produce load: N connections, one single-record produce in flight on each, until time or count is up.
//!
//! One task owns one connection, its request frame and its sequence numbers; tasks of a thread share a tally
//! behind an uncontended lock. On the measured path there is one write and one read per request, no
//! allocation and no encoding. A refused or unanswered record is counted by its error code and never
//! retried: its sequence number goes to the ledger as "not acknowledged", so `verify` knows what may be missing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::inbox::{Broken, Inbox};
use crate::produce_frame::{Answer, AnswerFrame, PRODUCE_VERSION_MAX, ProduceShape, RequestFrame};
use crate::topic::{self, Leaders};
use crate::wire::{self, Wire, code_name};

/// What the broker is told to give up after; below `inbox::ANSWER_DEADLINE`, so that its answer wins.
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
const AFTER_REFUSAL: Duration = Duration::from_millis(10);
const AFTER_DISCONNECT: Duration = Duration::from_millis(100);

/// What to send, where, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    pub bootstrap: Vec<String>,
    pub topic: String,
    pub acks: i16,
    pub size: usize,
    pub concurrency: u32,
    pub threads: usize,
    pub warmup: Duration,
    pub duration: Option<Duration>,
    pub message_count: Option<u64>,
}

/// What one connection sent, and which of it was not acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub sent: u64,
    pub not_acknowledged: Vec<u64>,
}

/// What came out, warm-up excluded from rate and latency but not from errors and ledgers.
pub struct Outcome {
    pub run: u64,
    pub acknowledged: u64,
    pub elapsed: Duration,
    pub latency_ns: Histogram<u64>,
    pub errors: BTreeMap<String, u64>,
    /// By connection number.
    pub ledgers: Vec<Ledger>,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.acknowledged as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Counters that a progress bar reads while the load runs.
#[derive(Default)]
pub struct Gauge {
    pub acknowledged: AtomicU64,
    pub failed: AtomicU64,
    /// Set from outside to end the load early.
    pub interrupted: AtomicBool,
}

pub fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("bounds are constants")
}

#[derive(Default)]
struct Tally {
    latency_ns: Option<Histogram<u64>>,
    errors: BTreeMap<String, u64>,
    last: Option<Instant>,
}

struct Shared {
    plan: Plan,
    leaders: Leaders,
    run: u64,
    measure_from: Instant,
    until: Option<Instant>,
    budget: AtomicI64,
    gauge: Arc<Gauge>,
    tally: Arc<Mutex<Tally>>,
}

impl Shared {
    fn go_on(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
            && !self.gauge.interrupted.load(Ordering::Relaxed)
            && self.budget.fetch_sub(1, Ordering::Relaxed) > 0
    }

    fn failed(&self, what: String) {
        self.gauge.failed.fetch_add(1, Ordering::Relaxed);
        let mut tally = self.tally.lock().expect("no holder panics");
        *tally.errors.entry(what).or_default() += 1;
    }

    fn acknowledged(&self, sent: Instant, now: Instant) {
        if sent < self.measure_from {
            return;
        }
        self.gauge.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut tally = self.tally.lock().expect("no holder panics");
        tally.last = tally.last.max(Some(now));
        let nanos = u64::try_from((now - sent).as_nanos()).unwrap_or(u64::MAX);
        if let Some(histogram) = &mut tally.latency_ns {
            histogram.saturating_record(nanos);
        }
    }
}

/// Runs the load against partitions whose leaders are known. Blocks until it is over.
pub fn run(plan: &Plan, leaders: &Leaders, gauge: &Arc<Gauge>) -> Result<Outcome> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let run = since_epoch.as_nanos() as u64 ^ (u64::from(std::process::id()) << 48);
    let start = Instant::now();
    let measure_from = start + plan.warmup;
    let threads = plan.threads.clamp(1, plan.concurrency.max(1) as usize);
    let mut acknowledged_before = gauge.acknowledged.load(Ordering::Relaxed);
    let shares: Vec<Arc<Shared>> = (0..threads)
        .map(|index| {
            let budget = plan.message_count.map_or(i64::MAX, |count| {
                let share = count / threads as u64;
                (share + u64::from((index as u64) < count % threads as u64)) as i64
            });
            Arc::new(Shared {
                plan: plan.clone(),
                leaders: leaders.clone(),
                run,
                measure_from,
                until: plan.duration.map(|duration| measure_from + duration),
                budget: AtomicI64::new(budget),
                gauge: gauge.clone(),
                tally: Arc::new(Mutex::new(Tally { latency_ns: Some(new_histogram()), ..Tally::default() })),
            })
        })
        .collect();
    let mut ledgers = vec![Ledger::default(); plan.concurrency as usize];
    std::thread::scope(|scope| -> Result<()> {
        let running: Vec<_> = shares
            .iter()
            .enumerate()
            .map(|(index, shared)| {
                let mine = (0..plan.concurrency).filter(move |c| *c as usize % threads == index);
                scope.spawn(move || drive(shared, mine.collect()))
            })
            .collect();
        for thread in running {
            let Ok(done) = thread.join() else {
                bail!("a load thread panicked");
            };
            for (connection, ledger) in done? {
                ledgers[connection as usize] = ledger;
            }
        }
        Ok(())
    })?;
    let mut outcome = Outcome {
        run,
        acknowledged: 0,
        elapsed: Duration::ZERO,
        latency_ns: new_histogram(),
        errors: BTreeMap::new(),
        ledgers,
    };
    let mut last = measure_from;
    for shared in &shares {
        let tally = shared.tally.lock().expect("no holder panics");
        if let Some(histogram) = &tally.latency_ns {
            outcome.latency_ns.add(histogram)?;
        }
        for (what, count) in &tally.errors {
            *outcome.errors.entry(what.clone()).or_default() += count;
        }
        last = last.max(tally.last.unwrap_or(last));
    }
    acknowledged_before = gauge.acknowledged.load(Ordering::Relaxed) - acknowledged_before;
    outcome.acknowledged = acknowledged_before;
    outcome.elapsed = last - measure_from;
    Ok(outcome)
}

fn drive(shared: &Arc<Shared>, connections: Vec<u32>) -> Result<Vec<(u32, Ledger)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let tasks: Vec<_> = connections
            .into_iter()
            .map(|number| {
                let shared = shared.clone();
                (number, tokio::spawn(Connection::new(number, shared).run()))
            })
            .collect();
        let mut ledgers = Vec::with_capacity(tasks.len());
        for (number, task) in tasks {
            ledgers.push((number, task.await.context("a connection's task died")?));
        }
        Ok(ledgers)
    })
}

struct Connection {
    number: u32,
    shared: Arc<Shared>,
    partition: usize,
    leader: String,
    ledger: Ledger,
    last_offset: i64,
}

impl Connection {
    fn new(number: u32, shared: Arc<Shared>) -> Self {
        let partition = number as usize % shared.leaders.addresses.len();
        let leader = shared.leaders.addresses[partition].clone();
        Self { number, shared, partition, leader, ledger: Ledger::default(), last_offset: -1 }
    }

    async fn run(mut self) -> Ledger {
        loop {
            let established = self.establish().await;
            match established {
                Ok((stream, request, answer)) => {
                    if self.exchange_until_broken(stream, request, answer).await {
                        return self.ledger;
                    }
                }
                Err(error) => self.shared.failed(format!("cannot connect: {error}")),
            }
            if self.over() {
                return self.ledger;
            }
            tokio::time::sleep(AFTER_DISCONNECT).await;
            self.find_leader().await;
        }
    }

    fn over(&self) -> bool {
        let until = self.shared.until;
        until.is_some_and(|until| Instant::now() >= until)
            || self.shared.gauge.interrupted.load(Ordering::Relaxed)
            || self.shared.budget.load(Ordering::Relaxed) <= 0
    }

    async fn establish(&self) -> Result<(TcpStream, RequestFrame, AnswerFrame)> {
        let version = Wire::connect(&self.leader)
            .await?
            .version_of::<kafka_protocol::messages::ProduceRequest>(PRODUCE_VERSION_MAX)?;
        let plan = &self.shared.plan;
        let shape = ProduceShape {
            topic: plan.topic.clone(),
            partition: self.partition as i32,
            acks: plan.acks,
            size: plan.size,
            version,
            timeout_ms: PRODUCE_TIMEOUT_MS,
        };
        let stream = wire::open(&self.leader).await?;
        let request = RequestFrame::new(&shape, self.shared.run, self.number)?;
        Ok((stream, request, AnswerFrame::new(&shape)?))
    }

    async fn find_leader(&mut self) {
        let Ok(mut wire) = Wire::connect_any(&self.shared.plan.bootstrap).await else {
            return;
        };
        if let Ok(leaders) = topic::leaders(&mut wire, &self.shared.plan.topic, false).await
            && let Some(address) = leaders.addresses.get(self.partition)
        {
            self.leader.clone_from(address);
        }
    }

    /// Returns true when the load is over, false when the connection has to be made anew.
    async fn exchange_until_broken(
        &mut self,
        mut stream: TcpStream,
        mut request: RequestFrame,
        mut expected: AnswerFrame,
    ) -> bool {
        let mut inbox = Inbox::new();
        let mut sent = Instant::now();
        let wall_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let connected = sent;
        while self.shared.go_on(sent) {
            let sequence = self.ledger.sent;
            let correlation_id = (sequence & 0x7fff_ffff) as i32;
            let timestamp_ms = wall_ms + (sent - connected).as_millis() as i64;
            self.ledger.sent += 1;
            let frame = request.stamp(correlation_id, sequence, timestamp_ms);
            if let Err(error) = stream.write_all(frame).await {
                return self.broken(sequence, &Broken::Io(error));
            }
            if self.shared.plan.acks == 0 {
                let now = Instant::now();
                self.ledger.not_acknowledged.push(sequence);
                self.shared.acknowledged(sent, now);
                sent = now;
                continue;
            }
            let answer = match inbox.frame(&mut stream, sent).await {
                Ok(frame) => expected.read(frame, correlation_id).map_err(Broken::Nonsense),
                Err(broken) => Err(broken),
            };
            let now = Instant::now();
            match answer {
                Ok(Answer::Acknowledged { base_offset }) => {
                    if base_offset <= self.last_offset {
                        self.shared.failed("offset went backwards".into());
                    }
                    self.last_offset = base_offset;
                    self.shared.acknowledged(sent, now);
                    sent = now;
                }
                Ok(Answer::Refused { code }) => {
                    self.ledger.not_acknowledged.push(sequence);
                    self.shared.failed(code_name(code));
                    tokio::time::sleep(AFTER_REFUSAL).await;
                    if matches!(code, 3 | 5 | 6 | 74 | 76 | 100) {
                        return false;
                    }
                    sent = Instant::now();
                }
                Err(broken) => return self.broken(sequence, &broken),
            }
        }
        true
    }

    fn broken(&mut self, sequence: u64, why: &Broken) -> bool {
        self.ledger.not_acknowledged.push(sequence);
        self.shared.failed(why.name());
        false
    }
}
