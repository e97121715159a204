//! Where frames begin and end: four bytes of size, then as many bytes. Pure; it never asks for more room
//! than the announced size needs, and not for all of that before its bytes come.

use std::time::Duration;

use crate::limits::{
    CLIENT_BYTES_PER_SECOND_MIN, READ_BUFFER_BYTES, REQUEST_BYTES_MAX, REQUEST_STEP_BYTES, WRITE_DEADLINE,
};

/// Bytes of the size in front of each frame.
pub const SIZE_BYTES: usize = 4;
/// The smallest request header.
const FRAME_BYTES_MIN: usize = 8;

/// What the buffered bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Not even a size yet.
    Size,
    /// A frame of this many bytes, its size not counted, of which some are still to come.
    Partial(usize),
    /// A whole frame of this many bytes, its size not counted.
    Frame(usize),
}

/// Why the bytes cannot be Kafka requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The size is negative, or less than a header takes.
    #[error(
        "it announced a request of {0} bytes: this is not the Kafka protocol, or the stream is out of step"
    )]
    Impossible(i32),
    /// The request is larger than allowed; nothing of it is read.
    #[error("it announced a request of {size} bytes, {max} are allowed (server.request_bytes)")]
    TooLarge { size: usize, max: usize },
    /// The first bytes are those of another protocol, which it names.
    #[error("it speaks {0}; this port serves the Kafka protocol in plain text")]
    OtherProtocol(&'static str),
}

/// Looks at the bytes that have come and not been taken.
pub fn next(buffered: &[u8], request_bytes_max: usize) -> Result<Next, FrameError> {
    let Some((size, rest)) = buffered.split_first_chunk::<SIZE_BYTES>() else {
        return Ok(Next::Size);
    };
    if let Some(other) = other_protocol(size) {
        return Err(FrameError::OtherProtocol(other));
    }
    let announced = i32::from_be_bytes(*size);
    let size = match usize::try_from(announced) {
        Ok(size) if size >= FRAME_BYTES_MIN => size,
        _ => return Err(FrameError::Impossible(announced)),
    };
    let max = request_bytes_max.min(REQUEST_BYTES_MAX);
    if size > max {
        return Err(FrameError::TooLarge { size, max });
    }
    Ok(if rest.len() >= size { Next::Frame(size) } else { Next::Partial(size) })
}

/// These four bytes would announce hundreds of megabytes.
fn other_protocol(start: &[u8; SIZE_BYTES]) -> Option<&'static str> {
    match start {
        [0x16, 0x03, _, _] => Some("TLS"),
        b"GET " | b"POST" | b"HEAD" | b"PUT " => Some("HTTP"),
        b"SSH-" => Some("SSH"),
        _ => None,
    }
}

/// Whether a request whose size has come is a produce; until its key has come it counts as one.
pub fn is_produce(buffered: &[u8]) -> bool {
    buffered.get(SIZE_BYTES..SIZE_BYTES + 2).is_none_or(|key| key == [0, 0])
}

/// How long a client may take for so many bytes: its patience is not renewed by a byte now and then.
pub fn time_for(bytes: usize) -> Duration {
    WRITE_DEADLINE
        + Duration::from_millis((bytes as u64).saturating_mul(1_000) / CLIENT_BYTES_PER_SECOND_MIN as u64)
}

/// How much more room a request of this size should have before it is read into. Room grows with what has come, so
/// that announcing a large request alone takes no memory.
pub fn room_wanted(size: usize, buffered: usize) -> usize {
    let missing = (SIZE_BYTES + size).saturating_sub(buffered);
    missing.min(buffered.clamp(READ_BUFFER_BYTES, REQUEST_STEP_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce(size: i32, rest: usize) -> Vec<u8> {
        let mut bytes = size.to_be_bytes().to_vec();
        bytes.resize(SIZE_BYTES + rest, 0);
        bytes
    }

    #[test]
    fn frames_are_told_from_parts_of_frames() {
        let table = [
            (vec![], Ok(Next::Size)),
            (vec![0, 0, 0], Ok(Next::Size)),
            (announce(8, 0), Ok(Next::Partial(8))),
            (announce(8, 7), Ok(Next::Partial(8))),
            (announce(8, 8), Ok(Next::Frame(8))),
            (announce(8, 100), Ok(Next::Frame(8))),
            (announce(1000, 10), Ok(Next::Partial(1000))),
            (announce(1001, 0), Err(FrameError::TooLarge { size: 1001, max: 1000 })),
            (announce(0, 0), Err(FrameError::Impossible(0))),
            (announce(7, 7), Err(FrameError::Impossible(7))),
            (announce(-1, 0), Err(FrameError::Impossible(-1))),
            (announce(i32::MIN, 0), Err(FrameError::Impossible(i32::MIN))),
            (announce(i32::MAX, 0), Err(FrameError::TooLarge { size: i32::MAX as usize, max: 1000 })),
            (b"GET / HTTP/1.1\r\n".to_vec(), Err(FrameError::OtherProtocol("HTTP"))),
            (vec![0x16, 0x03, 0x01, 0x02, 0x00], Err(FrameError::OtherProtocol("TLS"))),
        ];
        for (bytes, expected) in table {
            assert_eq!(next(&bytes, 1000), expected, "{bytes:?}");
        }
    }

    #[test]
    fn produces_are_told_by_their_key() {
        assert!(is_produce(&announce(100, 0)));
        assert!(is_produce(&[0, 0, 0, 9, 0, 0]));
        assert!(!is_produce(&[0, 0, 0, 9, 0, 1]));
    }

    #[test]
    fn a_byte_now_and_then_does_not_renew_the_patience() {
        assert_eq!(time_for(1), WRITE_DEADLINE);
        assert_eq!(time_for(64 << 10), WRITE_DEADLINE + Duration::from_secs(1));
        assert_eq!(time_for(100 << 20), WRITE_DEADLINE + Duration::from_secs(1600));
    }

    #[test]
    fn room_grows_with_what_has_come() {
        let huge = 100 << 20;
        assert_eq!(room_wanted(huge, SIZE_BYTES), READ_BUFFER_BYTES);
        assert_eq!(room_wanted(huge, 1 << 19), 1 << 19);
        assert_eq!(room_wanted(huge, 50 << 20), REQUEST_STEP_BYTES);
        assert_eq!(room_wanted(100, 50), 54);
    }
}
