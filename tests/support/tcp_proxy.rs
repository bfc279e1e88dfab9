//! A network between runtime and registry that is as slow, far and unreliable as a test wants.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::Instant,
};

use super::{background::Background, registry::Upstream};

const CHUNK: usize = 16 << 10;
/// Chunks on their way in one direction; more than that fill the sender's socket, as on a real line.
const ON_THE_WAY: usize = 256;
/// How far a connection may catch up after a timer that was late, so that its rate is the one that was asked for.
const CATCH_UP: Duration = Duration::from_millis(20);

/// How the network is. Changes take effect on open connections too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Bytes per second of one connection in one direction; no limit by default.
    pub bytes_per_second: Option<u64>,
    /// How much later everything arrives, each way.
    pub latency: Duration,
    /// Nothing moves, and nobody is told.
    pub frozen: bool,
    /// New connections are reset at once, as near to refused as a proxy can come.
    pub closed: bool,
    /// What goes wrong at random with bytes from the registry; nothing by default.
    pub loss: Option<Loss>,
}

/// What goes wrong at random on one connection. The same seed makes the same connection, counted from the first, stall
/// and end after the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Tells one sequence of misfortunes from another.
    pub seed: u64,
    /// Bytes between two stalls, on average.
    pub bytes_to_stall: u64,
    /// How long a stall lasts.
    pub stall: Duration,
    /// Bytes until a reset, on average.
    pub bytes_to_reset: u64,
}

/// What went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections so far.
    pub connections: usize,
    /// Connections open now.
    pub open: usize,
    /// The most that were ever open at once.
    pub most_open: usize,
    /// Bytes towards the registry.
    pub up: u64,
    /// Bytes from the registry.
    pub down: u64,
}

/// A running proxy; it ends with its value.
pub struct TcpProxy {
    address: String,
    line: Line,
    _background: Background,
}

