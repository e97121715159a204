//! Streams between named endpoints.

use std::io::ErrorKind;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::claim::{Broken, Outcome, ensure, in_ms, poll_once, soon};
use super::disk::pattern;
use crate::channel::channel;
use crate::network::{Listener, Network, Unread};
use crate::registry::WaitKind;
use crate::stream::{Stream, read, write_all};
use crate::time::within;
use crate::{Backend, Receiver};

/// A listener, its address, and what it accepts.
async fn listening<B: Backend>(backend: &B) -> Result<(String, Receiver<B, (Stream<B>, String)>), Broken> {
    let listener = backend.network().listen("127.0.0.1:0").await?;
    let address = listener.local_address();
    let (sender, receiver) = channel(backend, "accepted", 4);
    drop(backend.spawn("acceptor", async move {
        while let Ok(accepted) = listener.accept().await {
            if sender.try_send(accepted).is_err() {
                return;
            }
        }
    }));
    Ok((address, receiver))
}

/// Both ends of a connection.
async fn connected<B: Backend>(backend: &B) -> Result<(Stream<B>, Stream<B>), Broken> {
    let (address, mut accepted) = listening(backend).await?;
    let near = backend.network().connect(&address, soon(backend)).await?;
    let (far, peer) = accepted.receive(soon(backend)).await?;
    ensure!(!peer.is_empty(), "the peer has no name");
    Ok((near, far))
}

async fn read_exactly<B: Backend>(
    backend: &B,
    stream: &mut Stream<B>,
    len: usize,
) -> Result<BytesMut, Broken> {
    let mut received = BytesMut::with_capacity(len);
    while received.len() < len {
        received.reserve(len - received.len());
        let more = read(backend, stream, &mut received, "conformance", soon(backend)).await?;
        ensure!(more > 0, "the stream ended after {} of {len} bytes", received.len());
    }
    Ok(received)
}

pub(super) async fn what_is_sent_arrives<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (mut near, mut far) = connected(backend).await?;
    for round in 0..20_u64 {
        let asked = pattern(round, 1 + round as usize * 7);
        write_all(backend, &mut near, &asked, "request", soon(backend)).await?;
        let received = read_exactly::<B>(backend, &mut far, asked.len()).await?;
        ensure!(received == asked, "request {round} arrived as something else");
        write_all(backend, &mut far, &received, "response", soon(backend)).await?;
        let echoed = read_exactly::<B>(backend, &mut near, asked.len()).await?;
        ensure!(echoed == asked, "response {round} arrived as something else");
    }
    Ok(())
}

pub(super) async fn what_is_not_read_is_counted<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (mut near, mut far) = connected(backend).await?;
    ensure!(far.unread() == 0, "{} bytes of a peer that sent none", far.unread());
    write_all(backend, &mut near, b"ten bytes!", "words", soon(backend)).await?;
    let arrived = async {
        while far.unread() < 10 {
            backend.sleep(Duration::from_millis(1)).await;
        }
    };
    within(backend, soon(backend), arrived).await?;
    drop(read_exactly::<B>(backend, &mut far, 4).await?);
    ensure!(far.unread() == 6, "{} of six bytes are not read", far.unread());
    drop(read_exactly::<B>(backend, &mut far, 6).await?);
    ensure!(far.unread() == 0, "{} bytes are left when all are read", far.unread());
    Ok(())
}

pub(super) async fn much_arrives_whole_both_ways<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    const BYTES: usize = 3 << 20;
    let (mut near, mut far) = connected(backend).await?;
    let (own, deadline) = (backend.clone(), soon(backend));
    let (told, mut tells) = channel(backend, "far end", 1);
    drop(backend.spawn("far end", async move {
        let outcome = match read_exactly::<B>(&own, &mut far, BYTES).await {
            Ok(received) => write_all(&own, &mut far, &received, "response", deadline)
                .await
                .map_err(|error| error.to_string()),
            Err(Broken(reason)) => Err(reason),
        };
        let _ = told.try_send(outcome);
    }));
    let sent = pattern(3, BYTES);
    write_all(backend, &mut near, &sent, "request", soon(backend)).await?;
    let echoed = read_exactly::<B>(backend, &mut near, BYTES).await?;
    ensure!(echoed == sent, "other bytes came back");
    tells.receive(soon(backend)).await?.map_err(Broken)
}

