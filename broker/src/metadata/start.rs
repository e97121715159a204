//! Starting the metadata group: recovers the image, becomes leader, hands out the handle.
//!
//! The state machine behind the Raft task is here too: it applies commands to its image and publishes
//! each batch's result once.

use std::path::PathBuf;
use std::sync::Arc;

use io_backend::invariants::are_checked;
use io_backend::{Backend, Deadline, Disk, ExitStatus, Published, channel};

use super::apply::apply;
use super::effective::Following;
use super::invariants;
use super::snapshot::{decode_command, decode_image, encode_image};
use super::{MetadataHandle, MetadataImage, Outcome};
use crate::budget::Account;
use crate::config::Config;
use crate::data_dir;
use crate::identity::Identity;
use crate::ids::BrokerId;
use crate::journal::{JournalContext, JournalHandle, JournalOpenError};
use crate::limits;
use crate::metrics::Metrics;
use crate::parts::OpenJournal;
use crate::raft::{
    Begin, Driver, Nobody, RaftContext, RaftError, RaftStartError, StateMachine, SubmissionMax,
};

/// What the metadata group of a node needs to start.
pub struct MetadataContext<B: Backend> {
    /// What disk, time and tasks come from.
    pub backend: B,
    /// The configuration of the process.
    pub config: Arc<Config>,
    /// Where proposals and their application are counted.
    pub metrics: Arc<Metrics>,
    /// Whose data directory it is.
    pub identity: Identity,
    /// The part that opens Raft's journal.
    pub open_journal: OpenJournal<B>,
}

pub struct StartedMetadata<B: Backend> {
    pub metadata: MetadataHandle<B>,
    /// The Raft journal, for whoever watches its disk; the node closes it last.
    pub journal: JournalHandle,
}

/// Why the metadata cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MetadataStartError {
    /// Raft's journal does not open.
    #[error("{0}")]
    Journal(#[from] JournalOpenError),
    /// The data directory cannot be looked at.
    #[error("{0}")]
    Disk(#[from] io_backend::DiskError),
    /// What is in Raft's journal cannot be used, or the group does not get a leader.
    #[error("{directory}: {source}. Restore the data directory from a backup, or start on an empty one")]
    Raft { directory: PathBuf, source: RaftStartError },
    /// Raft's journal is empty beside partitions that are not.
    #[error(
        "{directory} is empty, but {partitions} holds partitions: the metadata that says what they are is gone. Restore \
         {directory} from a backup, or move the data directory away and start on an empty one"
    )]
    Lost { directory: PathBuf, partitions: PathBuf },
}

impl MetadataStartError {
    /// What the process ends with.
    pub fn exit_status(&self) -> ExitStatus {
        match self {
            MetadataStartError::Raft {
                source: RaftStartError::Running(RaftError::Journal(_)) | RaftStartError::TimedOut,
                ..
            } => ExitStatus::StorageNotTrusted,
            _ => ExitStatus::DataDirectory,
        }
    }
}

