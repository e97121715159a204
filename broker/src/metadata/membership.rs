//! What a data directory knows of the cluster that it is part of (`membership.json`): which cluster, who began it, and how far
//! this node is in it. A node that has always been alone has none.
//!
//! It is written before anything is done that it says. So a directory that says it is a member, with an empty Raft
//! journal, has lost the votes that it gave, and is not used.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use io_backend::{Backend, Deadline, DiskError};
use serde::{Deserialize, Serialize};

use crate::formats::MEMBERSHIP;
use crate::ids::{BrokerId, StorageId};
use crate::whole_file;

const FILE: &str = "membership.json";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Kafka's cluster id.
    pub cluster_id: String,
    /// How far this node is.
    pub stage: Stage,
    /// Who began the group of several, this node among them; nobody where it was added later.
    pub founders: Vec<Founder>,
}

/// How far a node is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It begins the group with the others, and has not voted.
    Founding,
    /// It waits to be given the log of a group that there is.
    Joining,
    /// Its Raft journal has what it voted and agreed to.
    Member,
}

/// A node that begins a group, and the data directory that it does it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Founder {
    /// Which node.
    pub node: BrokerId,
    /// Its data directory.
    pub storage: StorageId,
}

/// Why it cannot be told what the directory is part of.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The disk.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// It cannot be read.
    #[error(
        "{path} cannot be used: {what}. Nothing was changed; restore the file from a backup, or start this node on an empty \
         directory: it fetches what it had from the others"
    )]
    Unreadable { path: PathBuf, what: String },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format_version: u32,
    #[serde(flatten)]
    membership: Membership,
    /// CRC-32C of the membership as JSON without white space.
    crc32c: u32,
}

fn checksum(membership: &Membership) -> u32 {
    crc32c::crc32c(&serde_json::to_vec(membership).expect("writing JSON into memory"))
}

/// What the directory says; nothing where its node was always alone, or never started.
pub async fn read<B: Backend>(
    backend: &B,
    directory: &Path,
    deadline: Deadline,
) -> Result<Option<Membership>, MembershipError> {
    let path = directory.join(FILE);
    let Some(bytes) = whole_file::read(backend, &path, deadline).await? else { return Ok(None) };
    parse(&bytes).map(Some).map_err(|what| MembershipError::Unreadable { path, what })
}

fn parse(bytes: &[u8]) -> Result<Membership, String> {
    #[derive(Deserialize)]
    struct Header {
        format_version: u32,
    }
    let header: Header = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if header.format_version > MEMBERSHIP {
        let found = header.format_version;
        return Err(format!(
            "it has format version {found}, and this binary reads up to {MEMBERSHIP}: start a newer chronik"
        ));
    }
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if stored.crc32c != checksum(&stored.membership) {
        return Err("its checksum does not fit: it was changed".to_owned());
    }
    Ok(stored.membership)
}

/// Says it from now on.
pub async fn write<B: Backend>(
    backend: &B,
    directory: &Path,
    membership: &Membership,
    deadline: Deadline,
) -> Result<(), DiskError> {
    whole_file::write(backend, directory, FILE, encode(membership), deadline).await
}

fn encode(membership: &Membership) -> Bytes {
    let stored =
        Stored { format_version: MEMBERSHIP, membership: membership.clone(), crc32c: checksum(membership) };
    let mut json = serde_json::to_vec_pretty(&stored).expect("writing JSON into memory");
    json.push(b'\n');
    json.into()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_changed_or_is_newer_is_told() {
        let founder = Founder { node: BrokerId(1), storage: StorageId(Uuid::from_u128(7)) };
        let membership =
            Membership { cluster_id: "c".into(), stage: Stage::Founding, founders: vec![founder] };
        let text = String::from_utf8(encode(&membership).to_vec()).unwrap();
        assert_eq!(parse(text.as_bytes()), Ok(membership));
        let table = [
            (text.replace("founding", "member"), "it was changed"),
            (text.replace("\"format_version\": 1", "\"format_version\": 9"), "start a newer chronik"),
            (text.replace('}', ""), "expected `,`"),
        ];
        for (text, why) in table {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
