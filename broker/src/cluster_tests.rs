//! Three whole nodes in one process, on real disks and loopback sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use io_backend::real::{DiskChoice, RealBackend};
use io_backend::{Clock, Deadline};
use uuid::Uuid;

use crate::config::{Config, PeerAddress, Secret};
use crate::controller::{self, ControllerContext};
use crate::ids::{BrokerId, TopicId};
use crate::metadata::{
    MetadataCommand, MetadataImage, NewTopic, Outcome, ProposeError, VoterChange, VoterWish,
};
use crate::node::Node;
use crate::parts::Parts;
use crate::peers::asks::{Answers, Asks};
use crate::stall::capacities::Fitness;
use crate::stall::contact::{Lost, LostContact};

#[path = "cluster_tests/reads.rs"]
mod reads;

const NODES: [i32; 3] = [1, 2, 3];

struct Cluster {
    homes: BTreeMap<i32, tempfile::TempDir>,
    voters: Vec<PeerAddress>,
    nodes: BTreeMap<i32, Node<RealBackend>>,
    /// Each node's own, so that one can be ended with all that it has open.
    runtimes: BTreeMap<i32, tokio::runtime::Runtime>,
    /// Whether the nodes look at their disks, or are told by the test how those do.
    watch_stalls: bool,
    /// Makes deadlines.
    backend: RealBackend,
    _scratch: tempfile::TempDir,
}

fn with_cluster(test: impl AsyncFnOnce(Cluster)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let voters = NODES
            .iter()
            .map(|id| PeerAddress { id: BrokerId(*id), address: super::tests::free_address() })
            .collect();
        let scratch = tempfile::tempdir().unwrap();
        let (backend, _) = RealBackend::start(DiskChoice::Threads, scratch.path()).unwrap();
        let homes = NODES.iter().map(|id| (*id, tempfile::tempdir().unwrap())).collect();
        test(Cluster {
            homes,
            voters,
            nodes: BTreeMap::new(),
            runtimes: BTreeMap::new(),
            watch_stalls: true,
            backend,
            _scratch: scratch,
        })
        .await;
    });
}

impl Cluster {
    fn config(&self, id: i32, home: &Path) -> Config {
        let mut config = Config {
            node_id: BrokerId(id),
            data_dir: home.to_owned(),
            listen: "127.0.0.1:0".into(),
            admin: "127.0.0.1:0".into(),
            cluster: self.voters.iter().find(|voter| voter.id.0 == id).unwrap().address.clone(),
            ..Config::default()
        };
        config.journal.file_bytes = 1 << 20;
        config.journal.max_batch_bytes = 256 << 10;
        config.journal.queue_bytes = 1 << 20;
        config.metadata.snapshot_entries = 8;
        config.rack = Some(format!("rack-{id}"));
        config.server.rack_aware_fetch = true;
        config.apply_peers(self.voters.clone());
        config.peers.secret = Some(Secret::new("correct horse battery").unwrap());
        config
    }

    async fn start(&mut self, ids: &[i32]) {
        let mut starts = Vec::new();
        for id in ids {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            let runtime = runtime.unwrap();
            let config = self.config(*id, self.homes[id].path());
            let watch_stalls = self.watch_stalls;
            let start = runtime.spawn(async move {
                let (backend, _) = RealBackend::start(DiskChoice::Threads, &config.data_dir).unwrap();
                Node::start(backend, Parts { watch_stalls, ..Parts::production() }, config).await
            });
            starts.push(async move {
                let started = start.await.unwrap();
                started.map(|node| (*id, node)).map_err(|error| (*id, error))
            });
            self.runtimes.insert(*id, runtime);
        }
        // The first that does not start: the others wait for it.
        match futures::future::try_join_all(starts).await {
            Ok(nodes) => self.nodes.extend(nodes),
            Err((id, error)) => panic!("node {id}: {error}"),
        }
    }

    /// Its connections are closed, and nobody is told anything.
    fn kill(&mut self, id: i32) {
        self.nodes.remove(&id).unwrap();
        self.runtimes.remove(&id).unwrap().shutdown_background();
    }

