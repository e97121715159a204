//! The load: clients that speak the real wire protocol from machines of their own, well-behaved ones and others.
//!
//! They behave as real clients do (pipelines, retries, back-off, time-outs, reconnects) and write everything they see
//! into the history. They know a [`io_backend::Backend`] and nothing of the world around it. What they want is drawn
//! from streams of their own, so that two brokers under the same seed are asked for the same things.

mod codec;
mod connection;
mod health;
mod lookups;
pub mod payload;
mod batch;
mod fetcher;
mod reader;
mod retries;
mod shape;
mod consumer;
mod producer;
mod creator;
mod schedule;
mod field;
mod writer;
mod churner;
mod hostile;
mod leavers;
mod administrator;
mod probes;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use io_backend::{Backend, TaskName};
use kafka_protocol::error::ResponseError;

pub use connection::{CallError, Connection};
pub use field::Field;
pub use health::check_health;
pub use reader::read_everything;
pub use schedule::Schedule;
pub use shape::{Limits, Shape};

use crate::history::{At, Complaint, Place, Trade, wire_name};
use crate::scenario::Scenario;
use crate::streams::Stream;

/// Producer numbers of those that are no producers by trade.
mod numbers {
    pub(super) const CHURNER: u32 = 1_000;
    pub(super) const LEAVERS: u32 = 2_000;
    pub(super) const PROBES: u32 = 3_000;
    pub(super) const FLOODERS: u32 = 4_000;
    pub(super) const DESERTERS: u32 = 5_000;
    pub(super) const POISONERS: u32 = 6_000;
    pub(super) const ADMINISTRATOR: u32 = 7_000;
}

/// Who a client is.
#[derive(Clone)]
pub struct Client<B: Backend> {
    pub backend: B,
    pub name: Arc<str>,
    pub field: Field,
}

impl<B: Backend> Client<B> {
    pub fn new(backend: B, name: &str, field: &Field) -> Client<B> {
        Client { backend, name: name.into(), field: field.clone() }
    }

    fn now(&self) -> At {
        self.backend.now().0
    }

    /// Writes down what it was told instead of what it asked for, if `code` is an error.
    fn complain(&self, trade: Trade, place: Option<&Place>, code: i16, sent: At) {
        self.complain_of(trade, place, code, sent, self.now());
    }

    fn complain_of(&self, trade: Trade, place: Option<&Place>, code: i16, sent: At, at: At) {
        let Some(error) = ResponseError::try_from_code(code) else { return };
        self.field.notes.write().complain(Complaint {
            client: self.name.clone(),
            trade,
            place: place.cloned(),
            error: format!("{error:?}"),
            sent,
            at,
        });
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

/// Starts all clients; `machine` gives the backend of a machine by its name.
pub fn start<B: Backend>(
    scenario: &Scenario,
    limits: Limits,
    seed: u64,
    field: &Field,
    mut machine: impl FnMut(&str) -> B,
) {
    let load = &scenario.workload;
    let shape = Shape::of(load, limits, seed);
    let mut number = 0;
    let mut client = |field: &Field| {
        number += 1;
        let name = format!("client-{number}");
        Client::new(machine(&name), &name, field)
    };
    let within = load.request_timeout.0;
    creator::start(
        client(field),
        scenario.cluster.clone(),
        load.create_topic_every.map(|span| span.0),
        within,
    );
    for shape in shape.producers {
        let stream = Stream::new(seed, &format!("workload producer {}", shape.number));
        producer::start(client(field), shape, stream);
    }
    for shape in shape.consumers {
        let stream = Stream::new(seed, &format!("workload consumer {}", shape.number));
        consumer::start(client(field), shape, stream);
    }
    if let Some(every) = load.lookups_every {
        lookups::start(client(field), every.0, Stream::new(seed, "workload look-ups"));
    }
    if let Some(every) = load.churn_topics_every {
        churner::start(client(field), every.0, within, Stream::new(seed, "workload churner"));
    }
    if let Some(every) = load.administrate_every {
        administrator::start(client(field), every.0, within, Stream::new(seed, "workload administrator"));
    }
    for index in 0..shape.leavers {
        let stream = Stream::new(seed, &format!("workload leaver {index}"));
        leavers::start(client(field), index, limits, within, stream);
    }
    for index in 0..load.probes {
        // The first comes from where the hostile ones come from.
        let name = format!("probe-{}", index + 1);
        let backend = if index == 0 { machine(hostile::MACHINE) } else { machine(&name) };
        let client = Client::new(backend, &name, field);
        probes::start(client, index, Stream::new(seed, &format!("workload probe {index}")));
    }
    hostile::start(&shape.hostile, scenario.duration(), seed, field, limits, &mut machine);
    for node in 1..=scenario.cluster.nodes {
        health::start(Client::new(machine("health"), "health", field), node);
    }
}
