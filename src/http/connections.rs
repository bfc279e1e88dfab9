//! What clients may take: bounds on connections, on their time, and on what is held for them.
//!
//! A new connection always gets in, so that a probe is answered however many others are open: when all places are
//! taken, the oldest gives way. An answer takes milliseconds to make and to send, so what is old is idle, slow or
//! hostile. The same holds for answers that were made and are not taken: over the bound, who holds one longest loses it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::ErrorKind,
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
    time::{sleep, timeout},
};

/// Connections at once.
const MOST_CONNECTIONS: usize = 64;
/// Bytes of answers that their clients have not taken yet, of all connections together; the newest is always made.
const MOST_HELD: usize = 32 << 20;
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
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    // its client was gone before it was accepted
                    Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => continue,
                    Err(_) => {
                        // where no file descriptor is left, one becomes free here
                        close_oldest(&mut open);
                        sleep(ACCEPT_AGAIN).await;
                        continue;
                    }
                };
                while open.len() >= MOST_CONNECTIONS {
                    close_oldest(&mut open);
                }
                let held = Arc::new(AtomicUsize::new(0));
                let task = tasks.spawn(connection(stream, answer.clone(), held.clone(), made.clone()));
                open.push_back(Open { task, held });
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
    holders > 1 && bytes > MOST_HELD
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