/// Brings metadata back, or begins it. When it returns, this node leads its group and the image holds all that
/// was ever committed.
pub async fn start<B: Backend>(
    context: MetadataContext<B>,
    deadline: Deadline,
) -> Result<StartedMetadata<B>, MetadataStartError> {
    let MetadataContext { backend, config, metrics, identity, open_journal } = context;
    let directory = config.data_dir.join(data_dir::RAFT);
    let settings = config.raft_journal_settings();
    let opened = open_journal(JournalContext {
        backend: backend.clone(),
        name: "raft",
        directory: directory.clone(),
        settings,
        metrics: metrics.clone(),
    })
    .await?;
    if opened.entries.is_empty() {
        let partitions = config.data_dir.join(data_dir::PARTITIONS);
        if holds_something(&backend, &partitions, deadline).await? {
            return Err(MetadataStartError::Lost { directory, partitions });
        }
    }
    let images = Published::new("metadata image", MetadataImage::default());
    let (mailbox, receiver) = channel(&backend, "raft proposals", limits::PROPOSALS_MAX);
    let entry_bytes_max = settings.file_bytes / 4;
    let bytes_in_flight_max = limits::PROPOSAL_BYTES_IN_FLIGHT_MAX.min(settings.queue_bytes / 2);
    let image = MetadataImage { cluster_id: identity.cluster_id.clone(), ..MetadataImage::default() };
    let effective = Following::new(config.clone(), identity.node);
    let configs = effective.published().clone();
    let raft = |source| MetadataStartError::Raft { directory: directory.clone(), source };
    let mut driver = Driver::open(RaftContext {
        backend: backend.clone(),
        id: raft_id(identity.node),
        begin: Begin::Alone,
        machine: ImageMachine { image, images: images.clone(), effective },
        journal: opened.journal.clone(),
        recovered: opened.entries,
        mailbox: receiver,
        peers: None,
        transport: Box::new(Nobody),
        metrics: metrics.clone(),
        snapshot_piece_bytes: limits::SNAPSHOT_PIECE_BYTES.min(entry_bytes_max),
        snapshot_every_entries: config.metadata.snapshot_entries,
        proposals_in_flight_max: limits::PROPOSALS_MAX.min(settings.queue_entries / 2).max(1),
        submission_max: SubmissionMax { entries: settings.queue_entries, bytes: settings.queue_bytes },
    })
    .map_err(raft)?;
    driver.elect(deadline).await.map_err(raft)?;
    backend.spawn("raft", driver.run());
    let proposals = Account::new(bytes_in_flight_max, metrics.raft_proposal_bytes.clone());
    let metadata = MetadataHandle {
        images,
        configs,
        backend,
        mailbox,
        metrics,
        proposals,
        proposal_bytes_max: limits::PROPOSAL_BYTES_MAX.min(entry_bytes_max).min(bytes_in_flight_max),
    };
    Ok(StartedMetadata { metadata, journal: opened.journal })
}

async fn holds_something<B: Backend>(
    backend: &B,
    directory: &std::path::Path,
    deadline: Deadline,
) -> Result<bool, io_backend::DiskError> {
    match backend.disk().read_dir(directory, deadline).await {
        Ok(entries) => Ok(!entries.is_empty()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Raft's ids begin at one, Kafka's broker ids at zero.
fn raft_id(broker: BrokerId) -> u64 {
    u64::from(broker.0.unsigned_abs()) + 1
}

fn broker_id(raft_id: u64) -> Option<BrokerId> {
    Some(BrokerId(i32::try_from(raft_id.checked_sub(1)?).ok()?))
}

/// The image as the state machine of the group.
struct ImageMachine {
    image: MetadataImage,
    images: Published<MetadataImage>,
    effective: Following,
}

impl StateMachine for ImageMachine {
    type Answer = Outcome;

    fn apply(&mut self, index: u64, data: &[u8]) -> Result<Option<Outcome>, String> {
        if data.is_empty() {
            self.image.index = index;
            return Ok(None);
        }
        let command = decode_command(data).map_err(|error| error.to_string())?;
        let (image, outcome) = apply(&self.image, index, &command);
        if are_checked() {
            invariants::check(&self.image, &image);
        }
        self.image = image;
        Ok(Some(outcome))
    }

    fn publish(&mut self, leader: Option<u64>) {
        self.image.controller = leader.and_then(broker_id);
        // Before the image: whoever sees a change in it finds it in effect.
        self.effective.follow(&self.image.broker_configs);
        self.images.publish(self.image.clone());
    }

    fn snapshot(&self) -> Vec<u8> {
        encode_image(&self.image)
    }

    fn restore(&mut self, data: &[u8]) -> Result<(), String> {
        self.image = decode_image(data).map_err(|error| error.to_string())?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
