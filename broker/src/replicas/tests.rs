use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use io_backend::real::{DiskChoice, RealBackend};
use io_backend::{Clock, ExitStatus};
use uuid::Uuid;

use super::reconcile::{ReplicaId, Role};
use super::roles::Roles;
use super::start::StartedReplicas;
use super::*;
use crate::identity::take_directory;
use crate::ids::Incarnation;
use crate::ids::{LeaderEpoch, Lsn, Offset, TopicId};
use crate::journal::{self, EntryKind, JournalContext};
use crate::log::test_batches::BatchSpec;
use crate::metadata::{
    self, BrokerRegistration, CLIENT_LISTENER, Endpoint, MetadataCommand, MetadataContext, NewTopic, Outcome,
};
use crate::partition::{Acks, InSync, ReadRequest};

mod full_disk;
mod journals;

use journals::{Alterations, Altered};

const NODE: BrokerId = BrokerId(1);

/// What of a node stands below its servers.
struct Core {
    backend: RealBackend,
    metadata: MetadataHandle<RealBackend>,
    raft_journal: JournalHandle,
    journal: JournalHandle,
    metrics: Arc<Metrics>,
    replicas: Replicas<RealBackend>,
    control: ReplicasControl<RealBackend>,
    incarnation: Incarnation,
}

fn config(directory: &Path) -> Config {
    let mut config = Config { data_dir: directory.to_owned(), node_id: NODE, ..Config::default() };
    config.journal.file_bytes = 1 << 20;
    config.journal.checkpoint_bytes = 512 << 10;
    config
}

/// Runs `life` in a process start of its own.
fn process<T>(config: &Config, life: impl AsyncFnOnce(Core) -> T) -> T {
    try_process(config, async |started| life(started.unwrap()).await)
}

fn try_process<T>(config: &Config, life: impl AsyncFnOnce(Result<Core, ReplicasStartError>) -> T) -> T {
    on_backend(async |backend| life(start_core(backend, config.clone()).await).await)
}

fn on_backend<T>(life: impl AsyncFnOnce(RealBackend) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let scratch = tempfile::tempdir().unwrap();
        let (backend, _) = RealBackend::start(DiskChoice::Threads, scratch.path()).unwrap();
        life(backend).await
    })
}

async fn open_journal(backend: &RealBackend, config: &Config) -> journal::OpenedJournal {
    journal::open(JournalContext {
        backend: backend.clone(),
        name: "journal",
        directory: config.data_dir.join("journal"),
        settings: config.journal_settings(),
        metrics: Arc::default(),
    })
    .await
    .unwrap()
}

/// What a start would find in the journal.
fn journaled(config: &Config) -> BTreeMap<ReplicaId, RecoveredReplica> {
    let entries = on_backend(async |backend| open_journal(&backend, config).await.entries);
    split(entries).unwrap().replicas
}

async fn start_core(backend: RealBackend, config: Config) -> Result<Core, ReplicasStartError> {
    start_core_with(backend, config, |journal| journal).await
}

async fn start_core_with(
    backend: RealBackend,
    config: Config,
    wrapped: impl FnOnce(JournalHandle) -> JournalHandle,
) -> Result<Core, ReplicasStartError> {
    let soon = Deadline::after(&backend, Duration::from_secs(60));
    let identity = take_directory(&backend, &config.data_dir, NODE, soon).await.unwrap();
    let config = Arc::new(config);
    let context = MetadataContext {
        backend: backend.clone(),
        config: config.clone(),
        metrics: Arc::default(),
        identity: identity.clone(),
        open_journal: Box::new(journal::open),
    };
    let started = metadata::open(context, soon).await.unwrap().start(None, soon).await.unwrap();
    let image = started.metadata.image();
    let registration = BrokerRegistration {
        id: NODE,
        incarnation: identity.incarnation,
        incarnation_id: Some(identity.incarnation_id),
        previous_epoch: image.brokers.get(&NODE).map(|known| known.epoch),
        storage: identity.storage,
        listeners: vec![Endpoint { name: CLIENT_LISTENER.into(), host: "localhost".into(), port: 9092 }],
        rack: None,
        reads: crate::formats::METADATA,
    };
    let registered = started.metadata.propose(MetadataCommand::RegisterBroker(registration), soon).await;
    let Ok(Outcome::Registered(Ok(broker_epoch))) = registered else { panic!("{registered:?}") };
    let mut opened = open_journal(&backend, &config).await;
    opened.journal = wrapped(opened.journal);
    let metrics = Arc::<Metrics>::default();
    let context = ReplicasContext {
        backend: backend.clone(),
        config,
        metrics: metrics.clone(),
        node: NODE,
        broker_epoch,
        metadata: started.metadata.clone(),
        journal: opened.journal.clone(),
        judge: Arc::new(|_, fate| fate),
    };
    let StartedReplicas { replicas, control } = start(context, opened.entries, soon).await?;
    Ok(Core {
        backend,
        metadata: started.metadata,
        raft_journal: started.journal,
        journal: opened.journal,
        metrics,
        replicas,
        control,
        incarnation: identity.incarnation,
    })
}

