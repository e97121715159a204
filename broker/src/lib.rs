//! The Chronik broker: a durable message log that speaks the Kafka protocol.
//!
//! The modules stand in the order of a produce request's life: bytes arrive at the [`server`], a
//! [`connection`] frames them, [`wire`] decodes, [`dispatch`] routes, [`produce`] validates, the
//! [`partition`] orders and numbers, the [`journal`] makes durable, the [`log`] keeps for readers, [`fetch`]
//! serves them; [`metadata`] says who leads what, agreed upon through [`raft`]; [`admin`] tells operators.
//!
//! Nothing here touches the outside but through `io_backend::Backend`.

pub mod ids;
pub mod limits;
pub mod config;
pub mod parts;
pub mod node;
pub mod replicas;
pub mod stall;
pub mod journal;
pub mod partition;
pub mod log;
pub mod metadata;
pub mod raft;
pub mod admin;
