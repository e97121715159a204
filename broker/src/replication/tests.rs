//! Whole replication between nodes of one process, over real sockets and disks. The metadata is an image that all of them share,
//! and what tells partitions their roles is a short loop.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use imbl::OrdMap;
use io_backend::real::{DiskChoice, RealBackend};
use io_backend::{Clock, Deadline, Listener, Network, Published};
use uuid::Uuid;

use super::context::OpenPartitions;
use super::*;
use crate::config::PeerAddress;
use crate::ids::{Incarnation, IncarnationId, LeaderEpoch, Offset, PartitionId, StorageId};
use crate::journal::{self, JournalContext, JournalHandle, JournalSettings};
use crate::log::open_files::OpenFiles;
use crate::log::test_batches::BatchSpec;
use crate::log::{LogSettings, Retention};
use crate::metadata::testing::{after, broker, cluster_with, id, process};
use crate::metadata::{
    ElectionKind, MetadataCommand, MetadataImage, Outcome, PartitionElection, PartitionImage,
};
use crate::metrics::{BrokerLabel, Metrics};
use crate::partition::{
    self, Acks, AppendError, Appended, InSync, LogSignal, LogState, OpenPartition, PartitionHandle,
    ReadRequest, Schedules,
};
use crate::peers::{Frame, ListenerOf, MessageKind, PeerHandler, Peers, PeersContext, Taken};
use crate::stall::capacities::Capacities;

const LAG_MAX: Duration = Duration::from_millis(800);

/// What all nodes know, and may change.
#[derive(Clone)]
struct Metadata {
    images: Published<MetadataImage>,
    changing: Arc<Mutex<()>>,
}

impl Metadata {
    fn decide(&self, command: &MetadataCommand) -> Outcome {
        let _one_at_a_time = self.changing.lock().unwrap();
        let (image, outcome) = after(&self.images.get(), command);
        self.images.publish(image);
        outcome
    }

    fn partition(&self, topic: u128) -> PartitionImage {
        self.images.get().partition(id(topic, 0)).unwrap().clone()
    }

    fn isr(&self, topic: u128) -> Vec<i32> {
        let mut isr: Vec<i32> = self.partition(topic).isr.iter().map(|broker| broker.0).collect();
        isr.sort_unstable();
        isr
    }

    fn elect(&self, topic: u128, broker: i32) {
        let kind = ElectionKind::Designated(BrokerId(broker));
        let election = PartitionElection { partition: id(topic, 0), kind, partition_epoch: None };
        self.decide(&MetadataCommand::ElectLeaders { elections: vec![election], barred: vec![] });
        assert_eq!(self.partition(topic).leader, Some(BrokerId(broker)));
    }
}

struct Cluster {
    backend: RealBackend,
    home: PathBuf,
    addresses: Vec<PeerAddress>,
    metadata: Metadata,
    topics: u128,
}

struct Node {
    cluster: Arc<Cluster>,
    node: i32,
    peers: Peers<RealBackend>,
    replication: Replication,
    roles: TaskHandle,
    journal: JournalHandle,
    open: OpenPartitions<RealBackend>,
    signal: LogSignal,
    metrics: Arc<Metrics>,
}

struct Router(ReplicationInbox<RealBackend>);

impl PeerHandler for Router {
    fn received(&self, from: &PeerIdentity, frame: Frame) -> Taken {
        assert_eq!(frame.kind, MessageKind::Replication);
        self.0.received(from, frame.messages);
        Taken::Now
    }
}

