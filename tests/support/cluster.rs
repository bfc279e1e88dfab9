//! Trials in a cluster, and what their lists are made of.

use std::{future::Future, sync::Arc};

use anyhow::Result;
use libtest_mimic::Trial;

use super::{
    apiserver::{ApiServerPart, Shared},
    tenant::Tenant,
    trials::trial,
};

/// The servers of the trials of one test program.
#[derive(Clone, Default)]
pub struct Servers(Arc<Shared>);

impl Servers {
    /// A trial on the server that all share.
    pub fn shared<F, R>(&self, name: &str, run: F) -> Trial
    where
        F: FnOnce(Place) -> R + Send + 'static,
        R: Future<Output = Result<()>>,
    {
        let servers = self.clone();
        trial(name, ApiServerPart::find(), |part| run(Place { part, servers }))
    }

    /// A trial that needs a server of its own.
    pub fn own<F, R>(name: &str, run: F) -> Trial
    where
        F: FnOnce(ApiServerPart) -> R + Send + 'static,
        R: Future<Output = Result<()>>,
    {
        trial(name, ApiServerPart::find(), run)
    }
}

/// Where a trial runs.
pub struct Place {
    part: ApiServerPart,
    servers: Servers,
}

impl Place {
    /// A place for one agent.
    pub async fn tenant(&self, name: &str) -> Result<Tenant<'_>> {
        Tenant::new(self.servers.0.get(&self.part).await?, name).await
    }
}

/// The full name of an image.
pub fn image(name: &str) -> String {
    format!("registry.example.com/{name}:1")
}

/// A list of images.
pub fn list(images: &[&str]) -> String {
    images.iter().fold("images:\n".to_owned(), |list, name| list + "  - " + &image(name) + "\n")
}
