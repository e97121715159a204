use std::sync::Mutex;

use io_backend::real::{DiskChoice, RealBackend};
use io_backend::{Clock, channel};
use prometheus_client::metrics::gauge::Gauge;

use super::*;
use crate::budget::Account;
use crate::journal::{EntryKind, Journal, SubmitError};
use crate::raft::memory_journal::MemoryJournal;
use crate::raft::{Place, Proposal, Proposer};

type Published = Arc<Mutex<Vec<(Vec<String>, Option<u64>)>>>;

/// Remembers each entry's text; answers with how many there are.
#[derive(Default)]
struct Words {
    words: Vec<String>,
    published: Published,
}

impl StateMachine for Words {
    type Answer = usize;

    fn apply(&mut self, _: Place, data: &[u8]) -> Result<Option<usize>, String> {
        let word = String::from_utf8(data.to_vec()).map_err(|error| error.to_string())?;
        if word.is_empty() {
            return Ok(None);
        }
        self.words.push(word);
        Ok(Some(self.words.len()))
    }

    fn publish(&mut self, group: GroupView<'_>) {
        self.published.lock().unwrap().push((self.words.clone(), group.leader));
    }

    fn snapshot(&self) -> Vec<u8> {
        self.words.join(" ").into_bytes()
    }

    fn restore(&mut self, data: &[u8]) -> Result<(), String> {
        self.words = String::from_utf8_lossy(data).split(' ').map(str::to_owned).collect();
        Ok(())
    }
}

struct Group {
    backend: RealBackend,
    journal: Arc<MemoryJournal>,
    driver: Driver<RealBackend, Words>,
    mailbox: io_backend::Sender<RealBackend, RaftInput<usize>>,
    published: Published,
}

fn with_backend<T>(test: impl AsyncFnOnce(RealBackend) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (backend, _) = RealBackend::start(DiskChoice::Threads, scratch.path()).unwrap();
        test(backend).await
    })
}

fn open(backend: &RealBackend, journal: Arc<MemoryJournal>) -> Result<Group, RaftStartError> {
    let (mailbox, receiver) = channel(backend, "raft", limits::PROPOSALS_MAX);
    let published = Published::default();
    let driver = Driver::open(RaftContext {
        backend: backend.clone(),
        id: 1,
        begin: Begin::Alone,
        machine: Words { words: Vec::new(), published: published.clone() },
        recovered: journal.entries(),
        journal: journal.clone(),
        mailbox: receiver,
        peers: None,
        transport: Box::new(crate::raft::Nobody),
        metrics: Arc::default(),
        snapshot_piece_bytes: 16,
        snapshot_every_entries: 5,
        proposals_in_flight_max: limits::PROPOSALS_MAX,
        submission_max: SubmissionMax { entries: 1_000, bytes: 1 << 20 },
    })?;
    Ok(Group { backend: backend.clone(), journal, driver, mailbox, published })
}

async fn elected(backend: &RealBackend, journal: Arc<MemoryJournal>) -> Group {
    let mut group = open(backend, journal).unwrap();
    group.driver.elect(soon(backend)).await.unwrap();
    group
}

fn soon(backend: &RealBackend) -> Deadline {
    Deadline::after(backend, Duration::from_secs(30))
}

fn asked(asked: Vec<RaftInput<usize>>) -> Event<usize> {
    Event::Inputs { of_the_group: Vec::new(), asked }
}

type Answer = io_backend::Reply<RealBackend, Result<usize, Refusal>>;

impl Group {
    fn proposal(&self, word: &str, until: Option<Moment>) -> (RaftInput<usize>, Answer) {
        let (replier, reply) = self.mailbox.reply("decision");
        let share = Account::new(0, Gauge::default()).take_anyway(0);
        (
            RaftInput::Propose(Proposal {
                data: word.into(),
                until,
                proposer: Proposer::ForOutcome(replier),
                share,
            }),
            reply,
        )
    }

    /// Gives the driver these words at once.
    fn propose(&mut self, words: &[&str]) -> Vec<Answer> {
        let (inputs, replies) = words.iter().map(|word| self.proposal(word, None)).unzip();
        self.driver.handle(asked(inputs));
        replies
    }

    fn words(&self) -> Vec<String> {
        self.driver.machine.words.clone()
    }

    async fn answers(&self, replies: Vec<Answer>) -> Vec<Result<usize, Refusal>> {
        let mut answers = Vec::new();
        for reply in replies {
            answers.push(reply.wait(soon(&self.backend)).await.unwrap());
        }
        answers
    }
}

