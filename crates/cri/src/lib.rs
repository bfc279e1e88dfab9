//! What prepull says to the container runtime: CRI's image service, and containerd's own services for content, leases, events and
//! image records.

pub mod containerd;
pub mod cri;
pub mod puller;
pub mod runtime;
