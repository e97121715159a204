//! The replicas of this node: follows the metadata image, opens, promotes and deletes partitions.
//!
//! One task, `replicas`, owns which partitions are open; everyone else reads what it publishes, once
//! per batch of changes. Opening goes on in bounded parallel; the beginnings and epoch starts of all
//! partitions of a new topic share journal groups. The task `checkpoint` beside it moves the journal into
//! segments. A replica is known by topic id and assignment: entries and files of a deleted life find nobody.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use imbl::OrdMap;
use io_backend::{Backend, Deadline, Published};

use crate::config::Config;
use crate::data_dir;
use crate::ids::{BrokerEpoch, BrokerId, PartitionId};
use crate::journal::JournalHandle;
use crate::limits;
use crate::log::cleaning::rewrite::Judge;
use crate::metadata::MetadataHandle;
use crate::metrics::Metrics;
use crate::partition::{LogSignal, LogState, PartitionHandle};

mod reconcile;
mod roles;
mod recover;
mod lives;
mod rescue;
mod checkpoint;
mod open;
mod removals;
mod retention;
mod cleaner;
mod owner;
mod start;

pub use recover::{RecoveredReplica, RecoveredReplicas, SplitError, split};
pub(crate) use start::{ReplicasControl, ReplicasStartError, start};

/// The partitions that this node has; cloneable.
pub struct Replicas<B: Backend> {
    open: Published<OrdMap<PartitionId, PartitionHandle<B>>>,
    not_open: Published<NotOpen>,
    not_led: Published<Option<NotLed>>,
    held_by: Published<Option<HeldBy>>,
    signal: LogSignal,
}

/// Partitions of this node that do not open, by name, and why.
pub type NotOpen = BTreeMap<String, String>;

/// Partitions of this node that could not begin to serve for reasons that are not their own, at the last try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLed {
    /// How many there are.
    pub partitions: usize,
    /// Of one of them.
    pub why: String,
}

impl fmt::Display for NotLed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotLed { partitions, why } = self;
        write!(f, "{partitions} partitions do not serve yet and are tried again every few seconds: {why}")
    }
}

/// Who needs the oldest entry that the journal keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldBy {
    /// An open partition: its checkpoint failed, and why, or it had entries in flight.
    Partition(PartitionId, Option<String>),
    /// A partition that does not open.
    NotOpen(PartitionId),
    /// The process ends.
    Closing,
}

impl HeldBy {
    /// Who, without why.
    fn name(&self) -> String {
        match self {
            HeldBy::Partition(id, _) => format!("partition {id}, which is not checkpointed that far"),
            HeldBy::NotOpen(id) => format!("partition {id}, which does not open"),
            HeldBy::Closing => "partitions that were closed, for the process ends".to_owned(),
        }
    }
}

impl fmt::Display for HeldBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        match self {
            HeldBy::Partition(_, Some(why)) => write!(f, ": {why}"),
            _ => Ok(()),
        }
    }
}

impl<B: Backend> Default for Replicas<B> {
    fn default() -> Self {
        Replicas {
            open: Published::new("open replicas", OrdMap::new()),
            not_open: Published::new("partitions that do not open", NotOpen::new()),
            not_led: Published::new("partitions that are not led", None),
            held_by: Published::new("what holds the journal", None),
            signal: LogSignal::default(),
        }
    }
}

impl<B: Backend> Clone for Replicas<B> {
    fn clone(&self) -> Self {
        Replicas {
            open: self.open.clone(),
            not_open: self.not_open.clone(),
            not_led: self.not_led.clone(),
            held_by: self.held_by.clone(),
            signal: self.signal.clone(),
        }
    }
}

impl<B: Backend> Replicas<B> {
    /// The open partition with this id; `None` where this node has no replica of it, or it is not open.
    pub fn get(&self, id: PartitionId) -> Option<PartitionHandle<B>> {
        self.open.get().get(&id).cloned()
    }

    /// Those that do not open, until they do or are deleted.
    pub fn not_open(&self) -> Arc<NotOpen> {
        self.not_open.get()
    }

    /// Those that are open and do not serve; `None` where all do.
    pub fn not_led(&self) -> Option<NotLed> {
        (*self.not_led.get()).clone()
    }

    /// What kept the last round of checkpoints from releasing all of the journal.
    pub fn held_by(&self) -> Option<HeldBy> {
        (*self.held_by.get()).clone()
    }

    /// Where the log of a replicated partition stands.
    pub fn log_state(&self, partition: PartitionId) -> Option<LogState> {
        self.signal.state(partition)
    }

    /// Where the logs of its replicated partitions stand, and a way to wait for more.
    pub(crate) fn signal(&self) -> &LogSignal {
        &self.signal
    }

    /// All open partitions, and a way to wait for more.
    pub fn open(&self) -> &Published<OrdMap<PartitionId, PartitionHandle<B>>> {
        &self.open
    }
}

/// The open partitions of a moment.
pub type OpenReplicas<B> = Arc<OrdMap<PartitionId, PartitionHandle<B>>>;

/// What the replicas of a node need.
pub struct ReplicasContext<B: Backend> {
    /// What disk, time and tasks come from.
    pub backend: B,
    /// The configuration of the process.
    pub config: Arc<Config>,
    /// Where opened partitions count.
    pub metrics: Arc<Metrics>,
    /// This node.
    pub node: BrokerId,
    /// Granted to this process; leaderships granted to earlier ones are not taken up.
    pub broker_epoch: BrokerEpoch,
    /// Where the image comes from that says what is to be open, and who leads.
    pub metadata: MetadataHandle<B>,
    /// The journal of all partitions.
    pub journal: JournalHandle,
    /// Has the last word about which records of compacted logs stay.
    pub judge: Judge,
}

impl<B: Backend> ReplicasContext<B> {
    pub(crate) fn directory(&self) -> PathBuf {
        self.config.data_dir.join(data_dir::PARTITIONS)
    }

    pub(crate) fn rescued_directory(&self) -> PathBuf {
        self.config.data_dir.join(data_dir::RESCUED)
    }

    fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, limits::ASK_DEADLINE)
    }
}

#[cfg(test)]
mod tests;
