//! The data directory: whose it is, and that only one process has it.
//!
//! `identity.json` says which storage this is, of which node and cluster; it is written once, as a whole, with a
//! checksum: one changed digit would make another storage of it. How often
//! the node has been started is in `incarnation`: two slots of a sector each, written in turn, in place, so that a crash
//! leaves the older or the newer one, and a start needs no space.
//! An incarnation is used only after it is durable: none is ever used twice.
//!
//! ```text
//! slot: magic "CHRINCAR" | incarnation u64 | crc-32c u32 (big endian), zeros up to 512 bytes
//! ```

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use io_backend::{Backend, Deadline, Disk, DiskError, ExitStatus, File, OpenHow};
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use crate::formats::{self, IDENTITY};
use crate::ids::{BrokerId, Incarnation, IncarnationId, StorageId};
use crate::whole_file;

const FILE: &str = "identity.json";
const LOCK: &str = "LOCK";
const FORMAT: &str = "chronik-data";
const CHECKSUM_SINCE: u32 = 3;
const INCARNATION: &str = "incarnation";
const SLOT_BYTES: usize = 512;
const SLOT_FILLED_BYTES: usize = 8 + 8 + 4;

/// Who this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which data directory this is: drawn when it was made, the same for ever.
    pub storage: StorageId,
    /// The node that it belongs to.
    pub node: BrokerId,
    /// Kafka's cluster id, 22 characters; drawn with the directory.
    pub cluster_id: String,
    /// Of this process start.
    pub incarnation: Incarnation,
    /// Drawn by this process.
    pub incarnation_id: IncarnationId,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: String,
    format_version: u32,
    storage_id: StorageId,
    node_id: BrokerId,
    cluster_id: String,
    /// Of format version 1: the last one that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incarnation: Option<Incarnation>,
    /// CRC-32C of the same record without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32c: Option<u32>,
}

impl Stored {
    fn checksum(&self) -> u32 {
        let Stored { format, format_version, storage_id, node_id, cluster_id, incarnation, crc32c: _ } = self;
        let incarnation = incarnation.map(|incarnation| incarnation.0);
        let text = format!(
            "{format} {format_version} {} {node_id} {cluster_id} {incarnation:?}",
            storage_id.0.simple()
        );
        crc32c::crc32c(text.as_bytes())
    }
}

/// Read first: a newer version may have other fields.
#[derive(Deserialize)]
struct Header {
    format: String,
    format_version: u32,
}

/// Why this process cannot have the directory.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process holds the lock of this directory.
    #[error("{0} is in use by another process: stop that process, or start this one with another --data-dir")]
    Locked(PathBuf),
    /// The directory holds something, by this name, and no identity.
    #[error(
        "{directory} is not a chronik data directory: it holds '{found}' and no {FILE}. Nothing was changed; choose an \
         empty or a new directory with --data-dir"
    )]
    Foreign { directory: PathBuf, found: String },
    /// The identity or the count of starts is damaged.
    #[error(
        "{path} cannot be read: {what}. Nothing was changed; restore the file from a backup, or move the directory away \
         to begin with an empty one (its data is not served then)"
    )]
    Unreadable { path: PathBuf, what: String },
    /// A later release wrote the identity.
    #[error(
        "{path} has format version {found}, this binary reads up to {IDENTITY}: start a newer chronik on it"
    )]
    Newer { path: PathBuf, found: u32 },
    /// The directory is another node's.
    #[error(
        "{directory} belongs to node {found}, and this process is node {configured}: start it with --node-id {found}, or \
         with the data directory of node {configured}"
    )]
    OtherNode { directory: PathBuf, found: BrokerId, configured: BrokerId },
    /// An operation on the disk failed, or did not end in time.
    #[error(
        "the data directory cannot be used: {0}. Check that it exists, is writable and its disk is sound"
    )]
    Disk(#[from] DiskError),
}

impl IdentityError {
    /// What the process ends with.
    pub fn exit_status(&self) -> ExitStatus {
        ExitStatus::DataDirectory
    }
}

