//! What waits to be sent to a peer: bounded in number and in bytes, and never waited for by who sends.
//!
//! Kinds of messages that do not wait for one another stand in lines of their own, and the line of the most urgent goes
//! first: what is large and not urgent never holds up a heartbeat. What does not fit its line pushes out the oldest there,
//! which is what matters least of what will be said again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::frame::{MESSAGE_HEAD_BYTES, MessageKind};
use super::roster::Nudge;
use crate::limits::{PEER_FRAME_MESSAGES_MAX, WRITE_BUFFER_BYTES};

/// One peer's; shared by who sends and by the link's task.
pub struct Outbox {
    messages_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The most urgent first.
    lines: [Line; LINES],
    nudge: Option<Nudge>,
    link: Option<Waker>,
}

#[derive(Default)]
struct Line {
    queue: VecDeque<(MessageKind, Bytes)>,
    /// Of the messages in it, with their lengths.
    bytes: usize,
}

const LINES: usize = 4;
/// The line's part of what the outbox holds is 1 / this: half is for what followers fetch.
const PART: [usize; LINES] = [4, 8, 2, 8];

/// In which line a message waits.
fn line_of(kind: MessageKind) -> usize {
    match kind {
        MessageKind::Raft => 0,
        MessageKind::Ask | MessageKind::Answer => 1,
        MessageKind::Replication => 2,
        MessageKind::Produce => 3,
    }
}

/// What the link has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    /// Send these, in one frame.
    Messages(MessageKind, Vec<Bytes>),
    /// See to the connection itself.
    Nudge(Nudge),
}

fn size(message: &Bytes) -> usize {
    MESSAGE_HEAD_BYTES + message.len()
}

impl Outbox {
    /// At most so many messages, and so many bytes, of which each line has its share; one message of each may be larger.
    pub fn new(messages_max: usize, bytes_max: usize) -> Outbox {
        Outbox { messages_max, bytes_max, state: Mutex::default() }
    }

    /// Queues a message; those that it pushes out are lost, and returned.
    pub fn push(&self, kind: MessageKind, message: Bytes) -> Vec<(MessageKind, Bytes)> {
        let mut lost = Vec::new();
        let mut state = self.state();
        let nth = line_of(kind);
        let room = (self.bytes_max / PART[nth]).saturating_sub(size(&message));
        let line = &mut state.lines[nth];
        while (line.bytes > room || line.queue.len() >= self.messages_max / PART[nth])
            && let Some((kind, oldest)) = line.queue.pop_front()
        {
            line.bytes -= size(&oldest);
            lost.push((kind, oldest));
        }
        line.bytes += size(&message);
        line.queue.push_back((kind, message));
        let link = state.link.take();
        drop(state);
        if let Some(link) = link {
            link.wake();
        }
        lost
    }

    /// Something was learned of the link's connection. The graver of two counts.
    pub fn nudge(&self, nudge: Nudge) {
        let mut state = self.state();
        if state.nudge != Some(Nudge::Reconnect) {
            state.nudge = Some(nudge);
        }
        let link = state.link.take();
        drop(state);
        if let Some(link) = link {
            link.wake();
        }
    }

    /// What was learned of a connection before is of no matter to a new one.
    pub fn forget_nudge(&self) {
        self.state().nudge = None;
    }

    /// What is to be done next: messages of one kind from the front, as many as are written at once.
    pub fn poll_task(&self, cx: &Context<'_>) -> Poll<Task> {
        let mut state = self.state();
        if let Some(nudge) = state.nudge.take() {
            return Poll::Ready(Task::Nudge(nudge));
        }
        let Some(line) = state.lines.iter_mut().find(|line| !line.queue.is_empty()) else {
            match &mut state.link {
                Some(old) => old.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let kind = line.queue.front().map_or(MessageKind::Raft, |(kind, _)| *kind);
        while let Some((next, message)) = line.queue.front()
            && *next == kind
            && taken.len() < PEER_FRAME_MESSAGES_MAX
            && (taken.is_empty() || bytes + size(message) <= WRITE_BUFFER_BYTES)
            && let Some((_, message)) = line.queue.pop_front()
        {
            bytes += size(&message);
            taken.push(message);
        }
        line.bytes -= bytes;
        Poll::Ready(Task::Messages(kind, taken))
    }

    /// Messages and bytes that wait.
    pub fn len(&self) -> (usize, usize) {
        let state = self.state();
        state
            .lines
            .iter()
            .fold((0, 0), |(messages, bytes), line| (messages + line.queue.len(), bytes + line.bytes))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(outbox: &Outbox, message: &[u8]) -> usize {
        outbox.push(MessageKind::Raft, Bytes::copy_from_slice(message)).len()
    }

    fn task(outbox: &Outbox) -> Option<Task> {
        match outbox.poll_task(&Context::from_waker(Waker::noop())) {
            Poll::Ready(task) => Some(task),
            Poll::Pending => None,
        }
    }

    fn messages(outbox: &Outbox) -> Vec<Bytes> {
        match task(outbox) {
            Some(Task::Messages(MessageKind::Raft, messages)) => messages,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_oldest_makes_way_by_number_and_by_bytes() {
        let outbox = Outbox::new(3 * PART[0], 100 * PART[0]);
        assert_eq!([b"a", b"b", b"c"].map(|message| push(&outbox, message)), [0, 0, 0]);
        assert_eq!(push(&outbox, b"d"), 1, "by number");
        assert_eq!(outbox.len(), (3, 15));
        assert_eq!(push(&outbox, &[7; 90]), 2, "by bytes");
        assert_eq!(outbox.len(), (2, 99));
        assert_eq!(push(&outbox, &[8; 500]), 2, "one that is larger than all stands alone");
        assert_eq!(outbox.len(), (1, 504));
        assert_eq!(push(&outbox, b"e"), 1);
        assert_eq!(messages(&outbox), [&b"e"[..]]);
        assert_eq!((task(&outbox), outbox.len()), (None, (0, 0)));
    }

    #[test]
    fn what_fits_one_write_goes_in_one_frame_and_in_order() {
        let outbox = Outbox::new(20_000, 1 << 30);
        for number in 0..3_000_u32 {
            assert_eq!(push(&outbox, &number.to_be_bytes()), 0);
        }
        let mut seen = Vec::new();
        for expected in [1_024, 1_024, 952] {
            let batch = messages(&outbox);
            assert_eq!(batch.len(), expected);
            seen.extend(batch.iter().map(|message| u32::from_be_bytes(message[..].try_into().unwrap())));
        }
        assert!(seen.into_iter().eq(0..3_000));
        push(&outbox, &[0; 40_000]);
        push(&outbox, &[0; 40_000]);
        assert_eq!(messages(&outbox).len(), 1, "two do not fit one write");
        push(&outbox, &[0; 1 << 20]);
        assert_eq!(messages(&outbox).len(), 1);
        assert_eq!(messages(&outbox)[0].len(), 1 << 20, "one that is larger goes alone");
    }

    #[test]
    fn what_is_learned_of_the_connection_goes_first_and_the_graver_counts() {
        let outbox = Outbox::new(40, 400);
        push(&outbox, b"a");
        outbox.nudge(Nudge::Reconnect);
        outbox.nudge(Nudge::Probe);
        assert_eq!(task(&outbox), Some(Task::Nudge(Nudge::Reconnect)));
        outbox.nudge(Nudge::Probe);
        outbox.forget_nudge();
        assert_eq!(messages(&outbox).len(), 1);
    }
}
