//! The built-in cloud lookups against small local servers that look at everything they are sent. Hosts of clouds are
//! reached through a table of loopback addresses, so no packet leaves the machine.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "cloud_credentials/aws.rs"]
mod aws;
#[path = "cloud_credentials/azure.rs"]
mod azure;
#[path = "cloud_credentials/google.rs"]
mod google;
#[path = "cloud_credentials/hostile.rs"]
mod hostile;
#[path = "cloud_credentials/stand_in.rs"]
mod stand_in;