/// Takes the directory for this process and begins a new incarnation; makes it one of ours when it is empty.
pub async fn take_directory<B: Backend>(
    backend: &B,
    directory: &Path,
    node: BrokerId,
    deadline: Deadline,
) -> Result<Identity, IdentityError> {
    let disk = backend.disk();
    disk.create_dir_all(directory, deadline).await?;
    // Before the lock, which leaves a file behind: nothing of ours goes into a foreign directory.
    read(backend, directory, deadline).await?;
    match disk.lock_dir(directory, deadline).await {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(IdentityError::Locked(directory.to_owned()));
        }
        Err(error) => return Err(error.into()),
    }
    let incarnation_id = IncarnationId(random_uuid(backend));
    // Again: another process may have begun a new incarnation, and ended, before we had the lock.
    let identity = match read(backend, directory, deadline).await? {
        Some(stored) if stored.node_id != node => {
            return Err(IdentityError::OtherNode {
                directory: directory.to_owned(),
                found: stored.node_id,
                configured: node,
            });
        }
        Some(stored) => {
            let last = incarnation::last(backend, directory, deadline).await?;
            let path = directory.join(INCARNATION);
            let unreadable = |what: &str| IdentityError::Unreadable { path: path.clone(), what: what.into() };
            let last = last.max(stored.incarnation);
            let last = last.ok_or_else(|| unreadable("neither of its slots is whole"))?;
            let next =
                last.0.checked_add(1).ok_or_else(|| unreadable("its incarnation is the last there is"))?;
            let identity = Identity {
                storage: stored.storage_id,
                node,
                cluster_id: stored.cluster_id,
                incarnation: Incarnation(next),
                incarnation_id,
            };
            incarnation::write(backend, directory, identity.incarnation, deadline).await?;
            if stored.format_version < IDENTITY {
                match write(backend, directory, &identity, deadline).await {
                    // The old form serves as well, and a start needs no space.
                    Err(error) if error.is_full() => {}
                    written => written?,
                }
            }
            identity
        }
        None => {
            sync_ancestors(backend, directory, deadline).await?;
            let identity = Identity {
                storage: StorageId(random_uuid(backend)),
                node,
                cluster_id: url_safe(random_uuid(backend)),
                incarnation: Incarnation(1),
                incarnation_id,
            };
            // In this order: an identity always has an incarnation.
            incarnation::write(backend, directory, identity.incarnation, deadline).await?;
            write(backend, directory, &identity, deadline).await?;
            identity
        }
    };
    Ok(identity)
}

/// The file that counts the starts.
mod incarnation {
    use super::*;

