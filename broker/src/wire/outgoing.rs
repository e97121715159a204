//! Bytes on their way out of a connection: small things in one buffer, large pieces as they are.
//!
//! What is read from a log is never copied here: it leaves from the buffer it was read into, and is let go of as
//! it is written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Smaller pieces are copied: cheaper than a piece of their own, and they hold no large buffer of a log.
const PIECE_BYTES_MIN: usize = 32 * 1024;
/// A buffer that has grown beyond this is given back once it is empty.
const BUFFER_BYTES_KEPT: usize = 8 * 1024;
/// Pieces that leave in one write.
const SLICES: usize = 16;

/// What a connection has to write, in order.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// What leaves first.
    pieces: VecDeque<Bytes>,
    in_pieces: usize,
    /// What follows the pieces, from `written` on.
    buffer: BytesMut,
    written: usize,
}

impl Outgoing {
    /// Bytes that are to be written.
    pub fn len(&self) -> usize {
        self.in_pieces + self.buffer.len() - self.written
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where small things are appended to.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Puts a piece behind all that is there; a small one is copied.
    pub fn push(&mut self, piece: Bytes) {
        if piece.len() < PIECE_BYTES_MIN {
            self.buffer.extend_from_slice(&piece);
            return;
        }
        self.buffer.advance(std::mem::take(&mut self.written));
        if !self.buffer.is_empty() {
            let before = self.buffer.split().freeze();
            self.in_pieces += before.len();
            self.pieces.push_back(before);
        }
        self.in_pieces += piece.len();
        self.pieces.push_back(piece);
    }

    /// Writes some of what there is; must not be empty.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let written = if self.pieces.is_empty() {
            ready!(Pin::new(stream).poll_write(cx, &self.buffer[self.written..]))?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let rest = std::iter::once(&self.buffer[self.written..]);
            let all = self.pieces.iter().map(|piece| &piece[..]).chain(rest);
            let mut used = 0;
            for (slice, bytes) in slices.iter_mut().zip(all) {
                *slice = IoSlice::new(bytes);
                used += 1;
            }
            ready!(Pin::new(stream).poll_write_vectored(cx, &slices[..used]))?
        };
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some(first) = self.pieces.front_mut() {
            let from_first = bytes.min(first.len());
            first.advance(from_first);
            self.in_pieces -= from_first;
            bytes -= from_first;
            if !first.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.written += bytes;
        if self.written == self.buffer.len() {
            self.written = 0;
            if self.buffer.capacity() > BUFFER_BYTES_KEPT {
                self.buffer = BytesMut::new();
                self.pieces = VecDeque::new();
            } else {
                self.buffer.clear();
            }
        }
    }

    #[cfg(test)]
    pub fn to_bytes(&self) -> Bytes {
        let pieces = self.pieces.iter().map(|piece| &piece[..]);
        pieces.chain([&self.buffer[self.written..]]).collect::<Vec<_>>().concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes at each write.
    struct Sips(usize, Vec<u8>);

    impl AsyncWrite for Sips {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let taken = data.len().min(self.0);
            self.1.extend_from_slice(&data[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all = slices.iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
            let taken = all.len().min(self.0);
            self.1.extend_from_slice(&all[..taken]);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn small_and_large_pieces_leave_in_their_order_however_little_is_taken_at_once() {
        for sip in [1, 7, 1_000, PIECE_BYTES_MIN, PIECE_BYTES_MIN + 1, usize::MAX] {
            let mut out = Outgoing::default();
            let mut stream = Sips(sip, Vec::new());
            let mut expected = Vec::new();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            for round in 0..40u8 {
                let size = [3, PIECE_BYTES_MIN, 500, PIECE_BYTES_MIN * 2, 0][usize::from(round % 5)];
                let piece = Bytes::from(vec![round; size]);
                expected.extend_from_slice(&piece);
                out.push(piece);
                if !out.is_empty() {
                    assert!(matches!(out.poll_write(&mut stream, &mut cx), Poll::Ready(Ok(1..))));
                }
                assert_eq!(stream.1.len() + out.len(), expected.len());
            }
            while !out.is_empty() {
                assert!(matches!(out.poll_write(&mut stream, &mut cx), Poll::Ready(Ok(1..))));
            }
            assert!(stream.1 == expected, "sips of {sip}");
            assert!(out.buffer.capacity() <= BUFFER_BYTES_KEPT, "the memory is given back");
        }
    }

    #[test]
    fn a_large_piece_is_not_copied() {
        let piece = Bytes::from(vec![1; PIECE_BYTES_MIN]);
        let mut out = Outgoing::default();
        out.push(Bytes::from_static(b"before"));
        out.push(piece.clone());
        assert_eq!(out.pieces[1].as_ptr(), piece.as_ptr());
    }
}
