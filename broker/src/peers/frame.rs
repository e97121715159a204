//! What goes over a connection between two nodes. Pure.
//!
//! ```text
//! frame:    length u32 (of what follows) | kind u8 | payload
//! messages: (length u32 | bytes)*, as the payload of a frame whose kind is that of its messages
//! received: count u64, of the bytes of all frames that were read since the handshake
//! ```
//!
//! Numbers are big endian. Nothing is taken for a frame before its length and kind are known to be possible.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::{PEER_FRAME_BYTES_MAX, PEER_FRAME_MESSAGES_MAX};

/// Bytes of the length in front of each frame.
pub const LENGTH_BYTES: usize = 4;
/// Bytes of length and kind.
pub const HEAD_BYTES: usize = LENGTH_BYTES + 1;
/// Bytes of the length in front of each message of a frame.
pub const MESSAGE_HEAD_BYTES: usize = 4;

/// Whose messages a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    /// Those of the metadata's Raft group, each as its sender encoded it. What does not fit the queue is lost, the oldest
    /// first: Raft says again what matters.
    Raft,
    /// Questions, which are answered or come to nothing.
    Ask,
    /// Answers to those.
    Answer,
    /// Produces for a partition that another node leads; questions as well.
    Produce,
    /// What followers and leaders of partitions say to one another. What is lost is noticed, and said again.
    Replication,
}

impl MessageKind {
    /// The word that metrics have for it.
    pub fn name(self) -> &'static str {
        match self {
            MessageKind::Raft => "raft",
            MessageKind::Ask => "ask",
            MessageKind::Answer => "answer",
            MessageKind::Produce => "produce",
            MessageKind::Replication => "replication",
        }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Who connects says who it is.
    Hello,
    /// Who was connected to says who it is.
    Challenge,
    /// Who connects proves the secret.
    Proof,
    /// Who was connected to proves the secret and takes the other for what it says it is.
    Welcome,
    /// Either of them does not, and why.
    Refused,
    /// How much was read, from who was connected to.
    Received,
    /// Asks for nothing but that it is received.
    Probe,
    /// Messages.
    Messages(MessageKind),
}

impl FrameKind {
    const ALL: [FrameKind; 12] = [
        FrameKind::Hello,
        FrameKind::Challenge,
        FrameKind::Proof,
        FrameKind::Welcome,
        FrameKind::Refused,
        FrameKind::Received,
        FrameKind::Probe,
        FrameKind::Messages(MessageKind::Raft),
        FrameKind::Messages(MessageKind::Ask),
        FrameKind::Messages(MessageKind::Answer),
        FrameKind::Messages(MessageKind::Produce),
        FrameKind::Messages(MessageKind::Replication),
    ];

    fn code(self) -> u8 {
        match self {
            FrameKind::Hello => 1,
            FrameKind::Challenge => 2,
            FrameKind::Proof => 3,
            FrameKind::Welcome => 4,
            FrameKind::Refused => 5,
            FrameKind::Received => 6,
            FrameKind::Probe => 7,
            FrameKind::Messages(MessageKind::Raft) => 16,
            FrameKind::Messages(MessageKind::Ask) => 17,
            FrameKind::Messages(MessageKind::Answer) => 18,
            FrameKind::Messages(MessageKind::Produce) => 20,
            FrameKind::Messages(MessageKind::Replication) => 19,
        }
    }

    /// The word that metrics have for it.
    pub fn name(self) -> &'static str {
        match self {
            FrameKind::Hello | FrameKind::Challenge | FrameKind::Proof | FrameKind::Welcome => "handshake",
            FrameKind::Refused => "refused",
            FrameKind::Received => "received",
            FrameKind::Probe => "probe",
            FrameKind::Messages(kind) => kind.name(),
        }
    }
}

/// What the buffered bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Not even length and kind yet.
    Head,
    /// A frame of this many bytes, its length not counted, of which some are still to come.
    Partial(usize),
    /// A whole frame of this many bytes, its length not counted.
    Frame(FrameKind, usize),
}

