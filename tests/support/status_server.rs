//! The product's HTTP server with a status of the test's own behind it, in place of an agent's loop.

use anyhow::Result;
use prepull::{
    http::{self, Query, Readiness},
    status::Status,
    stock::Warmth,
};
use tokio::sync::{mpsc, watch};

use super::background::Background;

/// A running server; it ends with its value.
pub struct StatusServer {
    address: String,
    status: watch::Sender<Status>,
    _background: Background,
}

impl StatusServer {
    /// Starts one on a free port.
    pub fn start(status: Status) -> Result<Self> {
        let background = Background::start("status server")?;
        let (listener, address) = background.listen()?;
        let (sender, mut queries) = mpsc::channel(16);
        let (status, current) = watch::channel(status);
        background.spawn(http::serve(listener, sender));
        background.spawn(async move {
            while let Some(query) = queries.recv().await {
                let status = current.borrow();
                let (present, required) = status.required;
                // whoever asked may be gone
                match query {
                    Query::Health(reply) => drop(reply.send(())),
                    Query::Readiness(reply) => {
                        let reason = status.not_warm_reason.clone();
                        let warmth = Warmth { warm: status.warm, present, required, reason };
                        drop(reply.send(Readiness { ready: status.warm, warmth }));
                    }
                    Query::Status(reply) => drop(reply.send(status.clone())),
                    Query::Metrics(reply) => drop(reply.send(format!("prepull_node_warm {}\n", u8::from(status.warm)))),
                }
            }
        });
        Ok(Self { address, status, _background: background })
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What is told from now on.
    pub fn tell(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }
}