impl Core {
    fn soon(&self) -> Deadline {
        Deadline::after(&self.backend, Duration::from_secs(60))
    }

    async fn create(&self, id: u128, name: &str, partitions: usize) -> TopicId {
        let id = TopicId(Uuid::from_u128(id));
        let topic = NewTopic {
            id,
            name: name.into(),
            assignments: vec![vec![NODE]; partitions],
            configs: BTreeMap::new(),
        };
        let command = MetadataCommand::CreateTopics { topics: vec![topic], validate_only: false };
        let outcome = self.metadata.propose(command, self.soon()).await.unwrap();
        assert!(matches!(outcome, Outcome::Topics(results) if results[0].is_ok()));
        id
    }

    async fn delete(&self, id: TopicId) {
        let command = MetadataCommand::DeleteTopics { topics: vec![id] };
        self.metadata.propose(command, self.soon()).await.unwrap();
    }

    async fn partition(&self, topic: TopicId, index: i32) -> PartitionHandle<RealBackend> {
        let id = PartitionId { topic, index };
        let open = self.replicas.open();
        let open = open.until(&self.backend, self.soon(), |open| open.contains_key(&id)).await.unwrap();
        open[&id].clone()
    }

    async fn led(&self, topic: TopicId, index: i32) -> PartitionHandle<RealBackend> {
        let partition = self.partition(topic, index).await;
        partition.views().until(&self.backend, self.soon(), |view| view.leading).await.unwrap();
        partition
    }

    async fn append(&self, topic: TopicId, index: i32, records: i32) -> Offset {
        let batch = BatchSpec::records(records).value_bytes(1_000).checked();
        let partition = self.led(topic, index).await;
        let pending = partition.append(vec![batch], Acks::All, self.soon()).await.unwrap();
        pending.wait().await.unwrap().base_offset
    }

    async fn log_end(&self, topic: TopicId, index: i32) -> Offset {
        let request = ReadRequest {
            from: Offset(0),
            max_bytes: 1,
            at_least_one: true,
            read_committed: false,
            current_epoch: None,
        };
        self.led(topic, index).await.read(request, self.soon()).await.unwrap().view.log_end
    }

    /// Series of this topic that are served.
    fn series(&self, topic: &str) -> usize {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.matches(&format!("{{topic=\"{topic}\"}}")).count()
    }

    async fn close(self) {
        let soon = self.soon();
        self.control.close(soon).await;
        self.metadata.close(soon).await;
        self.journal.close(soon).await.unwrap();
        self.raft_journal.close(soon).await.unwrap();
    }
}

fn home() -> (tempfile::TempDir, Config) {
    let home = tempfile::tempdir().unwrap();
    let config = config(home.path());
    (home, config)
}

fn directories(config: &Config) -> usize {
    std::fs::read_dir(config.data_dir.join(data_dir::PARTITIONS)).unwrap().count()
}

#[test]
fn records_are_there_after_a_clean_stop_and_after_none_and_the_epoch_is_new_each_time() {
    let (_home, config) = home();
    let topic = process(&config, async |core| {
        let topic = core.create(1, "orders", 3).await;
        assert_eq!(core.append(topic, 0, 5).await, Offset(0));
        assert_eq!(core.append(topic, 2, 7).await, Offset(0));
        core.close().await;
        topic
    });
    for round in 1..4 {
        process(&config, async |core| {
            assert_eq!(core.incarnation, Incarnation(round + 1));
            let epoch = core.partition(topic, 0).await.views().get().leader_epoch;
            assert_eq!(epoch, LeaderEpoch(round as i32));
            assert_eq!(core.append(topic, 0, 5).await, Offset(5 * round as i64));
            assert_eq!(core.log_end(topic, 2).await, Offset(7));
            // And ends without a word.
        });
    }
}

