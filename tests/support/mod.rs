//! What the integration tests, the demo and the benches stand on: real runtimes and registries, and servers in front of
//! them that count, delay and fail. Nothing here knows the agent.
//!
//! This is a `mod.rs` because `tests/support.rs` would be a test target of its own.
#![allow(dead_code, unreachable_pub, reason = "compiled into every test target, and each of them uses only a part")]

pub mod access_log;
pub mod agent;
pub mod api_proxy;
pub mod apiserver;
pub mod background;
pub mod browser;
pub mod cluster;
pub mod containerd;
pub mod cri;
pub mod cri_proxy;
pub mod fake_cri;
pub mod garbage;
pub mod http;
pub mod images;
pub mod journal;
pub mod monitoring;
pub mod operator;
pub mod parts;
pub mod pin_labels;
pub mod policies;
pub mod prefix_proxy;
pub mod process;
pub mod promql;
pub mod push;
pub mod rate_limit;
pub mod raw_cri;
pub mod registry;
pub mod script;
pub mod sources;
pub mod stand_in;
pub mod status_server;
pub mod statuses;
pub mod tcp_proxy;
pub mod tenant;
pub mod token_server;
pub mod trials;
pub mod unix_server;
pub mod warming;
