//! Receives length-prefixed frames on a connection with one request in flight, usually with a single read.
//!
//! Used by the load and by the bare echo alike, so that their ratio compares servers and not clients.

use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// A request without an answer for this long is given up, with its connection.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(35);

/// Why a connection's exchange ended without an answer that can be read.
pub enum Broken {
    Io(std::io::Error),
    Closed,
    Unanswered,
    Nonsense(anyhow::Error),
}

impl Broken {
    pub fn name(&self) -> String {
        match self {
            Self::Io(error) => format!("connection: {:?}", error.kind()),
            Self::Closed => "connection: closed by the broker".into(),
            Self::Unanswered => format!("no answer after {} s", ANSWER_DEADLINE.as_secs()),
            Self::Nonsense(error) => format!("unreadable answer: {error}"),
        }
    }
}

/// Reads length-prefixed frames, one at a time, usually with a single read.
pub struct Inbox {
    buffer: Vec<u8>,
    filled: usize,
    taken: usize,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Inbox {
    const BYTES_MAX: usize = 1 << 20;

    pub fn new() -> Self {
        Self { buffer: vec![0; 4096], filled: 0, taken: 0, alarm: None }
    }

    /// The next frame without its length prefix. The alarm is armed once and re-armed only when it rings.
    pub async fn frame(&mut self, stream: &mut TcpStream, since: Instant) -> Result<&[u8], Broken> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        loop {
            if let Some(length) = self.buffer[..self.filled].first_chunk::<4>() {
                let end = u32::from_be_bytes(*length) as usize + 4;
                if end > Self::BYTES_MAX {
                    let error = anyhow::anyhow!("a produce answer of {end} bytes");
                    return Err(Broken::Nonsense(error));
                }
                if end > self.buffer.len() {
                    self.buffer.resize(end, 0);
                }
                if self.filled >= end {
                    self.taken = end;
                    return Ok(&self.buffer[4..end]);
                }
            }
            match self.read(stream, since).await? {
                0 => return Err(Broken::Closed),
                count => self.filled += count,
            }
        }
    }

    async fn read(&mut self, stream: &mut TcpStream, since: Instant) -> Result<usize, Broken> {
        let until = since + ANSWER_DEADLINE;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
        let buffer = &mut self.buffer[self.filled..];
        std::future::poll_fn(|context| {
            let mut space = ReadBuf::new(buffer);
            match Pin::new(&mut *stream).poll_read(context, &mut space) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(space.filled().len())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Io(error))),
                Poll::Pending => {}
            }
            while alarm.as_mut().poll(context).is_ready() {
                if Instant::now() >= until {
                    return Poll::Ready(Err(Broken::Unanswered));
                }
                alarm.as_mut().reset(until.into());
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    fn block_on(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn frames_that_arrive_in_pieces_or_together_come_out_whole() {
        block_on(async {
            let (mut client, mut server) = pair().await;
            server.write_all(b"\0\0\0\x03abc\0\0\0\x02de\0\0").await.unwrap();
            let mut inbox = Inbox::new();
            let now = Instant::now();
            assert_eq!(inbox.frame(&mut client, now).await.ok(), Some(&b"abc"[..]));
            assert_eq!(inbox.frame(&mut client, now).await.ok(), Some(&b"de"[..]));
            server.write_all(b"\0\x01f").await.unwrap();
            assert_eq!(inbox.frame(&mut client, now).await.ok(), Some(&b"f"[..]));
            drop(server);
            assert!(matches!(inbox.frame(&mut client, now).await, Err(Broken::Closed)));
        });
    }

    #[test]
    fn a_silent_broker_is_given_up() {
        block_on(async {
            let (mut client, _server) = pair().await;
            let mut inbox = Inbox::new();
            let long_ago = Instant::now() - ANSWER_DEADLINE;
            assert!(matches!(inbox.frame(&mut client, long_ago).await, Err(Broken::Unanswered)));
        });
    }
}
