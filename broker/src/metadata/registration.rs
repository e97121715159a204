//! What a node says of itself when its process has started.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{BrokerEpoch, BrokerId, Incarnation, IncarnationId, StorageId};

/// Name of the listener that clients connect to.
pub const CLIENT_LISTENER: &str = "PLAINTEXT";
/// Name of the listener that other nodes connect to.
pub const CLUSTER_LISTENER: &str = "CLUSTER";

/// Where a node listens, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// What it is for: [`CLIENT_LISTENER`] or [`CLUSTER_LISTENER`].
    pub name: String,
    /// As it is advertised.
    pub host: String,
    /// With `host`: as it is advertised.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The registration of a process. What it says of the process tells it from others: the incarnation id a message that is
/// said again from another process, the storage id a data directory from another one, the count of starts and the
/// previous epoch a directory from an older copy of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct BrokerRegistration {
    /// Its number.
    pub id: BrokerId,
    /// How often the data directory has been started on; a later process has a larger number.
    pub incarnation: Incarnation,
    /// Of the process; `None` where a binary registered that drew none.
    pub incarnation_id: Option<IncarnationId>,
    /// The latest broker epoch of this storage that the directory's own metadata had when the process started; `None`
    /// where they had none. The count alone is not enough: a copy that is refused is started again, and counts on.
    pub previous_epoch: Option<BrokerEpoch>,
    /// The data directory that it runs on.
    pub storage: StorageId,
    /// Where it listens, each name once.
    pub listeners: Vec<Endpoint>,
    /// Kafka's `broker.rack`.
    pub rack: Option<String>,
    /// The latest version of the metadata that its binary reads.
    #[serde(skip_serializing_if = "is_unsaid")]
    pub reads: u8,
}

impl BrokerRegistration {
    /// The listener of this name.
    pub fn listener(&self, name: &str) -> Option<&Endpoint> {
        self.listeners.iter().find(|endpoint| endpoint.name == name)
    }

    /// Whether both speak of one process.
    pub(super) fn is_of_the_same_process(&self, other: &BrokerRegistration) -> bool {
        self.storage == other.storage
            && match (self.incarnation_id, other.incarnation_id) {
                (None, None) => self.incarnation == other.incarnation,
                (ours, theirs) => ours == theirs,
            }
    }
}

/// As it is read: before version 3 there was one listener, and no incarnation id.
#[derive(Deserialize)]
struct Stored {
    id: BrokerId,
    incarnation: Incarnation,
    #[serde(default)]
    incarnation_id: Option<IncarnationId>,
    #[serde(default)]
    previous_epoch: Option<BrokerEpoch>,
    storage: StorageId,
    #[serde(default)]
    listeners: Vec<Endpoint>,
    #[serde(default)]
    rack: Option<String>,
    #[serde(default = "unsaid")]
    reads: u8,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

/// Binaries that did not say it read this.
fn unsaid() -> u8 {
    3
}

/// Then it is not written either: what was written before is written as it was.
fn is_unsaid(reads: &u8) -> bool {
    *reads == unsaid()
}

impl From<Stored> for BrokerRegistration {
    fn from(stored: Stored) -> BrokerRegistration {
        let Stored {
            id,
            incarnation,
            incarnation_id,
            previous_epoch,
            storage,
            mut listeners,
            rack,
            reads,
            host,
            port,
        } = stored;
        if let (Some(host), Some(port)) = (host, port) {
            listeners.push(Endpoint { name: CLIENT_LISTENER.to_owned(), host, port });
        }
        BrokerRegistration {
            id,
            incarnation,
            incarnation_id,
            previous_epoch,
            storage,
            listeners,
            rack,
            reads,
        }
    }
}
