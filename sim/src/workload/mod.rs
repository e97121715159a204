//! The load: producers and consumers that speak the real wire protocol from machines of their own.
//!
//! They behave as real clients do (retries, back-off, time-outs, reconnects) and write everything they see into the
//! history. They know a [`io_backend::Backend`] and nothing of the world around it. What they want is drawn from
//! streams of their own, so that two brokers under the same seed are asked for the same things.

mod connection;
mod consumer;
mod creator;
pub mod payload;
mod producer;
mod reader;
mod schedule;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use io_backend::{Backend, TaskName};

pub use connection::{CallError, Connection};
pub use reader::read_everything;
pub use schedule::Schedule;

use crate::history::{Notes, Place};
use crate::scenario::{AckMode, Scenario};
use crate::world::streams::Stream;

/// What all clients of a run share.
#[derive(Clone)]
pub struct Field {
    /// Where the cluster is reached.
    pub bootstrap: Arc<str>,
    pub places: Arc<Vec<Place>>,
    pub schedule: Schedule,
    pub notes: Notes,
    running: Arc<AtomicUsize>,
}

/// Who a client is.
#[derive(Clone)]
pub struct Client<B: Backend> {
    pub backend: B,
    pub name: Arc<str>,
    pub field: Field,
}

impl Field {
    pub fn new(bootstrap: &str, scenario: &Scenario, schedule: Schedule) -> Field {
        let cluster = &scenario.cluster;
        let places = (0..cluster.topics)
            .flat_map(|topic| {
                let topic: Arc<str> = format!("t{topic}").into();
                (0..cluster.partitions).map(move |partition| Place { topic: topic.clone(), partition })
            })
            .collect();
        Field {
            bootstrap: bootstrap.into(),
            places: Arc::new(places),
            schedule,
            notes: Notes::default(),
            running: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Whether every client has come to its end.
    pub fn is_done(&self) -> bool {
        self.running.load(Ordering::SeqCst) == 0
    }
}

impl<B: Backend> Client<B> {
    pub fn new(backend: B, name: &str, field: &Field) -> Client<B> {
        Client { backend, name: name.into(), field: field.clone() }
    }

    fn now(&self) -> u64 {
        self.backend.now().0
    }

    /// Starts `work` as a task that [`Field::is_done`] waits for.
    fn begin<F>(&self, role: &'static str, work: F)
    where
        F: std::future::Future<Output = ()> + Send + 'static,
    {
        let running = self.field.running.clone();
        running.fetch_add(1, Ordering::SeqCst);
        // Dropping the task counts as well: a client whose machine dies is done.
        let leaving = Leaving(running);
        let _detached = self.backend.spawn(TaskName::of(role, self.name.clone()), async move {
            let _leaving = leaving;
            work.await;
        });
    }
}

struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One producer's settings, dealt out from the scenario.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    pub number: u32,
    pub acks: AckMode,
    pub idempotent: bool,
    pub rate: f64,
    pub size: usize,
    pub batch: u32,
    pub request_timeout: Duration,
}

/// Names of the machines that the clients of a scenario run on.
pub fn machines(scenario: &Scenario) -> Vec<String> {
    let load = &scenario.workload;
    let count = (load.producers + load.consumers + 1).max(2);
    (1..=count).map(|number| format!("client-{number}")).collect()
}

/// Starts all clients; `machine` gives the backend of a machine by its name.
pub fn start<B: Backend>(scenario: &Scenario, seed: u64, field: &Field, mut machine: impl FnMut(&str) -> B) {
    let load = &scenario.workload;
    let names = machines(scenario);
    let mut clients = names.iter().map(|name| Client::new(machine(name), name, field));
    if let Some(client) = clients.next() {
        creator::start(
            client,
            scenario.cluster.clone(),
            load.create_topic_every.map(|span| span.0),
            load.request_timeout.0,
        );
    }
    for index in 0..load.producers {
        let Some(client) = clients.next() else { break };
        let acks = load.acks.deal(index as usize, AckMode::All);
        let settings = ProducerSettings {
            number: index + 1,
            acks,
            // Idempotence is only there with acks=all, as in every client.
            idempotent: acks == AckMode::All && load.idempotent.deal(index as usize, true),
            rate: load.rate,
            size: load.size,
            batch: load.batch,
            request_timeout: load.request_timeout.0,
        };
        let stream = Stream::new(seed, &format!("workload producer {}", index + 1));
        producer::start(client, settings, stream);
    }
    for index in 0..load.consumers {
        let Some(client) = clients.next() else { break };
        consumer::start(client, index + 1, load.reread_every.0);
    }
}
