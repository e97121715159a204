//! A connection without manners: bytes are said, read or left lying.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use io_backend::stream::{self, Stream};
use io_backend::{Backend, Deadline, Moment, Network};

use super::super::client::Client;
use super::super::field::Field;
use crate::history::At;

/// After a connection has ended or was refused.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// What a client does after it has said what it had to say.
#[derive(Clone, Copy)]
pub(super) enum Habit {
    /// Reads nothing and says nothing.
    Silent,
    /// Says one more byte this often.
    DripsBytes(Duration),
    /// Reads one byte this often.
    ReadsDrops(Duration),
    /// Reads whatever comes.
    Reads,
}

pub(super) struct Raw<B: Backend> {
    backend: B,
    stream: Stream<B>,
    input: BytesMut,
}

impl<B: Backend> Raw<B> {
    pub(super) async fn connect(client: &Client<B>) -> io::Result<Raw<B>> {
        let backend = client.backend.clone();
        let deadline = Deadline::after(&backend, CONNECT_WITHIN);
        let stream = backend.network().connect(&Field::address(1), deadline).await?;
        Ok(Raw { backend, stream, input: BytesMut::new() })
    }

    pub(super) async fn say(&mut self, bytes: &[u8], until: At) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let deadline = Deadline::At(Moment(until));
        stream::write_all(&self.backend, &mut self.stream, bytes, "rude request", deadline).await
    }

    /// Until the time is over or the connection is; who does not read does not notice its end.
    pub(super) async fn stay(&mut self, habit: Habit, until: At) {
        while self.backend.now().0 < until {
            let step = match habit {
                Habit::Silent => Duration::from_nanos(until - self.backend.now().0),
                Habit::DripsBytes(every) | Habit::ReadsDrops(every) => every,
                Habit::Reads => Duration::ZERO,
            };
            let step = step.min(Duration::from_nanos(until - self.backend.now().0));
            self.backend.sleep(step).await;
            let ok = match habit {
                Habit::Silent => true,
                Habit::DripsBytes(_) => self.say(&[0], until).await.is_ok(),
                Habit::ReadsDrops(_) => self.read_at_most(1, until).await,
                Habit::Reads => self.read_at_most(64 << 10, until).await,
            };
            if !ok {
                return;
            }
        }
    }

    async fn read_at_most(&mut self, bytes: usize, until: At) -> bool {
        let mut buffer = BytesMut::with_capacity(bytes);
        let deadline = Deadline::At(Moment(until));
        stream::read(&self.backend, &mut self.stream, &mut buffer, "rude answer", deadline)
            .await
            .is_ok_and(|read| read > 0)
    }

    /// The next answer, without its length; none when there is none in time.
    pub(super) async fn answer(&mut self, until: At) -> Option<Bytes> {
        let deadline = Deadline::At(Moment(until));
        loop {
            if let Some(length) = self.input.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if self.input.len() >= 4 + length {
                    self.input.advance(4);
                    return Some(self.input.split_to(length).freeze());
                }
            }
            self.input.reserve(4096);
            let read =
                stream::read(&self.backend, &mut self.stream, &mut self.input, "rude answer", deadline);
            if !read.await.is_ok_and(|read| read > 0) {
                return None;
            }
        }
    }
}