    async fn stop(&mut self, id: i32) {
        let soon = self.soon();
        self.nodes.remove(&id).unwrap().stop(soon).await;
        self.runtimes.remove(&id).unwrap().shutdown_background();
    }

    fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, Duration::from_secs(60))
    }

    async fn create(&self, at: i32, name: &str) {
        self.create_with(at, name, &NODES).await;
    }

    /// A topic with one partition, led by the first of these.
    async fn create_with(&self, at: i32, name: &str, replicas: &[i32]) {
        let topic = NewTopic {
            id: TopicId(Uuid::from_u128(name.bytes().fold(7, |id, byte| id * 256 + u128::from(byte)))),
            name: name.into(),
            assignments: vec![replicas.iter().copied().map(BrokerId).collect()],
            configs: BTreeMap::new(),
        };
        let command = MetadataCommand::CreateTopics { topics: vec![topic], validate_only: false };
        let metadata = &self.nodes[&at].context().metadata;
        let soon = self.soon();
        let outcome = loop {
            match metadata.propose(command.clone(), soon).await {
                // Whoever led is gone: whether it was heard is not known.
                Err(ProposeError::TimedOut) if !soon.has_passed(&self.backend) => {}
                decided => break decided.unwrap(),
            }
        };
        assert!(matches!(&outcome, Outcome::Topics(results) if results[0].is_ok()), "{outcome:?}");
        assert!(metadata.image().topics.contains_key(name), "it is in the image of who asked");
    }

    /// Waits until all that run agree with this.
    async fn all(&self, what: impl Fn(&MetadataImage) -> bool + Copy + Unpin + Send) {
        for (id, node) in &self.nodes {
            let images = node.context().metadata.images();
            let seen = images.until(&self.backend, self.soon(), what).await;
            seen.unwrap_or_else(|_| panic!("node {id}: {:?}", images.get()));
        }
    }

    /// Waits until the partition of this topic is led by another one than this, and that one serves; who it is.
    async fn until_led_by_other(&self, name: &str, than: i32) -> i32 {
        let moved = |image: &MetadataImage| leader_of(image, name).is_some_and(|leader| leader != than);
        let left = *self.nodes.keys().find(|id| **id != than).unwrap();
        let images = self.nodes[&left].context().metadata.images();
        let image = images.until(&self.backend, self.soon(), moved).await.unwrap();
        let leader = leader_of(&image, name).unwrap();
        let led = [image.topics[name].clone()];
        let until = self.backend.now() + Duration::from_secs(60);
        assert!(crate::routing::until_led(self.nodes[&leader].context(), &led, until).await);
        leader
    }

    /// A task of its own takes note of who is fenced.
    async fn until_named_though_fenced(&self, by: i32, fenced: i32) {
        let until = self.backend.now() + Duration::from_secs(5);
        while self.nodes[&by].context().metadata.lately_fenced() != [BrokerId(fenced)].into() {
            assert!(self.backend.now() < until, "clients are not told of it any more");
            self.backend.sleep(Duration::from_millis(5)).await;
        }
    }

    fn controller(&self) -> i32 {
        let mut members = self.nodes.values().map(|node| node.context().metadata.members().get());
        members.find_map(|members| members.leader.filter(|_| members.acts)).unwrap().0
    }

    fn others_than(&self, id: i32) -> Vec<i32> {
        NODES.into_iter().filter(|other| *other != id).collect()
    }

    fn image(&self, id: i32) -> Arc<MetadataImage> {
        self.nodes[&id].context().metadata.image()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for runtime in std::mem::take(&mut self.runtimes).into_values() {
            runtime.shutdown_background();
        }
    }
}

fn leader_of(image: &MetadataImage, topic: &str) -> Option<i32> {
    image.topics.get(topic)?.partitions[0].leader.map(|leader| leader.0)
}

fn is_fenced(image: &MetadataImage, id: i32) -> bool {
    image.brokers[&BrokerId(id)].fenced
}

