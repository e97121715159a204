//! A process's view of the network: listening and connecting.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use io_backend::time::within;
use io_backend::{Clock, Deadline, WaitKind};

use super::connection::{Connection, End};
use super::hub::Network;
use super::listening::Listening;
use super::rewriting::Rewrites;
use super::stream::SimStream;
use crate::fault;
use crate::world::alloc;
use crate::world::descriptors::Descriptor;
use crate::world::lock;
use crate::world::process::Process;
use crate::world::timer::SimClock;
use crate::world::trace::{Event, What};

/// Connections that a listener holds before someone accepts them.
const BACKLOG: usize = 128;
/// Where a broker listens: once it accepts there, its recovery is over.
const KAFKA_PORT: u16 = 9092;
/// How often a connect that got no answer tries again.
const SYN_RETRY: Duration = Duration::from_millis(500);

/// A process's view of the network.
#[derive(Clone)]
pub struct SimNetwork {
    process: Arc<Process>,
    network: Arc<Network>,
    clock: SimClock,
    rewrites: Option<Rewrites>,
}

impl SimNetwork {
    pub(in crate::world) fn new(process: &Arc<Process>, network: &Arc<Network>) -> SimNetwork {
        let clock = SimClock::of(&process.host);
        SimNetwork { process: process.clone(), network: network.clone(), clock, rewrites: None }
    }

    pub(in crate::world) fn rewriting(&self, rewrites: Rewrites) -> SimNetwork {
        SimNetwork { rewrites: Some(rewrites), ..self.clone() }
    }

    async fn attempt(&self, address: &str) -> io::Result<SimStream> {
        let (kernel, clock, fabric) = (self.process.kernel(), &self.clock, &self.network.net.fabric);
        let own = &self.process.host.name;
        let (machine, port) = self.network.resolve(own, address)?;
        let mut descriptor = Some(self.process.descriptors.socket()?);
        loop {
            let hangs = kernel.with_faults(|faults| {
                let now = kernel.now();
                let blocked = fault::network::blocked(faults, own, &machine, now)
                    .or_else(|| fault::network::blocked(faults, &machine, own, now));
                if let Some(id) = blocked {
                    faults.hit(id);
                }
                blocked.is_some() || fabric.connect_hangs(faults, own, &machine, now)
            });
            if hangs || !fabric.is_up(&machine) {
                clock.sleep(SYN_RETRY).await;
                continue;
            }
            let there = fabric.transit(own, &machine, 0).latency;
            let back = fabric.transit(&machine, own, 0).latency;
            clock.sleep(Duration::from_nanos(there)).await;
            let listening = lock(&self.network.state).listeners.get(&(machine.clone(), port)).cloned();
            let Some(listening) = listening.filter(|listening| listening.open.load(Ordering::Relaxed)) else {
                if !fabric.is_up(&machine) {
                    continue;
                }
                clock.sleep(Duration::from_nanos(back)).await;
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    format!("{address}: connection refused"),
                ));
            };
            if lock(&listening.state).waiting.len() >= BACKLOG {
                clock.sleep(SYN_RETRY).await;
                continue;
            }
            let stream = self.establish(&listening, &machine, port, descriptor.take());
            clock.sleep(Duration::from_nanos(back)).await;
            return Ok(stream);
        }
    }

    fn establish(
        &self,
        listening: &Listening,
        machine: &Arc<str>,
        port: u16,
        descriptor: Option<Descriptor>,
    ) -> SimStream {
        let _world = alloc::as_world();
        let kernel = self.process.kernel();
        let own = &self.process.host.name;
        let number = kernel.number();
        let address = format!("{own}:{}", self.network.free_port());
        let client = End { machine: own.clone(), process: self.process.number, address: address.clone() };
        let server = End {
            machine: machine.clone(),
            process: listening.process,
            address: format!("{machine}:{port}"),
        };
        kernel
            .event(Event::new(What::Connect).numbers(number, u64::from(port)).named(client.address.as_str()));
        let connection = Connection::new(number, [client, server]);
        self.network.net.add(&connection);
        let acceptor = {
            let mut backlog = lock(&listening.state);
            backlog.waiting.push_back((connection.clone(), address));
            backlog.acceptor.take()
        };
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
        SimStream::new(&self.network.net, connection, 0, descriptor)
    }
}

impl io_backend::Network for SimNetwork {
    type Listener = SimListener;

    async fn listen(&self, address: &str) -> io::Result<SimListener> {
        let own = &self.process.host.name;
        let (machine, port) = self.network.resolve(own, address)?;
        if machine != *own {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{address} is not an address of {own}"),
            ));
        }
        let port = if port == 0 { self.network.free_port() } else { port };
        let host = address.rsplit_once(':').map_or("", |(host, _)| host);
        let listening = Arc::new(Listening {
            process: self.process.number,
            open: AtomicBool::new(true),
            state: Mutex::default(),
        });
        let mut state = lock(&self.network.state);
        let key = (own.clone(), port);
        if state.listeners.contains_key(&key) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{address}: address in use")));
        }
        state.listeners.insert(key, listening.clone());
        drop(state);
        Ok(SimListener { of: self.clone(), listening, port, address: format!("{host}:{port}") })
    }

    #[track_caller]
    fn connect(
        &self,
        address: &str,
        deadline: Deadline,
    ) -> impl Future<Output = io::Result<SimStream>> + Send {
        let site = Location::caller();
        async move {
            let wait = self
                .process
                .registry
                .waiting(&self.clock, WaitKind::Connect, "connection", site)
                .on(Arc::from(address));
            within(&self.clock, deadline, wait.during(self.attempt(address))).await.unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{address}: no answer before the deadline"),
                ))
            })
        }
    }
}

pub struct SimListener {
    of: SimNetwork,
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
            let SimNetwork { process, network, clock, rewrites } = &self.of;
            if self.port == KAFKA_PORT {
                process.serves();
            }
            let next = poll_fn(|cx| {
                let mut backlog = lock(&self.listening.state);
                // As in the kernel: who finds no descriptor leaves the connection where it is.
                if !backlog.waiting.is_empty() {
                    let descriptor = process.descriptors.socket()?;
                    if let Some((connection, peer)) = backlog.waiting.pop_front() {
                        let stream = SimStream::new(&network.net, connection, 1, Some(descriptor));
                        let stream = stream.rewritten(*rewrites);
                        return Poll::Ready(Ok((stream, peer)));
                    }
                }
                if !self.listening.open.load(Ordering::Relaxed) {
                    return Poll::Ready(Err(io::Error::other("the listener is closed")));
                }
                backlog.acceptor = Some(cx.waker().clone());
                Poll::Pending
            });
            process
                .registry
                .waiting(clock, WaitKind::Accept, "connection", site)
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
        let SimNetwork { process, network, .. } = &self.of;
        let key = (process.host.name.clone(), self.port);
        let closed = lock(&network.state).listeners.remove(&key);
        match closed {
            Some(closed) if Arc::ptr_eq(&closed, &self.listening) => closed.close(&network.net),
            // The port is another process's by now.
            Some(other) => {
                lock(&network.state).listeners.insert(key, other);
            }
            None => self.listening.close(&network.net),
        }
    }
}
