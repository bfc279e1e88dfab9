//! The pure part of prepull: lists, image names, states, the plan, and what people are shown of them.
//!
//! Nothing here does I/O or knows of an async runtime; time and randomness come in as arguments.

pub mod backoff;
pub mod budget;
pub mod clock;
pub mod cooldown;
pub mod credential_source;
pub mod desired;
pub mod discovery;
pub mod disk_guard;
pub mod display;
pub mod error_class;
pub mod error_text;
pub mod fleet;
pub mod image_ref;
pub mod image_state;
pub mod io_pressure;
pub mod list;
pub mod list_update;
pub mod node_report;
pub mod node_view;
pub mod node_writes;
pub mod notices;
pub mod parallelism;
pub mod pins;
pub mod plan;
pub mod progress;
pub mod retries;
pub mod spread;
pub mod status;
pub mod stock;
mod template;