#[test]
fn a_checkpoint_lets_the_journal_go_and_a_start_after_it_finds_everything() {
    let (_home, config) = home();
    let topic = process(&config, async |core| {
        let topic = core.create(1, "orders", 2).await;
        for n in 0..40 {
            assert_eq!(core.append(topic, 0, 50).await, Offset(50 * n));
        }
        core.append(topic, 1, 1).await;
        core.control.checkpoint(core.soon()).await.unwrap();
        let kept = core.journal.status().unreleased_bytes;
        assert!(kept < 512 << 10, "{kept} bytes are not released");
        core.append(topic, 0, 1).await;
        topic
    });
    process(&config, async |core| {
        assert_eq!(core.log_end(topic, 0).await, Offset(2_001));
        assert_eq!(core.log_end(topic, 1).await, Offset(1));
        core.control.checkpoint(core.soon()).await.unwrap();
        core.control.checkpoint(core.soon()).await.unwrap();
    });
    process(&config, async |core| assert_eq!(core.log_end(topic, 0).await, Offset(2_001)));
}

#[test]
fn checkpoints_keep_up_by_themselves_with_a_journal_that_grows() {
    let (_home, config) = home();
    let topic = process(&config, async |core| {
        let topic = core.create(1, "orders", 1).await;
        for _ in 0..160 {
            core.append(topic, 0, 50).await;
        }
        let mut rounds = 0;
        while core.journal.status().unreleased_bytes > 2 << 20 {
            rounds += 1;
            assert!(rounds < 3_000, "{:?}", core.journal.status());
            core.backend.sleep(Duration::from_millis(10)).await;
        }
        // And then no record of a checkpoint is the reason for the next.
        let mut last = core.journal.status().submitted;
        loop {
            core.backend.sleep(Duration::from_millis(50)).await;
            let now = core.journal.status().submitted;
            if now == last {
                break;
            }
            rounds += 1;
            assert!(rounds < 3_000, "checkpoints do not come to rest");
            last = now;
        }
        topic
    });
    process(&config, async |core| assert_eq!(core.log_end(topic, 0).await, Offset(8_000)));
}

#[test]
fn topics_that_are_created_all_the_time_do_not_hold_the_journal() {
    let (_home, config) = home();
    process(&config, async |core| {
        let topic = core.create(1, "orders", 1).await;
        let limit = config.journal_settings().unreleased_bytes_max;
        let writing = pin!(async {
            for _ in 0..4 * limit / 100_000 {
                core.append(topic, 0, 100).await;
            }
        });
        let creating = pin!(async {
            for id in 2.. {
                core.create(id, &format!("other-{id}"), 1).await;
            }
        });
        futures::future::select(writing, creating).await;
    });
}

#[test]
fn a_deleted_topic_leaves_no_files_and_its_name_begins_anew() {
    let (_home, config) = home();
    let topic = process(&config, async |core| {
        let old = core.create(1, "orders", 2).await;
        core.append(old, 0, 5).await;
        core.control.checkpoint(core.soon()).await.unwrap();
        assert!(directories(&config) > 0);
        core.delete(old).await;
        let open = core.replicas.open();
        open.until(&core.backend, core.soon(), |open| open.is_empty()).await.unwrap();
        let new = core.create(2, "orders", 1).await;
        assert_eq!(core.append(new, 0, 3).await, Offset(0));
        core.close().await;
        new
    });
    process(&config, async |core| {
        assert_eq!(core.replicas.open().get().len(), 1);
        assert_eq!(core.log_end(topic, 0).await, Offset(3));
        assert_eq!(directories(&config), 1);
    });
}

#[test]
fn files_that_an_interrupted_deletion_left_go_at_the_next_start_and_foreign_ones_stay() {
    let (_home, config) = home();
    process(&config, async |core| core.close().await);
    let partitions = config.data_dir.join(data_dir::PARTITIONS);
    let orphan = ReplicaId {
        partition: PartitionId { topic: TopicId(Uuid::from_u128(9)), index: 0 },
        replica: Incarnation(4),
    };
    std::fs::create_dir_all(partitions.join(orphan.directory()).join("inside")).unwrap();
    std::fs::create_dir(partitions.join("mine")).unwrap();
    // Given after all that the image has: the image may lag.
    let later = ReplicaId { replica: Incarnation(1_000), ..orphan };
    std::fs::create_dir(partitions.join(later.directory())).unwrap();
    process(&config, async |_| {});
    let mut left: Vec<String> = std::fs::read_dir(&partitions)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [later.directory(), "mine".to_owned()]);
}

