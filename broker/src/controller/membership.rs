//! A broker among the others: whether they count on it, and how it takes its leave.

use std::pin::pin;

use futures::future::{Either, select};
use io_backend::{Backend, Deadline, Published, TimedOut};

use crate::metadata::{BrokerProcess, MetadataHandle, MetadataImage};
use crate::stall::StorageHealth;
use crate::stall::contact::{Lost, LostContact};

/// This broker among the others.
pub struct Membership<B: Backend> {
    pub(super) backend: B,
    /// This process.
    pub(super) process: BrokerProcess,
    pub(super) metadata: MetadataHandle<B>,
    pub(super) health: StorageHealth,
    pub(super) wants_shutdown: Published<bool>,
    /// The controller says that others lead what they can.
    pub(super) may_stop: Published<bool>,
}

impl<B: Backend> Clone for Membership<B> {
    fn clone(&self) -> Self {
        Membership {
            backend: self.backend.clone(),
            process: self.process,
            metadata: self.metadata.clone(),
            health: self.health.clone(),
            wants_shutdown: self.wants_shutdown.clone(),
            may_stop: self.may_stop.clone(),
        }
    }
}

impl<B: Backend> Membership<B> {
    /// Waits until the others count on this broker, and it knows it: before, it leads nothing, and who connects is told of
    /// a broker that is not in the cluster.
    ///
    /// # Errors
    ///
    /// Not by the deadline.
    pub async fn until_unfenced(&self, deadline: Deadline) -> Result<(), TimedOut> {
        let process = self.process;
        let counts = |image: &MetadataImage| is_unfenced(image, process);
        self.metadata.images().until(&self.backend, deadline, counts).await?;
        let contact = self.health.contact.published();
        contact.until(&self.backend, deadline, Option::is_none).await?;
        Ok(())
    }

    /// Has what this broker leads led by others, as far as they can; whether they do. It waits for no controller that is
    /// not there: what the broker leads moves when it is gone, and there is somebody.
    pub async fn hand_over(&self, deadline: Deadline) -> bool {
        self.wants_shutdown.publish(true);
        let contact = self.health.contact.published();
        let may = pin!(self.may_stop.until(&self.backend, deadline, |may| *may));
        // Who is behind is answered.
        let is_cut_off = |lost: &Option<LostContact>| lost.is_some_and(|lost| lost.why != Lost::Behind);
        let lost = pin!(contact.until(&self.backend, deadline, is_cut_off));
        matches!(select(may, lost).await, Either::Left((Ok(_), _)))
    }
}

/// Whether the controller counts on this process, by this image.
pub(super) fn is_unfenced(image: &MetadataImage, process: BrokerProcess) -> bool {
    image.brokers.get(&process.broker).is_some_and(|broker| broker.epoch == process.epoch && !broker.fenced)
}
