//! What the node has to give away: accounts of requests and of bytes, and who stands in line for them.
//!
//! Everything that grows with load is charged to one of a few accounts, whose limits are shares of one bound
//! of memory (`memory.bytes`). Who finds an account empty waits in its line and holds nothing meanwhile.

use std::sync::Arc;

use crate::admin::metrics::Metrics;
use crate::config::ServerConfig;

mod account;

pub use account::{Account, Class, Place, Share};

/// What a request holds while it is worked on.
pub struct Permit {
    pub request: Share,
    pub bytes: Share,
}

/// The accounts of a node's front.
pub struct Budget {
    /// Requests being worked on.
    pub requests: Arc<Account>,
    /// Bytes of requests that arrive, are worked on, or wait in a partition's mailbox.
    pub request_bytes: Arc<Account>,
    /// Bytes of requests that wait: for their turn on their connection, or for records.
    pub waiting_bytes: Arc<Account>,
    /// Bytes of answers that are not written yet.
    pub answer_bytes: Arc<Account>,
}

impl Budget {
    pub fn new(server: &ServerConfig, metrics: &Metrics) -> Budget {
        Budget {
            requests: Account::new(server.requests_in_flight, metrics.requests_in_flight.clone()),
            request_bytes: Account::new(server.request_bytes_in_flight, metrics.request_bytes.clone()),
            waiting_bytes: Account::new(server.waiting_bytes, metrics.waiting_bytes.clone()),
            answer_bytes: Account::new(server.answer_bytes, metrics.answer_bytes.clone()),
        }
    }
}
