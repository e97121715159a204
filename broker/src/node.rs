//! A node: how it starts and stops.
//!
//! Start goes from what can be refused soonest to what takes longest: the data directory, the addresses, the other nodes,
//! metadata, the journal, the partitions. Among others the controller hears of this node then, when it can begin at once what it
//! is given to lead. Clients are accepted last, when this node is counted on and leads what it is to lead; the admin port
//! tells meanwhile how far the start is. A stop goes the other way: others lead before clients are let go.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use io_backend::{Backend, Deadline, ExitStatus, Listener, Network, Published, TaskHandle, TaskName};
use tracing::{info, warn};
use uuid::Uuid;

use crate::admin::{self, Phase, Shown};
use crate::api;
use crate::budget::Budget;
use crate::config::Config;
use crate::context::{ClientLines, Context};
use crate::controller::{self, ControllerContext, ControllerPost, Membership};
use crate::coordinator::coordinators;
use crate::coordinator::settings::GroupSettings;
use crate::data_dir;
use crate::fetch_sessions::FetchSessions;
use crate::identity::{self, Identity, IdentityError};
use crate::ids::BrokerEpoch;
use crate::journal::{JournalContext, JournalHandle, JournalOpenError};
use crate::limits;
use crate::metadata::{
    self, BrokerRegistration, CLIENT_LISTENER, CLUSTER_LISTENER, Changes, Endpoint, MetadataCommand,
    MetadataContext, MetadataStartError, Outcome, ProducerIds, ProposeError, RegistrationError,
    StartedMetadata,
};
use crate::metrics::{Metrics, RequestMetrics};
use crate::partition::FirstRefused;
use crate::parts::Parts;
use crate::peers::asks::{Answers, Asks};
use crate::peers::{self, PeerIdentity, Peers, PeersContext, SecretError, StartPeers};
use crate::replicas::{self, ReplicasContext, ReplicasControl, ReplicasStartError};
use crate::replication::{self, Replication, ReplicationContext};
use crate::server;
use crate::stall::contact::Contact;
use crate::stall::{self, StorageHealth, Watch, Watched};
use crate::switch::{self, Switch};

/// A running node.
pub struct Node<B: Backend> {
    context: Arc<Context<B>>,
    kafka_address: String,
    admin_address: String,
    phase: Published<Phase<B>>,
    stop: Published<bool>,
    stopped: Published<bool>,
    replicas: ReplicasControl<B>,
    journal: JournalHandle,
    raft_journal: JournalHandle,
    /// Where there are other nodes.
    peers: Option<Peers<B>>,
    /// This broker among the others, where there are some.
    membership: Option<Membership<B>>,
    replication: Option<Replication>,
    /// End with the process; aborted on a clean stop.
    background: Vec<TaskHandle>,
}

/// Reading a large journal back takes its time; a disk that does not answer at all must not take for ever.
const START_DEADLINE: Duration = Duration::from_secs(600);
const REGISTER_DEADLINE: Duration = Duration::from_secs(60);
/// Among others it is said again after this: what a controller was told that was replaced may have come to nothing.
const REGISTER_AGAIN: Duration = Duration::from_secs(5);
/// Before it is tried again.
const REGISTER_PAUSE: Duration = Duration::from_millis(200);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} for {purpose}: {why}. Choose another address with {flag}, or stop what uses it"
    )]
    Listen {
        /// `HOST:PORT`, as it was configured.
        address: String,
        /// Who was to connect to it, for the message.
        purpose: &'static str,
        /// The flag that sets it.
        flag: &'static str,
        /// What the system says.
        why: std::io::Error,
    },
    /// The data directory is in use, foreign, newer or damaged, or cannot be written.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// The secret that the other nodes are to be shown cannot be read.
    #[error("{0}")]
    Secret(#[from] SecretError),
    /// The metadata cannot be read back, or its group did not get a leader.
    #[error("{0}")]
    Metadata(#[from] MetadataStartError),
    /// The journal of all partitions does not open.
    #[error("{0}")]
    Journal(#[from] JournalOpenError),
    /// The partitions cannot be told from the journal, or did not open within the deadline.
    #[error("{0}")]
    Replicas(#[from] ReplicasStartError),
    /// The directory's identity is not the one that its metadata knows this node by.
    #[error(
        "{directory} says that this is storage {found}, and the metadata in it was written by storage {known}, under which \
         this node leads its partitions: what is in the directory does not belong together. Restore its identity.json \
         from a backup"
    )]
    OtherStorage {
        /// The data directory.
        directory: PathBuf,
        /// The storage id in its `identity.json`.
        found: Uuid,
        /// The storage id that the metadata has.
        known: Uuid,
    },
    /// The address that clients would be told has no port, or none that there is.
    #[error("clients cannot be told to connect to {address}: set --advertise to HOST:PORT")]
    Advertised {
        /// The address.
        address: String,
    },
    /// The metadata group did not take the registration of this process start.
    #[error("this node cannot register with its metadata: {0}")]
    Register(#[from] ProposeError),
    /// No controller has counted on this process by the deadline.
    #[error(
        "the controller of the cluster does not count on this node: see the logs of the other nodes, and whether they reach it at \
         cluster.advertise"
    )]
    Fenced,
    /// The metadata group does not take this process for the one that its number and directory say.
    #[error("{directory} cannot be used: {why}. {}", what_to_do(.why))]
    NotRegistered {
        /// The data directory.
        directory: PathBuf,
        /// What the group says.
        why: RegistrationError,
    },
}

