//! Files and directories.

use std::io::ErrorKind;
use std::path::Path;
use std::pin::pin;

use bytes::Bytes;

use super::claim::{Outcome, ensure, eventually, poll_once, soon};
use crate::Backend;
use crate::channel::channel;
use crate::disk::{Disk, DiskResult, File, OpenHow};
use crate::time::Deadline;

/// Bytes that differ from their neighbours and between seeds.
pub(super) fn pattern(seed: u64, len: usize) -> Bytes {
    (0..len).map(|at| ((at as u64).wrapping_mul(31).wrapping_add(seed) % 251) as u8).collect()
}

async fn open<B: Backend>(backend: &B, path: &Path, how: OpenHow) -> DiskResult<<B::Disk as Disk>::File> {
    backend.disk().open(path, how, soon(backend)).await
}

/// Makes a file that holds `data`.
async fn make<B: Backend>(backend: &B, path: &Path, data: Bytes) -> DiskResult<<B::Disk as Disk>::File> {
    let file = open(backend, path, OpenHow::CreateNew).await?;
    file.write_at(0, data, soon(backend)).await?;
    Ok(file)
}

pub(super) async fn a_read_sees_what_was_written<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let file = make(backend, &dir.join("f"), pattern(1, 10_000)).await?;
    file.write_at(3_000, pattern(2, 100), soon(backend)).await?;
    let mut expected = pattern(1, 10_000).to_vec();
    expected[3_000..3_100].copy_from_slice(&pattern(2, 100));
    let read = file.read_at(0, 10_000, soon(backend)).await?;
    ensure!(read == expected, "the same handle reads something else");
    let other = open(backend, &dir.join("f"), OpenHow::ReadOnly).await?;
    let read = other.read_at(2_999, 102, soon(backend)).await?;
    ensure!(read == expected[2_999..3_101], "another handle reads something else");
    file.sync(soon(backend)).await?;
    let read = other.read_at(0, 10_000, soon(backend)).await?;
    ensure!(read == expected, "a sync changes what is read");
    ensure!(file.path() == dir.join("f"), "the file is called {}", file.path().display());
    Ok(())
}

pub(super) async fn a_read_is_short_only_where_the_file_ends<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let file = make(backend, &dir.join("f"), Bytes::from_static(b"0123456789")).await?;
    for (position, len, expected) in [(0, 10, "0123456789"), (6, 10, "6789"), (10, 5, ""), (100, 5, "")] {
        let read = file.read_at(position, len, soon(backend)).await?;
        ensure!(read == expected.as_bytes(), "{len} bytes from {position} on are {read:?}");
    }
    Ok(())
}

pub(super) async fn gaps_read_as_zeros<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let file = open(backend, &dir.join("f"), OpenHow::OrCreate).await?;
    file.write_at(8_192, Bytes::from_static(b"end"), soon(backend)).await?;
    ensure!(file.len(soon(backend)).await? == 8_195, "the length is not where the last write ended");
    let read = file.read_at(0, 8_192, soon(backend)).await?;
    ensure!(read.len() == 8_192 && read.iter().all(|byte| *byte == 0), "the gap is not zeros");
    file.set_len(8_193, soon(backend)).await?;
    file.set_len(8_200, soon(backend)).await?;
    ensure!(file.len(soon(backend)).await? == 8_200, "set_len did not set the length");
    let read = file.read_at(8_192, 100, soon(backend)).await?;
    ensure!(read[..] == *b"e\0\0\0\0\0\0\0", "what was cut off came back: {read:?}");
    Ok(())
}

pub(super) async fn a_file_is_opened_as_asked<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let path = dir.join("f");
    for how in [OpenHow::ReadOnly, OpenHow::Existing] {
        match open(backend, &path, how).await {
            Err(error) => ensure!(error.kind() == ErrorKind::NotFound, "{how:?} of nothing: {error}"),
            Ok(_) => ensure!(false, "{how:?} made a file"),
        }
    }
    make(backend, &path, Bytes::from_static(b"kept")).await?;
    match open(backend, &path, OpenHow::CreateNew).await {
        Err(error) => ensure!(error.kind() == ErrorKind::AlreadyExists, "CreateNew again: {error}"),
        Ok(_) => ensure!(false, "CreateNew opened an existing file"),
    }
    for how in [OpenHow::OrCreate, OpenHow::Existing, OpenHow::ReadOnly] {
        let file = open(backend, &path, how).await?;
        ensure!(file.read_at(0, 9, soon(backend)).await? == b"kept"[..], "{how:?} changed the content");
    }
    let file = open(backend, &path, OpenHow::ReadOnly).await?;
    let refused = file.write_at(0, Bytes::from_static(b"lost"), soon(backend)).await;
    ensure!(refused.is_err(), "a read-only file was written");
    ensure!(file.read_at(0, 9, soon(backend)).await? == b"kept"[..], "a refused write changed the content");
    let missing = open(backend, &dir.join("no/such/f"), OpenHow::OrCreate).await;
    ensure!(missing.is_err_and(|e| e.kind() == ErrorKind::NotFound), "a directory appeared from nowhere");
    Ok(())
}

