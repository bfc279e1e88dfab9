//! Built-in lookups for the registries of Amazon, Google and Azure, for nodes without the clouds' kubelet plugins.
//!
//! [`names`] says whose a registry is.

pub mod names;

pub use self::names::{CloudProvider, provider_of};