/// Why the bytes are no frames of a node of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are those of another protocol, which it names.
    #[error(
        "it speaks {0}; this port (cluster) is for the other nodes of the cluster, clients connect to listen"
    )]
    OtherProtocol(&'static str),
    /// No frame is so small or so large.
    #[error(
        "it announced a frame of {size} bytes, {max} are possible: it is no node of ours, or the stream is out of step"
    )]
    Impossible {
        /// Its length.
        size: usize,
        /// The largest that could come here.
        max: usize,
    },
    /// No frame is of this kind.
    #[error(
        "it sent a frame of kind {0}, which there is not: it is no node of ours, or the stream is out of step"
    )]
    UnknownKind(u8),
    /// A frame that cannot come at this point.
    #[error("it sent a frame ({0}) that does not belong there")]
    OutOfTurn(&'static str),
    /// What is in the frame is not what its kind says.
    #[error("the frame ({0}) is damaged")]
    Damaged(&'static str),
}

/// Looks at the bytes that have come and not been taken; `max` bounds a frame without its length.
pub fn next(buffered: &[u8], max: usize) -> Result<Next, FrameError> {
    if let Some(other) = other_protocol(buffered) {
        return Err(FrameError::OtherProtocol(other));
    }
    let Some((head, _)) = buffered.split_first_chunk::<HEAD_BYTES>() else { return Ok(Next::Head) };
    let [a, b, c, d, code] = *head;
    let size = u32::from_be_bytes([a, b, c, d]) as usize;
    let kind = FrameKind::ALL.into_iter().find(|kind| kind.code() == code);
    let kind = kind.ok_or(FrameError::UnknownKind(code))?;
    if size == 0 || size > max {
        return Err(FrameError::Impossible { size, max });
    }
    let whole = buffered.len() - LENGTH_BYTES >= size;
    Ok(if whole { Next::Frame(kind, size) } else { Next::Partial(size) })
}

/// As lengths, these would be of hundreds of megabytes; a Kafka request has the high byte of its API's key where a frame
/// has its kind.
fn other_protocol(start: &[u8]) -> Option<&'static str> {
    match start {
        [0x16, 0x03, _, _, ..] => Some("TLS"),
        [b'G', b'E', b'T', b' ', ..]
        | [b'P', b'O', b'S', b'T', ..]
        | [b'H', b'E', b'A', b'D', ..]
        | [b'P', b'U', b'T', b' ', ..] => Some("HTTP"),
        [b'S', b'S', b'H', b'-', ..] => Some("SSH"),
        [_, _, _, _, 0, ..] => Some("the Kafka protocol"),
        _ => None,
    }
}

/// A frame, with its length.
pub fn encode(kind: FrameKind, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + payload.len());
    put_head(&mut frame, kind, payload.len());
    frame.put_slice(payload);
    frame.freeze()
}

fn put_head(into: &mut BytesMut, kind: FrameKind, payload: usize) {
    assert!(payload < PEER_FRAME_BYTES_MAX, "a frame that nobody would take");
    into.put_u32(payload as u32 + 1);
    into.put_u8(kind.code());
}

/// Appends a frame of these messages.
pub fn put_messages(into: &mut BytesMut, kind: MessageKind, messages: &[Bytes]) {
    assert!((1..=PEER_FRAME_MESSAGES_MAX).contains(&messages.len()), "a frame that nobody would take");
    let payload = messages.iter().map(|message| MESSAGE_HEAD_BYTES + message.len()).sum();
    into.reserve(HEAD_BYTES + payload);
    put_head(into, FrameKind::Messages(kind), payload);
    for message in messages {
        into.put_u32(message.len() as u32);
        into.put_slice(message);
    }
}

/// The messages in a payload.
pub fn messages(kind: MessageKind, mut payload: Bytes) -> Result<Vec<Bytes>, FrameError> {
    let damaged = FrameError::Damaged(kind.name());
    let mut found = Vec::new();
    while !payload.is_empty() {
        if payload.len() < MESSAGE_HEAD_BYTES || found.len() == PEER_FRAME_MESSAGES_MAX {
            return Err(damaged);
        }
        let length = payload.get_u32() as usize;
        if length > payload.len() {
            return Err(damaged);
        }
        found.push(payload.split_to(length));
    }
    if found.is_empty() { Err(damaged) } else { Ok(found) }
}

