//! Groups: who may say how far one is, what is told of that, who owns what, and whether a group gets to every record.

#[cfg(test)]
mod group_stories;

mod tenures;
mod over;
mod positions;
mod owners;
mod progress;
mod rebalances;

pub use owners::{owners, taken_too_soon};
pub use positions::positions;
pub use progress::{progress, untold};
pub use rebalances::{assigned_when_clear, longest_rebalance};
