//! `prepull` keeps every Kubernetes node's image store stocked with a list of images.
//!
//! The library is the binary's own; ARCHITECTURE.md draws how the parts hang together.

pub mod agent;
pub mod cli;
pub mod http;
pub mod list_file;
pub mod metrics;
pub mod page;
pub mod panics;

pub use prepull_core::{
    backoff, budget, clock, cooldown, credential_source, desired, discovery, disk_guard, display, error_class,
    error_text, fleet, image_ref, image_state, io_pressure, list, list_update, node_report, node_view, node_writes,
    notices, parallelism, pins, plan, progress, retries, spread, status, stock,
};
pub use prepull_credentials::{self as credentials, pull_secrets};
pub use prepull_cri::{containerd, cri, puller, runtime};
pub use prepull_kube::{self as kubernetes, process_clock};