/// What all connections share.
#[derive(Clone)]
struct Line {
    conditions: watch::Sender<Conditions>,
    traffic: watch::Sender<Traffic>,
    resets: watch::Sender<u64>,
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl TcpProxy {
    /// Starts one in front of `target`, `HOST:PORT`.
    pub fn start(target: &str) -> Result<Self> {
        let background = Background::start("tcp proxy")?;
        let (listener, address) = background.listen()?;
        let line = Line {
            conditions: watch::Sender::new(Conditions::default()),
            traffic: watch::Sender::new(Traffic::default()),
            resets: watch::Sender::new(0),
        };
        background.spawn(accept(listener, target.to_owned(), line.clone()));
        Ok(Self { address, line, _background: background })
    }

    /// Host and port as they stand in image names.
    pub fn host(&self) -> &str {
        &self.address
    }

    /// How a runtime reaches a plain registry through it.
    pub fn upstream(&self) -> Upstream {
        Upstream::http(&self.address)
    }

    /// Changes how the network is.
    pub fn change(&self, change: impl FnOnce(&mut Conditions)) {
        self.line.conditions.send_modify(change);
    }

    /// Breaks all open connections with a reset.
    pub fn reset(&self) {
        self.line.resets.send_modify(|resets| *resets += 1);
    }

    /// What went through so far.
    pub fn traffic(&self) -> Traffic {
        *self.line.traffic.borrow()
    }

    /// Waits until the traffic is so.
    pub async fn wait_until(&self, patience: Duration, is: impl FnMut(&Traffic) -> bool) -> Result<()> {
        let mut traffic = self.line.traffic.subscribe();
        tokio::time::timeout(patience, traffic.wait_for(is))
            .await
            .with_context(|| format!("the traffic did not become so within {patience:?}"))?
            .context("the proxy has ended")?;
        Ok(())
    }
}

async fn accept(listener: TcpListener, target: String, line: Line) {
    while let Ok((client, _)) = listener.accept().await {
        let (target, line) = (target.clone(), line.clone());
        tokio::spawn(async move {
            let mut number = 0;
            line.traffic.send_modify(|traffic| {
                number = traffic.connections;
                traffic.connections += 1;
                traffic.open += 1;
                traffic.most_open = traffic.most_open.max(traffic.open);
            });
            // an error ends the connection, which is all that the two sides can be told
            let _ = connect(client, &target, &line, number).await;
            line.traffic.send_modify(|traffic| traffic.open -= 1);
        });
    }
}

async fn connect(mut client: TcpStream, target: &str, line: &Line, number: usize) -> std::io::Result<()> {
    let conditions = *line.conditions.borrow();
    if conditions.closed {
        return client.set_zero_linger();
    }
    // what a handshake over the real distance takes
    tokio::time::sleep(conditions.latency * 2).await;
    let mut resets = line.resets.subscribe();
    let mut server = match TcpStream::connect(target).await {
        Ok(server) => server,
        Err(error) => {
            // as near to a refused connection as a proxy can come
            client.set_zero_linger()?;
            return Err(error);
        }
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                carry(from_client, to_server, line, Direction::Up, None),
                carry(from_server, to_client, line, Direction::Down, conditions.loss.map(|l| Luck::new(l, number)))
            )
        };
        tokio::select! {
            ended = both => Some(ended),
            _ = resets.changed() => None,
        }
    };
    if !matches!(ended, Some(Ok(_))) {
        // what broke one side breaks the other in the same way
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

/// Reads and writes at the same time: late bytes do not keep later ones from leaving.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    line: &Line,
    direction: Direction,
    mut luck: Option<Luck>,
) -> std::io::Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = from.read(&mut buffer).await?;
            // the other half ends only with an error, which it reports itself
            if length == 0 || sender.send((Instant::now(), buffer[..length].to_vec())).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        let mut conditions = line.conditions.subscribe();
        let mut free = Instant::now();
        while let Some((left, bytes)) = receiver.recv().await {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let Ok(now) = conditions.wait_for(|conditions| !conditions.frozen).await.map(|now| *now) else {
                    return Ok(());
                };
                tokio::time::sleep_until(free.max(left + now.latency)).await;
                if conditions.borrow().frozen {
                    continue;
                }
                let piece = now.bytes_per_second.map_or(rest.len(), |rate| piece(rate).min(rest.len()));
                to.write_all(&rest[..piece]).await?;
                line.count(direction, piece);
                free = free.max(Instant::now() - CATCH_UP)
                    + now.bytes_per_second.map_or(Duration::ZERO, |rate| time_for(piece, rate));
                rest = &rest[piece..];
                if let Some(luck) = &mut luck {
                    luck.carried(piece).await?;
                }
            }
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

/// The misfortunes of one connection.
struct Luck {
    loss: Loss,
    random: fastrand::Rng,
    to_stall: u64,
    to_reset: u64,
}

impl Luck {
    fn new(loss: Loss, connection: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(loss.seed.wrapping_mul(1_000_003).wrapping_add(connection as u64));
        let (to_stall, to_reset) = (next(&mut random, loss.bytes_to_stall), next(&mut random, loss.bytes_to_reset));
        Self { loss, random, to_stall, to_reset }
    }

    async fn carried(&mut self, bytes: usize) -> std::io::Result<()> {
        let bytes = bytes as u64;
        self.to_reset = self.to_reset.saturating_sub(bytes);
        if self.to_reset == 0 {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        self.to_stall = self.to_stall.saturating_sub(bytes);
        if self.to_stall == 0 {
            self.to_stall = next(&mut self.random, self.loss.bytes_to_stall);
            tokio::time::sleep(self.loss.stall).await;
        }
        Ok(())
    }
}

/// Bytes until something that happens once in `mean` bytes happens the next time.
fn next(random: &mut fastrand::Rng, mean: u64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and far below 2^53")]
    let distance = (-(1.0 - random.f64()).ln() * mean as f64) as u64;
    distance.saturating_add(1)
}

impl Line {
    fn count(&self, direction: Direction, bytes: usize) {
        self.traffic.send_modify(|traffic| {
            *match direction {
                Direction::Up => &mut traffic.up,
                Direction::Down => &mut traffic.down,
            } += bytes as u64;
        });
    }
}

/// A twentieth of a second's worth: small enough to flow, large enough to be cheap.
fn piece(rate: u64) -> usize {
    usize::try_from(rate / 20).unwrap_or(usize::MAX).clamp(1, CHUNK)
}

fn time_for(bytes: usize, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}
