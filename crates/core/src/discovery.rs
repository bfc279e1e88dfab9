//! Which images workloads use: objects of the API in, counted images and a list out.

mod placement;
mod tally;
#[cfg(test)]
mod tests;
mod text;
pub mod workload;

pub use placement::Requirement;
pub use tally::{Found, FoundImage, Tally};
pub use text::{Detail, ListText, same_but_for_order};
