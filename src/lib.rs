//! `prepull` keeps every Kubernetes node's image store stocked with a list of images.
//!
//! The library is the binary's own; ARCHITECTURE.md draws how the parts hang together.

pub mod backoff;
pub mod clock;
pub mod cooldown;
pub mod credentials;
pub mod cri;
pub mod desired;
pub mod error_class;
pub mod error_text;
pub mod image_ref;
pub mod image_state;
pub mod list;
pub mod plan;
pub mod puller;
pub mod runtime;
pub mod stock;
