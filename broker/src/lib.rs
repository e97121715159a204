//! The Chronik broker: a durable message log that speaks the Kafka protocol.
//!
//! The modules stand in the order of a produce request's life: bytes arrive at the [`server`], a
//! [`connection`] frames them, [`wire`] decodes, [`dispatch`] routes, [`produce`] validates, the
//! [`partition`] orders and numbers, the [`journal`] makes durable, the [`log`] keeps for readers, [`fetch`]
//! serves them; [`metadata`] says who leads what, agreed upon through [`raft`]; [`admin`] tells operators.
//!
//! What grows with load is charged to the [`budget`].
//!
//! Nothing here touches the outside but through `io_backend::Backend`.

pub mod admin;
pub mod budget;
pub mod config;
pub mod connection;
pub mod dispatch;
pub mod fetch;
pub mod identity;
pub mod ids;
pub mod journal;
pub mod limits;
pub mod log;
pub mod metadata;
pub mod metrics;
pub mod node;
pub mod partition;
pub mod parts;
pub mod produce;
pub mod raft;
pub mod replicas;
pub mod server;
pub mod stall;
pub mod wire;
