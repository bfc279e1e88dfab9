//! What is warmed, and over which network.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::support::{
    images::{Content, Image, Layer},
    rate_limit::RateLimit,
    registry::{Registry, Upstream},
    tcp_proxy::{Loss, TcpProxy},
};

/// The registry's host in the images' names. It leads nowhere, so that nothing goes past the network under test.
pub(crate) const HOST: &str = "registry.test";

const MB: usize = 1_000_000;

/// How the registry is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// On the same machine, with nothing in between.
    Fast,
    /// A round trip of 100 ms, and 10 MB/s for each connection.
    Slow,
    /// A round trip of 20 ms, 40 MB/s; a stall of half a second in 20 MB, a reset in 400 MB of each connection.
    Lossy,
    /// A round trip of 20 ms; 20 requests at once, 20 a second, and 429 above.
    Limited,
}

/// What stands before the registry while one store is warmed.
pub(crate) struct Front {
    proxy: Option<TcpProxy>,
    limit: Option<RateLimit>,
}

impl Front {
    /// How a runtime reaches the registry through it.
    pub(crate) fn upstream(&self, registry: &Registry) -> Upstream {
        self.proxy.as_ref().map_or_else(|| registry.upstream(), TcpProxy::upstream)
    }

    /// Requests that were answered with 429.
    pub(crate) fn refused(&self) -> u64 {
        self.limit.as_ref().map_or(0, RateLimit::refused)
    }
}

impl Network {
    const ALL: [Self; 4] = [Self::Fast, Self::Slow, Self::Lossy, Self::Limited];

    /// Its name in cells.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
            Self::Lossy => "lossy",
            Self::Limited => "limited",
        }
    }

    /// A new one before a registry.
    pub(crate) fn before(self, registry: &Registry, seed: u64) -> Result<Front> {
        let limit = (self == Self::Limited).then(|| RateLimit::before(&registry.host(), 20.0, 20.0)).transpose()?;
        if self == Self::Fast {
            return Ok(Front { proxy: None, limit: None });
        }
        let proxy = TcpProxy::start(limit.as_ref().map_or(&registry.host(), |l| l.host()))?;
        proxy.change(|conditions| match self {
            Self::Fast => {}
            Self::Slow => {
                conditions.latency = Duration::from_millis(50);
                conditions.bytes_per_second = Some(10 * MB as u64);
            }
            Self::Lossy => {
                conditions.latency = Duration::from_millis(10);
                conditions.bytes_per_second = Some(40 * MB as u64);
                conditions.loss = Some(Loss {
                    seed,
                    bytes_to_stall: 20 * MB as u64,
                    stall: Duration::from_millis(500),
                    bytes_to_reset: 400 * MB as u64,
                });
            }
            Self::Limited => conditions.latency = Duration::from_millis(10),
        });
        Ok(Front { proxy: Some(proxy), limit })
    }
}

/// Images to warm over a network.
pub(crate) struct Cell {
    /// The network.
    pub(crate) network: Network,
    /// The images' name.
    pub(crate) set: &'static str,
    /// The images.
    pub(crate) images: Vec<String>,
}

impl Cell {
    /// `PROFILE/SET`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.network.name(), self.set)
    }
}

const ONE: &[usize] = &[1];
const TWENTY: &[usize] = &[20];

/// Name, the layers that its images share, and those of each, in MB.
type Set = (&'static str, &'static [usize], &'static [&'static [usize]]);

/// The sets of images.
const SETS: [Set; 6] = [
    ("family", &[40], &[TWENTY; 12]),
    ("family8", &[40], &[TWENTY; 8]),
    ("distinct", &[], &[TWENTY; 8]),
    ("mixed", &[], &[&[60, 20], &[2], &[30], &[5, 5], &[1], &[15], &[2, 2], &[40], &[3], &[10, 10], &[1], &[4]]),
    ("small", &[], &[ONE; 32]),
    ("huge", &[], &[&[60, 30, 30], &[80, 40], &[50, 50]]),
];

/// Which set is warmed over which network.
fn belongs(network: Network, set: &str) -> bool {
    match network {
        Network::Fast => set != "family8",
        Network::Slow | Network::Lossy | Network::Limited => set != "family",
    }
}

/// The cells that `only` names, with their images pushed.
pub(crate) async fn of(only: &str, registry: &Registry) -> Result<Vec<Cell>> {
    let wanted = |network: Network, set: &str| {
        only.split(',')
            .filter_map(|cell| cell.split_once('/'))
            .any(|(n, s)| (n == "*" || n == network.name()) && (s == "*" || s == set))
            && belongs(network, set)
    };
    let mut cells = Vec::new();
    for (position, (set, shared, images)) in SETS.into_iter().enumerate() {
        let networks: Vec<_> = Network::ALL.into_iter().filter(|network| wanted(*network, set)).collect();
        if networks.is_empty() {
            continue;
        }
        let names = push(registry, position as u64, set, shared, images).await?;
        cells.extend(networks.into_iter().map(|network| Cell { network, set, images: names.clone() }));
    }
    ensure!(!cells.is_empty(), "PREPULL_BENCH_ONLY={only} names no cell");
    cells.sort_by_key(|cell| Network::ALL.iter().position(|network| *network == cell.network));
    Ok(cells)
}

async fn push(
    registry: &Registry,
    position: u64,
    set: &str,
    shared: &[usize],
    images: &[&[usize]],
) -> Result<Vec<String>> {
    let mut seed = position * 1000;
    let mut layer = |size: usize| {
        seed += 1;
        Layer::new(seed, size * MB, Content::Random)
    };
    let base = shared.iter().map(|size| layer(*size)).collect::<Result<Vec<_>>>()?;
    let mut names = Vec::new();
    for (number, own) in images.iter().enumerate() {
        let own = own.iter().map(|size| layer(*size)).collect::<Result<Vec<_>>>()?;
        let layers: Vec<_> = base.iter().cloned().chain(own).collect();
        let name = format!("{set}/app-{number}:1");
        registry.push(&name, &Image::new(&name, &layers)).await?;
        names.push(format!("{HOST}/{name}"));
    }
    Ok(names)
}