impl Cluster {
    fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, Duration::from_secs(30))
    }

    async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let until = self.backend.now() + Duration::from_secs(30);
        while !done() {
            assert!(self.backend.now() < until, "{what}");
            self.backend.sleep(Duration::from_millis(2)).await;
        }
    }

    async fn listen(&self, node: i32) -> ListenerOf<RealBackend> {
        // Whoever listened there is about to end.
        for _ in 0..1_000 {
            match self.backend.network().listen(&self.addresses[node as usize - 1].address).await {
                Ok(listener) => return listener,
                Err(_) => self.backend.sleep(Duration::from_millis(5)).await,
            }
        }
        panic!("the address is taken");
    }

    /// A process of the node, on the disk of the last one.
    async fn start(self: &Arc<Cluster>, node: i32, start: u64, listener: ListenerOf<RealBackend>) -> Node {
        let backend = self.backend.clone();
        let opened = journal::open(JournalContext {
            backend: backend.clone(),
            name: "journal",
            directory: self.home.join(format!("{node}/journal")),
            settings: JournalSettings {
                file_bytes: 4 << 20,
                group_entries: 100,
                group_bytes: 1 << 20,
                queue_entries: 10_000,
                queue_bytes: 16 << 20,
                linger: Duration::ZERO,
                unreleased_bytes_max: u64::MAX,
            },
            metrics: Arc::default(),
        })
        .await
        .expect("the journal opens");
        let signal = LogSignal::default();
        let mut partitions = OrdMap::new();
        let open_files = OpenFiles::new(backend.clone(), 16);
        for topic in 1..=self.topics {
            let partition = id(topic, 0);
            let recovered = opened.entries.clone();
            let handle = partition::open(OpenPartition {
                backend: backend.clone(),
                id: partition,
                name: format!("t{topic}-0").into(),
                replica: Incarnation(topic as u64),
                settings: LogSettings {
                    segment_bytes: 1 << 20,
                    segment_age: Duration::from_secs(3600),
                    index_interval_bytes: 4096,
                    log_append_time: false,
                    retention: Retention::FOREVER,
                    compaction: None,
                },
                waiting_bytes: 16 << 20,
                open_files: open_files.clone(),
                schedules: Schedules::default(),
                signal: signal.clone(),
                directory: self.home.join(format!("{node}/{partition}")),
                journal: opened.journal.clone(),
                counters: Default::default(),
                mark: None,
                recovered: Box::pin(async { Ok(recovered) }),
                deadline: self.soon(),
            })
            .await
            .expect("the partition opens");
            partitions.insert(partition, handle);
        }
        let open = Published::new("open", partitions);
        let roles = backend.spawn("roles", roles(self.clone(), BrokerId(node), open.clone()));
        let metrics = Arc::<Metrics>::default();
        let (peers, replication) = self.connect(node, start, listener, &open, &signal, &metrics);
        let (cluster, journal) = (self.clone(), opened.journal);
        Node { cluster, node, peers, replication, roles, journal, open, signal, metrics }
    }

    fn connect(
        &self,
        node: i32,
        start: u64,
        listener: ListenerOf<RealBackend>,
        open: &OpenPartitions<RealBackend>,
        signal: &LogSignal,
        metrics: &Arc<Metrics>,
    ) -> (Peers<RealBackend>, Replication) {
        let others = self.addresses.iter().map(|peer| peer.id).filter(|id| id.0 != node);
        let (inbox, mail) = inbox(&self.backend, others);
        let own = u128::from(node.unsigned_abs());
        let peers = Peers::start(PeersContext {
            backend: self.backend.clone(),
            metrics: metrics.clone(),
            own: PeerIdentity {
                node: BrokerId(node),
                storage: StorageId(Uuid::from_u128(own)),
                incarnation: Incarnation(start),
                incarnation_id: IncarnationId(Uuid::from_u128(own + 100 * u128::from(start - 1))),
            },
            cluster_id: Published::new("cluster id", String::new()),
            peers: self.addresses.clone(),
            secret: None,
            bytes: 64 << 20,
            listener,
            handler: Arc::new(Router(inbox)),
        });
        let metadata = self.metadata.clone();
        let context = ReplicationContext {
            backend: self.backend.clone(),
            node: BrokerId(node),
            broker_epoch: self.metadata.images.get().brokers[&BrokerId(node)].epoch,
            metrics: metrics.clone(),
            images: self.metadata.images.clone(),
            open: open.clone(),
            signal: signal.clone(),
            peers: peers.clone(),
            capacities: Capacities::default(),
            propose: Arc::new(move |command, _| {
                let outcome = metadata.decide(&command);
                Box::pin(async { Ok(outcome) })
            }),
            lag_max: LAG_MAX,
        };
        (peers, Replication::start(context, mail))
    }
}

