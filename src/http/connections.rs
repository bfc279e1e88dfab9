//! What clients may take: bounds on connections, on their time, and on what is held for them.
//!
//! The kubelet's probes must be answered under any flood, so no connection is closed for another one before its client had time
//! to get an answer. If all places are taken, the source address with the most connections gives way: its oldest connection that
//! is older than [`MIN_LIFETIME`], or its oldest one if a client of another address wants in. So one client, however many
//! connections it opens, never keeps another one out. The same holds for answers that are made and not taken: above the bound,
//! the connection that has held one longest is closed.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io::ErrorKind,
    net::{IpAddr, Ipv6Addr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

/// Connections at once.
const MAX_CONNECTIONS: usize = 512;
/// A younger connection is not closed for another one of its own address: its client may be a probe, which waits for a second.
const MIN_LIFETIME: Duration = Duration::from_secs(2);
/// Bytes of answers that their clients have not taken yet, of all connections together; the newest is always made.
const MAX_HELD_BYTES: usize = 8 << 20;
/// Bytes of a request's head; more is answered 431. Bodies are not read at all.
const MOST_HEAD: usize = 16 << 10;
/// Until a request's head must be there, counted from the connection's or the last answer's beginning to be idle.
const HEAD_BOUND: Duration = Duration::from_secs(5);
/// After this time a connection is closed when the answer under way is taken.
const LIFE: Duration = Duration::from_mins(1);
/// And after this time more, however slow its client takes it.
const FAREWELL: Duration = Duration::from_secs(10);
/// Before the next try where no connection can be accepted, for lack of file descriptors as a rule.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A connection that is open, oldest first in its queue.
struct Open {
    task: AbortHandle,
    source: IpAddr,
    since: Instant,
    /// Bytes of answers that its client has not taken yet.
    held: Arc<AtomicUsize>,
}

/// Serves until the process ends.
pub(super) async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<String>> + Send + 'static,
{
    let mut open = VecDeque::new();
    let mut tasks = JoinSet::new();
    let made = Arc::new(Notify::new());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, source) = match accepted {
                    Ok((stream, address)) => (stream, source_of(address.ip())),
                    // its client was gone before it was accepted
                    Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => continue,
                    Err(_) => {
                        // where no file descriptor is left, one becomes free here
                        close_oldest(&mut open);
                        sleep(ACCEPT_AGAIN).await;
                        continue;
                    }
                };
                if open.len() >= MAX_CONNECTIONS && !make_place(&mut open, source) {
                    continue;
                }
                let held = Arc::new(AtomicUsize::new(0));
                let task = tasks.spawn(connection(stream, answer.clone(), held.clone(), made.clone()));
                open.push_back(Open { task, source, since: Instant::now(), held });
            }
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                open.retain(|connection| connection.task.id() != id);
            }
            () = made.notified() => {
                while over(&open) {
                    let holder = open.iter().position(|connection| connection.held() > 0);
                    if let Some(connection) = holder.and_then(|at| open.remove(at)) {
                        connection.task.abort();
                    }
                }
            }
        }
    }
}

/// Returns what counts as one client: an address, or the network of 64 bits that an IPv6 address is in.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Closes a connection to make a place for a client of this source, or returns that it must not.
fn make_place(open: &mut VecDeque<Open>, newcomer: IpAddr) -> bool {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for connection in &*open {
        *counts.entry(connection.source).or_default() += 1;
    }
    let Some((largest, _)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return true };
    let gives_way = |connection: &Open| {
        connection.source == largest && (newcomer != largest || connection.since.elapsed() >= MIN_LIFETIME)
    };
    let victim = open.iter().position(gives_way).and_then(|at| open.remove(at));
    victim.inspect(|connection| connection.task.abort()).is_some()
}

fn close_oldest(open: &mut VecDeque<Open>) {
    if let Some(oldest) = open.pop_front() {
        oldest.task.abort();
    }
}

/// Whether too much is held; by one alone it never is.
fn over(open: &VecDeque<Open>) -> bool {
    let (holders, bytes) = open
        .iter()
        .map(Open::held)
        .filter(|held| *held > 0)
        .fold((0, 0), |(holders, bytes), held| (holders + 1, bytes + held));
    holders > 1 && bytes > MAX_HELD_BYTES
}

impl Open {
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// One connection from its first byte to its last. What goes wrong on it is its client's business.
async fn connection<A, F>(stream: TcpStream, answer: A, held: Arc<AtomicUsize>, made: Arc<Notify>)
where
    A: Fn(Request<Incoming>) -> F + Send + Sync,
    F: Future<Output = Response<String>> + Send,
{
    // an answer goes out in one piece
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let (answer, held, made) = (answer(request), held.clone(), made.clone());
        async move {
            let response = answer.await.map(|body| Full::new(Held::bytes(body, held)));
            made.notify_one();
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_BOUND).max_header_size(MOST_HEAD);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    if timeout(LIFE, serving.as_mut()).await.is_err() {
        serving.as_mut().graceful_shutdown();
        let _ = timeout(FAREWELL, serving).await;
    }
}

/// The bytes of an answer, counted as long as they are in memory.
struct Held {
    body: String,
    count: Arc<AtomicUsize>,
}

impl Held {
    fn bytes(body: String, count: Arc<AtomicUsize>) -> Bytes {
        count.fetch_add(body.len(), Ordering::Relaxed);
        Bytes::from_owner(Self { body, count })
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.body.as_bytes()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.fetch_sub(self.body.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(tasks: &mut JoinSet<()>, source: &str) -> Open {
        let task = tasks.spawn(std::future::pending());
        Open { task, source: source_of(source.parse().unwrap()), since: Instant::now(), held: Arc::default() }
    }

    fn sources(open: &VecDeque<Open>) -> Vec<String> {
        open.iter().map(|connection| connection.source.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_with_the_most_connections_gives_way() {
        let mut tasks = JoinSet::new();
        let mut all: VecDeque<_> = ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3"].map(|s| open(&mut tasks, s)).into();
        assert!(!make_place(&mut all, "10.0.0.2".parse().unwrap()), "its own young ones may be probes");
        assert!(make_place(&mut all, "10.0.0.9".parse().unwrap()));
        assert_eq!(sources(&all), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        all.push_back(open(&mut tasks, "10.0.0.2"));
        tokio::time::advance(MIN_LIFETIME).await;
        assert!(make_place(&mut all, "10.0.0.2".parse().unwrap()), "these have had their time");
        assert_eq!(sources(&all), ["10.0.0.1", "10.0.0.3", "10.0.0.2"]);
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let source = |address: &str| source_of(address.parse().unwrap()).to_string();
        assert_eq!(source("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(source("::ffff:10.0.0.1"), "10.0.0.1");
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }
}
