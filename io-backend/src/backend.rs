//! The one type parameter of a node: [`Backend`].
//!
//! Contract: nothing in a node reads a clock, draws a random number, starts a task, touches a file
//! or a socket in any other way. Implementations are cheap to clone (a handle to shared state) and
//! belong to one node; the node's identity, directory and peers come from its configuration.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::network::Network;
use crate::registry::Registry;
use crate::task::{TaskHandle, TaskName};
use crate::time::Clock;

/// A node's handle to everything outside of it; its clock is the backend itself.
pub trait Backend: Clock + Clone {
    /// The file system that holds the data directory.
    type Disk: Disk;
    /// Byte streams to and from other processes.
    type Network: Network;

    /// The disk; the handle is cheap to clone.
    fn disk(&self) -> &Self::Disk;
    /// The network; the handle is cheap to clone.
    fn network(&self) -> &Self::Network;

    /// The wall clock in milliseconds since 1970. May jump either way; used for record timestamps and
    /// for people, never for a decision about order or age.
    fn wall_ms(&self) -> i64;

    /// Uniform over `u64`: for ids and jitter, not for secrets.
    fn random_u64(&self) -> u64;

    /// Everything in flight in this process.
    fn registry(&self) -> &Arc<Registry>;

    /// Starts a task. It runs until it returns, is aborted, or the process ends.
    fn spawn<F>(&self, name: impl Into<TaskName>, future: F) -> TaskHandle
    where
        F: Future<Output = ()> + Send + 'static;

    /// Starts a loop that has a thread of its own where threads exist, so that a blocking disk
    /// operation of this loop holds up nobody else. See [`DedicatedLoop`].
    fn spawn_dedicated<L: DedicatedLoop<Self>>(&self, name: impl Into<TaskName>, body: L) -> TaskHandle;

    /// What other threads of the process do to this seam at this moment: how long they hold it up.
    /// Asked before a lock is acquired and before a message is handed over. On a real machine
    /// the threads themselves do this, and there is nothing to tell.
    fn interference(&self, seam: SyncPoint<'_>) -> Interference {
        let _ = seam;
        Interference::None
    }

    /// Wakes whoever was told that a channel is full when it may be no more. Waking its task would not be enough: it may
    /// be one of many that one task waits for.
    fn wake_when_relieved(&self, waker: &std::task::Waker) {
        let _ = waker;
    }

    /// Ends the process with a status of its own, connections first. Returns only because the
    /// caller may be a task of the process that ends: return from the task after calling it.
    fn exit(&self, status: ExitStatus, why: &str);
}

/// The body of a dedicated loop. `disk` performs its operations inline on the loop's thread (or on the
/// ring that the thread drives); its futures need not be `Send`.
pub trait DedicatedLoop<B: Backend>: Send + 'static {
    /// Runs until the loop returns or its [`TaskHandle`] is aborted.
    fn run(self, disk: <B::Disk as Disk>::Dedicated) -> impl Future<Output = ()>;
}

/// A place where tasks meet.
#[derive(Clone, Copy, Debug)]
pub enum SyncPoint<'a> {
    /// A lock of this name is about to be acquired.
    Lock(&'a str),
    /// A message is about to be handed to the channel of this name.
    Channel(&'a str),
}

/// What a seam suffers from other threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interference {
    /// Nothing.
    None,
    /// The acquisition or hand-off takes this long although nobody of us holds it.
    Delay(Duration),
    /// A channel behaves as if it were full.
    Full,
}

/// How a process ends. The numbers are part of the interface to service managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It was asked to stop, and did.
    Clean = 0,
    /// Any other reason.
    Other = 1,
    /// The command line or the configuration is wrong.
    Configuration = 2,
    /// The data directory is in use, foreign, newer or damaged.
    DataDirectory = 3,
    /// An address is in use, or cannot be listened on.
    Network = 4,
    /// A write or sync failed so that nobody can tell what is durable.
    StorageNotTrusted = 5,
    /// The disk does not answer, and others have taken over.
    StorageStalled = 6,
}
