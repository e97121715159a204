//! What a node is told of the others: who they are and where, what it proves itself with, and which of that can hold
//! together.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::values::endpoint;
use crate::ids::BrokerId;
use crate::limits::PEERS_MAX;

/// Fewer characters can be guessed.
pub const SECRET_BYTES_MIN: usize = 16;
/// More are no secret but a file that was mistaken for one.
pub const SECRET_BYTES_MAX: usize = 1_024;
/// What stands for a secret wherever it would be shown.
const HIDDEN: &str = "(hidden)";

/// The nodes of a cluster, as one of them is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeersConfig {
    /// What other nodes are told to connect to, `HOST:PORT`; where absent, what `voters` says of this node, or the
    /// address that it listens on.
    pub advertise: Option<String>,
    /// Kafka's `controller.quorum.voters`: all nodes of the cluster, this one as well or not. Empty: there is one node.
    pub voters: Vec<PeerAddress>,
    /// What the nodes of a cluster share, and prove to one another on each connection.
    pub secret: Option<Secret>,
    /// A file that holds it, instead.
    pub secret_file: Option<PathBuf>,
}

/// Where a node is reached by the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its number.
    pub id: BrokerId,
    /// `HOST:PORT` of its cluster listener.
    pub address: String,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.address)
    }
}

/// The cluster's secret. No form of it that people read has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret from its text, without the white space around it.
    ///
    /// # Errors
    ///
    /// It is too short or too long; the text is not repeated.
    pub fn new(text: &str) -> Result<Secret, String> {
        let text = text.trim();
        match text.len() {
            0..SECRET_BYTES_MIN => Err(format!("shorter than {SECRET_BYTES_MIN} characters")),
            SECRET_BYTES_MIN..=SECRET_BYTES_MAX => Ok(Secret(text.to_owned())),
            _ => Err(format!("longer than {SECRET_BYTES_MAX} bytes")),
        }
    }

    /// For the proof.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// A secret as it is shown: that there is one.
pub(super) fn hidden(secret: Option<&Secret>) -> String {
    secret.map_or_else(String::new, |_| HIDDEN.to_owned())
}

/// `1@node1:9093,2@node2:9093`; empty: nobody.
pub(super) fn voters(text: &str) -> Result<Vec<PeerAddress>, String> {
    let mut found: Vec<PeerAddress> = Vec::new();
    for entry in text.split(',').map(str::trim) {
        if entry.is_empty() && text.trim().is_empty() {
            break;
        }
        let (id, address) = entry
            .split_once('@')
            .ok_or_else(|| format!("'{entry}' is not ID@HOST:PORT, as in 1@node1:9093"))?;
        let id = id.parse::<i32>().ok().filter(|id| *id >= 0);
        let id = BrokerId(id.ok_or_else(|| format!("'{entry}' does not begin with the number of a node"))?);
        let address = endpoint(address).map_err(|why| format!("'{entry}': {why}"))?;
        if port(&address) == Some(0) {
            return Err(format!("'{entry}': nobody can be reached at port 0"));
        }
        if let Some(other) = found.iter().find(|other| other.id == id || other.address == address) {
            return Err(format!("'{other}' and '{entry}' are one node, or one address"));
        }
        found.push(PeerAddress { id, address });
    }
    match found.len() <= PEERS_MAX {
        true => Ok(found),
        false => Err(format!("{} nodes, at most {PEERS_MAX} are possible", found.len())),
    }
}

fn port(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or("", |(host, _)| host)
}

/// Whether an address stands for every address of a machine.
pub(super) fn is_wildcard(address: &str) -> bool {
    matches!(host(address), "0.0.0.0" | "[::]" | "::" | "*")
}

/// Whether only this machine can connect to it.
fn is_loopback(address: &str) -> bool {
    let host = host(address).trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl PeersConfig {
    /// The others. Where there are none, nobody is listened to and nobody is connected to.
    pub fn others(&self, own: BrokerId) -> impl Iterator<Item = &PeerAddress> {
        self.voters.iter().filter(move |peer| peer.id != own)
    }

    /// What the others are told to connect to, of a node that listens there.
    pub fn advertised<'a>(&'a self, own: BrokerId, listen: &'a str) -> &'a str {
        let of_voters = || self.voters.iter().find(|peer| peer.id == own).map(|peer| peer.address.as_str());
        self.advertise.as_deref().or_else(of_voters).unwrap_or(listen)
    }

    /// Whether it holds together, for a node of this number that listens there.
    pub(super) fn check(&self, own: BrokerId, listen: &str) -> Result<(), String> {
        if self.secret.is_some() && self.secret_file.is_some() {
            return Err("cluster.secret and cluster.secret_file are both set: keep one of them".to_owned());
        }
        if let Some(named) = self.voters.iter().find(|peer| peer.id == own) {
            let is_ours = match &self.advertise {
                Some(advertised) => named.address == *advertised,
                None if is_wildcard(listen) => port(&named.address) == port(listen),
                None => named.address == listen,
            };
            if !is_ours {
                let own_address = self.advertise.as_deref().unwrap_or(listen);
                return Err(format!(
                    "cluster.peers has {named}, and this is node {own}, which other nodes reach at {own_address}: set node_id to \
                     the number of this node, or cluster and cluster.advertise to its address"
                ));
            }
        }
        if self.others(own).next().is_none() {
            return Ok(());
        }
        if is_wildcard(self.advertised(own, listen)) {
            return Err(format!(
                "other nodes would be told to connect to {listen}, which is no address of a machine: set cluster.advertise to \
                 a HOST:PORT at which they reach this node, or name this node in cluster.peers"
            ));
        }
        if self.secret.is_none() && self.secret_file.is_none() && !is_loopback(listen) {
            return Err(format!(
                "without a secret anybody who reaches {listen} could pass for a node of this cluster: set cluster.secret_file (or \
                 cluster.secret) to the same secret on all nodes, or cluster to an address of this machine only, as 127.0.0.1:9093"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