#[test]
fn a_sole_voter_leads_at_once_and_then_asks_for_no_wake_up() {
    with_backend(async |backend| {
        let group = elected(&backend, MemoryJournal::new()).await;
        assert_eq!(group.published.lock().unwrap().last().unwrap().1, Some(1));
        assert_eq!((group.driver.tick_at, group.driver.retry_at), (None, None));
    });
}

#[test]
fn proposals_that_wait_share_one_submission() {
    with_backend(async |backend| {
        let mut group = elected(&backend, MemoryJournal::new()).await;
        group.journal.by_hand();
        let replies = group.propose(&["a", "b", "c"]);
        group.driver.step().unwrap();
        assert_eq!(group.journal.pending(), 1);
        assert!(group.words().is_empty(), "nothing is applied before it is durable");
        group.journal.sync();
        group.driver.step().unwrap();
        assert_eq!(group.answers(replies).await, [Ok(1), Ok(2), Ok(3)]);
        assert_eq!(group.journal.pending(), 0, "a commit index alone is not written");
    });
}

#[test]
fn the_next_proposals_need_not_wait_for_the_sync_of_the_last() {
    with_backend(async |backend| {
        let mut group = elected(&backend, MemoryJournal::new()).await;
        group.journal.by_hand();
        let first = group.propose(&["a"]);
        group.driver.step().unwrap();
        let second = group.propose(&["b"]);
        group.driver.step().unwrap();
        assert_eq!(group.journal.pending(), 2);
        group.journal.sync();
        group.driver.step().unwrap();
        assert_eq!(group.answers(first).await, [Ok(1)]);
        assert_eq!(group.answers(second).await, [Ok(2)]);
    });
}

#[test]
fn a_restart_finds_what_was_decided_in_order_and_nothing_that_was_not_durable() {
    with_backend(async |backend| {
        let mut group = elected(&backend, MemoryJournal::new()).await;
        for word in ["a", "b", "c"] {
            let replies = group.propose(&[word]);
            group.driver.step().unwrap();
            group.answers(replies).await;
        }
        group.journal.by_hand();
        group.propose(&["never synced"]);
        group.driver.step().unwrap();
        let again = elected(&backend, group.journal.reopened()).await;
        assert_eq!(again.words(), ["a", "b", "c"]);
        let third = elected(&backend, again.journal.reopened()).await;
        assert_eq!(third.words(), ["a", "b", "c"], "an election adds nothing");
    });
}

#[test]
fn a_snapshot_lets_the_journal_go_and_carries_everything_over_restarts() {
    with_backend(async |backend| {
        let mut group = elected(&backend, MemoryJournal::new()).await;
        let mut expected = Vec::new();
        let mut releases = 0;
        for round in 0..4 {
            for number in 0..17 {
                let word = format!("word-{round}-{number}");
                let replies = group.propose(&[&word]);
                group.driver.step().unwrap();
                group.answers(replies).await;
                expected.push(word);
            }
            releases += u32::from(group.journal.released() > Lsn(0));
            let kept = group.journal.survivors();
            assert!(Store::recover(kept.clone()).unwrap().unwrap().has_group(), "it knows its members");
            assert!(kept.iter().any(|entry| entry.entry.kind == EntryKind::RaftHardState));
            group = elected(&backend, group.journal.reopened()).await;
            assert_eq!(group.words(), expected);
        }
        assert!(releases >= 2, "only the cost of a large image delays a snapshot");
    });
}

#[test]
fn what_a_snapshot_does_not_hold_is_not_released_with_it() {
    with_backend(async |backend| {
        let mut group = elected(&backend, MemoryJournal::new()).await;
        group.propose(&["a", "b", "c", "d"]);
        group.driver.step().unwrap();
        group.journal.by_hand();
        // In line before the snapshot is taken, and durable with it.
        group.propose(&["e"]);
        group.driver.step().unwrap();
        group.propose(&["f"]);
        group.driver.step().unwrap();
        while group.journal.pending() > 0 {
            group.journal.sync();
            group.driver.step().unwrap();
        }
        assert!(group.journal.released() > Lsn(0));
        let again = elected(&backend, group.journal.reopened()).await;
        assert_eq!(again.words(), ["a", "b", "c", "d", "e", "f"]);
    });
}

