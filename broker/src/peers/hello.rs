//! What two nodes tell one another before anything else, how they prove that they share a secret, and how they refuse one
//! another. Pure.
//!
//! ```text
//! hello:   "CHRP" | version u16 | node i32 | expects i32 | incarnation u64 | storage 16 | incarnation id 16 | nonce 32
//!          | cluster id: length u8, bytes
//! refusal: code u8 | number i32
//! proof:   HMAC-SHA256 of role | length u32, hello of who connects | hello of who was connected to
//! ```
//!
//! The hellos hold both identities and both nonces, so that a proof is of this connection and of no other, and the role
//! keeps it from being given back to who gave it. Nothing behind the handshake is protected: who can change what is on
//! its way between two nodes can change that.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::frame::FrameError;
use crate::config::Secret;
use crate::ids::{BrokerId, Incarnation, IncarnationId, StorageId};

/// Of frames and handshake. A node refuses newer ones, for it cannot know what they mean.
pub const VERSION: u16 = 1;
const MAGIC: &[u8; 4] = b"CHRP";
const FIXED_BYTES: usize = 4 + 4 + 8 + 16 + 16 + NONCE_BYTES + 1;
/// Bytes of the number that makes a handshake one of its own.
pub const NONCE_BYTES: usize = 32;
/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// Which process of which node somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node.
    pub node: BrokerId,
    /// Its data directory.
    pub storage: StorageId,
    /// How often that was started on.
    pub incarnation: Incarnation,
    /// Drawn by the process.
    pub incarnation_id: IncarnationId,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} (start {} of storage {})", self.node, self.incarnation, self.storage.0)
    }
}

/// What a node says of itself on one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who it is.
    pub identity: PeerIdentity,
    /// Who it takes the other for: whom it was told to find at the address, or who the other said it is.
    pub expects: BrokerId,
    /// The cluster that it is of; empty while it does not know of one.
    pub cluster: String,
    /// Drawn for this connection.
    pub nonce: [u8; NONCE_BYTES],
}

/// Why a node does not take another for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The proof is not the one that the secret gives.
    #[error(
        "the secrets differ: cluster.secret, or what is in cluster.secret_file, is to be the same on all nodes"
    )]
    WrongSecret,
    /// Both know of a cluster, and not of the same.
    #[error(
        "the two nodes are of different clusters: one of them has the data directory, or the cluster.peers, of another cluster"
    )]
    OtherCluster,
    /// The node at the address is not the one that was to be found there.
    #[error("the node at this address is node {0}: correct its number or its address in cluster.peers")]
    OtherNode(BrokerId),
    /// Who refuses was not told of this node.
    #[error("node {0} is not among the cluster.peers of the other: add it there")]
    UnknownNode(BrokerId),
    /// Another process of this node is at work.
    #[error(
        "another process is at work as node {0}: give one of them a number of its own (node_id), or stop it"
    )]
    Duplicate(BrokerId),
    /// The data directory was used by a later process of the node: this is a copy of it, or a process of before.
    #[error(
        "a later start of the same data directory is known of node {0}: this is an older copy of it, or a process that was \
         replaced. Start the node on an empty directory, and it fetches what it had from the others"
    )]
    Stale(BrokerId),
    /// The other speaks a version that is newer than what this node knows.
    #[error(
        "the other speaks version {0} of the protocol between nodes, and the older of the two speaks up to {VERSION}: update it first"
    )]
    Newer(u16),
    /// What came is no handshake of ours.
    #[error("what came is no handshake between nodes of a cluster")]
    NotAPeer,
}

impl Refusal {
    /// The word that metrics have for it.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::WrongSecret => "wrong_secret",
            Refusal::OtherCluster => "other_cluster",
            Refusal::OtherNode(_) => "other_node",
            Refusal::UnknownNode(_) => "unknown_node",
            Refusal::Duplicate(_) => "duplicate_node",
            Refusal::Stale(_) => "stale_incarnation",
            Refusal::Newer(_) => "newer_version",
            Refusal::NotAPeer => "not_a_peer",
        }
    }

    /// The payload that tells the other.
    pub fn encode(self) -> [u8; 5] {
        let (code, number) = match self {
            Refusal::WrongSecret => (1, 0),
            Refusal::OtherCluster => (2, 0),
            Refusal::OtherNode(node) => (3, node.0),
            Refusal::UnknownNode(node) => (4, node.0),
            Refusal::Duplicate(node) => (5, node.0),
            Refusal::Stale(node) => (6, node.0),
            Refusal::Newer(version) => (7, i32::from(version)),
            Refusal::NotAPeer => (8, 0),
        };
        let [a, b, c, d] = i32::to_be_bytes(number);
        [code, a, b, c, d]
    }

    /// What the other told.
    pub fn decode(payload: &[u8]) -> Result<Refusal, FrameError> {
        let damaged = FrameError::Damaged("refused");
        let [code, number @ ..] = <[u8; 5]>::try_from(payload).map_err(|_| damaged)?;
        let number = i32::from_be_bytes(number);
        Ok(match code {
            1 => Refusal::WrongSecret,
            2 => Refusal::OtherCluster,
            3 => Refusal::OtherNode(BrokerId(number)),
            4 => Refusal::UnknownNode(BrokerId(number)),
            5 => Refusal::Duplicate(BrokerId(number)),
            6 => Refusal::Stale(BrokerId(number)),
            7 => Refusal::Newer(u16::try_from(number).map_err(|_| damaged)?),
            8 => Refusal::NotAPeer,
            _ => return Err(damaged),
        })
    }
}

