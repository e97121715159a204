//! The testbed: the broker's own code in a simulated kernel that is broken on purpose.
//!
//! The modules stand in layers: each imports only from those before it in this list, which the broker's
//! `tests/architecture.rs` enforces.
//!
//! - A [`probe`] is a situation that runs want to see; [`streams`] are where all randomness comes from.
//! - A [`fault`] is what breaks; the [`world`] is where: executor, clock, disk, network, and the trace of it all.
//! - [`planted`] bugs and the [`museum`]'s real ones are parts put in place of ours.
//! - The [`history`] is what clients saw; a [`checker`] judges it; a [`scenario`] says what is run and what is
//!   expected of it; a [`plan`] is the faults of one seed; the [`workload`] is the clients; a [`run`] is all of it.

pub mod probe;
pub mod streams;
pub mod fault;
pub mod world;
pub mod planted;
pub mod museum;
pub mod history;
pub mod checker;
pub mod scenario;
pub mod plan;
pub mod workload;
pub mod run;
