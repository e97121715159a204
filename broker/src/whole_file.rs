//! A small file that is written as a whole: beside, synced, renamed, directory synced. A crash leaves the one before or the
//! new one.

use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use io_backend::{Backend, Deadline, Disk, DiskError, File, OpenHow};

/// Far above what we write so; more is none of these files.
const BYTES_MAX: usize = 64 * 1024;

/// What it is called before it has its name.
pub fn temporary(name: &str) -> String {
    format!("{name}.new")
}

/// Writes `name` in `directory` anew.
pub async fn write<B: Backend>(
    backend: &B,
    directory: &Path,
    name: &str,
    bytes: Bytes,
    deadline: Deadline,
) -> Result<(), DiskError> {
    let temporary = directory.join(temporary(name));
    let disk = backend.disk();
    let file = disk.open(&temporary, OpenHow::OrCreate, deadline).await?;
    file.set_len(0, deadline).await?;
    file.write_at(0, bytes, deadline).await?;
    file.sync(deadline).await?;
    drop(file);
    disk.rename(&temporary, &directory.join(name), deadline).await?;
    disk.sync_dir(directory, deadline).await
}

/// What is in it; nothing where there is no such file.
pub async fn read<B: Backend>(
    backend: &B,
    path: &Path,
    deadline: Deadline,
) -> Result<Option<Bytes>, DiskError> {
    match backend.disk().open(path, OpenHow::ReadOnly, deadline).await {
        Ok(file) => file.read_at(0, BYTES_MAX, deadline).await.map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
