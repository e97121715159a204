//! Starting the metadata group: recovers the image, comes to the group, hands out the handle.
//!
//! The state machine behind the Raft task is here too: it applies commands to its image and publishes
//! each batch's result once.

use std::path::PathBuf;
use std::sync::Arc;

use io_backend::invariants::are_checked;
use io_backend::{Backend, Deadline, Disk, ExitStatus, Published, TaskHandle, channel};

use super::apply::apply;
use super::decided::Latest;
use super::effective::Following;
use super::founding::{self, Standing};
use super::handle::Others;
use super::joining::Joining;
use super::lately::{self, Lately};
use super::lateness;
use super::members::{self, Members, broker_id, raft_id};
use super::membership::{self, Founder, Membership, MembershipError, Stage};
use super::post::{self, Inbox, PeerTransport, Post};
use super::questions::Questions;
use super::snapshot::{decode_command, decode_image, encode_image};
use super::{MetadataCommand, MetadataHandle, MetadataImage, Outcome, invariants};
use crate::budget::Account;
use crate::config::Config;
use crate::data_dir;
use crate::identity::Identity;
use crate::ids::{BrokerEpoch, BrokerId};
use crate::journal::{
    JournalContext, JournalHandle, JournalOpenError, OpenJournal, OpenedJournal, RecoveredEntry,
};
use crate::limits;
use crate::metrics::Metrics;
use crate::peers::asks::Asks;
use crate::raft::{
    Begin, Driver, GroupView, Nobody, Place, RaftContext, RaftError, RaftStartError, StateMachine,
    SubmissionMax, Transport, logged,
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
    /// The image as the directory has it, before other nodes have told this one more.
    pub recovered: Arc<MetadataImage>,
    /// The latest broker epoch of this storage that the directory's log has. A killed node may not have written down that it was
    /// committed, so the recovered image may not have it yet.
    pub registered: Option<BrokerEpoch>,
    /// The Raft journal, for whoever watches its disk; the node closes it last.
    pub journal: JournalHandle,
    /// What goes on beside the Raft task, to be aborted when the node stops.
    pub tasks: Vec<TaskHandle>,
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
    /// Raft's journal is empty, and this directory has voted.
    #[error(
        "{directory} is empty, and this node has voted in its cluster: what it agreed to is gone. Restore {directory} from a \
         backup made while the node was stopped for good, or start this node on an empty data directory: it fetches what it \
         had from the others"
    )]
    VotesLost { directory: PathBuf },
    /// Who else is in the cluster is not known any more.
    #[error(
        "{directory} is part of a cluster of several nodes, and cluster.peers names none: set it to all nodes of the cluster"
    )]
    NoPeers { directory: PathBuf },
    /// The directory is empty, and not all nodes say what they have.
    #[error(
        "this node has no metadata, and begins a cluster only together with all nodes of cluster.peers: nodes {missing} do not \
         answer. Start them, or correct their addresses in cluster.peers"
    )]
    Unanswered { missing: String },
    /// What the directory is part of cannot be read.
    #[error("{0}")]
    Membership(#[from] MembershipError),
}

impl MetadataStartError {
    /// What the process ends with.
    pub fn exit_status(&self) -> ExitStatus {
        match self {
            MetadataStartError::Raft {
                source: RaftStartError::Running(RaftError::Journal(_)) | RaftStartError::TimedOut,
                ..
            } => ExitStatus::StorageNotTrusted,
            MetadataStartError::NoPeers { .. } => ExitStatus::Configuration,
            MetadataStartError::Unanswered { .. } => ExitStatus::Network,
            _ => ExitStatus::DataDirectory,
        }
    }
}

/// The metadata of a node, before its group is begun: what its directory says of it.
pub struct OpenedMetadata<B: Backend> {
    backend: B,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    identity: Identity,
    directory: PathBuf,
    opened: OpenedJournal,
    membership: Option<Membership>,
    cluster_id: Published<String>,
    images: Published<MetadataImage>,
    members: Published<Members>,
    post: Post<B>,
    inbox: Inbox<B>,
}

