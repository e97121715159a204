//! Three whole nodes in one process, on real disks and loopback sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use io_backend::Deadline;
use io_backend::real::{DiskChoice, RealBackend};
use uuid::Uuid;

use crate::config::{Config, PeerAddress, Secret};
use crate::ids::{BrokerId, TopicId};
use crate::metadata::{
    MetadataCommand, MetadataImage, NewTopic, Outcome, ProposeError, VoterChange, VoterWish,
};
use crate::node::Node;
use crate::parts::Parts;

const NODES: [i32; 3] = [1, 2, 3];

struct Cluster {
    homes: BTreeMap<i32, tempfile::TempDir>,
    voters: Vec<PeerAddress>,
    nodes: BTreeMap<i32, Node<RealBackend>>,
    /// Makes deadlines.
    backend: RealBackend,
    _scratch: tempfile::TempDir,
}

fn with_cluster(test: impl AsyncFnOnce(Cluster)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<_> = NODES.iter().map(|id| (BrokerId(*id), free())).collect();
        let voters = listeners
            .iter()
            .map(|(id, free)| PeerAddress { id: *id, address: free.local_addr().unwrap().to_string() })
            .collect();
        drop(listeners);
        let scratch = tempfile::tempdir().unwrap();
        let (backend, _) = RealBackend::start(DiskChoice::Threads, scratch.path()).unwrap();
        let homes = NODES.iter().map(|id| (*id, tempfile::tempdir().unwrap())).collect();
        test(Cluster { homes, voters, nodes: BTreeMap::new(), backend, _scratch: scratch }).await;
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
        config.apply_peers(self.voters.clone());
        config.peers.secret = Some(Secret::new("correct horse battery").unwrap());
        config
    }

    async fn start(&mut self, ids: &[i32]) {
        let starts = ids.iter().map(|id| {
            let home = self.homes[id].path();
            let config = self.config(*id, home);
            async move {
                let (backend, _) = RealBackend::start(DiskChoice::Threads, &config.data_dir).unwrap();
                Node::start(backend, Parts::production(), config).await
            }
        });
        let started = futures::future::join_all(starts).await;
        for (id, node) in ids.iter().zip(started) {
            self.nodes.insert(*id, node.unwrap_or_else(|error| panic!("node {id}: {error}")));
        }
    }

    async fn stop(&mut self, id: i32) {
        let soon = self.soon();
        self.nodes.remove(&id).unwrap().stop(soon).await;
    }

    fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, Duration::from_secs(60))
    }

    async fn create(&self, at: i32, name: &str) {
        let topic = NewTopic {
            id: TopicId(Uuid::from_u128(name.bytes().fold(7, |id, byte| id * 256 + u128::from(byte)))),
            name: name.into(),
            assignments: vec![NODES.map(BrokerId).to_vec()],
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

    fn image(&self, id: i32) -> Arc<MetadataImage> {
        self.nodes[&id].context().metadata.image()
    }
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