pub(super) async fn an_error_says_what_failed_where<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let path = dir.join("missing");
    let Err(error) = open(backend, &path, OpenHow::Existing).await else {
        return Err(super::claim::Broken("a missing file was opened".into()));
    };
    ensure!(error.path == path, "the error is about {}", error.path.display());
    ensure!(error.operation == "open", "the error is of {:?}", error.operation);
    Ok(())
}

pub(super) async fn a_rename_replaces_and_open_files_stay<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let (from, to) = (dir.join("from"), dir.join("to"));
    make(backend, &from, Bytes::from_static(b"new")).await?;
    let old = make(backend, &to, Bytes::from_static(b"old")).await?;
    backend.disk().rename(&from, &to, soon(backend)).await?;
    let gone = open(backend, &from, OpenHow::Existing).await;
    ensure!(gone.is_err_and(|e| e.kind() == ErrorKind::NotFound), "the old name is still there");
    let file = open(backend, &to, OpenHow::Existing).await?;
    ensure!(file.read_at(0, 9, soon(backend)).await? == b"new"[..], "the new name has another content");
    ensure!(old.read_at(0, 9, soon(backend)).await? == b"old"[..], "an open file lost its content");
    let missing = backend.disk().rename(&from, &to, soon(backend)).await;
    ensure!(missing.is_err_and(|e| e.kind() == ErrorKind::NotFound), "a missing file was renamed");
    ensure!(file.read_at(0, 9, soon(backend)).await? == b"new"[..], "a failed rename changed its target");
    Ok(())
}

pub(super) async fn a_file_can_be_removed_once<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let path = dir.join("f");
    make(backend, &path, pattern(1, 10)).await?;
    backend.disk().remove_file(&path, soon(backend)).await?;
    let again = backend.disk().remove_file(&path, soon(backend)).await;
    ensure!(again.is_err_and(|e| e.kind() == ErrorKind::NotFound), "a missing file was removed");
    let tree = dir.join("tree");
    backend.disk().create_dir_all(&tree.join("a/b"), soon(backend)).await?;
    make(backend, &tree.join("a/b/f"), pattern(1, 10)).await?;
    backend.disk().remove_dir_all(&tree, soon(backend)).await?;
    ensure!(backend.disk().read_dir(dir, soon(backend)).await?.is_empty(), "something is left");
    // No error although it is missing.
    backend.disk().remove_dir_all(&tree, soon(backend)).await?;
    Ok(())
}

pub(super) async fn a_directory_lists_what_it_holds_by_name<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    make(backend, &dir.join("c"), pattern(1, 30)).await?;
    make(backend, &dir.join("a"), pattern(1, 10)).await?;
    backend.disk().create_dir_all(&dir.join("b/inner"), soon(backend)).await?;
    // There already: no error.
    backend.disk().create_dir_all(&dir.join("b/inner"), soon(backend)).await?;
    let listed = backend.disk().read_dir(dir, soon(backend)).await?;
    let listed: Vec<_> =
        listed.iter().map(|e| (e.name.as_str(), e.is_dir, if e.is_dir { 0 } else { e.len })).collect();
    ensure!(listed == [("a", false, 10), ("b", true, 0), ("c", false, 30)], "listed as {listed:?}");
    let missing = backend.disk().read_dir(&dir.join("x"), soon(backend)).await;
    ensure!(missing.is_err_and(|e| e.kind() == ErrorKind::NotFound), "a missing directory was listed");
    Ok(())
}

pub(super) async fn a_volume_tells_its_space<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let space = backend.disk().space(dir, soon(backend)).await?;
    ensure!(0 < space.usable && space.usable <= space.total, "{space:?}");
    let missing = backend.disk().space(&dir.join("x"), soon(backend)).await;
    ensure!(missing.is_err_and(|e| e.kind() == ErrorKind::NotFound), "a missing directory has space");
    Ok(())
}

pub(super) async fn a_directory_can_be_synced_if_it_is_there<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    make(backend, &dir.join("f"), pattern(1, 10)).await?;
    backend.disk().sync_dir(dir, soon(backend)).await?;
    let missing = backend.disk().sync_dir(&dir.join("x"), soon(backend)).await;
    ensure!(missing.is_err_and(|e| e.kind() == ErrorKind::NotFound), "a missing directory was synced");
    Ok(())
}