/// Opens Raft's journal and looks at what the directory is part of.
pub async fn open<B: Backend>(
    context: MetadataContext<B>,
    deadline: Deadline,
) -> Result<OpenedMetadata<B>, MetadataStartError> {
    let MetadataContext { backend, config, metrics, identity, open_journal } = context;
    let directory = config.data_dir.join(data_dir::RAFT);
    let opened = open_journal(JournalContext {
        backend: backend.clone(),
        name: "raft",
        directory: directory.clone(),
        settings: config.raft_journal_settings(),
        metrics: metrics.clone(),
    })
    .await?;
    let membership = membership::read(&backend, &config.data_dir, deadline).await?;
    if opened.entries.is_empty() {
        let partitions = config.data_dir.join(data_dir::PARTITIONS);
        if holds_something(&backend, &partitions, deadline).await? {
            return Err(MetadataStartError::Lost { directory, partitions });
        }
        if membership.as_ref().is_some_and(|membership| membership.stage == Stage::Member) {
            return Err(MetadataStartError::VotesLost { directory });
        }
    }
    let cluster_id = match &membership {
        Some(membership) => membership.cluster_id.clone(),
        None if opened.entries.is_empty() => String::new(),
        None => identity.cluster_id.clone(),
    };
    let images = Published::new("metadata image", MetadataImage::default());
    let members = Published::new("members of the metadata group", Members::default());
    let (post, inbox) = Post::new(&backend, images.clone(), members.clone());
    let cluster_id = Published::new("cluster id", cluster_id);
    Ok(OpenedMetadata {
        backend,
        config,
        metrics,
        identity,
        directory,
        opened,
        membership,
        cluster_id,
        images,
        members,
        post,
        inbox,
    })
}

fn registered(entries: &[RecoveredEntry], identity: &Identity) -> Option<BrokerEpoch> {
    logged(entries).find_map(|entry| match decode_command(&entry.data) {
        Ok(MetadataCommand::RegisterBroker(said)) if said.storage == identity.storage => {
            Some(BrokerEpoch(entry.index))
        }
        _ => None,
    })
}

impl<B: Backend> OpenedMetadata<B> {
    /// The cluster that this directory is of; empty while that is not known.
    pub fn cluster_id(&self) -> &Published<String> {
        &self.cluster_id
    }

    /// Where what other nodes say is handed in.
    pub fn post(&self) -> &Post<B> {
        &self.post
    }

