//! Dedicated loops and their disk.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::claim::{Broken, Outcome, ensure, eventually, soon};
use super::disk::pattern;
use crate::channel::{Receiver, Replier, Sender, channel};
use crate::disk::{DedicatedDisk, DedicatedFile, Disk, File, OpenHow};
use crate::time::Deadline;
use crate::{Backend, DedicatedLoop};

const BLOCK: usize = 4_096;

/// A file of some blocks of zeros.
async fn prefilled<B: Backend>(backend: &B, dir: &Path) -> Result<PathBuf, Broken> {
    let path = dir.join("journal");
    let file = backend.disk().open(&path, OpenHow::CreateNew, soon(backend)).await?;
    file.write_at(0, vec![0; 16 * BLOCK].into(), soon(backend)).await?;
    file.sync(soon(backend)).await?;
    Ok(path)
}

async fn read_back<B: Backend>(backend: &B, path: &Path, position: usize) -> Result<Vec<u8>, Broken> {
    let file = backend.disk().open(path, OpenHow::ReadOnly, soon(backend)).await?;
    Ok(file.read_at(position as u64, BLOCK, soon(backend)).await?.to_vec())
}

struct WriteSome<B: Backend> {
    path: PathBuf,
    told: Sender<B, Result<(), String>>,
}

impl<B: Backend> DedicatedLoop<B> for WriteSome<B> {
    async fn run(self, disk: <B::Disk as Disk>::Dedicated) {
        let outcome = write_some(&disk, &self.path).await.map_err(|Broken(reason)| reason);
        let _ = self.told.try_send(outcome);
    }
}

async fn write_some(disk: &impl DedicatedDisk, path: &Path) -> Outcome {
    match disk.open(&path.with_extension("missing")).await {
        Ok(_) => ensure!(false, "a missing file was opened"),
        Err(error) => ensure!(error.kind() == ErrorKind::NotFound, "opening nothing: {error}"),
    }
    let file = disk.open(path).await?;
    ensure!(file.path() == path, "the file is called {}", file.path().display());
    let (written, buffer) = file.write_durable(0, pattern(1, BLOCK).to_vec()).await;
    written?;
    ensure!(buffer == pattern(1, BLOCK), "the buffer came back changed");
    let (written, buffer) = file.write_at(BLOCK as u64, pattern(2, BLOCK).to_vec()).await;
    written?;
    ensure!(buffer == pattern(2, BLOCK), "the buffer came back changed");
    file.sync().await?;
    let (written, _) = file.write_durable(2 * BLOCK as u64, Vec::new()).await;
    written?;
    Ok(())
}

pub(super) async fn a_dedicated_loop_writes_durably<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let path = prefilled(backend, dir).await?;
    let (told, mut tells) = channel(backend, "dedicated loop tells", 1);
    drop(backend.spawn_dedicated("writer", WriteSome { path: path.clone(), told }));
    tells.receive(soon(backend)).await?.map_err(Broken)?;
    ensure!(read_back(backend, &path, 0).await? == pattern(1, BLOCK), "the durable write is not there");
    ensure!(read_back(backend, &path, BLOCK).await? == pattern(2, BLOCK), "the write is not there");
    ensure!(read_back(backend, &path, 2 * BLOCK).await? == vec![0; BLOCK], "somewhere else was written");
    Ok(())
}

struct Serve<B: Backend> {
    path: PathBuf,
    requests: Receiver<B, (usize, Replier<Result<(), String>>)>,
}

impl<B: Backend> DedicatedLoop<B> for Serve<B> {
    async fn run(mut self, disk: <B::Disk as Disk>::Dedicated) {
        let Ok(file) = disk.open(&self.path).await else { return };
        let idle = Deadline::Unbounded("ends when the last sender goes");
        while let Ok((block, replier)) = self.requests.receive(idle).await {
            let data = pattern(block as u64, BLOCK).to_vec();
            let (written, _) = file.write_durable((block * BLOCK) as u64, data).await;
            replier.answer(written.map_err(|error| error.to_string()));
        }
    }
}

pub(super) async fn a_dedicated_loop_serves_requests<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let path = prefilled(backend, dir).await?;
    let (sender, requests) = channel(backend, "durable writes", 4);
    let running = backend.spawn_dedicated("server", Serve { path: path.clone(), requests });
    for block in (0..16).rev() {
        let (replier, reply) = sender.reply("durable write");
        sender.send((block, replier), soon(backend)).await.map_err(|_| Broken("not sent".into()))?;
        reply.wait(soon(backend)).await?.map_err(Broken)?;
        let there = read_back(backend, &path, block * BLOCK).await?;
        ensure!(there == pattern(block as u64, BLOCK), "block {block} was acknowledged and is not there");
    }
    ensure!(!running.is_finished(), "the loop ended before its senders were gone");
    drop(sender);
    eventually(backend, "the loop ends with its last sender", || running.is_finished()).await
}

struct WaitForever<B: Backend> {
    requests: Receiver<B, ()>,
}

impl<B: Backend> DedicatedLoop<B> for WaitForever<B> {
    async fn run(mut self, _disk: <B::Disk as Disk>::Dedicated) {
        let _ = self.requests.receive(Deadline::Unbounded("never comes; the loop is aborted")).await;
    }
}

pub(super) async fn a_dedicated_loop_can_be_ended<B: Backend>(backend: &B, _dir: &Path) -> Outcome {
    let (sender, requests) = channel(backend, "never used", 1);
    backend.spawn_dedicated("aborted", WaitForever { requests }).abort();
    eventually(backend, "the loop's channel closes", || sender.is_closed()).await
}