/// Has one of three killed, and sees who takes over.
fn a_kill(which: impl Fn(i32) -> i32) {
    with_cluster(async |mut cluster| {
        cluster.start(&NODES).await;
        let victim = which(cluster.controller());
        let left = cluster.others_than(victim);
        cluster.create_with(left[0], "led", &[&[victim][..], &left].concat()).await;
        cluster.create_with(left[0], "alone", &[victim]).await;
        cluster.kill(victim);
        let began = cluster.backend.now();
        let leader = cluster.until_led_by_other("led", victim).await;
        let took = cluster.backend.now().since(began);
        assert!(left.contains(&leader));
        // Idle it takes 0.6 s, and 0.9 s where there is to be another controller first.
        assert!(took < Duration::from_secs(5), "{took:?}");
        let image = cluster.image(left[0]);
        assert!(is_fenced(&image, victim) && left.iter().all(|id| !is_fenced(&image, *id)));
        cluster.until_named_though_fenced(left[0], victim).await;
        assert_eq!(leader_of(&image, "alone"), None, "nobody else has it");
        assert!(left.contains(&cluster.controller()));
    });
}

#[test]
fn what_a_killed_node_led_is_led_by_another() {
    a_kill(|controller| *NODES.iter().find(|id| **id != controller).unwrap());
}

#[test]
fn what_a_killed_controller_led_is_led_by_another() {
    a_kill(|controller| controller);
}

#[test]
fn a_node_that_stops_hands_over_first_and_is_counted_on_again_when_it_is_back() {
    with_cluster(async |mut cluster| {
        cluster.start(&NODES).await;
        let stops = cluster.controller();
        let left = cluster.others_than(stops);
        cluster.create_with(stops, "led", &[&[stops][..], &left].concat()).await;
        let began = cluster.backend.now();
        cluster.stop(stops).await;
        assert!(cluster.backend.now().since(began) < Duration::from_secs(5), "it waited for nobody in vain");
        let image = cluster.image(left[0]);
        let partition = &image.topics["led"].partitions[0];
        assert!(partition.leader.is_some_and(|leader| leader.0 != stops), "{partition:?}");
        assert!(image.brokers[&BrokerId(stops)].in_controlled_shutdown);
        cluster.start(&[stops]).await;
        let image = cluster.image(stops);
        assert!(!is_fenced(&image, stops) && image.brokers[&BrokerId(stops)].is_active());
    });
}

#[test]
fn a_node_whose_disk_stands_still_leads_nothing_and_keeps_its_seat_on_the_metadata() {
    with_cluster(async |mut cluster| {
        cluster.watch_stalls = false;
        cluster.start(&NODES).await;
        let stalls = cluster.controller();
        let left = cluster.others_than(stalls);
        for name in ["one", "two"] {
            cluster.create_with(stalls, name, &[&[stalls][..], &left].concat()).await;
        }
        cluster.create_with(stalls, "alone", &[stalls]).await;
        let node = cluster.nodes[&stalls].context();
        let began = cluster.backend.now();
        node.health.capacities.set(Fitness::of(true, false, false));
        let moved = |image: &MetadataImage| leader_of(image, "one") != Some(stalls);
        let image = node.metadata.images().until(&cluster.backend, cluster.soon(), moved).await.unwrap();
        assert_ne!(leader_of(&image, "two"), Some(stalls), "it is one event");
        assert_eq!(leader_of(&image, "alone"), Some(stalls), "nobody else has it");
        cluster.until_led_by_other("one", stalls).await;
        assert!(cluster.backend.now().since(began) < Duration::from_secs(3));
        assert!(!is_fenced(&image, stalls), "it is heard");
        assert_eq!(cluster.controller(), stalls, "the disk under its Raft journal is well");
        assert!(node.metrics.hand_overs.get() >= 1);
        // That of the metadata is another matter.
        node.health.capacities.set(Fitness::of(false, true, false));
        let members = cluster.nodes[&left[0]].context().metadata.members();
        let is_other = |members: &crate::metadata::Members| members.leader.is_some_and(|id| id.0 != stalls);
        members.until(&cluster.backend, cluster.soon(), is_other).await.unwrap();
    });
}