/// The frame that says how much was read.
pub fn received(bytes: u64) -> Bytes {
    encode(FrameKind::Received, &bytes.to_be_bytes())
}

/// How much the other says it has read.
pub fn read_received(payload: &[u8]) -> Result<u64, FrameError> {
    payload.try_into().map(u64::from_be_bytes).map_err(|_| FrameError::Damaged("received"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAFT: FrameKind = FrameKind::Messages(MessageKind::Raft);

    #[test]
    fn frames_are_told_from_parts_of_frames_and_from_what_others_speak() {
        let raft = encode(RAFT, &[7; 9]);
        let table: Vec<(Vec<u8>, Result<Next, FrameError>)> = vec![
            (vec![], Ok(Next::Head)),
            (raft[..4].to_vec(), Ok(Next::Head)),
            (raft[..5].to_vec(), Ok(Next::Partial(10))),
            (raft[..13].to_vec(), Ok(Next::Partial(10))),
            (raft.to_vec(), Ok(Next::Frame(RAFT, 10))),
            ([&raft[..], &[1, 2]].concat(), Ok(Next::Frame(RAFT, 10))),
            (vec![0, 0, 0, 1, 7], Ok(Next::Frame(FrameKind::Probe, 1))),
            (vec![0, 0, 0, 0, 16], Err(FrameError::Impossible { size: 0, max: 100 })),
            (vec![0, 0, 0, 101, 16], Err(FrameError::Impossible { size: 101, max: 100 })),
            (vec![255, 255, 255, 255, 1], Err(FrameError::Impossible { size: u32::MAX as usize, max: 100 })),
            (vec![0, 0, 0, 9, 99], Err(FrameError::UnknownKind(99))),
            (b"GET / HTTP/1.1\r\n".to_vec(), Err(FrameError::OtherProtocol("HTTP"))),
            (vec![0x16, 3, 1, 2, 0], Err(FrameError::OtherProtocol("TLS"))),
            (vec![0, 0, 0, 40, 0, 18, 0, 4], Err(FrameError::OtherProtocol("the Kafka protocol"))),
        ];
        for (bytes, expected) in table {
            assert_eq!(next(&bytes, 100), expected, "{bytes:?}");
        }
    }

    #[test]
    fn every_kind_has_a_code_of_its_own_that_no_kafka_request_begins_with() {
        for (index, kind) in FrameKind::ALL.into_iter().enumerate() {
            assert!(kind.code() > 0);
            assert!(FrameKind::ALL[..index].iter().all(|other| other.code() != kind.code()), "{kind:?}");
            let frame = encode(kind, b"x");
            assert_eq!(next(&frame, 100), Ok(Next::Frame(kind, 2)));
        }
    }

    #[test]
    fn messages_come_out_as_they_went_in_and_damage_is_told() {
        let sent = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        let mut frame = BytesMut::new();
        put_messages(&mut frame, MessageKind::Raft, &sent);
        let payload = frame.freeze().slice(HEAD_BYTES..);
        assert_eq!(messages(MessageKind::Raft, payload.clone()).unwrap(), sent);
        for cut in 1..payload.len() {
            if let Ok(found) = messages(MessageKind::Raft, payload.slice(..cut)) {
                assert!(found.len() < sent.len(), "cut between messages");
            }
        }
        assert!(messages(MessageKind::Raft, Bytes::new()).is_err());
        let many = Bytes::from(vec![0; MESSAGE_HEAD_BYTES * (PEER_FRAME_MESSAGES_MAX + 1)]);
        assert!(messages(MessageKind::Raft, many).is_err(), "more than may be in one frame");
        assert_eq!(read_received(&received(77)[HEAD_BYTES..]), Ok(77));
        assert!(read_received(b"short").is_err());
    }
}
