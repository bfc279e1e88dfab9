//! The Container Runtime Interface, compiled from `proto/cri.proto`.
#![allow(missing_docs, unused_qualifications, unreachable_pub, clippy::pedantic, reason = "generated code")]

tonic::include_proto!("runtime.v1");

/// prost wants every message to have Debug; this one carries passwords, so it prints only that it is there.
impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig").finish_non_exhaustive()
    }
}