#[test]
fn a_process_whose_disk_has_stood_still_for_long_ends_when_it_leads_nothing_any_more() {
    with_cluster(async |mut cluster| {
        cluster.watch_stalls = false;
        cluster.start(&NODES).await;
        cluster.create_with(2, "shared", &[1, 2, 3]).await;
        cluster.create_with(2, "alone", &[1]).await;
        cluster.all(|image| image.topics.len() == 2).await;
        let running = &cluster.nodes[&1];
        let node = running.context();
        let mut config = Config::clone(&node.config);
        config.stall.exit_after = config.stall.stalled_after;
        let context = ControllerContext {
            backend: cluster.backend.clone(),
            config: Arc::new(config),
            metrics: node.metrics.clone(),
            node: node.node,
            metadata: node.metadata.clone(),
            asks: Asks::new(cluster.backend.clone(), running.peers().unwrap().clone(), Answers::default()),
        };
        let mut given_up = Box::pin(controller::until_given_up(context, node.health.clone()));
        let mut ends_within = async |time: Duration| {
            let deadline = Deadline::after(&cluster.backend, time);
            io_backend::within(&cluster.backend, deadline, &mut given_up).await.ok()
        };
        assert_eq!(ends_within(Duration::from_millis(200)).await, None, "its disk is well");
        node.health.capacities.set(Fitness::of(true, false, false));
        cluster.until_led_by_other("shared", 1).await;
        assert_eq!(
            ends_within(Duration::from_millis(2_500)).await,
            None,
            "nobody else has what is alone there"
        );
        let topics = vec![cluster.image(1).topics["alone"].id];
        let delete = MetadataCommand::DeleteTopics { topics };
        node.metadata.propose(delete, cluster.soon()).await.unwrap();
        let why = ends_within(Duration::from_secs(30)).await.expect("it is of no use there");
        assert!(why.contains("stall.exit_after"), "{why}");
    });
}

#[test]
fn who_hears_no_controller_takes_and_serves_nothing() {
    with_cluster(async |mut cluster| {
        cluster.start(&NODES).await;
        let left = cluster.controller();
        let others = cluster.others_than(left);
        cluster.create_with(left, "alone", &[left]).await;
        let context = cluster.nodes[&left].context().clone();
        let topic = cluster.image(left).topics["alone"].clone();
        let until = cluster.backend.now() + Duration::from_secs(60);
        assert!(crate::routing::until_led(&context, std::slice::from_ref(&topic), until).await);
        let serves = || crate::routing::RoutingView::now(&context).partition(&topic, 0).is_ok();
        assert!(serves());
        others.iter().for_each(|id| cluster.kill(*id));
        let contact = context.health.contact.published();
        let cut_off = |lost: &Option<LostContact>| lost.is_some_and(|lost| lost.why == Lost::CutOff);
        contact.until(&cluster.backend, cluster.soon(), cut_off).await.unwrap();
        assert!(!serves(), "it may have been replaced");
    });
}

#[test]
fn three_nodes_found_one_group_and_decide_together_whoever_is_asked() {
    with_cluster(async |mut cluster| {
        cluster.start(&NODES).await;
        for id in NODES {
            cluster.create(id, &format!("topic-{id}")).await;
        }
        cluster.all(|image| image.topics.len() == 3 && image.brokers.len() == 3).await;
        let first = cluster.image(1);
        for id in [2, 3] {
            let image = cluster.image(id);
            assert_eq!((&image.cluster_id, image.controller), (&first.cluster_id, first.controller));
            assert_eq!(image.topics, first.topics);
        }
        assert_eq!(first.cluster_id.len(), 22);

        // One that was away hears what came meanwhile; two go on without it.
        let away = first.controller.unwrap().0;
        cluster.stop(away).await;
        let left = *NODES.iter().find(|id| **id != away).unwrap();
        cluster.create(left, "meanwhile").await;
        cluster.start(&[away]).await;
        cluster.all(|image| image.topics.len() == 4).await;
        assert_eq!(cluster.image(away).cluster_id, first.cluster_id);
    });
}