pub(super) async fn a_directory_is_taken_once<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let disk = backend.disk();
    disk.lock_dir(dir, soon(backend)).await?;
    for when in ["the second time", "when all files are gone"] {
        match disk.lock_dir(dir, soon(backend)).await {
            Ok(()) => ensure!(false, "it was taken again, {when}"),
            Err(error) => ensure!(error.kind() == ErrorKind::WouldBlock, "{when}: {error}"),
        }
        // Whatever says that it is taken.
        for entry in disk.read_dir(dir, soon(backend)).await? {
            disk.remove_file(&dir.join(entry.name), soon(backend)).await?;
        }
    }
    Ok(())
}

pub(super) async fn writes_at_distinct_positions_do_not_disturb_each_other<B: Backend>(
    backend: &B,
    dir: &Path,
) -> Outcome {
    const WRITERS: u64 = 100;
    const BYTES: usize = 4_096;
    let file = open(backend, &dir.join("f"), OpenHow::OrCreate).await?;
    let (done, mut finished) = channel(backend, "writers", WRITERS as usize);
    for writer in 0..WRITERS {
        let (file, done, deadline) = (file.clone(), done.clone(), soon(backend));
        drop(backend.spawn("writer", async move {
            let written = file.write_at(writer * BYTES as u64, pattern(writer, BYTES), deadline).await;
            let _ = done.try_send(written);
        }));
    }
    for _ in 0..WRITERS {
        finished.receive(soon(backend)).await??;
    }
    for writer in 0..WRITERS {
        let read = file.read_at(writer * BYTES as u64, BYTES, soon(backend)).await?;
        ensure!(read == pattern(writer, BYTES), "writer {writer}'s bytes are not there");
    }
    Ok(())
}

pub(super) async fn a_large_write_arrives_whole<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    const BYTES: usize = 12 << 20;
    let file = make(backend, &dir.join("f"), pattern(5, BYTES)).await?;
    file.sync(soon(backend)).await?;
    let read = file.read_at(0, BYTES + 1, soon(backend)).await?;
    ensure!(read == pattern(5, BYTES), "{} of {BYTES} bytes came back, or others", read.len());
    Ok(())
}

pub(super) async fn nothing_can_be_read_and_written<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let file = make(backend, &dir.join("f"), Bytes::new()).await?;
    ensure!(file.read_at(0, 0, soon(backend)).await?.is_empty(), "nothing is something");
    file.sync(soon(backend)).await?;
    ensure!(file.len(soon(backend)).await? == 0, "writing nothing made the file longer");
    Ok(())
}

pub(super) async fn an_operation_in_flight_has_an_entry<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    let path = dir.join("f");
    let name = path.to_string_lossy();
    let file = make(backend, &path, pattern(1, 100)).await?;
    let mut syncing = pin!(file.sync(soon(backend)));
    if let Some(done) = poll_once(syncing.as_mut()) {
        return Ok(done?);
    }
    let entries = backend.registry().snapshot();
    let ours = entries.iter().find(|e| e.operation && e.target.as_deref() == Some(&*name));
    match ours {
        Some(entry) => {
            ensure!(entry.kind == crate::WaitKind::DiskSync, "a sync is shown as {:?}", entry.kind);
            syncing.await?;
        }
        // It may have ended between the two lines above; then its end is known by now.
        None => match poll_once(syncing) {
            Some(done) => done?,
            None => ensure!(false, "a sync in flight is not in the registry"),
        },
    }
    let left = backend.registry().snapshot();
    let left = left.iter().filter(|e| e.target.as_deref() == Some(&*name)).count();
    ensure!(left == 0, "{left} entries are left of operations that are done");
    Ok(())
}

pub(super) async fn an_operation_outlives_its_waiter<B: Backend>(backend: &B, dir: &Path) -> Outcome {
    const BYTES: usize = 8 << 20;
    for attempt in 0..20 {
        let path = dir.join(format!("f{attempt}"));
        let name = path.to_string_lossy().into_owned();
        let file = open(backend, &path, OpenHow::CreateNew).await?;
        let late_before = backend.registry().late_completions();
        let written = file.write_at(0, pattern(attempt, BYTES), Deadline::At(backend.now())).await;
        let Err(error) = written else { continue };
        ensure!(error.timed_out(), "a deadline that passes is {error}");
        let in_flight = {
            let entries = backend.registry().snapshot();
            entries.iter().any(|e| e.operation && e.target.as_deref() == Some(&*name))
        };
        let late = || backend.registry().late_completions() > late_before;
        ensure!(in_flight || late(), "the write is neither in flight nor counted as late");
        eventually(backend, "the late completion is counted", late).await?;
        eventually(backend, "the entry of the write leaves", || {
            let entries = backend.registry().snapshot();
            !entries.iter().any(|e| e.target.as_deref() == Some(&*name))
        })
        .await?;
        let read = file.read_at(0, BYTES, soon(backend)).await?;
        ensure!(read == pattern(attempt, BYTES), "the write did not go on without its waiter");
        return Ok(());
    }
    // A disk that is always done at once has no waiters to outlive.
    Ok(())
}
