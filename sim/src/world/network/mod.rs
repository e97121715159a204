//! The simulated network: machines by name, listeners, connects, and what heals or breaks connections.
//!
//! Addresses are `HOST:PORT`, where the host is a machine's name, its number in `10.0.0.0/8`, or this
//! machine (`localhost`, `127.0.0.1`, `0.0.0.0`).

mod connection;
mod links;
mod pipe;

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use io_backend::time::within;
use io_backend::{Backend, Deadline, WaitKind};

pub use connection::SimStream;
use connection::{Connection, End};
use links::{Links, Transit};

use super::backend::SimBackend;
use super::lock;
use super::machine::Process;
use super::trace::{Event, What};
use super::universe::Universe;
use crate::fault::{self, Fault, FaultKind};

/// Connections that a listener holds before someone accepts them.
const BACKLOG: usize = 128;
/// How often a connect that got no answer tries again.
const SYN_RETRY: Duration = Duration::from_millis(500);
const FIRST_FREE_PORT: u16 = 40_000;

#[derive(Default)]
pub struct Network {
    state: Mutex<State>,
    links: Mutex<Links>,
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

struct Listening {
    process: u64,
    open: AtomicBool,
    state: Mutex<Backlog>,
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<(Arc<Connection>, String)>,
    acceptor: Option<Waker>,
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

impl Listening {
    fn close(&self, universe: &Arc<Universe>) {
        self.open.store(false, Ordering::Relaxed);
        let (waiting, acceptor) = {
            let mut backlog = lock(&self.state);
            (std::mem::take(&mut backlog.waiting), backlog.acceptor.take())
        };
        for (connection, _) in waiting {
            drop(SimStream::new(universe, connection, 1));
        }
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
    }
}

/// A process's view of the network.
#[derive(Clone)]
pub struct SimNetwork {
    process: Arc<Process>,
}

impl SimNetwork {
    pub(super) fn new(process: &Arc<Process>) -> SimNetwork {
        SimNetwork { process: process.clone() }
    }

    async fn attempt(&self, address: &str) -> io::Result<SimStream> {
        let universe = self.process.universe().clone();
        let own = &self.process.machine.name;
        let (machine, port) = universe.network.resolve(own, address)?;
        let backend = SimBackend::new(self.process.clone());
        loop {
            let hangs = universe.with_faults(|faults| {
                let now = universe.now();
                let blocked = fault::network::blocked(faults, own, &machine, now)
                    .or_else(|| fault::network::blocked(faults, &machine, own, now));
                if let Some(id) = blocked {
                    faults.hit(id);
                }
                blocked.is_some()
                    || lock(&universe.network.links).connect_hangs(universe.seed, faults, own, &machine, now)
            });
            if hangs || !universe.network.is_up(&universe, &machine) {
                backend.sleep(SYN_RETRY).await;
                continue;
            }
            let there = universe.network.transit(&universe, own, &machine, 0).latency;
            let back = universe.network.transit(&universe, &machine, own, 0).latency;
            backend.sleep(Duration::from_nanos(there)).await;
            let listening = lock(&universe.network.state).listeners.get(&(machine.clone(), port)).cloned();
            let Some(listening) = listening.filter(|listening| listening.open.load(Ordering::Relaxed)) else {
                if !universe.network.is_up(&universe, &machine) {
                    continue;
                }
                backend.sleep(Duration::from_nanos(back)).await;
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    format!("{address}: connection refused"),
                ));
            };
            if lock(&listening.state).waiting.len() >= BACKLOG {
                backend.sleep(SYN_RETRY).await;
                continue;
            }
            let stream = self.establish(&listening, &machine, port);
            backend.sleep(Duration::from_nanos(back)).await;
            return Ok(stream);
        }
    }