#[test]
fn a_wiped_node_comes_back_without_a_vote_and_is_given_one_when_it_follows() {
    with_cluster(async |mut cluster| {
        cluster.start(&NODES).await;
        cluster.create(1, "before").await;
        cluster.stop(2).await;
        cluster.homes.insert(2, tempfile::tempdir().unwrap());
        let one = &cluster.nodes[&1].context().metadata;
        let fence = MetadataCommand::FenceBroker(crate::metadata::BrokerProcess {
            broker: BrokerId(2),
            epoch: one.image().brokers[&BrokerId(2)].epoch,
        });
        let soon = cluster.soon();
        while one.propose(fence.clone(), soon).await.is_err() {}
        cluster.start(&[2]).await;
        cluster.all(|image| image.topics.contains_key("before")).await;
        let members = cluster.nodes[&2].context().metadata.members().clone();
        let votes = |members: &crate::metadata::Members| members.voters.contains(&BrokerId(2));
        members.until(&cluster.backend, cluster.soon(), votes).await.unwrap();
        // The others agree, and it can do without one of them.
        cluster.stop(3).await;
        cluster.create(2, "after").await;
    });
}

#[test]
fn a_node_that_was_alone_grows_into_a_cluster() {
    with_cluster(async |mut cluster| {
        let voters = std::mem::take(&mut cluster.voters);
        let alone = voters[..1].to_vec();
        cluster.voters = alone;
        cluster.start(&[1]).await;
        let command = MetadataCommand::CreateTopics {
            topics: vec![NewTopic {
                id: TopicId(Uuid::from_u128(5)),
                name: "alone".into(),
                assignments: vec![vec![BrokerId(1)]],
                configs: BTreeMap::new(),
            }],
            validate_only: false,
        };
        cluster.nodes[&1].context().metadata.propose(command, cluster.soon()).await.unwrap();
        let cluster_id = cluster.image(1).cluster_id.clone();
        cluster.stop(1).await;
        cluster.voters = voters;
        cluster.start(&NODES).await;
        cluster.create(3, "together").await;
        cluster.all(|image| image.topics.len() == 2 && image.brokers.len() == 3).await;
        assert_eq!(cluster.image(3).cluster_id, cluster_id);
    });
}

#[test]
fn a_voter_is_taken_away_and_given_back_whoever_is_asked() {
    with_cluster(async |mut cluster| {
        cluster.start(&NODES).await;
        cluster.all(|image| image.brokers.len() == 3).await;
        let leader = cluster.image(1).controller.unwrap().0;
        let followers = NODES.iter().filter(|id| **id != leader);
        // The leader itself is taken away last.
        for voter in followers.chain([&leader]) {
            let asked = if *voter == 1 { 2 } else { 1 };
            let metadata = &cluster.nodes[&asked].context().metadata;
            let id = BrokerId(*voter);
            let directory = metadata.image().brokers[&id].registration.storage;
            let change = |wish| VoterChange { wish, node: id, directory };
            let voters = async || {
                let quorum = metadata.quorum(cluster.soon()).await.unwrap();
                quorum.members.iter().map(|member| (member.node.0, member.votes)).collect::<Vec<_>>()
            };
            metadata.change_voters(change(VoterWish::Remove), cluster.soon()).await.unwrap();
            let expected: Vec<(i32, bool)> = NODES.iter().map(|id| (*id, id != voter)).collect();
            assert_eq!(voters().await, expected);
            let name = &*format!("without-{voter}");
            cluster.create(asked, name).await;
            cluster.all(|image| image.topics.contains_key(name)).await;
            metadata.change_voters(change(VoterWish::Add), cluster.soon()).await.unwrap();
            assert!(voters().await.iter().all(|(_, votes)| *votes));
        }
    });
}
