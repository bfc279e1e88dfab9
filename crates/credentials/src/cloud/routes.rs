//! Where a host's connections go. Outside tests that is DNS; a test gives a table instead, so that the real names and
//! addresses are asked, with certificates that are checked, and still nothing leaves the machine.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

/// How hosts are found.
#[derive(Debug, Clone, Default)]
pub enum Routes {
    /// By DNS.
    #[default]
    Dns,
    /// By this table, from a host without port, in lower case, to an address. Loopback addresses need no entry; every
    /// other host is refused without a packet.
    Only(Arc<BTreeMap<String, SocketAddr>>),
}

impl Routes {
    /// A table.
    pub fn only<H: Into<String>>(table: impl IntoIterator<Item = (H, SocketAddr)>) -> Self {
        Self::Only(Arc::new(table.into_iter().map(|(host, address)| (host.into(), address)).collect()))
    }

    /// The address to connect to in the place of the one that is asked; an error where there is none.
    fn resolve(&self, uri: Uri) -> io::Result<Uri> {
        let Self::Only(table) = self else { return Ok(uri) };
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if let Some(address) = table.get(&bare) {
            let to = Uri::builder().scheme("http").authority(address.to_string()).path_and_query("/").build();
            return to.map_err(io::Error::other);
        }
        if bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
            return Ok(uri);
        }
        Err(io::Error::new(io::ErrorKind::HostUnreachable, "no route to this host"))
    }
}

/// Opens TCP connections by [`Routes`].
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    routes: Routes,
}

impl Connector {
    /// Wraps a connector that does the work.
    pub(super) fn new(tcp: HttpConnector, routes: Routes) -> Self {
        Self { tcp, routes }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self.routes.resolve(uri) {
            Ok(to) => {
                let connecting = self.tcp.call(to);
                Box::pin(async move { connecting.await.map_err(Into::into) })
            }
            Err(refused) => Box::pin(std::future::ready(Err(refused.into()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lets_nothing_else_out() {
        let routes = Routes::only([("foo.azurecr.io", SocketAddr::from(([127, 0, 0, 1], 8443)))]);
        let to = |uri: &str| routes.resolve(uri.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(to("https://FOO.azurecr.io/v2/").unwrap(), "http://127.0.0.1:8443/");
        assert_eq!(to("http://127.0.0.1:9/x").unwrap(), "http://127.0.0.1:9/x");
        assert_eq!(to("http://[::1]:9/x").unwrap(), "http://[::1]:9/x");
        for host in ["http://169.254.169.254/", "http://localhost.example/", "https://sts.amazonaws.com/"] {
            assert!(to(host).is_err(), "{host}");
        }
    }

    #[test]
    fn dns_changes_nothing() {
        let uri: Uri = "https://foo.azurecr.io/v2/".parse().unwrap();
        assert_eq!(Routes::Dns.resolve(uri.clone()).unwrap(), uri);
    }
}