    /// Brings metadata back, or begins it, or comes to a group that there is. Alone, this node leads its group when it
    /// returns, and the image holds all that was ever committed; among others the image holds what the directory has.
    pub async fn start(
        self,
        asks: Option<Asks<B>>,
        deadline: Deadline,
    ) -> Result<StartedMetadata<B>, MetadataStartError> {
        let OpenedMetadata { backend, config, metrics, identity, directory, opened, .. } = self;
        let OpenedMetadata { membership, cluster_id, images, members, post, inbox, .. } = self;
        if asks.is_none() && membership.is_some() {
            return Err(MetadataStartError::NoPeers { directory: config.data_dir.clone() });
        }
        let settings = config.raft_journal_settings();
        let entry_bytes_max = settings.file_bytes / 4;
        let bytes_in_flight_max = limits::PROPOSAL_BYTES_IN_FLIGHT_MAX.min(settings.queue_bytes / 2);
        let (mailbox, receiver) = channel(&backend, "raft proposals", limits::PROPOSALS_MAX);
        let effective = Following::new(config.clone(), identity.node);
        let latest = asks.is_some().then(Latest::default);
        let (lateness, wanted) = channel(&backend, "lateness of metadata", limits::LATENESS_WANTED_MAX);
        let metadata = MetadataHandle {
            images: images.clone(),
            configs: effective.published().clone(),
            members: members.clone(),
            borrowed: Published::new("another node's metadata image", None),
            doubts: Lately::unlinked(),
            fenced: Lately::fenced(),
            backend: backend.clone(),
            node: identity.node,
            mailbox,
            metrics: metrics.clone(),
            proposals: Account::new(bytes_in_flight_max, metrics.raft_proposal_bytes.clone()),
            proposal_bytes_max: limits::PROPOSAL_BYTES_MAX.min(entry_bytes_max).min(bytes_in_flight_max),
            others: asks.clone().zip(latest.clone()).map(|(asks, latest)| {
                let group = post.group().clone();
                Others { asks, latest, lateness, group }
            }),
        };
        let mut tasks = Vec::new();
        let mut group = None;
        let mut transport: Box<dyn Transport> = Box::new(Nobody);
        let mut membership = membership;
        if let Some(asks) = &asks {
            let coming = Coming { backend: &backend, config: &config, identity: &identity };
            let known = coming.known(membership, opened.entries.is_empty());
            let standing = Published::new("standing among the nodes", coming.standing(&known));
            let questions = Questions {
                metadata: metadata.clone(),
                asks: asks.clone(),
                standing: standing.clone(),
                inbox: inbox.questions,
            };
            tasks.push(backend.spawn("metadata questions", questions.run()));
            let lateness = lateness::find_out(metadata.clone(), asks.clone(), wanted);
            tasks.push(backend.spawn("metadata lateness", lateness));
            membership = match known {
                Known::Nothing => {
                    let agreed = coming.agree(asks, deadline).await?;
                    cluster_id.publish(agreed.cluster_id.clone());
                    standing.publish(standing_of(&agreed));
                    Some(agreed)
                }
                Known::Alone => None,
                Known::Cluster(membership) => Some(membership),
            };
            let (peers, to_group) = (asks.peers().clone(), post.group().clone());
            let links =
                post::watch_links(backend.clone(), peers.clone(), to_group.clone(), metadata.doubts.clone());
            tasks.push(backend.spawn("metadata links", links));
            let fences = lately::watch_fences(backend.clone(), images.clone(), metadata.fenced.clone());
            tasks.push(backend.spawn("fenced brokers", fences));
            transport = Box::new(PeerTransport { peers, group: to_group });
            group = Some(inbox.group);
        }
        let begin = begin(membership.as_ref());
        let image = MetadataImage {
            cluster_id: membership.as_ref().map_or(&identity.cluster_id, |known| &known.cluster_id).clone(),
            ..MetadataImage::default()
        };
        let raft = |source| MetadataStartError::Raft { directory: directory.clone(), source };
        let registered = registered(&opened.entries, &identity);
        let mut driver = Driver::open(RaftContext {
            backend: backend.clone(),
            id: raft_id(identity.node),
            begin,
            machine: ImageMachine { image, images: images.clone(), members, effective, latest },
            journal: opened.journal.clone(),
            recovered: opened.entries,
            mailbox: receiver,
            peers: group,
            transport,
            metrics: metrics.clone(),
            snapshot_piece_bytes: limits::SNAPSHOT_PIECE_BYTES.min(entry_bytes_max),
            snapshot_every_entries: config.metadata.snapshot_entries,
            proposals_in_flight_max: limits::PROPOSALS_MAX.min(settings.queue_entries / 2).max(1),
            submission_max: SubmissionMax { entries: settings.queue_entries, bytes: settings.queue_bytes },
        })
        .map_err(raft)?;
        match asks {
            None => driver.elect(deadline).await.map_err(raft)?,
            Some(asks) => {
                driver.settle(deadline).await.map_err(raft)?;
                if let Some(founding) = membership.as_mut().filter(|known| known.stage == Stage::Founding) {
                    founding.stage = Stage::Member;
                    membership::write(&backend, &config.data_dir, founding, deadline).await?;
                }
                driver.elect(deadline).await.map_err(raft)?;
                let directory = config.data_dir.clone();
                let joining = Joining { metadata: metadata.clone(), asks, directory, membership };
                tasks.push(backend.spawn("metadata membership", joining.run()));
            }
        }
        let recovered = images.get();
        backend.spawn("raft", driver.run());
        Ok(StartedMetadata { metadata, recovered, registered, journal: opened.journal, tasks })
    }
}