#[test]
fn a_journal_that_takes_nothing_for_a_while_delays_and_loses_nothing() {
    for refusal in
        [SubmitError::Full, SubmitError::Stalled, SubmitError::DiskFull, SubmitError::ShareExhausted]
    {
        with_backend(async |backend| {
            let mut group = elected(&backend, MemoryJournal::new()).await;
            group.journal.refuse(Some(refusal));
            let replies = group.propose(&["a", "b"]);
            group.driver.step().unwrap();
            assert!(group.driver.retry_at.is_some(), "{refusal}");
            group.journal.refuse(None);
            let event = group.driver.next_event(soon(&backend)).await.unwrap();
            assert!(matches!(event, Event::Timer));
            group.driver.handle(event);
            group.driver.step().unwrap();
            assert_eq!(group.answers(replies).await, [Ok(1), Ok(2)]);
            assert_eq!(group.driver.retry_at, None);
        });
    }
}

#[test]
fn a_journal_that_a_stop_has_closed_ends_the_group_and_not_the_process() {
    with_backend(async |backend| {
        let mut group = elected(&backend, MemoryJournal::new()).await;
        group.journal.refuse(Some(SubmitError::Closed));
        let replies = group.propose(&["a"]);
        assert!(matches!(group.driver.step(), Err(RaftError::Closed)));
        // A process that ended here would take this test with it.
        group.driver.run().await;
        drop(replies);
    });
}

#[test]
fn a_failed_sync_ends_the_group_and_answers_nobody_with_success() {
    with_backend(async |backend| {
        let mut group = elected(&backend, MemoryJournal::new()).await;
        group.journal.by_hand();
        let mut replies = group.propose(&["a"]);
        group.driver.step().unwrap();
        group.journal.fail();
        assert!(matches!(group.driver.step(), Err(RaftError::Journal(_))));
        drop(group.driver);
        let reply = replies.remove(0).wait(soon(&backend)).await;
        assert_eq!(reply, Err(io_backend::channel::ReplyError::Dropped));
    });
}

#[test]
fn an_entry_that_cannot_be_applied_is_an_error_and_no_panic() {
    with_backend(async |backend| {
        let mut group = elected(&backend, MemoryJournal::new()).await;
        let (replier, _reply) = group.mailbox.reply("decision");
        let share = Account::new(0, Gauge::default()).take_anyway(0);
        let proposal =
            Proposal { data: vec![0xff, 0xfe], until: None, proposer: Proposer::ForOutcome(replier), share };
        group.driver.handle(asked(vec![RaftInput::Propose(proposal)]));
        let error = group.driver.step().unwrap_err();
        assert!(error.to_string().contains("entry 2 of the metadata log"), "{error}");
    });
}

#[test]
fn a_proposal_whose_proposer_gave_up_is_not_made() {
    with_backend(async |backend| {
        let mut group = elected(&backend, MemoryJournal::new()).await;
        let (input, _reply) = group.proposal("late", Some(Moment::ZERO));
        group.driver.handle(asked(vec![input]));
        group.driver.step().unwrap();
        assert!(group.words().is_empty());
    });
}

#[test]
fn closing_decides_what_is_in_flight_and_refuses_the_rest() {
    with_backend(async |backend| {
        let mut group = elected(&backend, MemoryJournal::new()).await;
        group.journal.by_hand();
        let in_flight = group.propose(&["a"]);
        group.driver.step().unwrap();
        let (replier, closed) = group.mailbox.reply("end");
        group.driver.handle(asked(vec![RaftInput::Close(replier)]));
        let refused = group.propose(&["b"]);
        assert!(!group.driver.closed());
        assert_eq!(group.answers(refused).await, [Err(Refusal::Closed)]);
        group.journal.sync();
        group.driver.step().unwrap();
        assert_eq!(group.answers(in_flight).await, [Ok(1)]);
        assert!(group.driver.closed());
        closed.wait(soon(&backend)).await.unwrap();
    });
}

#[test]
fn a_disk_that_does_not_answer_ends_the_start_at_its_deadline() {
    with_backend(async |backend| {
        let journal = MemoryJournal::new();
        journal.by_hand();
        let mut group = open(&backend, journal).unwrap();
        let error =
            group.driver.elect(Deadline::after(&backend, Duration::from_millis(20))).await.unwrap_err();
        assert!(matches!(error, RaftStartError::TimedOut), "{error}");
    });
}

#[test]
fn the_owner_task_serves_its_mailbox_until_all_doors_are_gone() {
    with_backend(async |backend| {
        let group = elected(&backend, MemoryJournal::new()).await;
        let (input, reply) = group.proposal("a", None);
        let task = backend.spawn("raft", group.driver.run());
        assert!(group.mailbox.try_send(input).is_ok());
        assert_eq!(reply.wait(soon(&backend)).await, Ok(Ok(1)));
        assert_eq!(group.journal.status().durable, group.journal.status().submitted);
        drop(group.mailbox);
        while !task.is_finished() {
            backend.sleep(Duration::from_millis(1)).await;
        }
    });
}
