//! containerd's own services on the socket that serves CRI too, compiled from `proto/containerd-*.proto`.
#![allow(missing_docs, unused_qualifications, unreachable_pub, clippy::pedantic, reason = "generated code")]

/// How far downloads are, and what was downloaded.
pub mod content {
    tonic::include_proto!("containerd.services.content.v1");
}

/// What happens to images.
pub mod events {
    tonic::include_proto!("containerd.services.events.v1");
}

/// The records that give images their names and labels.
pub mod images {
    tonic::include_proto!("containerd.services.images.v1");
}

/// What belongs to a pull, and is kept while it lasts.
pub mod leases {
    tonic::include_proto!("containerd.services.leases.v1");
}