fn what_to_do(why: &RegistrationError) -> &'static str {
    match why {
        RegistrationError::Copy { .. } | RegistrationError::Behind { .. } => {
            "What the cluster has acknowledged and voted since is not in it. Start on an empty directory: this node fetches \
             what it had from the others"
        }
        RegistrationError::Duplicate(_) => {
            "Give this node a number of its own with --node-id, or stop the other and wait until it is fenced"
        }
    }
}

impl StartError {
    /// What the process ends with.
    pub fn exit_status(&self) -> ExitStatus {
        match self {
            StartError::Listen { .. } | StartError::Fenced => ExitStatus::Network,
            StartError::Identity(error) => error.exit_status(),
            StartError::Metadata(error) => error.exit_status(),
            StartError::Journal(_)
            | StartError::Replicas(_)
            | StartError::OtherStorage { .. }
            | StartError::NotRegistered { .. } => ExitStatus::DataDirectory,
            StartError::Advertised { .. } | StartError::Secret(_) => ExitStatus::Configuration,
            StartError::Register(_) => ExitStatus::Other,
        }
    }
}

impl<B: Backend> Node<B> {
    /// Opens the data directory, recovers, and serves. Returns once clients can connect.
    ///
    /// # Errors
    ///
    /// The data directory, an address, the metadata, the journal or a partition is not fit for it. What was
    /// opened is dropped, not closed: the process is to end with [`StartError::exit_status`].
    pub async fn start(backend: B, parts: Parts<B>, config: Config) -> Result<Node<B>, StartError> {
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::default());
        let deadline = Deadline::after(&backend, START_DEADLINE);
        let identity = identity::take_directory(&backend, &config.data_dir, config.node_id, deadline).await?;
        let kafka = listen(&backend, &config.listen, "Kafka clients", "--listen").await?;
        let admin = listen(&backend, &config.admin, "the admin port", "--admin").await?;
        let (kafka_address, admin_address) = (kafka.local_address(), admin.local_address());
        let mut health = StorageHealth::default();
        if !parts.heed_contact {
            health.contact = Contact::unheeded();
        }
        let starting = |doing| Phase::Starting(doing, backend.now());
        let phase = Published::new("phase", starting("reading the metadata back"));
        let shown = Arc::new(Shown {
            backend: backend.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            phase: phase.clone(),
        });
        let mut background = vec![backend.spawn("admin", admin::serve(shown, admin))];
        let opened = metadata::open(
            MetadataContext {
                backend: backend.clone(),
                config: config.clone(),
                metrics: metrics.clone(),
                identity: identity.clone(),
                open_journal: parts.raft_journal,
            },
            deadline,
        )
        .await?;
        let (to_controller, of_controller) = ControllerPost::new(&backend);
        let to_group = opened.post().clone();
        let (produces, forwarded) = switch::produce_inboxes(&backend, &config);
        let others = config.peers.others(identity.node).map(|peer| peer.id);
        let (to_replication, replication_mail) = replication::inbox(&backend, others);
        let switch = Switch {
            backend: backend.clone(),
            metadata: to_group.clone(),
            controller: to_controller.clone(),
            replication: to_replication,
            produces,
            answers: Answers::default(),
        };
        let cluster =
            connect(&backend, &config, &identity, parts.peers, &metrics, opened.cluster_id(), switch).await?;
        if cluster.is_some() {
            phase.publish(starting("coming to the other nodes"));
        }
        let mut started = opened.start(cluster.clone(), deadline).await?;
        background.append(&mut started.tasks);
        let controller_context = |asks: Asks<B>| ControllerContext {
            backend: backend.clone(),
            config: config.clone(),
            metrics: metrics.clone(),
            node: identity.node,
            metadata: started.metadata.clone(),
            asks,
        };
        if let Some(asks) = &cluster {
            let fitness = to_group.tell_fitness(backend.clone(), health.capacities.clone());
            background.push(backend.spawn("metadata fitness", fitness));
            background.push(controller::start(controller_context(asks.clone()), of_controller));
        }
        phase.publish(starting("reading the journal back"));
        let directory = config.data_dir.join(data_dir::JOURNAL);
        let opened = (parts.journal)(JournalContext {
            backend: backend.clone(),
            name: "journal",
            directory: directory.clone(),
            settings: config.journal_settings(),
            metrics: metrics.clone(),
        })
        .await?;
        if let Some(cut) = &opened.torn_tail {
            info!(cut, "the journal's last group had not been acknowledged and was not whole");
        }

