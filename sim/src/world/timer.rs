//! The clock of a host as its processes see it: what waits with a deadline need of a backend.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use io_backend::{Clock, Moment};

use super::host::Host;
use super::lock;
use super::timers::TimerKey;

/// The monotonic clock of a host.
#[derive(Clone)]
pub struct SimClock {
    host: Arc<Host>,
}

impl SimClock {
    pub(super) fn of(host: &Arc<Host>) -> SimClock {
        SimClock { host: host.clone() }
    }
}

impl Clock for SimClock {
    type Timer = SimTimer;

    fn now(&self) -> Moment {
        self.host.kernel().guard.check();
        Moment(self.host.local_now())
    }

    fn timer(&self, at: Moment) -> SimTimer {
        SimTimer { host: self.host.clone(), at: at.0, key: None }
    }
}

/// Completes when the machine's monotonic clock shows `at`.
pub struct SimTimer {
    host: Arc<Host>,
    at: u64,
    key: Option<TimerKey>,
}

impl Future for SimTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let kernel = this.host.kernel();
        let (reached, world_at) = {
            let clock = lock(&this.host.clock);
            (clock.local(kernel.now()) >= this.at, clock.world(this.at))
        };
        if reached {
            if let Some(key) = this.key.take() {
                kernel.cancel(key);
            }
            return Poll::Ready(());
        }
        match this.key {
            Some(key) if key.at == world_at && kernel.rewake(key, cx.waker()) => {}
            other => {
                if let Some(key) = other {
                    kernel.cancel(key);
                }
                this.key = Some(kernel.wake_at(world_at, cx.waker()));
            }
        }
        Poll::Pending
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.host.kernel().cancel(key);
        }
    }
}
