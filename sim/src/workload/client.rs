//! Who a client is: a machine's backend, a name, and the field it works in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use io_backend::{Backend, TaskName};
use kafka_protocol::error::ResponseError;

use super::field::Field;
use crate::history::{At, Complaint, LogStart, Place, Teller, Trade};

/// Producer numbers of those that are no producers by trade.
pub(super) mod numbers {
    pub const CHURNER: u32 = 1_000;
    pub const LEAVERS: u32 = 2_000;
    pub const PROBES: u32 = 3_000;
    pub const FLOODERS: u32 = 4_000;
    pub const DESERTERS: u32 = 5_000;
    pub const POISONERS: u32 = 6_000;
    pub const ADMINISTRATOR: u32 = 7_000;
    pub const MEMBERS: u32 = 8_000;
    pub const KEEPERS: u32 = 9_000;
}

/// Who a client is.
#[derive(Clone)]
pub struct Client<B: Backend> {
    pub backend: B,
    pub name: Arc<str>,
    pub field: Field,
}

impl<B: Backend> Client<B> {
    pub fn new(backend: B, name: &str, field: &Field) -> Client<B> {
        Client { backend, name: name.into(), field: field.clone() }
    }

    pub(super) fn now(&self) -> At {
        self.backend.now().0
    }

    /// Waits before it does something once more; whether it is still the time for that, while records are produced.
    pub(super) async fn next_turn(&self, pause: Duration) -> bool {
        self.backend.sleep(pause).await;
        self.now() < self.field.schedule.produce_until
    }

    /// Writes down where it was told that a log starts. A node that is the only one holds to all that is told.
    pub(super) fn note_log_start(&self, place: &Place, start: i64, by: Teller, sent: At) {
        let (client, at, wall_ms) = (self.name.clone(), self.now(), self.backend.wall_ms());
        let place = place.clone();
        let by = if self.field.nodes == 1 { Teller::Node(1) } else { by };
        self.field.notes.write().log_starts.push(LogStart { client, place, start, by, sent, at, wall_ms });
    }

    /// Writes down what it was told instead of what it asked for, if `code` is an error.
    pub(super) fn complain(&self, trade: Trade, place: Option<&Place>, code: i16, sent: At) {
        self.complain_of(trade, place, code, sent, self.now());
    }

    pub(super) fn complain_of(&self, trade: Trade, place: Option<&Place>, code: i16, sent: At, at: At) {
        self.complain_as_routed(trade, place, code, (sent, at), None);
    }

    pub(super) fn complain_as_routed(
        &self,
        trade: Trade,
        place: Option<&Place>,
        code: i16,
        (sent, at): (At, At),
        routed: Option<At>,
    ) {
        let Some(error) = ResponseError::try_from_code(code) else { return };
        self.field.notes.write().complain(Complaint {
            client: self.name.clone(),
            trade,
            place: place.cloned(),
            error: format!("{error:?}"),
            sent,
            at,
            routed,
        });
    }

    /// Starts `work` as a task that [`Field::is_done`] waits for.
    pub(super) fn begin<F>(&self, role: &'static str, work: F)
    where
        F: std::future::Future<Output = ()> + Send + 'static,
    {
        let running = self.field.running.clone();
        running.fetch_add(1, Ordering::SeqCst);
        // Dropping the task counts as well: a client whose machine dies is done.
        let leaving = Leaving(running);
        let _detached = self.backend.spawn(TaskName::of(role, self.name.clone()), async move {
            let _leaving = leaving;
            work.await;
        });
    }
}

struct Leaving(Arc<AtomicUsize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