        if parts.watch_stalls {
            let raft_directory = config.data_dir.join(data_dir::RAFT);
            let watches = vec![
                Watch { journal: opened.journal.clone(), directory, of: Watched::Records },
                Watch { journal: started.journal.clone(), directory: raft_directory, of: Watched::Metadata },
            ];
            let watching =
                stall::watch(backend.clone(), config.stall.clone(), watches, health.clone(), metrics.clone());
            background.push(backend.spawn("stall-watchdog", watching));
        }
        let journal = opened.journal.clone();
        phase.publish(starting("registering with the metadata"));
        let broker_epoch = register(&backend, &config, &identity, &started, &kafka_address).await?;
        phase.publish(starting("opening the partitions"));
        let replicas = replicas::start(
            ReplicasContext {
                backend: backend.clone(),
                config: config.clone(),
                metrics: metrics.clone(),
                node: identity.node,
                broker_epoch,
                metadata: started.metadata.clone(),
                journal: opened.journal,
                judge: parts.cleaning,
            },
            opened.entries,
            deadline,
        )
        .await?;
        let propose = (parts.proposals)(started.metadata.proposals());
        let replication = cluster.as_ref().map(|asks| {
            let peers = asks.peers().clone();
            let context = ReplicationContext {
                backend: backend.clone(),
                node: identity.node,
                broker_epoch,
                metrics: metrics.clone(),
                images: started.metadata.images().clone(),
                open: replicas.replicas.open().clone(),
                signal: replicas.replicas.signal().clone(),
                peers,
                capacities: health.capacities.clone(),
                propose: propose.clone(),
                lag_max: config.replication.lag_max,
            };
            Replication::start(context, replication_mail)
        });
        let mut membership = None;
        let mut giving_way = None;
        if let Some(asks) = &cluster {
            giving_way = Some(controller::until_given_up(controller_context(asks.clone()), health.clone()));
            phase.publish(starting("waiting for the controller to count on this node"));
            let (context, replicas) = (controller_context(asks.clone()), replicas.replicas.clone());
            let (begun, mut tasks) =
                controller::begin_heartbeats(context, broker_epoch, to_controller, replicas, health.clone());
            background.append(&mut tasks);
            begun.until_unfenced(deadline).await.map_err(|_| StartError::Fenced)?;
            membership = Some(begun);
        }
        let settings = Published::new("settings of groups", GroupSettings::of(&config));
        let (coordinators, coordinating) = coordinators::start(
            &backend,
            replicas.replicas.clone(),
            started.metadata.clone(),
            settings,
            metrics.clone(),
            parts.groups,
        );
        background.push(coordinating);
        let (stop, stopped) = (Published::new("stop", false), Published::new("server stopped", false));
        let admission = (parts.admission)(health.clone());
        let forward_produce = cluster.clone().filter(|_| config.server.forward_produce);
        let changes = Changes::new(&started.metadata, propose, admission.clone(), health.capacities.clone());
        let context = Arc::new(Context {
            backend: backend.clone(),
            budget: Budget::new(&config, &metrics),
            fetch_sessions: FetchSessions::new(&config.server, &metrics),
            config,
            metrics,
            requests: RequestMetrics::new(api::names::<B>()),
            node: identity.node,
            incarnation: identity.incarnation,
            metadata: started.metadata,
            producer_ids: ProducerIds::new(identity.node, changes.clone()),
            changes,
            replicas: replicas.replicas,
            coordinators,
            health,
            admission,
            creating: Arc::default(),
            first_refused: FirstRefused::default(),
            forward_produce,
            lines: ClientLines::default(),
            stopping: stop.clone(),
        });
        if let Some(asks) = &cluster {
            for (node, inbox) in forwarded {
                let name = TaskName::of("forwarded produces", node.to_string());
                let serving = api::produce::forwarding::serve(context.clone(), asks.clone(), inbox);
                background.push(backend.spawn(name, serving));
            }
        }
        phase.publish(Phase::Serving(context.clone()));
        let serving = {
            let (context, stop, stopped) = (context.clone(), stop.clone(), stopped.clone());
            async move {
                server::serve(kafka, context, stop).await;
                stopped.publish(true);
            }
        };
        background.push(backend.spawn("kafka", serving));
        if let Some((given_up, asks)) = giving_way.zip(cluster.clone()) {
            let (backend, stop, stopped) = (backend.clone(), stop.clone(), stopped.clone());
            // A thread that waits for a disk can keep a process alive, and its sockets open, for as long as it waits.
            let giving_way = async move {
                let why = given_up.await;
                stop.publish(true);
                let drained = Deadline::after(&backend, limits::DRAIN_DEADLINE);
                let _ = stopped.until(&backend, drained, |stopped| *stopped).await;
                asks.peers().stop();
                backend.exit(ExitStatus::StorageStalled, &why);
            };
            background.push(context.backend.spawn("giving way", giving_way));
        }
        Ok(Node {
            context,
            kafka_address,
            admin_address,
            phase,
            stop,
            stopped,
            replicas: replicas.control,
            journal,
            raft_journal: started.journal,
            peers: cluster.map(|asks| asks.peers().clone()),
            membership,
            replication,
            background,
        })
    }

    /// What those that serve requests share; for who looks into a running node.
    pub fn context(&self) -> &Arc<Context<B>> {
        &self.context
    }

    /// Where the Kafka protocol is really served, `HOST:PORT`.
    pub fn kafka_address(&self) -> &str {
        &self.kafka_address
    }

    /// Where the admin port is really served, `HOST:PORT`.
    pub fn admin_address(&self) -> &str {
        &self.admin_address
    }

    /// The connections to the other nodes, where there are some.
    pub fn peers(&self) -> Option<&Peers<B>> {
        self.peers.as_ref()
    }

    /// Has others take over what this node leads, stops accepting, finishes or fails what is in flight, checkpoints, closes the journals. What does not end by
    /// the deadline is left: nothing that was acknowledged depends on it.
    pub async fn stop(self, deadline: Deadline) {
        let backend = &self.context.backend;
        self.phase.publish(Phase::Stopping(self.context.clone()));
        if let Some(membership) = &self.membership {
            let soon = Deadline::after(backend, limits::HAND_OVER_DEADLINE).earlier(deadline);
            if !membership.hand_over(soon).await {
                warn!("others have not taken over what this node leads: they do when it is gone");
            }
            if !self.context.metadata.hand_over(soon).await {
                warn!("no other node has taken over the metadata group: one does when this one is gone");
            }
        }
        self.stop.publish(true);
        if self.stopped.until(backend, deadline, |stopped| *stopped).await.is_err() {
            warn!("clients are still connected at the deadline: stopping without them");
        }
        if let Some(replication) = self.replication {
            replication.stop();
        }
        self.replicas.close(deadline).await;
        self.context.metadata.close(deadline).await;
        // Both begin to close at once.
        let closing = [&self.journal, &self.raft_journal].map(|journal| journal.close(deadline));
        for closed in closing {
            if closed.await.is_err() {
                warn!("a journal did not finish by the deadline: what was in flight was not acknowledged");
            }
        }
        if let Some(peers) = &self.peers {
            peers.stop();
        }
        for task in self.background {
            task.abort();
        }
    }
}

