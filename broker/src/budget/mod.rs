//! What the node has to give away: accounts of requests and of bytes, and who is queued for them.
//!
//! Everything that grows with load is charged to one of a few accounts, whose limits are shares of one bound
//! of memory (`memory.bytes`). Who finds an account empty waits in its line and holds nothing meanwhile, but for the
//! pieces of a large request that have come: it keeps its place until it is whole.

use std::pin::pin;
use std::sync::Arc;

use io_backend::{Backend, Deadline, Moment, within};

use crate::config::Config;
use crate::limits::ROOM_TIMEOUT;
use crate::metrics::Metrics;

mod account;
mod holders;

pub use account::{Account, RequestClass, Share, Waiter, charged};
pub use holders::{CutOff, Holders, Holds};

/// What a request holds of the accounts between its reading and its answer.
#[derive(Default)]
pub struct Held {
    /// While it is worked on; a produce from its start on, everything else when its turn has come.
    pub request: Option<Share>,
    /// Its bytes, as it is when decoded; given back with `request`.
    pub bytes: Option<Share>,
    /// While it waits, instead of both.
    pub waiting: Option<Share>,
}

/// What a request takes in memory beside its bytes.
const REQUEST_OVERHEAD_BYTES: usize = 1024;
/// How much larger than its bytes a decoded request is, but for a produce: a partition of a fetch is 17 bytes on
/// the wire. The number of its elements bounds that.
const DECODED_FACTOR: usize = 8;
const DECODED_FROM_BYTES_MAX: usize = 2 << 20;

/// What a request of `bytes` takes when it is decoded, at most `max` but never less than its bytes.
pub fn decoded_bytes(bytes: usize, max: usize) -> usize {
    let more = bytes.min(DECODED_FROM_BYTES_MAX) * (DECODED_FACTOR - 1);
    (bytes + more).min(max).max(bytes)
}

impl Held {
    /// Bytes to charge for the request while it waits; of a produce only the answer waits.
    pub fn waiting_amount(&self, produce: bool) -> usize {
        let decoded = self.bytes.as_ref().map_or(0, Share::amount);
        REQUEST_OVERHEAD_BYTES + if produce { 0 } else { decoded }
    }

    /// What it asks for takes more than its own bytes say: charged to what it holds, for it is there already.
    pub fn charge_at_least(&mut self, bytes: usize) {
        if let Some(share) = self.waiting.as_mut().or(self.bytes.as_mut()) {
            share.set(share.amount().max(bytes));
        }
    }
}

/// The accounts of a node, for what its clients bring and take.
pub struct Budget {
    /// Requests being worked on.
    pub requests: Arc<Account>,
    /// Bytes of requests that arrive, are worked on, or wait in a partition's mailbox.
    pub request_bytes: Arc<Account>,
    /// Large requests that are not whole.
    pub arriving: Holders,
    /// Bytes of requests that wait: for their turn on their connection, or for records.
    pub waiting_bytes: Arc<Account>,
    /// Bytes that opening batches takes, before they are appended, and of what they are then until their partitions have copied them:
    /// of those that open to little.
    pub opening_little: Arc<Account>,
    /// The same of those that open to much: they hold up no others.
    pub opening_much: Arc<Account>,
    /// Bytes of answers that are not written yet.
    pub answer_bytes: Arc<Account>,
    /// Large answers that are not written yet.
    pub unread: Holders,
}

impl Budget {
    /// The accounts as the configuration bounds them, each shown by its gauge.
    pub fn new(config: &Config, metrics: &Metrics) -> Budget {
        let server = &config.server;
        Budget {
            requests: Account::new(server.requests_in_flight, metrics.requests_in_flight.clone()),
            request_bytes: Account::new(server.request_bytes_in_flight, metrics.request_bytes.clone()),
            arriving: Holders::default(),
            waiting_bytes: Account::new(server.waiting_bytes, metrics.waiting_bytes.clone()),
            opening_little: Account::new(config.opening_bytes() / 2, metrics.opening_bytes.clone()),
            opening_much: Account::new(config.opening_bytes() / 2, metrics.opening_bytes.clone()),
            answer_bytes: Account::new(server.answer_bytes, metrics.answer_bytes.clone()),
            unread: Holders::default(),
        }
    }

    /// From `least` to `most` bytes for an answer, if there is room.
    pub fn some_for_answer(&self, least: usize, most: usize) -> Option<Share> {
        self.answer_bytes.try_take_some(RequestClass::Large, least, most)
    }

    /// Room for an answer, waited for until the deadline. Meanwhile those who hold answers and do not read them
    /// are cut off.
    pub async fn room_for_answer<B: Backend>(
        &self,
        backend: &B,
        class: RequestClass,
        amount: usize,
        deadline: Moment,
    ) -> Option<Share> {
        if let Some(share) = self.answer_bytes.try_take(class, amount) {
            return Some(share);
        }
        let mut taking = pin!(self.answer_bytes.take(class, amount));
        let mut long = false;
        loop {
            self.unread.make_room(backend.now(), long);
            let soon = Deadline::At(deadline.min(backend.now() + ROOM_TIMEOUT));
            match within(backend, soon, taking.as_mut()).await {
                Ok(share) => return Some(share),
                Err(_) if backend.now() >= deadline => return None,
                Err(_) => long = true,
            }
        }
    }
}