    /// The last one that was written; nothing where there is none.
    pub(super) async fn last<B: Backend>(
        backend: &B,
        directory: &Path,
        deadline: Deadline,
    ) -> Result<Option<Incarnation>, DiskError> {
        let path = directory.join(INCARNATION);
        match backend.disk().open(&path, OpenHow::ReadOnly, deadline).await {
            Ok(file) => {
                let bytes = file.read_at(0, 2 * SLOT_BYTES, deadline).await?;
                Ok(bytes.chunks(SLOT_BYTES).filter_map(decode).max())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// In the slot whose turn it is: the other one holds the one before.
    pub(super) async fn write<B: Backend>(
        backend: &B,
        directory: &Path,
        incarnation: Incarnation,
        deadline: Deadline,
    ) -> Result<(), DiskError> {
        let disk = backend.disk();
        let file = disk.open(&directory.join(INCARNATION), OpenHow::OrCreate, deadline).await?;
        if file.len(deadline).await? < 2 * SLOT_BYTES as u64 {
            // Both have their bytes from the beginning: later writes allocate nothing.
            file.write_at(0, Bytes::from(vec![0; 2 * SLOT_BYTES]), deadline).await?;
            file.sync(deadline).await?;
            disk.sync_dir(directory, deadline).await?;
        }
        let slot = incarnation.0 % 2 * SLOT_BYTES as u64;
        file.write_at(slot, encode(incarnation), deadline).await?;
        file.sync(deadline).await
    }

    pub(super) fn encode(incarnation: Incarnation) -> Bytes {
        let mut slot = BytesMut::zeroed(SLOT_BYTES);
        let mut filled = &mut slot[..];
        filled.put_slice(formats::INCARNATION);
        filled.put_u64(incarnation.0);
        let crc = crc32c::crc32c(&slot[..SLOT_FILLED_BYTES - 4]);
        (&mut slot[SLOT_FILLED_BYTES - 4..]).put_u32(crc);
        slot.freeze()
    }

    fn decode(slot: &[u8]) -> Option<Incarnation> {
        let (body, mut crc) = slot.get(..SLOT_FILLED_BYTES)?.split_at(SLOT_FILLED_BYTES - 4);
        let sound = body.starts_with(formats::INCARNATION) && crc.get_u32() == crc32c::crc32c(body);
        sound.then(|| Incarnation((&body[formats::INCARNATION.len()..]).get_u64()))
    }
}

async fn read<B: Backend>(
    backend: &B,
    directory: &Path,
    deadline: Deadline,
) -> Result<Option<Stored>, IdentityError> {
    let path = directory.join(FILE);
    if let Some(bytes) = whole_file::read(backend, &path, deadline).await? {
        return parse(&bytes, &path).map(Some);
    }
    let entries = backend.disk().read_dir(directory, deadline).await?;
    match entries.into_iter().find(|entry| !may_precede(&entry.name)) {
        Some(entry) => Err(IdentityError::Foreign { directory: directory.to_owned(), found: entry.name }),
        None => Ok(None),
    }
}

/// What an unused directory may hold: traces of a start that did not get far, and of the file system.
fn may_precede(name: &str) -> bool {
    matches!(name, LOCK | INCARNATION | "lost+found")
        || name == whole_file::temporary(FILE)
        || name.starts_with(".disk-probe-")
}

fn parse(bytes: &[u8], path: &Path) -> Result<Stored, IdentityError> {
    let unreadable = |what: String| IdentityError::Unreadable { path: path.to_owned(), what };
    let header: Header = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if header.format != FORMAT {
        return Err(unreadable(format!("its format is '{}' and not '{FORMAT}'", header.format)));
    }
    if header.format_version > IDENTITY {
        return Err(IdentityError::Newer { path: path.to_owned(), found: header.format_version });
    }
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if stored.format_version < 2 && stored.incarnation.is_none() {
        return Err(unreadable("its incarnation is missing".to_owned()));
    }
    // Where there is one it counts, whatever the version says: that may be what has changed.
    let sound = match stored.crc32c {
        Some(crc32c) => crc32c == stored.checksum(),
        None => stored.format_version < CHECKSUM_SINCE,
    };
    if !sound {
        return Err(unreadable("its checksum does not fit: it was changed".to_owned()));
    }
    Ok(stored)
}

async fn write<B: Backend>(
    backend: &B,
    directory: &Path,
    identity: &Identity,
    deadline: Deadline,
) -> Result<(), DiskError> {
    let mut stored = Stored {
        format: FORMAT.to_owned(),
        format_version: IDENTITY,
        storage_id: identity.storage,
        node_id: identity.node,
        cluster_id: identity.cluster_id.clone(),
        incarnation: None,
        crc32c: None,
    };
    stored.crc32c = Some(stored.checksum());
    // A flat record of text and numbers.
    let mut json = serde_json::to_vec_pretty(&stored).expect("writing JSON into memory");
    json.push(b'\n');
    whole_file::write(backend, directory, FILE, Bytes::from(json), deadline).await
}

/// A directory that was just made is durable when its parents say so. Those that are not ours to open, or
/// have no name (the end of a relative path), are left alone.
async fn sync_ancestors<B: Backend>(
    backend: &B,
    directory: &Path,
    deadline: Deadline,
) -> Result<(), DiskError> {
    for ancestor in directory.ancestors().skip(1) {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match backend.disk().sync_dir(ancestor, deadline).await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn random_uuid<B: Backend>(backend: &B) -> Uuid {
    let (high, low) = (backend.random_u64(), backend.random_u64());
    Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()).into_uuid()
}

/// A cluster id as Kafka writes it: 16 bytes in base 64 with '-' and '_', unpadded.
fn url_safe(id: Uuid) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = id.as_u128();
    // 128 bits and four zero bits are 22 digits of six.
    (0..22)
        .map(|digit| {
            let six = if digit < 21 { (bits >> (122 - 6 * digit)) & 63 } else { (bits << 4) & 63 };
            char::from(ALPHABET[six as usize])
        })
        .collect()
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