/// Listens to the other nodes and connects to them, where there are some.
async fn connect<B: Backend>(
    backend: &B,
    config: &Config,
    identity: &Identity,
    start: StartPeers<B>,
    metrics: &Arc<Metrics>,
    cluster_id: &Published<String>,
    switch: Switch<B>,
) -> Result<Option<Asks<B>>, StartError> {
    if config.peers.others(identity.node).next().is_none() {
        return Ok(None);
    }
    let deadline = Deadline::after(backend, START_DEADLINE);
    let secret = peers::secret::read(backend, &config.peers, deadline).await?;
    let listener = listen(backend, &config.cluster, "the other nodes", "--cluster").await?;
    let answers = switch.answers.clone();
    let peers = start(PeersContext {
        backend: backend.clone(),
        metrics: metrics.clone(),
        own: PeerIdentity {
            node: identity.node,
            storage: identity.storage,
            incarnation: identity.incarnation,
            incarnation_id: identity.incarnation_id,
        },
        cluster_id: cluster_id.clone(),
        peers: config.peers.voters.clone(),
        secret,
        bytes: config.peer_bytes(),
        listener,
        handler: Arc::new(switch),
    });
    Ok(Some(Asks::new(backend.clone(), peers, answers)))
}

async fn listen<B: Backend>(
    backend: &B,
    address: &str,
    purpose: &'static str,
    flag: &'static str,
) -> Result<<B::Network as Network>::Listener, StartError> {
    backend.network().listen(address).await.map_err(|why| StartError::Listen {
        address: address.to_string(),
        purpose,
        flag,
        why,
    })
}

