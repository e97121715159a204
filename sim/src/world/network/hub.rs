//! The network as a whole: names and ports, who listens where, and what ends or breaks connections.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::connection::{Connections, NetworkCounts};
use super::fabric::Fabric;
use super::listening::Listening;
use crate::fault::{self, Fault, FaultKind};
use crate::world::host::Host;
use crate::world::kernel::Kernel;
use crate::world::lock;
use crate::world::process::Process;

const FIRST_FREE_PORT: u16 = 40_000;

pub struct Network {
    pub(super) net: Arc<Connections>,
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// Machine of each address that is no name.
    hosts: BTreeMap<String, Arc<str>>,
    pub(super) listeners: BTreeMap<(Arc<str>, u16), Arc<Listening>>,
    ports: u16,
}

impl Network {
    pub(in crate::world) fn new(kernel: &Arc<Kernel>) -> Arc<Network> {
        let net = Connections::on(Fabric::new(kernel));
        Arc::new(Network { net, state: Mutex::default() })
    }

    /// A machine joins. Nodes called `nodeN` get 10.0.0.N, all others the next of 10.1.0.0/16.
    pub(in crate::world) fn join(&self, host: &Arc<Host>) {
        let machine = &host.name;
        let mut state = lock(&self.state);
        let address = match machine.strip_prefix("node").and_then(|number| number.parse::<u32>().ok()) {
            Some(number) => format!("10.0.{}.{}", number / 256, number % 256),
            None => {
                let number = state.hosts.len();
                format!("10.1.{}.{}", number / 256, number % 256)
            }
        };
        state.hosts.insert(address, machine.clone());
        state.hosts.insert(machine.to_string(), machine.clone());
        drop(state);
        self.net.fabric.join(host);
    }

    pub(in crate::world) fn counts(&self, machine: &str) -> NetworkCounts {
        self.net.counts(machine)
    }

    /// A process ended: its listeners and connections end with it.
    pub(in crate::world) fn process_ended(&self, process: &Process) {
        let closed: Vec<Arc<Listening>> = {
            let mut state = lock(&self.state);
            let (kept, closed) = std::mem::take(&mut state.listeners)
                .into_iter()
                .partition(|(_, listening)| listening.process != process.number);
            state.listeners = kept;
            BTreeMap::into_values(closed).collect()
        };
        for listening in closed {
            listening.close(&self.net);
        }
        let silently = process.vanished.load(Ordering::Relaxed);
        for connection in self.net.all() {
            for end in 0..2 {
                if connection.ends[end].process == process.number {
                    connection.close(&self.net, end, silently);
                }
            }
        }
    }

    /// A machine came up, or a fault between machines ended: what was stuck is sent again.
    pub(in crate::world) fn kick_all(&self) {
        for connection in self.net.all() {
            connection.retransmit(&self.net);
        }
    }

    pub(in crate::world) fn machine_changed(&self, machine: &str) {
        for connection in self.net.all() {
            if connection.ends.iter().any(|end| &*end.machine == machine) {
                connection.retransmit(&self.net);
            }
        }
    }

    /// A reset or a silence begins. Returns how many connections it touched.
    pub(in crate::world) fn break_connections(&self, fault: &Fault) -> usize {
        let mut touched = 0;
        for connection in self.net.all() {
            if fault::network::breaks(fault, &connection.ends[0].machine, &connection.ends[1].machine) {
                touched += 1;
                if fault.kind == FaultKind::Silence {
                    connection.blackhole(&self.net);
                } else {
                    connection.reset(&self.net);
                }
            }
        }
        touched
    }

    /// Lets go of whatever could hold the world alive in a circle.
    pub(in crate::world) fn clear(&self) {
        let state = std::mem::take(&mut *lock(&self.state));
        drop(state);
        self.net.clear();
    }

    pub(super) fn resolve(&self, own: &Arc<str>, address: &str) -> io::Result<(Arc<str>, u16)> {
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

    pub(super) fn free_port(&self) -> u16 {
        let mut state = lock(&self.state);
        state.ports = (state.ports + 1) % 20_000;
        FIRST_FREE_PORT + state.ports
    }
}
