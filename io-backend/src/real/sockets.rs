//! The list of sockets to shut down when the process ends.
//!
//! A process with a thread stuck in the kernel stays alive, and its sockets with it, through `exit` and
//! even `kill -9`: so each socket is shut down by hand first.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use super::system;
use crate::mutex::lock;

/// The open sockets of the process.
#[derive(Default)]
pub(super) struct Sockets {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    exiting: bool,
    descriptors: BTreeSet<RawFd>,
}

impl Sockets {
    /// Shuts down every socket, and every one that is still to come.
    pub(super) fn close_all(&self) {
        let mut open = lock(&self.open);
        open.exiting = true;
        for socket in &open.descriptors {
            system::shut_down(*socket);
        }
    }

    pub(super) fn watch(self: &Arc<Self>, socket: &impl AsRawFd) -> Watched {
        let descriptor = socket.as_raw_fd();
        let mut open = lock(&self.open);
        open.descriptors.insert(descriptor);
        if open.exiting {
            system::shut_down(descriptor);
        }
        Watched { sockets: self.clone(), descriptor }
    }
}

/// Keeps a socket on the list. Stands before the socket in its struct: off the list first, closed then, so that
/// a number on the list is never somebody else's descriptor.
pub(super) struct Watched {
    sockets: Arc<Sockets>,
    descriptor: RawFd,
}

impl Drop for Watched {
    fn drop(&mut self) {
        lock(&self.sockets.open).descriptors.remove(&self.descriptor);
    }
}