/// Tells the partitions of a node what they are.
async fn roles(cluster: Arc<Cluster>, node: BrokerId, open: OpenPartitions<RealBackend>) {
    let mut seen = 0;
    let mut led: BTreeMap<PartitionId, LeaderEpoch> = BTreeMap::new();
    loop {
        let images = &cluster.metadata.images;
        let forever = Deadline::after(&cluster.backend, Duration::from_secs(600));
        let Ok(image) = images.until(&cluster.backend, forever, |image| image.index > seen).await else {
            return;
        };
        seen = image.index;
        for (id, handle) in open.get().iter() {
            let partition = image.partition(*id).unwrap();
            let (epoch, soon) = (partition.leader_epoch, cluster.soon());
            let registered = image.brokers[&node].epoch;
            match partition.leader {
                Some(leader) if leader == node && partition.leader_broker_epoch == registered => {
                    let others = partition.replica_brokers().filter(|broker| *broker != node);
                    let members = partition.isr.iter().copied().filter(|member| *member != node);
                    let in_sync = InSync::new(others, members, partition.min_insync_replicas(None));
                    let in_sync = in_sync.at(partition.partition_epoch);
                    if led.insert(*id, epoch) == Some(epoch) {
                        let _ = handle.change_in_sync(epoch, in_sync, soon).await;
                    } else {
                        let _ = handle.lead(epoch, in_sync, soon).await;
                    }
                }
                Some(leader) if leader != node => drop(handle.follow(epoch, soon).await),
                _ => drop(handle.resign(soon).await),
            }
        }
    }
}

impl Node {
    fn partition(&self, topic: u128) -> PartitionHandle<RealBackend> {
        self.open.get()[&id(topic, 0)].clone()
    }

    fn state(&self, topic: u128) -> LogState {
        self.signal.state(id(topic, 0)).expect("it has a role")
    }

    async fn leads(&self, topic: u128) {
        let epoch = self.cluster.metadata.partition(topic).leader_epoch;
        let leads =
            || self.signal.state(id(topic, 0)).is_some_and(|state| state.leading && state.epoch == epoch);
        self.cluster.until("it leads", leads).await;
    }

    async fn try_put(&self, topic: u128, spec: BatchSpec, acks: Acks) -> Result<Appended, AppendError> {
        let pending = self.partition(topic).append(vec![spec.checked()], acks, self.cluster.soon()).await?;
        pending.wait().await
    }

    async fn put(&self, topic: u128, bytes: usize, acks: Acks) -> i64 {
        let spec = BatchSpec::records(2).value_bytes(bytes);
        self.try_put(topic, spec, acks).await.expect("acknowledged").base_offset.0
    }

    /// Everything up to the high watermark, of a leader.
    async fn all(&self, topic: u128) -> Vec<u8> {
        let mut all = Vec::new();
        let mut from = Offset::ZERO;
        let end = self.partition(topic).views().get().high_watermark;
        while from < end {
            let read = ReadRequest {
                from,
                max_bytes: 1 << 20,
                at_least_one: true,
                read_committed: false,
                current_epoch: None,
            };
            let read = self.partition(topic).read(read, self.cluster.soon()).await.expect("read");
            for bytes in &read.batches {
                for batch in crate::log::batch::Batches::new(bytes) {
                    from = batch.expect("a batch").1.end();
                }
                all.extend_from_slice(bytes);
            }
        }
        all
    }

    /// The process ends: nothing is told to anybody.
    async fn stop(self) {
        self.replication.stop();
        self.peers.stop();
        self.roles.abort();
        for handle in self.open.get().values() {
            handle.close(false, self.cluster.soon()).await;
        }
        self.journal.close(self.cluster.soon()).await.expect("closed");
    }

    /// Another process of the node, on its disk, that is registered and not fenced.
    async fn restart(self, start: u64) -> Node {
        let (cluster, node) = (self.cluster.clone(), self.node);
        self.stop().await;
        let own = u128::from(node.unsigned_abs());
        let registration = broker(node, start, own, own + 100 * u128::from(start - 1));
        cluster.metadata.decide(&MetadataCommand::RegisterBroker(registration));
        let process = process(&cluster.metadata.images.get(), node);
        cluster.metadata.decide(&MetadataCommand::UnfenceBroker(process));
        let listener = cluster.listen(node).await;
        cluster.start(node, start, listener).await
    }