    fn establish(&self, listening: &Listening, machine: &Arc<str>, port: u16) -> SimStream {
        let universe = self.process.universe();
        let own = &self.process.machine.name;
        let number = universe.number();
        let address = format!("{own}:{}", universe.network.free_port());
        let client = End { machine: own.clone(), process: self.process.number, address: address.clone() };
        let server = End {
            machine: machine.clone(),
            process: listening.process,
            address: format!("{machine}:{port}"),
        };
        universe
            .event(Event::new(What::Connect).numbers(number, u64::from(port)).named(client.address.as_str()));
        let connection = Connection::new(number, [client, server]);
        {
            let mut state = lock(&universe.network.state);
            state.opened += 1;
            state.connections.insert(number, connection.clone());
        }
        let acceptor = {
            let mut backlog = lock(&listening.state);
            backlog.waiting.push_back((connection.clone(), address));
            backlog.acceptor.take()
        };
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
        SimStream::new(universe, connection, 0)
    }
}

impl io_backend::Network for SimNetwork {
    type Listener = SimListener;

    async fn listen(&self, address: &str) -> io::Result<SimListener> {
        let universe = self.process.universe();
        let own = &self.process.machine.name;
        let (machine, port) = universe.network.resolve(own, address)?;
        if machine != *own {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{address} is not an address of {own}"),
            ));
        }
        let port = if port == 0 { universe.network.free_port() } else { port };
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        let listening = Arc::new(Listening {
            process: self.process.number,
            open: AtomicBool::new(true),
            state: Mutex::default(),
        });
        let mut state = lock(&universe.network.state);
        let key = (own.clone(), port);
        if state.listeners.contains_key(&key) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{address}: address in use")));
        }
        state.listeners.insert(key, listening.clone());
        drop(state);
        Ok(SimListener {
            backend: SimBackend::new(self.process.clone()),
            listening,
            port,
            address: format!("{host}:{port}"),
        })
    }

    #[track_caller]
    fn connect(
        &self,
        address: &str,
        deadline: Deadline,
    ) -> impl Future<Output = io::Result<SimStream>> + Send {
        let site = Location::caller();
        async move {
            let backend = SimBackend::new(self.process.clone());
            let wait = backend
                .registry()
                .waiting(&backend, WaitKind::Connect, "connection", site)
                .on(Arc::from(address));
            within(&backend, deadline, wait.during(self.attempt(address))).await.unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{address}: no answer before the deadline"),
                ))
            })
        }
    }
}

pub struct SimListener {
    backend: SimBackend,
    listening: Arc<Listening>,
    port: u16,
    address: String,
}

impl io_backend::Listener for SimListener {
    type Stream = SimStream;

    #[track_caller]
    fn accept(&self) -> impl Future<Output = io::Result<(SimStream, String)>> + Send {
        let site = Location::caller();
        async move {
            let universe = self.backend.universe();
            let next = poll_fn(|cx| {
                let mut backlog = lock(&self.listening.state);
                if let Some((connection, peer)) = backlog.waiting.pop_front() {
                    return Poll::Ready(Ok((SimStream::new(universe, connection, 1), peer)));
                }
                if !self.listening.open.load(Ordering::Relaxed) {
                    return Poll::Ready(Err(io::Error::other("the listener is closed")));
                }
                backlog.acceptor = Some(cx.waker().clone());
                Poll::Pending
            });
            self.backend
                .registry()
                .waiting(&self.backend, WaitKind::Accept, "connection", site)
                .on(Arc::from(self.local_address()))
                .unbounded()
                .during(next)
                .await
        }
    }

    fn local_address(&self) -> String {
        self.address.clone()
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let universe = self.backend.universe();
        let own = self.backend.process().machine.name.clone();
        let closed = lock(&universe.network.state).listeners.remove(&(own, self.port));
        match closed {
            Some(closed) if Arc::ptr_eq(&closed, &self.listening) => closed.close(universe),
            // The port is another process's by now.
            Some(other) => {
                let key = (self.backend.process().machine.name.clone(), self.port);
                lock(&universe.network.state).listeners.insert(key, other);
            }
            None => self.listening.close(universe),
        }
    }
}
