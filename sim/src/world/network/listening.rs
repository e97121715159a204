//! A listener's side of a connect: connections that nobody has accepted yet.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use super::connection::{Connection, Connections};
use super::stream::SimStream;
use crate::world::lock;

pub(super) struct Listening {
    pub(super) process: u64,
    pub(super) open: AtomicBool,
    pub(super) state: Mutex<Backlog>,
}

#[derive(Default)]
pub(super) struct Backlog {
    pub(super) waiting: VecDeque<(Arc<Connection>, String)>,
    pub(super) acceptor: Option<Waker>,
}

impl Listening {
    pub(super) fn close(&self, net: &Arc<Connections>) {
        self.open.store(false, Ordering::Relaxed);
        let (waiting, acceptor) = {
            let mut backlog = lock(&self.state);
            (std::mem::take(&mut backlog.waiting), backlog.acceptor.take())
        };
        for (connection, _) in waiting {
            drop(SimStream::new(net, connection, 1, None));
        }
        if let Some(acceptor) = acceptor {
            acceptor.wake();
        }
    }
}
