//! Who the node is, where it listens, who the others are, and its bound of memory.

use std::time::Duration;

use super::super::peers::{self, Secret};
use super::super::values::{bytes, duration, endpoint, number, shown};
use super::key::{GIB, Key};
use crate::ids::BrokerId;

/// In the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key!(
        "node_id",
        "number of this node in its cluster",
        "0..=2147483647",
        |c, v| {
            c.node_id = BrokerId(number(v, 0, i32::MAX)?);
            Ok(())
        },
        |c| c.node_id.to_string()
    ),
    key!(
        "data_dir",
        "directory of all data; belongs to one process",
        "a path",
        |c, v| {
            c.data_dir = v.into();
            Ok(())
        },
        |c| c.data_dir.display().to_string()
    ),
    key!(
        "listen",
        "where the Kafka protocol is served; port 0 picks a free one",
        "HOST:PORT",
        |c, v| {
            c.listen = endpoint(v)?;
            Ok(())
        },
        |c| c.listen.clone()
    ),
    key!(
        "advertise",
        "what clients are told to connect to; empty: the listening address",
        "HOST:PORT or empty",
        |c, v| {
            c.advertise = if v.is_empty() { None } else { Some(endpoint(v)?) };
            Ok(())
        },
        |c| c.advertise.clone().unwrap_or_default()
    ),
    key!(
        "cluster",
        "where other nodes connect to",
        "HOST:PORT",
        |c, v| {
            c.cluster = endpoint(v)?;
            Ok(())
        },
        |c| c.cluster.clone()
    ),
    key!(
        "cluster.advertise",
        "what other nodes are told to connect to; empty: what cluster.peers says of this node, or the address it listens on",
        "HOST:PORT or empty",
        |c, v| {
            c.peers.advertise = if v.is_empty() { None } else { Some(endpoint(v)?) };
            Ok(())
        },
        |c| c.peers.advertise.clone().unwrap_or_default()
    ),
    key!(
        "cluster.peers",
        "all nodes of the cluster with the addresses of their cluster listeners; empty: this node is alone, and nobody listens at cluster",
        "ID@HOST:PORT, with commas between them, or empty",
        |c, v| {
            let voters = peers::voters(v)?;
            c.apply_peers(voters);
            Ok(())
        },
        |c| c.peers.voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    ),
    Key {
        path: "cluster.secret",
        about: "what the nodes of a cluster share and prove to one another; without one they are reached on the loopback address only. Better in a file: cluster.secret_file",
        range: "16 to 1024 characters, or empty",
        set: |c, v| {
            c.peers.secret = if v.is_empty() { None } else { Some(Secret::new(v)?) };
            Ok(())
        },
        show: |c| peers::hidden(c.peers.secret.as_ref()),
        is_secret: true,
    },
    key!(
        "cluster.secret_file",
        "a file that holds the cluster's secret, read at the start",
        "a path or empty",
        |c, v| {
            c.peers.secret_file = if v.is_empty() { None } else { Some(v.into()) };
            Ok(())
        },
        |c| c.peers.secret_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    ),
    key!(
        "cluster.heartbeat_interval",
        "how often a node tells the controller how it is",
        "10ms..=1m",
        |c, v| {
            c.cluster_times.heartbeat_interval =
                duration(v, Duration::from_millis(10), Duration::from_secs(60))?;
            Ok(())
        },
        |c| shown(c.cluster_times.heartbeat_interval)
    ),
    key!(
        "cluster.session_timeout",
        "a node that the controller has not heard for so long leads nothing any more; one at whose address nobody listens, after two heartbeats",
        "100ms..=10m",
        |c, v| {
            c.cluster_times.session_timeout =
                duration(v, Duration::from_millis(100), Duration::from_secs(600))?;
            Ok(())
        },
        |c| shown(c.cluster_times.session_timeout)
    ),
    key!(
        "rack",
        "where the node stands: replicas of a partition are spread over racks; empty: not said",
        "a name or empty",
        |c, v| {
            c.rack = if v.is_empty() { None } else { Some(v.to_owned()) };
            Ok(())
        },
        |c| c.rack.clone().unwrap_or_default()
    ),
    key!(
        "admin",
        "where metrics, health and stalls are served over HTTP",
        "HOST:PORT",
        |c, v| {
            c.admin = endpoint(v)?;
            Ok(())
        },
        |c| c.admin.clone()
    ),
    key!(
        "disk",
        "how the disk is driven; auto measures both and takes the faster",
        "auto, uring, threads",
        |c, v| {
            c.disk = v.parse()?;
            Ok(())
        },
        |c| c.disk.to_string()
    ),
    key!(
        "memory.bytes",
        "bound of all that grows with load: half for the log's tails, a quarter for requests, the rest for answers and what waits; the keys of the parts below override it",
        "64 MiB..=1 TiB",
        |c, v| {
            let least = crate::limits::MEMORY_BYTES_MIN as u64;
            c.apply_memory(bytes(v, least, 1024 * GIB)? as usize);
            Ok(())
        },
        |c| c.memory_bytes.to_string()
    ),
];
