//! What waits to be sent to one member: bounded, and of what is said again only the newest.

use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

/// The line of messages to one member, in bounds of count and bytes. One message is taken however large it is: an
/// entry or a snapshot that never fits would never be sent.
pub(crate) struct PeerQueue {
    line: VecDeque<(Message, usize)>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

/// What became of others when a message joined the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Messages that lost their place and are not said anew by the one that came.
    pub(crate) dropped: usize,
    /// A snapshot was among them: the driver has to be told.
    pub(crate) snapshot_lost: bool,
}

impl PeerQueue {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> PeerQueue {
        PeerQueue { line: VecDeque::new(), bytes: 0, messages_max, bytes_max }
    }

    /// Puts a message at the end. A heartbeat, and the answer to one, takes the place of an earlier one; what
    /// has no room any more goes from the front.
    pub(crate) fn push(&mut self, message: Message) -> Pushed {
        let kind = message.get_msg_type();
        if matches!(kind, MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse) {
            let earlier = self.line.iter().position(|(waiting, _)| waiting.get_msg_type() == kind);
            if let Some((_, bytes)) = earlier.and_then(|at| self.line.remove(at)) {
                self.bytes -= bytes;
            }
        }
        let bytes = message.compute_size() as usize;
        self.line.push_back((message, bytes));
        self.bytes += bytes;
        let mut pushed = Pushed::default();
        while self.line.len() > 1 && (self.line.len() > self.messages_max || self.bytes > self.bytes_max) {
            let Some((oldest, bytes)) = self.line.pop_front() else { break };
            self.bytes -= bytes;
            pushed.dropped += 1;
            pushed.snapshot_lost |= oldest.get_msg_type() == MessageType::MsgSnapshot;
        }
        pushed
    }

    pub(crate) fn pop(&mut self) -> Option<Message> {
        let (message, bytes) = self.line.pop_front()?;
        self.bytes -= bytes;
        Some(message)
    }

    /// Everything is lost with its connection; `snapshot_lost` says whether the driver has to be told of one.
    pub(crate) fn clear(&mut self) -> Pushed {
        let snapshot_lost =
            self.line.iter().any(|(message, _)| message.get_msg_type() == MessageType::MsgSnapshot);
        let pushed = Pushed { dropped: self.line.len(), snapshot_lost };
        self.line.clear();
        self.bytes = 0;
        pushed
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    fn message(kind: MessageType, index: u64, bytes: usize) -> Message {
        let mut message = Message { index, ..Message::default() };
        message.set_msg_type(kind);
        if bytes > 0 {
            message.set_entries(vec![Entry { data: vec![0; bytes].into(), ..Entry::default() }].into());
        }
        message
    }

    fn drain(queue: &mut PeerQueue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|message| message.index).collect()
    }

    #[test]
    fn of_heartbeats_only_the_newest_waits() {
        let mut queue = PeerQueue::new(10, 1_000);
        for (kind, index) in [
            (MessageType::MsgHeartbeat, 1),
            (MessageType::MsgAppend, 2),
            (MessageType::MsgHeartbeatResponse, 3),
            (MessageType::MsgHeartbeat, 4),
        ] {
            assert_eq!(queue.push(message(kind, index, 0)), Pushed::default());
        }
        assert_eq!(drain(&mut queue), [2, 3, 4]);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn what_has_no_room_goes_from_the_front_and_a_snapshot_is_told_of() {
        let mut queue = PeerQueue::new(2, 1_000);
        queue.push(message(MessageType::MsgSnapshot, 1, 0));
        queue.push(message(MessageType::MsgAppend, 2, 0));
        let lost = Pushed { dropped: 1, snapshot_lost: true };
        assert_eq!(queue.push(message(MessageType::MsgAppend, 3, 0)), lost);
        let lost = Pushed { dropped: 1, snapshot_lost: false };
        assert_eq!(queue.push(message(MessageType::MsgAppend, 4, 700)), lost);
        assert_eq!(queue.push(message(MessageType::MsgAppend, 5, 700)), Pushed { dropped: 2, ..lost });
        assert_eq!(drain(&mut queue), [5]);
    }

    #[test]
    fn a_message_larger_than_the_bound_goes_alone() {
        let mut queue = PeerQueue::new(10, 100);
        queue.push(message(MessageType::MsgAppend, 1, 0));
        assert_eq!(queue.push(message(MessageType::MsgSnapshot, 2, 5_000)).dropped, 1);
        assert_eq!(queue.clear(), Pushed { dropped: 1, snapshot_lost: true });
        assert_eq!((queue.pop(), queue.bytes), (None, 0));
    }
}
