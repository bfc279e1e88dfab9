//! The few rules of Go's standard library that decide how the kubelet reads keys, durations and JSON.
//!
//! A credential that matches in the kubelet must match here, and the other way round, so these follow the library to
//! the corner cases; `make conformance` compares them with the kubelet's own packages. Pure: no I/O, no clock.

pub mod base64;
pub mod duration;
pub mod glob;
pub mod json;
pub mod url;