/// Tells the cluster of this process start; returns what is granted to it. From here on the epochs of what this node leads
/// are those granted to that.
async fn register<B: Backend>(
    backend: &B,
    config: &Config,
    identity: &Identity,
    metadata: &StartedMetadata<B>,
    kafka_address: &str,
) -> Result<BrokerEpoch, StartError> {
    // Of the directory's own log, before any other node has told it more.
    let registered = metadata.registered;
    let (image, metadata) = (&metadata.recovered, &metadata.metadata);
    // Among others it is a disk that was replaced, which they know what to do with.
    let alone = config.peers.others(identity.node).next().is_none()
        && image.brokers.keys().all(|known| *known == identity.node);
    if let Some(known) = image.brokers.get(&identity.node)
        && known.registration.storage != identity.storage
        && alone
    {
        return Err(StartError::OtherStorage {
            directory: config.data_dir.clone(),
            found: identity.storage.0,
            known: known.registration.storage.0,
        });
    }
    let known = image.brokers.get(&identity.node);
    let previous_epoch =
        known.filter(|known| known.registration.storage == identity.storage).map(|known| known.epoch);
    let previous_epoch = previous_epoch.max(registered);
    let advertised = config.advertise.as_deref().unwrap_or(kafka_address);
    let client = endpoint(CLIENT_LISTENER, advertised)
        .ok_or_else(|| StartError::Advertised { address: advertised.to_owned() })?;
    let cluster = endpoint(CLUSTER_LISTENER, config.cluster_advertised());
    let registration = BrokerRegistration {
        id: identity.node,
        incarnation: identity.incarnation,
        incarnation_id: Some(identity.incarnation_id),
        previous_epoch,
        storage: identity.storage,
        listeners: [client].into_iter().chain(cluster).collect(),
        rack: config.rack.clone(),
        reads: crate::formats::METADATA,
    };
    // Among others it takes until most of them are there.
    let deadline = Deadline::after(backend, if alone { REGISTER_DEADLINE } else { START_DEADLINE });
    let command = MetadataCommand::RegisterBroker(registration);
    loop {
        let soon = if alone { deadline } else { Deadline::after(backend, REGISTER_AGAIN).earlier(deadline) };
        let why = match metadata.propose(command.clone(), soon).await {
            Ok(Outcome::Registered(Ok(epoch))) => return Ok(epoch),
            // The process that was there is fenced before long, or it is at work.
            Ok(Outcome::Registered(Err(why @ RegistrationError::Duplicate(_)))) => {
                StartError::NotRegistered { directory: config.data_dir.clone(), why }
            }
            Ok(Outcome::Registered(Err(why))) => {
                return Err(StartError::NotRegistered { directory: config.data_dir.clone(), why });
            }
            Ok(_) => return Err(StartError::Register(ProposeError::TimedOut)),
            // It may have been heard; said again by the same process it changes nothing.
            Err(why @ (ProposeError::TimedOut | ProposeError::NoController | ProposeError::Overloaded)) => {
                StartError::Register(why)
            }
            Err(why) => return Err(StartError::Register(why)),
        };
        if deadline.has_passed(backend) || alone {
            return Err(why);
        }
        backend.sleep(REGISTER_PAUSE).await;
    }
}

fn endpoint(name: &str, address: &str) -> Option<Endpoint> {
    let (host, port) = address.rsplit_once(':')?;
    Some(Endpoint { name: name.to_owned(), host: host.to_owned(), port: port.parse().ok()? })
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "cluster_tests.rs"]
mod cluster_tests;
