use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use io_backend::real::{DiskChoice, RealBackend};
use io_backend::{Clock, Deadline};
use uuid::Uuid;

use super::*;
use crate::ids::{BrokerId, Incarnation, IncarnationId, LeaderEpoch, StorageId, TopicId};
use crate::journal::{EntryKind, OpenedJournal};
use crate::metadata::{
    BrokerRegistration, CLIENT_LISTENER, Endpoint, MetadataCommand, NewTopic, Outcome, ProposeError,
    TopicError,
};
use crate::raft::memory_journal::MemoryJournal;

struct Process {
    backend: RealBackend,
    started: StartedMetadata<RealBackend>,
    journal: Arc<MemoryJournal>,
}

/// Runs `test` in a process with an empty data directory.
fn process<T>(test: impl AsyncFnOnce(RealBackend, Config) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (backend, _) = RealBackend::start(DiskChoice::Threads, home.path()).unwrap();
        let config = Config { data_dir: home.path().to_owned(), ..Config::default() };
        test(backend, config).await
    })
}

async fn try_start(
    backend: &RealBackend,
    config: &Config,
    journal: Arc<MemoryJournal>,
    incarnation: u64,
) -> Result<Process, MetadataStartError> {
    let opened = OpenedJournal { journal: journal.clone(), entries: journal.entries(), torn_tail: None };
    let identity = Identity {
        storage: StorageId(Uuid::from_u128(1)),
        node: BrokerId(0),
        cluster_id: "cluster".into(),
        incarnation: Incarnation(incarnation),
        incarnation_id: IncarnationId(Uuid::from_u128(incarnation.into())),
    };
    let context = MetadataContext {
        backend: backend.clone(),
        config: Arc::new(config.clone()),
        metrics: Arc::default(),
        identity,
        open_journal: Box::new(|_| Box::pin(async { Ok(opened) })),
    };
    let started = open(context, soon(backend)).await?.start(None, soon(backend)).await?;
    Ok(Process { backend: backend.clone(), started, journal })
}

async fn started(
    backend: &RealBackend,
    config: &Config,
    journal: Arc<MemoryJournal>,
    incarnation: u64,
) -> Process {
    let process = try_start(backend, config, journal, incarnation).await.unwrap();
    let known = process.started.metadata.image();
    let registration = BrokerRegistration {
        id: BrokerId(0),
        incarnation: Incarnation(incarnation),
        incarnation_id: Some(IncarnationId(Uuid::from_u128(incarnation.into()))),
        previous_epoch: known.brokers.get(&BrokerId(0)).map(|known| known.epoch),
        storage: StorageId(Uuid::from_u128(1)),
        listeners: vec![Endpoint { name: CLIENT_LISTENER.into(), host: "localhost".into(), port: 9092 }],
        rack: None,
        reads: crate::formats::METADATA,
    };
    let registered = process.propose(MetadataCommand::RegisterBroker(registration)).await;
    assert!(matches!(registered, Ok(Outcome::Registered(Ok(_)))), "{registered:?}");
    process
}

fn soon(backend: &RealBackend) -> Deadline {
    Deadline::after(backend, Duration::from_secs(30))
}

fn create(id: u128, name: &str, partitions: usize) -> MetadataCommand {
    let topic = NewTopic {
        id: TopicId(Uuid::from_u128(id)),
        name: name.into(),
        assignments: vec![vec![BrokerId(0)]; partitions],
        configs: BTreeMap::new(),
    };
    MetadataCommand::CreateTopics { topics: vec![topic], validate_only: false }
}

impl Process {
    async fn propose(&self, command: MetadataCommand) -> Result<Outcome, ProposeError> {
        self.started.metadata.propose(command, soon(&self.backend)).await
    }
}

#[test]
fn a_topic_is_in_the_image_when_its_creation_is_answered_and_still_after_a_restart() {
    process(async |backend, config| {
        let first = started(&backend, &config, MemoryJournal::new(), 1).await;
        let image = first.started.metadata.image();
        assert_eq!((image.controller, image.cluster_id.as_str()), (Some(BrokerId(0)), "cluster"));
        let outcome = first.propose(create(1, "orders", 3)).await.unwrap();
        assert!(matches!(outcome, Outcome::Topics(results) if results[0].is_ok()));
        let before = first.started.metadata.image();
        assert_eq!(before.topics["orders"].partitions.len(), 3);
        let again = first.propose(create(2, "orders", 1)).await.unwrap();
        let exists = TopicError::AlreadyExists("orders".into());
        assert_eq!(again, Outcome::Topics(vec![Err(exists)]));

        let second = started(&backend, &config, first.journal.reopened(), 2).await;
        let after = second.started.metadata.image();
        let (old, new) = (&before.topics["orders"], &after.topics["orders"]);
        assert_eq!((new.id, new.created_at), (old.id, old.created_at));
        for partition in &new.partitions {
            assert_eq!(
                (partition.leader_epoch, partition.leader_broker_epoch),
                (LeaderEpoch(1), after.brokers[&BrokerId(0)].epoch)
            );
        }
    });
}

