//! `prepull` keeps every Kubernetes node's image store stocked with a list of images.
//!
//! The library is the binary's own; ARCHITECTURE.md draws how the parts hang together.

pub mod credentials;
pub mod cri;
pub mod image_ref;
pub mod list;
