//! The load: clients that speak the real wire protocol from machines of their own, well-behaved ones and others.
//!
//! They behave as real clients do (pipelines, retries, back-off, time-outs, reconnects) and write everything they see
//! into the history. They know a [`io_backend::Backend`] and nothing of the world around it. What they want is drawn
//! from streams of their own, so that two brokers under the same seed are asked for the same things.

mod codec;
pub mod payload;
mod batch;
mod shape;
mod schedule;
mod field;
mod client;
mod connection;
mod routes;
mod lines;
mod health;
mod lookups;
mod fetcher;
mod fetch_session;
mod retries;
mod consumer;
mod members;
mod producer;
mod creator;
mod writer;
mod churner;
mod hostile;
mod leavers;
mod administrator;
mod deleter;
mod compacted;
mod reader;
mod reassigner;
mod probes;

use io_backend::Backend;

pub use client::Client;
pub use compacted::open_batches;
pub use connection::{CallError, Connection};
pub use field::Field;
pub use health::check_health;
pub use members::{HEARTBEAT_EVERY, OFFSETS_PARTITIONS, OFFSETS_TOPIC, SESSION};
pub use reader::read_everything;
pub use schedule::Schedule;
pub use shape::{Limits, Shape};

use crate::scenario::{GroupProtocol, Scenario};
use crate::streams::Stream;
use client::numbers;

/// Members of one group at most: each has a number among consumers.
const GROUP_MEMBERS_MAX: u32 = 100;

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
    let reached_alone = if load.create_through_each { scenario.cluster.nodes } else { 0 };
    creator::start(
        client(field),
        scenario.cluster.clone(),
        load.create_topic_every.map(|span| span.0),
        within,
    );
    for node in 1..=reached_alone {
        let Some(every) = load.create_topic_every.map(|span| span.0) else { break };
        creator::start_through(client(field), node, scenario.cluster.clone(), every, within);
    }
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
    if let Some(every) = load.reassign_every {
        let stream = Stream::new(seed, "workload reassigner");
        reassigner::start(client(field), scenario.cluster.replication, every.0, within, stream);
    }
    if let Some(every) = load.delete_records_every {
        let stream = Stream::new(seed, "workload deleter");
        deleter::start(client(field), field.places.clone(), every.0, stream);
    }
    for index in 0..shape.leavers {
        let stream = Stream::new(seed, &format!("workload leaver {index}"));
        leavers::start(client(field), index, limits, within, stream);
    }
    let first_protocol = Stream::new(seed, "workload protocols of groups").below(u64::MAX) as usize;
    for group in 0..load.groups {
        let nth = first_protocol.wrapping_add(group as usize);
        let protocol = load.group_protocols.deal(nth, GroupProtocol::Classic);
        let progress = members::GroupProgress::new(&format!("group-{group}"), field.places.len());
        for nth in 0..load.group_members {
            let number = numbers::MEMBERS + group * GROUP_MEMBERS_MAX + nth;
            let stream = Stream::new(seed, &format!("workload member {number}"));
            members::start(client(field), &progress, protocol, number, nth == 0, stream);
        }
    }
    if let Some(load) = &load.compacted {
        compacted::start(load, within, seed, || client(field));
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
