//! Values of the agent's flags.

use std::{
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

use super::duration;

/// Looking at the store more often than this would be all that the agent does.
const SHORTEST_RESYNC: Duration = Duration::from_millis(100);

/// Where to listen: an address, a host name or nothing (all addresses), a colon and a port.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let remedy = "write ADDRESS:PORT, such as 0.0.0.0:9797, :9797 for all addresses, or localhost:9797";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("a port is missing; {remedy}"))?;
    let port: u16 = port.parse().map_err(|_| format!("`{port}` is no port from 0 to 65535; {remedy}"))?;
    if host.is_empty() {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    let mut found =
        (host, port).to_socket_addrs().map_err(|e| format!("`{host}` is no address or host: {e}; {remedy}"))?;
    found.next().ok_or_else(|| format!("the host `{host}` has no address; {remedy}"))
}

/// How often to look.
pub(super) fn resync(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < SHORTEST_RESYNC { Err("write 100ms or more, such as 5m".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_ports_alone() {
        for (text, wanted) in [(":9797", "0.0.0.0:9797"), ("127.0.0.1:1", "127.0.0.1:1"), ("[::1]:2", "[::1]:2")] {
            assert_eq!(listen(text).unwrap().to_string(), wanted);
        }
        let local = listen("localhost:9797").unwrap();
        assert!(local.ip().is_loopback() && local.port() == 9797, "{local}");
        for bad in ["", "9797", "0.0.0.0", ":", ":99999", "no such host:1"] {
            assert!(listen(bad).unwrap_err().contains("write ADDRESS:PORT"), "{bad}");
        }
    }

    #[test]
    fn a_resync_is_no_busy_loop() {
        assert_eq!(resync("100ms"), Ok(Duration::from_millis(100)));
        assert!(resync("99ms").unwrap_err().contains("100ms or more"));
        assert!(resync("0s").is_err() && resync("often").is_err());
    }
}