impl Hello {
    /// As it is sent.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(MAGIC.len() + 2 + FIXED_BYTES + self.cluster.len());
        bytes.put_slice(MAGIC);
        bytes.put_u16(VERSION);
        bytes.put_i32(self.identity.node.0);
        bytes.put_i32(self.expects.0);
        bytes.put_u64(self.identity.incarnation.0);
        bytes.put_u128(self.identity.storage.0.as_u128());
        bytes.put_u128(self.identity.incarnation_id.0.as_u128());
        bytes.put_slice(&self.nonce);
        let cluster = self.cluster.as_bytes();
        assert!(cluster.len() <= usize::from(u8::MAX), "a cluster id has 22 characters");
        bytes.put_u8(cluster.len() as u8);
        bytes.put_slice(cluster);
        bytes.freeze()
    }

    /// What the other said; of a newer version nothing but that is read.
    pub fn decode(mut bytes: &[u8]) -> Result<Hello, Refusal> {
        let magic = bytes.split_off(..MAGIC.len()).ok_or(Refusal::NotAPeer)?;
        if magic != MAGIC || bytes.len() < 2 {
            return Err(Refusal::NotAPeer);
        }
        match bytes.get_u16() {
            VERSION => {}
            0 => return Err(Refusal::NotAPeer),
            newer => return Err(Refusal::Newer(newer)),
        }
        if bytes.len() < FIXED_BYTES {
            return Err(Refusal::NotAPeer);
        }
        let (node, expects) = (BrokerId(bytes.get_i32()), BrokerId(bytes.get_i32()));
        let incarnation = Incarnation(bytes.get_u64());
        let storage = StorageId(Uuid::from_u128(bytes.get_u128()));
        let incarnation_id = IncarnationId(Uuid::from_u128(bytes.get_u128()));
        let mut nonce = [0; NONCE_BYTES];
        bytes.copy_to_slice(&mut nonce);
        let length = usize::from(bytes.get_u8());
        if bytes.len() != length {
            return Err(Refusal::NotAPeer);
        }
        let cluster = std::str::from_utf8(bytes).map_err(|_| Refusal::NotAPeer)?.to_owned();
        let identity = PeerIdentity { node, storage, incarnation, incarnation_id };
        Ok(Hello { identity, expects, cluster, nonce })
    }
}

/// Whose proof it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who connects.
    Initiator,
    /// Who was connected to.
    Acceptor,
}

/// Both hellos of a connection, as they were sent.
pub struct Hellos<'a> {
    pub initiator: &'a [u8],
    pub acceptor: &'a [u8],
}

impl Hellos<'_> {
    fn mac(&self, secret: Option<&Secret>, role: Role) -> Hmac<Sha256> {
        let key = secret.map_or(&[][..], Secret::as_bytes);
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is one");
        mac.update(match role {
            Role::Initiator => b"chronik peer initiator\0",
            Role::Acceptor => b"chronik peer acceptor\0\0",
        });
        mac.update(&(self.initiator.len() as u32).to_be_bytes());
        mac.update(self.initiator);
        mac.update(self.acceptor);
        mac
    }

    /// What proves in that role that the secret is known.
    pub fn proof(&self, secret: Option<&Secret>, role: Role) -> [u8; PROOF_BYTES] {
        self.mac(secret, role).finalize().into_bytes().into()
    }

    /// Whether `proof` is that, compared in a time that does not tell how far it agrees.
    pub fn is_proof(&self, secret: Option<&Secret>, role: Role, proof: &[u8]) -> bool {
        self.mac(secret, role).verify_slice(proof).is_ok()
    }
}