    /// All its connections are lost, and made anew; nothing else changes.
    async fn reconnect(&mut self) {
        self.peers.stop();
        std::mem::replace(&mut self.replication, Replication { tasks: Vec::new() }).stop();
        let cluster = self.cluster.clone();
        let listener = cluster.listen(self.node).await;
        (self.peers, self.replication) =
            cluster.connect(self.node, 1, listener, &self.open, &self.signal, &self.metrics);
    }
}

/// Runs `test` with three nodes; topics from 1 on have one partition on all of them, led by node 1.
fn three_nodes(topics: usize, test: impl AsyncFnOnce(Arc<Cluster>, [Node; 3])) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (backend, _) = RealBackend::start(DiskChoice::Threads, home.path()).unwrap();
        let (mut addresses, mut listeners) = (Vec::new(), Vec::new());
        for node in 1..=3 {
            let listener = backend.network().listen("127.0.0.1:0").await.unwrap();
            addresses.push(PeerAddress { id: BrokerId(node), address: listener.local_address() });
            listeners.push(listener);
        }
        let image = cluster_with(3, &vec![&[1, 2, 3][..]; topics]);
        let images = Published::new("image", image);
        let metadata = Metadata { images, changing: Arc::default() };
        let home = home.path().to_owned();
        let cluster = Arc::new(Cluster { backend, home, addresses, metadata, topics: topics as u128 });
        let mut nodes = Vec::new();
        for (node, listener) in (1..).zip(listeners) {
            nodes.push(cluster.start(node, 1, listener).await);
        }
        let Ok(nodes) = <[Node; 3]>::try_from(nodes) else { panic!("three") };
        for topic in 1..=topics {
            nodes[0].leads(topic as u128).await;
        }
        test(cluster, nodes).await;
    });
}

#[test]
fn what_is_acknowledged_by_all_is_on_every_disk_and_another_leader_has_it() {
    three_nodes(1, async |cluster, [one, two, three]| {
        for nth in 0..20 {
            assert_eq!(one.put(1, 100 * nth, Acks::All).await, 2 * nth as i64);
            let end = Offset(2 * nth as i64 + 2);
            // A machine with other things to do may have one of them leave for a while.
            let isr = cluster.metadata.isr(1);
            for follower in [&two, &three].into_iter().filter(|one| isr.contains(&one.node)) {
                assert!(follower.state(1).synced >= end, "node {} of {isr:?}", follower.node);
            }
        }
        let all = one.all(1).await;
        cluster.until("all know what is committed", || two.state(1).high_watermark == Offset(40)).await;
        cluster.until("it is in sync", || cluster.metadata.isr(1).contains(&2)).await;
        cluster.metadata.elect(1, 2);
        two.leads(1).await;
        assert_eq!(two.put(1, 10, Acks::All).await, 40);
        assert!(two.all(1).await.starts_with(&all));
        cluster.until("all are in sync", || cluster.metadata.isr(1) == [1, 2, 3]).await;
    });
}

#[test]
fn many_partitions_and_much_of_each_come_in_turn() {
    three_nodes(20, async |cluster, [one, two, three]| {
        // Larger together, and one of them alone, than what one answer takes.
        for topic in 1..=20 {
            let bytes = if topic == 7 { 700_000 } else { 60_000 };
            one.put(topic, bytes, Acks::Leader).await;
            one.put(topic, 60_000, Acks::Leader).await;
        }
        let has_all = |node: &Node| (1..=20).all(|topic| node.state(topic).high_watermark == Offset(4));
        cluster.until("all come", || [&one, &two, &three].iter().all(|node| has_all(node))).await;
        for topic in [1, 7, 20] {
            let all = one.all(topic).await;
            // A machine with other things to do may have it leave for a while.
            cluster.until("it is in sync", || cluster.metadata.isr(topic).contains(&3)).await;
            cluster.metadata.elect(topic, 3);
            three.leads(topic).await;
            three.put(topic, 1, Acks::All).await;
            assert!(three.all(topic).await.starts_with(&all), "{topic}");
        }
    });
}