pub(super) async fn the_end_of_a_stream_is_seen<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (mut near, mut far) = connected(backend).await?;
    write_all(backend, &mut near, b"last", "words", soon(backend)).await?;
    near.shutdown().await?;
    let received = read_exactly::<B>(backend, &mut far, 4).await?;
    ensure!(received == b"last"[..], "what was sent before the end is lost");
    let mut buffer = BytesMut::with_capacity(16);
    let end = read(backend, &mut far, &mut buffer, "end", soon(backend)).await?;
    ensure!(end == 0, "{end} bytes after the end");

    let (near, mut far) = connected(backend).await?;
    drop(near);
    // An end or an error, but not silence.
    match read(backend, &mut far, &mut buffer, "end", soon(backend)).await {
        Ok(end) => ensure!(end == 0, "{end} bytes from a peer that sent none"),
        Err(error) => ensure!(error.kind() != ErrorKind::TimedOut, "a peer that went away is not seen"),
    }
    Ok(())
}

pub(super) async fn a_silent_peer_costs_no_more_than_the_deadline<B: Backend>(
    backend: &B,
    _dir: &Path,
) -> Outcome {
    let (mut near, far) = connected(backend).await?;
    let mut buffer = BytesMut::with_capacity(16);
    let before = backend.now();
    {
        let mut reading =
            pin!(read(backend, &mut near, &mut buffer, "conformance silence", in_ms(backend, 5)));
        ensure!(poll_once(reading.as_mut()).is_none(), "a silent peer was read from");
        let entries = backend.registry().snapshot();
        let shown =
            entries.iter().any(|e| e.kind == WaitKind::NetworkRead && e.what == "conformance silence");
        ensure!(shown, "the wait is not shown");
        match reading.await {
            Ok(bytes) => ensure!(false, "{bytes} bytes from a silent peer"),
            Err(error) => ensure!(error.kind() == ErrorKind::TimedOut, "the wait ended with {error}"),
        }
    }
    ensure!(backend.now().since(before) >= Duration::from_millis(5), "the wait ended early");
    drop(far);
    Ok(())
}

pub(super) async fn a_peer_that_does_not_read_is_felt<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    const CHUNK: usize = 64 << 10;
    /// Far beyond what the buffers of both ends hold.
    const CHUNKS_MAX: usize = 1_024;
    let (mut near, mut far) = connected(backend).await?;
    let chunk = vec![1; CHUNK];
    let mut sent = 0;
    let blocked = loop {
        if sent == CHUNKS_MAX {
            break false;
        }
        match write_all(backend, &mut near, &chunk, "flood", in_ms(backend, 100)).await {
            Ok(()) => sent += 1,
            Err(error) if error.kind() == ErrorKind::TimedOut => break true,
            Err(error) => return Err(error.into()),
        }
    };
    ensure!(blocked, "{} MiB went to a peer that reads nothing", (CHUNK * CHUNKS_MAX) >> 20);
    // Once the peer reads, there is room again.
    drop(read_exactly::<B>(backend, &mut far, sent * CHUNK).await?);
    let room = within(backend, soon(backend), near.write(&chunk)).await??;
    ensure!(room > 0, "there is no room although the peer has read");
    Ok(())
}

pub(super) async fn nobody_listening_refuses<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let listener = backend.network().listen("127.0.0.1:0").await?;
    let address = listener.local_address();
    drop(listener);
    match backend.network().connect(&address, soon(backend)).await {
        Ok(_) => ensure!(false, "connected to nobody"),
        Err(error) => ensure!(error.kind() == ErrorKind::ConnectionRefused, "refused as {error}"),
    }
    Ok(())
}

pub(super) async fn an_address_is_listened_on_once<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let listener = backend.network().listen("127.0.0.1:0").await?;
    let address = listener.local_address();
    ensure!(!address.ends_with(":0"), "the port is not told: {address}");
    match backend.network().listen(&address).await {
        Ok(_) => ensure!(false, "two listen on {address}"),
        Err(error) => ensure!(error.kind() == ErrorKind::AddrInUse, "refused as {error}"),
    }
    Ok(())
}
