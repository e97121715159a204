//! The simulated network: machines by name, listeners, connects, and what heals or breaks connections.
//!
//! Addresses are `HOST:PORT`, where the host is a machine's name, its number in `10.0.0.0/8`, or this
//! machine (`localhost`, `127.0.0.1`, `0.0.0.0`).

mod connection;
mod endpoint;
mod links;
mod pipe;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

pub use connection::SimStream;
pub use endpoint::{SimListener, SimNetwork};

use connection::{Connection, End};
use endpoint::Listening;
use links::{Links, Transit};

use super::lock;
use super::process::Process;
use super::universe::Universe;
use crate::fault::{self, Fault, FaultKind};
use crate::streams::Stream;

const FIRST_FREE_PORT: u16 = 40_000;
/// Of a thousand reads so many get less than there is.
const SHORT_READS: u32 = 60;

#[derive(Default)]
pub struct Network {
    state: Mutex<State>,
    links: Mutex<Links>,
    /// How much of what is there a read is given.
    reads: Mutex<Option<Stream>>,
}

#[derive(Default)]
struct State {
    /// Machine of each address that is no name.
    hosts: BTreeMap<String, Arc<str>>,
    listeners: BTreeMap<(Arc<str>, u16), Arc<Listening>>,
    connections: BTreeMap<u64, Arc<Connection>>,
    ports: u16,
    opened: u64,
}

/// Open connections and all ever opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    pub open: u64,
    pub opened: u64,
}

impl Network {
    /// A machine joins. Nodes called `nodeN` get 10.0.0.N, all others the next of 10.1.0.0/16.
    pub(super) fn join(&self, machine: &Arc<str>) {
        let mut state = lock(&self.state);
        let host = match machine.strip_prefix("node").and_then(|number| number.parse::<u32>().ok()) {
            Some(number) => format!("10.0.{}.{}", number / 256, number % 256),
            None => {
                let number = state.hosts.len();
                format!("10.1.{}.{}", number / 256, number % 256)
            }
        };
        state.hosts.insert(host, machine.clone());
        state.hosts.insert(machine.to_string(), machine.clone());
    }

    pub(super) fn counts(&self, machine: &str) -> NetworkCounts {
        let state = lock(&self.state);
        let open = state
            .connections
            .values()
            .filter(|connection| connection.ends.iter().any(|end| &*end.machine == machine))
            .count();
        NetworkCounts { open: open as u64, opened: state.opened }
    }

    fn transit(&self, universe: &Universe, from: &Arc<str>, to: &Arc<str>, bytes: usize) -> Transit {
        let mut links = lock(&self.links);
        universe.with_faults(|faults| links.transit(universe.seed, faults, from, to, bytes, universe.now()))
    }

    /// How many bytes a read of `most` is given: now and then some first part, so that whoever parses meets every
    /// split.
    fn portion(&self, universe: &Universe, most: usize) -> usize {
        let mut reads = lock(&self.reads);
        let stream = reads.get_or_insert_with(|| Stream::new(universe.seed, "reads"));
        if most > 1 && stream.per_mille(SHORT_READS) {
            1 + stream.below(most as u64 - 1) as usize
        } else {
            most
        }
    }

    fn retry(&self, universe: &Universe, from: &Arc<str>, to: &Arc<str>) -> u64 {
        lock(&self.links).retry(universe.seed, from, to)
    }

    fn is_up(&self, universe: &Universe, machine: &str) -> bool {
        lock(&universe.machines).get(machine).is_none_or(|machine| machine.is_powered())
    }

    /// Whether what this end's process drops is dropped by a power loss.
    fn is_vanishing(&self, universe: &Universe, end: &End) -> bool {
        !self.is_up(universe, &end.machine)
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.state).connections.values().cloned().collect()
    }

    fn forget_if_over(&self, connection: &Arc<Connection>) {
        if connection.is_over() {
            let forgotten = lock(&self.state).connections.remove(&connection.number);
            drop(forgotten);
        }
    }

    /// A process ended: its listeners and connections end with it.
    pub(super) fn process_ended(&self, universe: &Arc<Universe>, process: &Process) {
        let closed: Vec<Arc<Listening>> = {
            let mut state = lock(&self.state);
            let (kept, closed) = std::mem::take(&mut state.listeners)
                .into_iter()
                .partition(|(_, listening)| listening.process != process.number);
            state.listeners = kept;
            BTreeMap::into_values(closed).collect()
        };
        for listening in closed {
            listening.close(universe);
        }
        let silently = process.vanished.load(Ordering::Relaxed);
        for connection in self.connections() {
            for end in 0..2 {
                if connection.ends[end].process == process.number {
                    connection.close(universe, end, silently);
                }
            }
        }
    }

    /// A machine came up, or a fault between machines ended: what was stuck is sent again.
    pub(super) fn kick_all(&self, universe: &Arc<Universe>) {
        for connection in self.connections() {
            connection.kick(universe);
        }
    }

    pub(super) fn machine_changed(&self, universe: &Arc<Universe>, machine: &str) {
        for connection in self.connections() {
            if connection.ends.iter().any(|end| &*end.machine == machine) {
                connection.kick(universe);
            }
        }
    }

    /// A reset or a silence begins. Returns how many connections it touched.
    pub(super) fn break_connections(&self, universe: &Arc<Universe>, fault: &Fault) -> usize {
        let mut touched = 0;
        for connection in self.connections() {
            if fault::network::breaks(fault, &connection.ends[0].machine, &connection.ends[1].machine) {
                touched += 1;
                if fault.kind == FaultKind::Silence {
                    connection.silence(universe);
                } else {
                    connection.reset(universe);
                }
            }
        }
        touched
    }

    pub(super) fn clear(&self) {
        let state = std::mem::take(&mut *lock(&self.state));
        drop(state);
    }

    fn resolve(&self, own: &Arc<str>, address: &str) -> io::Result<(Arc<str>, u16)> {
        let wrong =
            |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{address}: {what}")));
        let Some((host, port)) = address.rsplit_once(':') else {
            return wrong("no port");
        };
        let Ok(port) = port.parse::<u16>() else {
            return wrong("the port is no number");
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if matches!(host, "localhost" | "127.0.0.1" | "0.0.0.0" | "::" | "::1" | "") {
            return Ok((own.clone(), port));
        }
        match lock(&self.state).hosts.get(host) {
            Some(machine) => Ok((machine.clone(), port)),
            None => Err(io::Error::new(io::ErrorKind::NotFound, format!("{address}: no such host"))),
        }
    }

    fn free_port(&self) -> u16 {
        let mut state = lock(&self.state);
        state.ports = (state.ports + 1) % 20_000;
        FIRST_FREE_PORT + state.ports
    }
}