/// The files of a partition that hold its records.
fn segments(config: &Config) -> Vec<std::path::PathBuf> {
    let files =
        |directory: std::path::PathBuf| std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path());
    let all = files(config.data_dir.join(data_dir::PARTITIONS)).flat_map(files);
    all.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

#[test]
fn a_damaged_partition_holds_nobody_up_and_opens_with_all_its_records_when_it_is_mended() {
    let (_home, config) = home();
    let (damaged, other) = process(&config, async |core| {
        let damaged = core.create(1, "damaged", 1).await;
        core.append(damaged, 0, 10).await;
        core.control.checkpoint(core.soon()).await.unwrap();
        // These are in the journal only.
        core.append(damaged, 0, 5).await;
        (damaged, core.create(2, "other", 1).await)
    });
    let [segment] = &segments(&config)[..] else { panic!("one partition was checkpointed") };
    let whole = std::fs::read(segment).unwrap();
    std::fs::write(segment, &whole[..whole.len() / 2]).unwrap();
    let rounds = 3 * config.journal_settings().unreleased_bytes_max / 100_000;
    for life in 0..2 {
        process(&config, async |core| {
            let why = core.replicas.not_open().get("damaged-0").cloned().expect("it does not open");
            assert!(why.contains("restore the file from a copy"), "{why}");
            for _ in 0..rounds {
                core.append(other, 0, 100).await;
            }
            assert_eq!(core.log_end(other, 0).await, Offset((life + 1) * rounds as i64 * 100));
        });
    }
    process(&config, async |core| {
        std::fs::write(segment, &whole).unwrap();
        assert_eq!(core.log_end(damaged, 0).await, Offset(15));
        assert_eq!(core.append(damaged, 0, 1).await, Offset(15));
        assert!(core.replicas.not_open().is_empty());
        core.control.checkpoint(core.soon()).await.unwrap();
    });
    process(&config, async |core| {
        assert_eq!(core.log_end(damaged, 0).await, Offset(16));
        assert_eq!(std::fs::read_dir(config.data_dir.join(data_dir::RESCUED)).unwrap().count(), 0);
    });
}

#[test]
fn a_partition_that_does_not_open_goes_with_its_topic() {
    let (_home, config) = home();
    let topic = process(&config, async |core| {
        let topic = core.create(1, "damaged", 1).await;
        core.append(topic, 0, 10).await;
        core.control.checkpoint(core.soon()).await.unwrap();
        core.append(topic, 0, 5).await;
        topic
    });
    let [segment] = &segments(&config)[..] else { panic!("one partition was checkpointed") };
    std::fs::write(segment, "").unwrap();
    let rescued = || std::fs::read_dir(config.data_dir.join(data_dir::RESCUED)).unwrap().count();
    process(&config, async |core| {
        assert!(core.replicas.not_open().contains_key("damaged-0"));
        assert_eq!((directories(&config), rescued()), (1, 1));
        assert_eq!(core.series("damaged"), 4);
        core.delete(topic).await;
        let not_open = &core.replicas.not_open;
        not_open.until(&core.backend, core.soon(), |not_open| not_open.is_empty()).await.unwrap();
        assert_eq!((directories(&config), rescued()), (0, 0));
        assert_eq!(core.series("damaged"), 0);
        core.close().await;
    });
    assert_eq!(journaled(&config), BTreeMap::new());
}