#[test]
fn a_log_tells_of_its_last_registration_though_it_does_not_know_yet_that_it_was_committed() {
    process(async |backend, config| {
        let first = started(&backend, &config, MemoryJournal::new(), 1).await;
        assert_eq!(first.started.registered, None, "there was none when it started");
        let granted = first.started.metadata.image().brokers[&BrokerId(0)].epoch;
        // What a kill leaves: the entry is synced, and how far the group has committed is written later.
        let log: Vec<_> = first.journal.entries();
        let log: Vec<_> =
            log.into_iter().filter(|recovered| recovered.entry.kind == EntryKind::RaftEntry).collect();
        let identity = |storage| Identity {
            storage: StorageId(Uuid::from_u128(storage)),
            node: BrokerId(0),
            cluster_id: "cluster".into(),
            incarnation: Incarnation(2),
            incarnation_id: IncarnationId(Uuid::from_u128(2)),
        };
        assert_eq!(registered(&log, &identity(1)), Some(granted));
        assert_eq!(registered(&log, &identity(7)), None, "of another directory");
        let second = try_start(&backend, &config, first.journal.reopened(), 2).await.unwrap();
        assert_eq!(second.started.registered, Some(granted));
    });
}

#[test]
fn many_proposals_at_once_are_all_decided_and_share_submissions() {
    process(async |backend, config| {
        let process = started(&backend, &config, MemoryJournal::new(), 1).await;
        process.journal.by_hand();
        let entries = |process: &Process| {
            let entries = process.journal.entries();
            entries.iter().filter(|entry| entry.entry.kind == EntryKind::RaftEntry).count()
        };
        let before = entries(&process);
        let mut replies = Vec::new();
        for n in 0..200 {
            let metadata = process.started.metadata.clone();
            let deadline = soon(&backend);
            let (replier, reply) = process.started.metadata.mailbox.reply("test");
            backend.spawn("proposer", async move {
                replier.answer(metadata.propose(create(n, &format!("t{n}"), 1), deadline).await);
            });
            replies.push(reply);
        }
        let mut submissions = 0;
        while process.started.metadata.image().topics.len() < 200 {
            submissions += process.journal.pending();
            process.journal.sync();
            backend.sleep(Duration::from_millis(1)).await;
        }
        for reply in replies {
            assert!(reply.wait(soon(&backend)).await.unwrap().is_ok());
        }
        assert_eq!(entries(&process) - before, 200);
        assert!(submissions < 50, "{submissions} submissions for 200 proposals");
    });
}

#[test]
fn what_is_not_decided_in_time_is_unknown_and_may_still_come() {
    process(async |backend, config| {
        let process = started(&backend, &config, MemoryJournal::new(), 1).await;
        process.journal.by_hand();
        let soon = Deadline::after(&backend, Duration::from_millis(20));
        let result = process.started.metadata.propose(create(1, "late", 1), soon).await;
        assert_eq!(result, Err(ProposeError::TimedOut));
        assert!(!process.started.metadata.image().topics.contains_key("late"));
        process.journal.sync();
        let images = process.started.metadata.images();
        images
            .until(&backend, super::tests::soon(&backend), |image| image.topics.contains_key("late"))
            .await
            .unwrap();
    });
}

#[test]
fn a_proposal_larger_than_the_journal_takes_is_refused_with_the_limit() {
    process(async |backend, mut config| {
        config.journal.file_bytes = 64 * 1024;
        let process = started(&backend, &config, MemoryJournal::new(), 1).await;
        let result = process.propose(create(1, "wide", limits::TOPIC_PARTITIONS_MAX)).await;
        let Err(ProposeError::TooLarge { bytes, limit }) = result else { panic!("{result:?}") };
        assert!(bytes > limit && limit == 16 * 1024);
    });
}

#[test]
fn a_closed_group_says_so() {
    process(async |backend, config| {
        let process = started(&backend, &config, MemoryJournal::new(), 1).await;
        process.started.metadata.close(soon(&backend)).await;
        let result = process.propose(create(1, "t", 1)).await;
        assert!(matches!(result, Err(ProposeError::Closed(_))), "{result:?}");
    });
}

#[test]
fn partitions_without_metadata_are_not_taken_for_an_empty_node() {
    process(async |backend, config| {
        let partitions = config.data_dir.join(data_dir::PARTITIONS);
        std::fs::create_dir(&partitions).unwrap();
        assert!(try_start(&backend, &config, MemoryJournal::new(), 1).await.is_ok());
        std::fs::create_dir(partitions.join("something")).unwrap();
        let error = try_start(&backend, &config, MemoryJournal::new(), 1).await.err().unwrap();
        assert_eq!(error.exit_status(), ExitStatus::DataDirectory);
        assert!(error.to_string().contains("the metadata that says what they are is gone"), "{error}");
    });
}

#[test]
fn metadata_that_this_binary_cannot_read_stops_the_start_with_a_reason() {
    process(async |backend, config| {
        let journal = MemoryJournal::new();
        drop(started(&backend, &config, journal.clone(), 1).await);
        let mut entries = journal.entries();
        let entry = entries.last_mut().unwrap();
        // The version byte of the registration, which stands before its JSON.
        let mut payload = entry.entry.payload.to_vec();
        let at = payload.iter().position(|byte| *byte == b'{').unwrap() - 1;
        payload[at] = 9;
        entry.entry.payload = payload.into();
        let error = try_start(&backend, &config, MemoryJournal::of(entries), 2).await.err().unwrap();
        assert!(error.to_string().contains("start a newer chronik"), "{error}");
        assert_eq!(error.exit_status(), ExitStatus::DataDirectory);
    });
}