#[test]
fn a_follower_that_is_gone_leaves_the_isr_and_comes_back_when_it_has_caught_up() {
    three_nodes(1, async |cluster, [one, two, three]| {
        // A machine with other things to do may have somebody leave for a while.
        cluster.until("all are in sync", || cluster.metadata.isr(1) == [1, 2, 3]).await;
        one.put(1, 10, Acks::All).await;
        let [left, came] = [&one.metrics.replication_isr_shrinks, &one.metrics.replication_isr_expands];
        let (left_before, came_before) = (left.get(), came.get());
        two.replication.stop();
        one.put(1, 10, Acks::All).await;
        assert!(!cluster.metadata.isr(1).contains(&2), "only without it could that be acknowledged");
        cluster.until("it is counted", || left.get() > left_before).await;
        let lacks = |node: &Node| {
            let lag = node.metrics.replication_lag.get_or_create(&BrokerLabel { broker: 2 }).get();
            (node.metrics.replication_under_replicated.get(), lag)
        };
        cluster.until("that it lacks two records", || lacks(&one) == (1, 2)).await;
        let two = Node { replication: Replication { tasks: Vec::new() }, ..two };
        let two = two.restart(2).await;
        cluster.until("it is back", || cluster.metadata.isr(1) == [1, 2, 3]).await;
        assert!(two.state(1).synced >= one.state(1).high_watermark);
        one.put(1, 10, Acks::All).await;
        cluster
            .until("they have it", || [&two, &three].iter().all(|node| node.state(1).synced == Offset(6)))
            .await;
        cluster.until("it is counted", || came.get() > came_before).await;
        cluster.until("nobody lacks anything", || lacks(&one) == (0, 0)).await;
        two.replication.stop();
        one.put(1, 10, Acks::All).await;
        cluster.until("that it lacks them again", || lacks(&one) == (1, 2)).await;
        cluster.metadata.elect(1, 3);
        cluster.until("one leads nothing, and nobody lacks anything of that", || lacks(&one) == (0, 0)).await;
        cluster.until("three says it now", || lacks(&three).0 == 1).await;
    });
}

#[test]
fn what_only_a_leader_had_goes_when_another_one_leads() {
    three_nodes(1, async |cluster, [one, two, three]| {
        one.put(1, 10, Acks::All).await;
        let all = one.all(1).await;
        cluster.until("all know", || two.state(1).high_watermark == Offset(2)).await;
        one.peers.stop();
        one.put(1, 500, Acks::Leader).await;
        one.put(1, 500, Acks::Leader).await;
        assert_eq!(one.state(1).log_end, Offset(6));
        cluster.metadata.elect(1, 2);
        two.leads(1).await;
        cluster.until("one knows", || !one.state(1).leading).await;
        assert_eq!(two.put(1, 20, Acks::Leader).await, 2);
        let mut one = one;
        one.reconnect().await;
        assert_eq!(two.put(1, 30, Acks::All).await, 4);
        cluster.until("it has what the others have", || one.state(1).high_watermark == Offset(6)).await;
        let newer = two.all(1).await;
        assert!(newer.starts_with(&all));
        cluster.until("it is in sync", || cluster.metadata.isr(1) == [1, 2, 3]).await;
        cluster.metadata.elect(1, 1);
        one.leads(1).await;
        one.put(1, 1, Acks::All).await;
        assert!(one.all(1).await.starts_with(&newer));
        assert_eq!(three.state(1).epoch, one.state(1).epoch);
    });
}

#[test]
fn connections_that_are_lost_lose_no_report() {
    three_nodes(2, async |cluster, [one, mut two, three]| {
        for nth in 0..10 {
            one.put(1, 50_000, Acks::Leader).await;
            two.reconnect().await;
            assert_eq!(one.put(2, 10, Acks::All).await, 2 * nth);
        }
        let all_have = || [&one, &two, &three].iter().all(|node| node.state(1).high_watermark == Offset(20));
        cluster.until("all have all", all_have).await;
    });
}

