//! The simulated network: machines by name, listeners, connects, and what heals or breaks connections.
//!
//! Addresses are `HOST:PORT`, where the host is a machine's name, its number in `10.0.0.0/8`, or this
//! machine (`localhost`, `127.0.0.1`, `0.0.0.0`).
//!
//! In layers: how long the `links` between machines take, one direction as a `pipe`, the `fabric` between hosts, a `connection` and the
//! `stream` that is one end of it, with somebody `rewriting` it or not, `listening`, the `hub` that knows names, ports and who listens, and the `endpoint` that
//! a process sees.

mod links;
mod pipe;
mod fabric;
mod connection;
mod rewriting;
mod stream;
mod listening;
mod hub;
mod endpoint;

pub use connection::NetworkCounts;
pub use endpoint::{SimListener, SimNetwork};
pub use hub::Network;
pub use rewriting::{Rewrite, Rewrites};
pub use stream::SimStream;
