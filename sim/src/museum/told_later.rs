//! A journal that says what is durable later than it could: what exhibits did between a sync and its news.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use broker::ids::Lsn;
use broker::parts::OpenJournal;
use io_backend::progress::Progress;
use io_backend::{Backend, Deadline, Receiver, Sender, TaskName, channel};

use crate::planted::submission;
use crate::world::SimBackend;

/// The old code waited for whatever it waited for.
pub(super) const NO_DEADLINE: Deadline = Deadline::Unbounded("the old code had no time-outs");
/// More than there are on the way at any time.
const SUBMISSIONS: usize = 1 << 16;

/// One submission, on its way to who waits for it.
pub(super) struct Submitted {
    pub(super) bytes: usize,
    last: Lsn,
    progress: Arc<Progress>,
}

impl Submitted {
    /// Who waits for it may go on.
    pub(super) fn tell(self) {
        self.progress.reach(self.last.0);
    }
}

/// What is submitted, in groups as they become durable.
pub(super) struct Synced {
    synced: Arc<Progress>,
    submitted: Receiver<SimBackend, Submitted>,
    waiting: VecDeque<Submitted>,
}

impl Synced {
    /// What became durable together, or nothing when the journal is gone.
    pub(super) async fn next_group(&mut self) -> Option<Vec<Submitted>> {
        if self.waiting.is_empty() {
            self.waiting.push_back(self.submitted.receive(NO_DEADLINE).await.ok()?);
        }
        let first = self.waiting.front()?.last.0;
        poll_fn(|cx| {
            self.synced.register(cx);
            if self.synced.reached() >= first { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let mut more = Vec::new();
        self.submitted.try_receive_many(&mut more, SUBMISSIONS);
        self.waiting.extend(more);
        let reached = self.synced.reached();
        let durable = self.waiting.iter().take_while(|submitted| submitted.last.0 <= reached).count();
        Some(self.waiting.drain(..durable).collect())
    }
}

/// Has `work` tell what becomes durable in this journal, in a task of this name.
pub(super) fn by<W>(
    opens: &mut OpenJournal<SimBackend>,
    name: &'static str,
    work: impl FnOnce(SimBackend, Synced) -> W + Send + 'static,
) where
    W: Future<Output = ()> + Send + 'static,
{
    submission::over(opens, move |backend| {
        let synced = Arc::new(Progress::at(0));
        let (sender, submitted): (Sender<SimBackend, Submitted>, _) =
            channel(backend, format!("{name} submissions"), SUBMISSIONS);
        let groups = Synced { synced: synced.clone(), submitted, waiting: VecDeque::new() };
        let _detached = backend.spawn(TaskName::from(name), work(backend.clone(), groups));
        Box::new(move |under, entries, progress| {
            let bytes = entries.iter().map(|entry| entry.payload.len()).sum();
            let last = under.submit(entries, &synced)?;
            let _ = sender.try_send(Submitted { bytes, last, progress: progress.clone() });
            Ok(last)
        })
    });
}