#[test]
fn a_start_that_finds_entries_of_a_topic_that_was_deleted_tells_the_journal() {
    let (_home, config) = home();
    let topic = process(&config, async |core| {
        let topic = core.create(1, "orders", 1).await;
        core.append(topic, 0, 5).await;
        topic
    });
    // The process ends before the end of the replica is in its journal.
    let journal = config.data_dir.join("journal");
    let before: Vec<(std::path::PathBuf, Vec<u8>)> = std::fs::read_dir(&journal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    process(&config, async |core| {
        core.delete(topic).await;
        core.close().await;
    });
    std::fs::remove_dir_all(&journal).unwrap();
    std::fs::create_dir(&journal).unwrap();
    for (path, bytes) in before {
        std::fs::write(path, bytes).unwrap();
    }
    assert_eq!(journaled(&config).len(), 1);
    process(&config, async |core| core.close().await);
    assert_eq!(journaled(&config), BTreeMap::new());
}

#[test]
fn segments_of_which_the_journal_knows_nothing_are_not_cut_but_refused() {
    let (_home, config) = home();
    let topic = process(&config, async |core| {
        let topic = core.create(1, "orders", 1).await;
        core.append(topic, 0, 5).await;
        core.close().await;
        topic
    });
    let (journal, away) = (config.data_dir.join("journal"), config.data_dir.join("away"));
    std::fs::rename(&journal, &away).unwrap();
    try_process(&config, async |started| {
        let error = started.err().unwrap();
        assert!(matches!(error, ReplicasStartError::JournalLost { .. }), "{error}");
        assert!(error.to_string().contains("knows nothing of orders-0"), "{error}");
    });
    std::fs::remove_dir_all(&journal).unwrap();
    std::fs::rename(&away, &journal).unwrap();
    process(&config, async |core| assert_eq!(core.log_end(topic, 0).await, Offset(5)));
}

#[test]
fn a_thousand_partitions_begin_in_a_few_journal_groups() {
    let (_home, config) = home();
    process(&config, async |core| {
        let before = core.journal.status().submitted;
        let topic = core.create(1, "wide", 1_000).await;
        for index in 0..1_000 {
            core.led(topic, index).await;
        }
        assert_eq!(core.replicas.open().get().len(), 1_000);
        let entries = core.journal.status().submitted.0 - before.0;
        assert_eq!(entries, 2_000, "each replica's creation and its epoch's start");
        core.append(topic, 500, 1).await;
    });
    process(&config, async |core| assert_eq!(core.replicas.open().get().len(), 1_000));
}

#[test]
fn a_journal_with_records_of_another_kind_stops_the_start() {
    let unreadable = SplitError::Checkpoint { lsn: Lsn(4), what: "its version is 9".into() };
    for error in [unreadable, SplitError::OfRaft { lsn: Lsn(4), kind: EntryKind::RaftEntry }] {
        let error = ReplicasStartError::from(error);
        assert_eq!(error.exit_status(), ExitStatus::DataDirectory);
        assert!(error.to_string().contains("Restore the data directory"), "{error}");
    }
}

#[test]
fn a_node_opens_more_partitions_than_its_journal_has_places() {
    let (_home, mut config) = home();
    config.journal.queue_records = 4;
    process(&config, async |core| {
        let topic = core.create(1, "orders", 40).await;
        for index in 0..40 {
            core.led(topic, index).await;
        }
    });
}

#[test]
fn a_partition_that_is_slow_to_take_its_role_holds_up_no_other_and_takes_a_later_one() {
    let (_home, config) = home();
    let slow = PartitionId { topic: TopicId(Uuid::from_u128(1)), index: 0 };
    on_backend(async |backend| {
        let wrapped = |journal| Altered::over(journal, Alterations::no_room_for(slow));
        let core = start_core_with(backend, config, wrapped).await.unwrap();
        let first = core.create(1, "orders", 2).await;
        core.led(first, 1).await;
        let second = core.create(2, "later", 1).await;
        core.led(second, 0).await;
        let partition = core.partition(first, 0).await;
        assert!(!partition.views().get().leading);
        assert_eq!(core.replicas.not_led(), None, "it was not waited for until it failed");
        let mut roles = Roles::default();
        let image = core.metadata.image();
        let id = ReplicaId { partition: slow, replica: Incarnation(1) };
        let epoch = |more: i32| LeaderEpoch(image.partition(slow).unwrap().leader_epoch.0 + more);
        let leads = Role::Leads(epoch(1), InSync::alone());
        let shortly = Deadline::after(&core.backend, Duration::from_millis(100));
        roles.tell(id, partition.clone(), leads.clone(), None, shortly);
        roles.tell(id, partition.clone(), leads.clone(), None, core.soon());
        let taken = std::future::poll_fn(|cx| roles.poll_taken(cx)).await;
        let told_more: Vec<_> = taken.iter().map(|taken| (taken.result.is_ok(), taken.held)).collect();
        assert_eq!(told_more, [(false, true)], "it is told more when it has begun, or failed to");
        roles.tell(id, partition.clone(), leads, None, core.soon());
        roles.tell(id, partition.clone(), Role::Follows(epoch(2)), None, core.soon());
        let taken = std::future::poll_fn(|cx| roles.poll_taken(cx)).await;
        let roles_taken: Vec<_> =
            taken.iter().map(|taken| (&taken.role, taken.result.is_ok(), taken.held)).collect();
        assert_eq!(roles_taken, [(&Role::Follows(epoch(2)), true, false)]);
        assert!(roles.is_empty());
        partition.views().until(&core.backend, core.soon(), |view| view.following).await.unwrap();
    });
}
