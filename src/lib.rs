//! `prepull` keeps every Kubernetes node's image store stocked with a list of images.
//!
//! The library is the binary's own; ARCHITECTURE.md draws how the parts hang together.

pub mod agent;
pub mod backoff;
pub mod budget;
pub mod cli;
pub mod clock;
pub mod containerd;
pub mod cooldown;
pub mod credential_source;
pub mod credentials;
pub mod cri;
pub mod desired;
pub mod discovery;
pub mod disk_guard;
pub mod display;
pub mod error_class;
pub mod error_text;
pub mod fleet;
pub mod http;
pub mod image_ref;
pub mod image_state;
pub mod io_pressure;
pub mod kubernetes;
pub mod list;
pub mod list_file;
pub mod list_update;
pub mod metrics;
pub mod node_report;
pub mod node_view;
pub mod node_writes;
pub mod notices;
pub mod page;
pub mod panics;
pub mod parallelism;
pub mod pins;
pub mod plan;
pub mod process_clock;
pub mod progress;
pub mod pull_secrets;
pub mod puller;
pub mod retries;
pub mod runtime;
pub mod spread;
pub mod status;
pub mod stock;
