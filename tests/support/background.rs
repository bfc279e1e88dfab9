//! A runtime of their own for the servers that tests talk to: they go on whatever the test does with its runtime and
//! its clock, and ending the value ends every connection at once, as a crash would.

use anyhow::{Context, Result};
use tokio::{
    net::TcpListener,
    runtime::{Builder, EnterGuard, Runtime},
};

/// One thread with a tokio runtime.
pub struct Background(Option<Runtime>);

impl Background {
    /// Starts it.
    pub fn start(name: &str) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .enable_all()
            .build()
            .context("a thread for a test's server cannot be started")?;
        Ok(Self(Some(runtime)))
    }

    /// Makes what is created while the guard lives belong to this runtime: listeners, channels.
    pub fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }

    /// Listens on a free loopback port; the address comes with it.
    pub fn listen(&self) -> Result<(TcpListener, String)> {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").context("there is no free port")?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.to_string();
        let _here = self.enter();
        Ok((TcpListener::from_std(socket)?, address))
    }

    /// Runs a task until it ends or this value does.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(task);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // waiting is not allowed where a test is async
            runtime.shutdown_background();
        }
    }
}