/// How a node with an empty Raft journal begins, by what its directory says.
fn begin(membership: Option<&Membership>) -> Begin {
    match membership {
        None => Begin::Alone,
        Some(Membership { stage: Stage::Founding, founders, .. }) => {
            Begin::Found { voters: founders.iter().map(|founder| raft_id(founder.node)).collect() }
        }
        Some(_) => Begin::Join,
    }
}

/// What a directory says of the cluster that it is part of.
enum Known {
    /// It is empty.
    Nothing,
    /// Its node was always alone.
    Alone,
    /// It is part of one.
    Cluster(Membership),
}

/// A node on its way to its group.
struct Coming<'a, B: Backend> {
    backend: &'a B,
    config: &'a Config,
    identity: &'a Identity,
}

impl<B: Backend> Coming<'_, B> {
    fn known(&self, membership: Option<Membership>, is_empty: bool) -> Known {
        match membership {
            Some(membership) => Known::Cluster(membership),
            None if is_empty => Known::Nothing,
            None => Known::Alone,
        }
    }

    fn own(&self) -> Founder {
        Founder { node: self.identity.node, storage: self.identity.storage }
    }

    /// What the others are told.
    fn standing(&self, known: &Known) -> Standing {
        let cluster_id = self.identity.cluster_id.clone();
        match known {
            Known::Nothing => Standing::Empty { storage: self.own(), cluster_id },
            Known::Alone => Standing::Group { cluster_id, founders: Vec::new() },
            Known::Cluster(membership) => standing_of(membership),
        }
    }

    /// Finds out with the others which group an empty node comes to, and writes that down.
    async fn agree(&self, asks: &Asks<B>, deadline: Deadline) -> Result<Membership, MetadataStartError> {
        let Coming { backend, config, identity } = *self;
        let agreed = founding::agree(backend, asks, self.own(), &identity.cluster_id, deadline).await;
        let membership = agreed
            .map_err(|missing| MetadataStartError::Unanswered { missing: founding::listed(&missing) })?;
        membership::write(backend, &config.data_dir, &membership, deadline).await?;
        let founders: Vec<BrokerId> = membership.founders.iter().map(|founder| founder.node).collect();
        tracing::info!(
            cluster_id = membership.cluster_id,
            stage = ?membership.stage,
            founders = %founding::listed(&founders),
            "this node comes to its cluster"
        );
        Ok(membership)
    }
}

fn standing_of(membership: &Membership) -> Standing {
    let Membership { cluster_id, founders, .. } = membership.clone();
    Standing::Group { cluster_id, founders }
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

/// The image as the state machine of the group.
struct ImageMachine {
    image: MetadataImage,
    images: Published<MetadataImage>,
    members: Published<Members>,
    effective: Following,
    /// Where there are other nodes: for whoever knows where a proposal stands.
    latest: Option<Latest>,
}

impl ImageMachine {
    /// What it came to, where somebody has proposed it.
    fn apply_data(&mut self, index: u64, data: &[u8]) -> Result<Option<Outcome>, String> {
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
}

impl StateMachine for ImageMachine {
    type Answer = Outcome;

    fn apply(&mut self, place: Place, data: &[u8]) -> Result<Option<Outcome>, String> {
        let outcome = self.apply_data(place.index, data)?;
        if let Some(latest) = &self.latest {
            latest.push(place, outcome.clone());
        }
        Ok(outcome)
    }

    fn publish(&mut self, group: GroupView<'_>) {
        self.image.controller = group.leader.and_then(broker_id);
        // Before the image: whoever sees a change in it finds it in effect.
        self.effective.follow(&self.image.broker_configs);
        self.images.publish(self.image.clone());
        // After it: who is told to act as the controller finds all that it is to act on.
        members::publish(&self.members, &group);
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
