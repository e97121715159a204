//! The Chronik broker: a durable message log that speaks the Kafka protocol.
//!
//! The modules stand in layers: each imports only from those before it in this list, which
//! `tests/architecture.rs` enforces.
//!
//! - [`ids`], [`limits`], [`data_dir`], [`formats`], [`lines`] and [`metrics`] are the words, bounds, directories, versions on disk,
//!   bounds of the log and counters of all; [`whole_file`] writes small files, [`identity`] says whose data directory this is; [`wire`] turns bytes into requests and answers into bytes.
//! - The [`journal`] makes durable. [`config`] is what an operator sets, [`budget`] what a node has to give away.
//!   [`stall`] judges a stalled disk, and [`admission`] goes by that. [`peers`] are the other
//!   nodes, and the connections between them. [`raft`] agrees, by way of a journal.
//! - The [`log`] keeps for readers; a [`partition`] orders, numbers and acknowledges; [`metadata`] says who leads what;
//!   [`replicas`] opens and checkpoints the partitions of this node; [`replication`] keeps them in sync with those of others;
//!   the [`coordinator`] decides for groups of consumers; [`parts`] are constructors for what stands behind the handles of all these;
//!   the [`controller`] hears how the brokers are, and decides who leads.
//! - A [`session`] is one client's connection as seen by those who work for it; [`fetch_sessions`] keep what consumers fetch; [`error_codes`] are Kafka's for our
//!   errors; the [`context`] is what all that serve requests share; [`routing`] finds topics and partitions; an
//!   [`api`] is what a client can ask for; [`dispatch`] says who handles what.
//! - A [`connection`] frames, the [`server`] accepts, [`admin`] tells operators, the [`switch`] hands on what other nodes
//!   send, and a [`node`] is all of it.
//!
//! What grows with load is charged to the [`budget`].
//!
//! Public, and documented, is what the binary uses, and what is needed to run a node with other parts and to look at what
//! it leaves behind.
//!
//! Nothing here touches the outside but through `io_backend::Backend`.

#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod ids;
pub mod limits;
pub mod data_dir;
pub(crate) mod formats;
pub(crate) mod lines;
pub mod metrics;
pub(crate) mod whole_file;
pub(crate) mod identity;
pub(crate) mod wire;
pub mod journal;
pub mod config;
pub(crate) mod budget;
pub(crate) mod stall;
pub(crate) mod admission;
pub mod peers;
pub(crate) mod raft;
pub mod log;
pub(crate) mod partition;
pub mod metadata;
pub mod replicas;
pub(crate) mod replication;
pub(crate) mod coordinator;
pub mod parts;
pub(crate) mod controller;
pub(crate) mod session;
pub(crate) mod fetch_sessions;
pub(crate) mod error_codes;
pub(crate) mod context;
pub(crate) mod routing;
pub(crate) mod api;
pub(crate) mod dispatch;
pub(crate) mod connection;
pub(crate) mod server;
pub(crate) mod admin;
pub(crate) mod switch;
pub mod node;
