//! The task `fetch session[N]`: answers node N for the partitions that this node leads.
//!
//! It never waits for a disk or an owner alone: while an answer is gathered it goes on taking reports, which acknowledge
//! records. One answer is in memory at a time. A fetch is answered when there is something new, and after
//! [`limits::REPLICATION_WAIT`] with nothing.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;

use futures::StreamExt;
use futures::future::BoxFuture;
use imbl::OrdMap;
use io_backend::published::Watcher;
use io_backend::{Backend, Deadline, Moment, Receiver, WaitKind, within};

use super::context::{Asked, ReplicationContext};
use super::gathering::{Gathered, gather};
use super::progress::{ProgressTable, Reports};
use super::protocol::{Fetch, Message, Refused, SessionId, SyncedUpTo};
use super::session::LeaderSession;
use crate::ids::{BrokerEpoch, BrokerId, PartitionId};
use crate::limits;
use crate::partition::{LogListener, LogState, PartitionHandle};
use crate::peers::PeerIdentity;

pub(super) struct Serving<B: Backend> {
    context: Arc<ReplicationContext<B>>,
    follower: BrokerId,
    name: Arc<str>,
    mailbox: Receiver<B, (PeerIdentity, Asked)>,
    listener: LogListener,
    opened: Watcher<OrdMap<PartitionId, PartitionHandle<B>>>,
    /// As it was looked at last.
    open: Option<Arc<OrdMap<PartitionId, PartitionHandle<B>>>>,
    table: ProgressTable,
    session: Option<Session>,
    /// An answer, while it is gathered.
    gathering: Option<BoxFuture<'static, Gathered>>,
    /// One that was gathered, and waits for a fetch to answer.
    gathered: Option<Gathered>,
    /// What owners have yet to hear, and have no room for at the moment.
    reports: Reports,
}

struct Session {
    of: LeaderSession,
    process: PeerIdentity,
    broker_epoch: BrokerEpoch,
    /// When the fetch that waits is answered with nothing.
    until: Moment,
    /// What was asked for of these, and could not be looked for before they are among the open partitions.
    not_open: BTreeSet<PartitionId>,
}

#[derive(Default)]
struct Woken {
    asked: Vec<(PeerIdentity, Asked)>,
    moved: Vec<(PartitionId, Option<LogState>)>,
    abandoned: bool,
}

impl<B: Backend> Serving<B> {
    pub(super) fn new(
        context: Arc<ReplicationContext<B>>,
        follower: BrokerId,
        table: ProgressTable,
        mailbox: Receiver<B, (PeerIdentity, Asked)>,
    ) -> Serving<B> {
        Serving {
            listener: context.signal.listener(),
            opened: context.open.watcher(),
            open: None,
            name: format!("node {follower}").into(),
            context,
            follower,
            mailbox,
            table,
            session: None,
            gathering: None,
            gathered: None,
            reports: Reports::default(),
        }
    }

    pub(super) async fn run(mut self) {
        self.mailbox.claim();
        loop {
            let woken = self.wait().await;
            if woken.abandoned {
                return;
            }
            for (process, asked) in woken.asked {
                match asked {
                    Asked::Fetch(fetch) => self.handle_fetch(process, &fetch).await,
                    Asked::Synced(said) => self.handle_synced(&process, &said),
                }
            }
            if let Some(session) = &mut self.session {
                for (partition, state) in woken.moved {
                    session.of.handle_moved(partition, state);
                }
            }
            self.answer();
            self.look_at_opened();
            self.pass_reports();
            self.gather();
        }
    }