/// Waits until nodes know that all of topic 1 is committed, up to there.
async fn all_know(nodes: [&Node; 3], end: Offset) {
    let all = || nodes.iter().all(|node| node.state(1).high_watermark == end);
    nodes[0].cluster.until("all is told", all).await;
}

#[test]
fn what_is_followed_from_now_on_does_not_wait_for_the_fetch_that_stays_with_the_leader() {
    three_nodes(2, async |cluster, [one, two, three]| {
        one.put(1, 10, Acks::All).await;
        all_know([&one, &two, &three], Offset(2)).await;
        // Whoever waits for the parked fetch waits for most of it each time; the quickest of some is no measure of the machine.
        let (mut opened, mut elected) = (Vec::new(), Vec::new());
        for nth in 1..=5 {
            // A partition that has just been opened.
            let all = [&two, &three].map(|node| (node, node.open.get()));
            all.iter().for_each(|(node, open)| node.open.publish(open.without(&id(1, 0))));
            cluster.backend.sleep(Duration::from_millis(20 * nth)).await;
            let since = cluster.backend.now();
            all.iter().for_each(|(node, open)| node.open.publish(OrdMap::clone(open)));
            one.put(1, 10, Acks::All).await;
            opened.push(cluster.backend.now().since(since));
            // And one that has another leader.
            let (from, to) = if nth % 2 == 1 { (&one, &two) } else { (&two, &one) };
            from.put(2, 10, Acks::All).await;
            cluster.backend.sleep(Duration::from_millis(20 * nth)).await;
            let since = cluster.backend.now();
            cluster.metadata.elect(2, to.node);
            to.leads(2).await;
            to.put(2, 10, Acks::All).await;
            elected.push(cluster.backend.now().since(since));
        }
        let quickly = |times: &[Duration]| times.iter().any(|time| *time < limits::REPLICATION_WAIT / 2);
        assert!(quickly(&opened) && quickly(&elected), "opened: {opened:?}, elected: {elected:?}");
    });
}

#[test]
fn a_leader_that_is_not_among_the_open_partitions_yet_answers_when_it_is() {
    three_nodes(1, async |cluster, [one, two, three]| {
        one.put(1, 10, Acks::All).await;
        all_know([&one, &two, &three], Offset(2)).await;
        // Nobody looks for anything at the moment, with the partitions that were open before.
        cluster.backend.sleep(limits::REPLICATION_WAIT / 4).await;
        let (open, leader) = (one.open.get(), one.partition(1));
        one.open.publish(open.without(&id(1, 0)));
        let batch = vec![BatchSpec::records(2).checked()];
        let pending = leader.append(batch, Acks::Leader, cluster.soon()).await.expect("taken");
        assert_eq!(pending.wait().await.expect("acknowledged").base_offset, Offset(2));
        cluster.backend.sleep(limits::REPLICATION_WAIT / 4).await;
        one.open.publish(OrdMap::clone(&open));
        cluster.until("the follower has all", || two.state(1).log_end == Offset(4)).await;
    });
}

#[test]
fn what_an_idle_cluster_says_is_short() {
    three_nodes(20, async |cluster, [one, two, _three]| {
        for topic in 1..=20 {
            one.put(topic, 10, Acks::All).await;
        }
        cluster
            .until("all is told", || (1..=20).all(|topic| two.state(topic).high_watermark == Offset(2)))
            .await;
        cluster.backend.sleep(Duration::from_millis(600)).await;
        let bytes = || {
            let label = crate::metrics::FrameLabel { kind: "replication" };
            two.metrics.peer_bytes_out.get_or_create(&label).get()
        };
        let (before, fetches) = (bytes(), two.metrics.replication_fetches_sent.get());
        cluster.backend.sleep(Duration::from_millis(1_200)).await;
        let (said, fetches) = (bytes() - before, two.metrics.replication_fetches_sent.get() - fetches);
        assert!((2..=4).contains(&fetches) && said < 50 * fetches, "{fetches} fetches, {said} bytes");
    });
}
