//! What ends a process from outside, and how long it may take to end.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Time for what is in flight to finish when the process is asked to stop.
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);

pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub fn listen() -> std::io::Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub async fn received(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