    async fn wait(&mut self) -> Woken {
        let context = self.context.clone();
        let backend = &context.backend;
        let (deadline, name) = (self.next_deadline(), self.name.clone());
        let mut woken = Woken::default();
        let ready = poll_fn(|cx| {
            let mut ready = self.listener.poll_moved(cx, &mut woken.moved).is_ready();
            let open = self.opened.watch(cx.waker());
            ready |= self.open.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &open));
            self.open = Some(open);
            match self.mailbox.poll_receive_many(cx, &mut woken.asked, limits::REPLICATION_ASKED_MAX) {
                Poll::Ready(Some(_)) => ready = true,
                Poll::Ready(None) => (ready, woken.abandoned) = (true, true),
                Poll::Pending => {}
            }
            if let Some(gathering) = &mut self.gathering
                && let Poll::Ready(gathered) = gathering.as_mut().poll(cx)
            {
                (self.gathering, self.gathered) = (None, Some(gathered));
                ready = true;
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        });
        let wait = backend.registry().waiting(
            backend,
            WaitKind::Receive,
            "fetches of a follower",
            Location::caller(),
        );
        let waiting = wait.on(name).bounded_by(deadline).during(ready);
        let _ = within(backend, deadline, waiting).await;
        woken
    }

    fn next_deadline(&self) -> Deadline {
        let idle = Deadline::Unbounded("a follower asks when it has a leader here");
        let owed = self.session.as_ref().filter(|session| session.of.owes()).map(|session| session.until);
        let deadline = owed.map_or(idle, Deadline::At);
        match self.reports.is_empty() {
            true => deadline,
            false => deadline.earlier(Deadline::after(&self.context.backend, limits::REPLICATION_PAUSE_MIN)),
        }
    }

    async fn handle_fetch(&mut self, process: PeerIdentity, fetch: &Fetch) {
        if !self.context.is_registered(&process, fetch.broker_epoch) {
            self.end_session();
            return self.refuse(fetch.session, Refused::OtherProcess);
        }
        let is_same = |session: &Session| {
            session.of.id() == fetch.session
                && session.process == process
                && session.broker_epoch == fetch.broker_epoch
        };
        if !self.session.as_ref().is_some_and(is_same) {
            self.end_session();
            let Some(of) = LeaderSession::begin(fetch) else {
                return self.refuse(fetch.session, Refused::UnknownSession);
            };
            self.forget_follower(fetch.broker_epoch).await;
            let (until, broker_epoch) = (Moment::ZERO, fetch.broker_epoch);
            self.session = Some(Session { of, process, broker_epoch, until, not_open: BTreeSet::new() });
        }
        let Some(session) = &mut self.session else { return };
        let signal = &self.context.signal;
        if session.of.handle_fetch(fetch, |partition| signal.state(partition)).is_err() {
            self.end_session();
            return self.refuse(fetch.session, Refused::UnknownSession);
        }
        session.until = self.context.backend.now() + limits::REPLICATION_WAIT;
        self.table.takes_records(self.follower, fetch.takes_records);
        for (partition, position) in &fetch.asked {
            self.listener.watch(*partition);
            self.reports.heard(*partition, position.epoch, position.durable);
        }
        for partition in &fetch.forgotten {
            self.listener.unwatch(*partition);
        }
    }

    fn handle_synced(&mut self, process: &PeerIdentity, said: &SyncedUpTo) {
        let Some(session) = &mut self.session else { return };
        if session.of.id() != said.session || session.process != *process {
            return;
        }
        if !self.context.is_registered(process, session.broker_epoch) {
            return self.end_session();
        }
        if session.of.handle_synced(said).is_err() {
            let id = session.of.id();
            self.end_session();
            return self.refuse(id, Refused::UnknownSession);
        }
        self.table.takes_records(self.follower, said.takes_records);
        for (partition, epoch, durable) in &said.reports {
            self.reports.heard(*partition, *epoch, *durable);
        }
    }

    /// Looks once more for what is asked for of partitions that were not open.
    fn look_at_opened(&mut self) {
        let Some(session) = self.session.as_mut().filter(|session| !session.not_open.is_empty()) else {
            return;
        };
        let open = self.context.open.get();
        for partition in session.not_open.extract_if(.., |partition| open.contains_key(partition)) {
            session.of.handle_moved(partition, self.context.signal.state(partition));
        }
    }

    /// Tells the owners; who has no room is told a moment later.
    fn pass_reports(&mut self) {
        if self.reports.is_empty() {
            return;
        }
        let open = self.context.open.get();
        let (table, follower) = (&self.table, self.follower);
        self.reports.pass(|partition, epoch, durable| {
            table.reported(follower, partition, epoch, durable);
            open.get(&partition).is_none_or(|handle| handle.try_reported(epoch, follower, durable))
        });
    }

    /// What is known of the follower is of a process, or of a session, that is over.
    async fn forget_follower(&mut self, broker_epoch: BrokerEpoch) {
        let (open, soon) = (self.context.open.get(), self.context.soon());
        let known = self.table.begin(self.follower, broker_epoch);
        let follower = self.follower;
        futures::stream::iter(known)
            .map(|(partition, epoch)| {
                let handle = open.get(&partition).cloned();
                async move {
                    if let Some(handle) = handle {
                        handle.forget_follower(epoch, follower, soon).await;
                    }
                }
            })
            .buffer_unordered(limits::REPLICATION_PLANNED_AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }

    fn end_session(&mut self) {
        self.session = None;
        self.listener = self.context.signal.listener();
        self.reports = Reports::default();
        (self.gathering, self.gathered) = (None, None);
    }

    fn refuse(&self, session: SessionId, why: Refused) {
        self.context.send(self.follower, &Message::Refused(session, why));
    }

    fn gather(&mut self) {
        let Some(session) = &mut self.session else { return };
        if self.gathering.is_some() || self.gathered.is_some() || !session.of.has_due() {
            return;
        }
        let due = session.of.take_due();
        let (context, follower) = (self.context.clone(), self.follower);
        self.gathering = Some(Box::pin(async move { gather(&context, follower, due).await }));
    }

    fn answer(&mut self) {
        let Some(session) = &mut self.session else { return };
        if let Some(gathered) = &mut self.gathered {
            for (partition, asked) in gathered.compared.drain(..) {
                let position = &asked.position;
                self.table.fetched(self.follower, partition, position.epoch, position.offset);
                // Its owner leads in that epoch, and may not have when it was told: what does not change is not said again.
                if let Some(durable) = self.table.reported_in(self.follower, partition, position.epoch) {
                    self.reports.again(partition, position.epoch, durable);
                }
                session.of.handle_compared(partition, &asked);
            }
            for partition in gathered.left.drain(..) {
                session.of.handle_left(partition);
            }
            session.not_open.extend(gathered.not_open.drain(..));
            gathered.answers.retain(|(partition, position, _)| session.of.is_asked(*partition, position));
            if gathered.answers.is_empty() {
                self.gathered = None;
            }
        }
        if !session.of.owes() {
            return;
        }
        let (answers, last) = match self.gathered.take() {
            Some(gathered) => (gathered.answers, gathered.last),
            None if session.until <= self.context.backend.now() => (Vec::new(), None),
            None => return,
        };
        let answers = answers
            .into_iter()
            .map(|(partition, position, outcome)| (partition, position.epoch, outcome))
            .collect();
        let answer = session.of.answer(answers, last);
        self.context.metrics.replication_fetches_answered.inc();
        self.context.send(self.follower, &Message::Answer(answer));
    }
}
