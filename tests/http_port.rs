//! The agent's HTTP port on a real socket: what it answers, and what a client cannot take from it.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use http_body_util::Full;
use hyper::{Method, Request, body::Bytes};
use prepull::{
    http::{self, Query},
    page::{html, text},
};
use support::{
    agent::{Agent, AgentOptions},
    fake_cri::FakeCri,
    http::{Answer, get, send},
    status_server::StatusServer,
    statuses,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const PATIENCE: Duration = Duration::from_mins(1);
/// Before the slow clients are given up, which would let anybody in.
const PROBE: Duration = Duration::from_secs(4);

async fn ask(server: &StatusServer, method: Method, path: &str, accept: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("accept", accept);
    send(server.address(), request.body(Full::default()).unwrap()).await.unwrap()
}

async fn browse(server: &StatusServer, path: &str) -> Answer {
    ask(server, Method::GET, path, "text/html,application/xhtml+xml,*/*;q=0.8").await
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn browsers_get_a_page_and_others_text() {
    let server = StatusServer::start(statuses::at_work()).unwrap();
    let page = browse(&server, "/").await;
    assert_eq!(header(&page, "content-type"), Some("text/html; charset=utf-8"));
    assert_eq!((header(&page, "refresh"), header(&page, "vary")), (Some("5"), Some("accept")));
    let still = browse(&server, "/?refresh=off").await;
    assert_eq!((still.status.as_u16(), header(&still, "refresh")), (200, None));
    for accept in ["*/*", "application/json, */*", "text/plain"] {
        let text = ask(&server, Method::GET, "/", accept).await;
        assert_eq!(header(&text, "content-type"), Some("text/plain; charset=utf-8"), "{accept}");
        assert!(text.text().starts_with("prepull on node-1\n"), "{}", text.text());
        assert_eq!(header(&text, "refresh"), None);
    }
    server.tell(|status| *status = statuses::warm());
    assert_eq!(header(&browse(&server, "/").await, "refresh"), Some("30"), "nothing is under way");
}

#[tokio::test]
async fn every_answer_forbids_what_no_page_needs() {
    let server = StatusServer::start(statuses::at_work()).unwrap();
    let paths = ["/", "/api/v1/images", "/metrics", "/healthz", "/readyz", "/style.css", "/icon-warm.svg", "/no/such"];
    for (path, method) in paths.map(|path| (path, Method::GET)).into_iter().chain([("/", Method::POST)]) {
        let answer = ask(&server, method, path, "text/html").await;
        let policy = header(&answer, "content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(header(&answer, "x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(header(&answer, "referrer-policy"), Some("no-referrer"), "{path}");
        let kept = ["/style.css", "/icon-warm.svg"].contains(&path);
        assert_eq!(header(&answer, "cache-control"), Some(if kept { "max-age=86400" } else { "no-store" }), "{path}");
    }
}

/// Behind the API server's proxy the page has another path, which it does not know.
#[tokio::test]
async fn all_links_are_relative_and_lead_somewhere() {
    let server = StatusServer::start(statuses::many(2000)).unwrap();
    let page = browse(&server, "/").await.text();
    let mut seen = 0;
    for link in page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(!link.starts_with('/') && !link.contains("//"), "{link}");
        seen += 1;
        if let Some(anchor) = link.strip_prefix('#') {
            assert!(page.contains(&format!("id=\"{anchor}\"")), "{anchor}");
            continue;
        }
        let answer = browse(&server, &format!("/{}", link.trim_start_matches("./"))).await;
        let well = answer.status == 200 || (link == "readyz" && answer.status == 503);
        assert!(well, "{link}: {}", answer.status);
    }
    assert!(seen > 8, "{page}");
}

#[tokio::test]
async fn nothing_can_be_written_and_bodies_are_not_read() {
    let server = StatusServer::start(statuses::warm()).unwrap();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
        let answer = ask(&server, method.clone(), "/api/v1/images", "*/*").await;
        assert_eq!((answer.status.as_u16(), header(&answer, "allow")), (405, Some("GET, HEAD")), "{method}");
    }
    let head = ask(&server, Method::HEAD, "/api/v1/images", "*/*").await;
    let whole = ask(&server, Method::GET, "/api/v1/images", "*/*").await;
    assert!(head.body.is_empty() && head.status == 200);
    assert_eq!(header(&head, "content-length"), header(&whole, "content-length"));
    // a body of a terabyte: the answer comes at once, and the connection ends
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\nfirst").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("the connection ends").unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = StatusServer::start(statuses::warm()).unwrap();
    let long = "x".repeat(20_000);
    let many = "a: b\r\n".repeat(500);
    for (what, head) in [
        ("a long header", format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {long}\r\n\r\n")),
        ("many headers", format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        ("a long path", format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("no HTTP", format!("\u{16}\u{3}{long}\r\n\r\n")),
    ] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        // it may be refused before all of it was sent
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
    }
    assert_eq!(get(server.address(), "/healthz").await.unwrap().status, 200);
}

/// Clients that begin a request and never end it, and one that asks once and stays.
#[tokio::test]
async fn slow_clients_keep_nobody_out_and_are_closed() {
    let server = StatusServer::start(statuses::warm()).unwrap();
    let mut slow = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let begun: &[u8] = if n % 3 == 0 { b"" } else { b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: " };
        // those that came first may have had to go already
        let _ = stream.write_all(begun).await;
        slow.push(stream);
        if n % 20 == 19 {
            for path in ["/healthz", "/readyz", "/metrics", "/api/v1/images"] {
                let answer = timeout(PROBE, get(server.address(), path)).await;
                let answer = answer.unwrap_or_else(|_| panic!("{path} is not answered beside {n} others")).unwrap();
                assert_eq!(answer.status, 200, "{path}");
            }
        }
    }
    let began = Instant::now();
    let mut idle = TcpStream::connect(server.address()).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, idle.read_to_string(&mut answer)).await.expect("an idle connection ends").unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n") && began.elapsed() > Duration::from_secs(3), "{answer}");
    for (n, mut stream) in slow.into_iter().enumerate() {
        let end = timeout(PATIENCE, stream.read(&mut [0; 1000])).await;
        assert!(end.is_ok(), "number {n} is still open");
    }
}

/// The clock is the test's: it runs ahead whenever nothing else does.
#[tokio::test(start_paused = true)]
async fn no_connection_lives_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut queries) = mpsc::channel(1);
    tokio::spawn(http::serve(listener, sender));
    tokio::spawn(async move {
        let status = statuses::many(10_000);
        while let Some(query) = queries.recv().await {
            match query {
                Query::Status(reply) => drop(reply.send(status.clone())),
                Query::Health(reply) => drop(reply.send(())),
                Query::Readiness(_) | Query::Metrics(_) => {}
            }
        }
    });
    // one that takes a little now and then, and so is never idle
    let mut reader = TcpStream::connect(address).await.unwrap();
    reader.write_all(b"GET /api/v1/images HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let began = Instant::now();
    let (mut taken, mut buffer) = (0, vec![0; 1000]);
    while began.elapsed() < Duration::from_secs(80) {
        taken += timeout(PATIENCE, reader.read(&mut buffer)).await.unwrap().unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    // what the kernel has already may still come, and no more
    buffer.resize(1 << 20, 0);
    let whole = serde_json::to_vec(&statuses::many(10_000)).unwrap().len();
    while let Ok(more @ 1..) = reader.read(&mut buffer).await {
        taken += more;
    }
    assert!(taken < whole, "{taken} of {whole}");
    // one that asks all the time
    let mut asker = TcpStream::connect(address).await.unwrap();
    let (began, mut answers) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(80) {
        let asked = asker.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
        if asked.is_err() || asker.read(&mut buffer).await.is_ok_and(|read| read == 0) {
            break;
        }
        answers += 1;
        sleep(Duration::from_secs(1)).await;
    }
    assert!((50..70).contains(&answers), "{answers} answers, each a second after the one before");
}

/// Clients that ask for something long and do not take it: on the real agent, whose memory is what counts.
#[tokio::test]
async fn slow_readers_hold_no_memory_and_keep_nobody_out() {
    const READERS: u64 = 50;
    let fake = FakeCri::start().unwrap();
    let images: Vec<_> = (0..5_000).map(|n| format!("registry.example.com/team/application-{n}:v1.2.{n}")).collect();
    fake.put(images.iter().map(String::as_str)).unwrap();
    let list = images.iter().fold("images:\n".to_owned(), |list, image| list + "- " + image + "\n");
    let options = AgentOptions::default();
    let agent = Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), &fake.socket(), &list, &options).unwrap();
    agent.until(PATIENCE, "it is warm", |status| status["warm"] == true).await.unwrap();
    let address = format!("127.0.0.1:{}", agent.port());
    let body = get(&address, "/api/v1/images").await.unwrap().body.len() as u64;
    let before = agent.resident_bytes().unwrap();
    let mut readers = Vec::new();
    for n in 0..READERS {
        let mut reader = TcpStream::connect(&address).await.unwrap();
        reader.write_all(b"GET /api/v1/images HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        // it begins to read, so that the answer was made
        timeout(PATIENCE, reader.read(&mut [0; 100])).await.expect("an answer begins").unwrap();
        readers.push(reader);
        if n % 10 == 9 {
            for path in ["/healthz", "/readyz", "/metrics"] {
                let answer = timeout(PATIENCE, get(&address, path)).await.unwrap().unwrap();
                assert_eq!(answer.status, 200, "{path}");
            }
        }
    }
    let grown = agent.resident_bytes().unwrap().saturating_sub(before);
    let asked = READERS * body;
    println!("{} MiB of answers, {} MiB more memory", asked >> 20, grown >> 20);
    assert!(grown < asked / 2, "{grown} bytes more for {READERS} answers of {body}");
}

/// Every path is asked for on 256 connections at a time, from the probe's own address, while the kubelet probes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_under_a_flood() {
    const FLOOD: usize = 256;
    const PROBES: usize = 100;
    let fake = FakeCri::start().unwrap();
    let images: Vec<_> = (0..200).map(|n| format!("registry.example.com/team/application-{n}:v1")).collect();
    fake.put(images.iter().map(String::as_str)).unwrap();
    let list = images.iter().fold("images:\n".to_owned(), |list, image| list + "- " + image + "\n");
    let options = AgentOptions::default();
    let agent = Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), &fake.socket(), &list, &options).unwrap();
    agent.until(PATIENCE, "it is warm", |status| status["warm"] == true).await.unwrap();
    let address = format!("127.0.0.1:{}", agent.port());
    let answered = Arc::new(AtomicUsize::new(0));
    let mut flood = JoinSet::new();
    for n in 0..FLOOD {
        let (address, answered) = (address.clone(), answered.clone());
        flood.spawn(async move {
            let paths = ["/", "/api/v1/images", "/metrics", "/healthz", "/readyz", "/style.css", "/no/such"];
            for path in paths.iter().cycle().skip(n % paths.len()) {
                if get(&address, path).await.is_ok() {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let (mut failed, mut slowest) = (0, Duration::ZERO);
    for n in 0..PROBES {
        let began = Instant::now();
        let path = if n % 2 == 0 { "/healthz" } else { "/readyz" };
        let probe = timeout(Duration::from_secs(1), get(&address, path)).await;
        failed += usize::from(!probe.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 200)));
        slowest = slowest.max(began.elapsed());
    }
    let answered = answered.load(Ordering::Relaxed);
    println!("{failed} of {PROBES} probes failed, the slowest took {slowest:?}, {answered} answers went to the flood");
    assert_eq!(failed, 0, "the slowest took {slowest:?}");
    assert!(answered > FLOOD, "the flood was one: {answered}");
}

/// Nobody turns the loop: the port says so, also to a browser, which comes again.
#[tokio::test(start_paused = true)]
async fn a_stuck_loop_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, _stuck) = mpsc::channel(1);
    tokio::spawn(http::serve(listener, sender));
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/images", "/"] {
        let request = Request::get(path).header("accept", "text/html").body(Full::<Bytes>::default()).unwrap();
        let answer = send(&address, request).await.unwrap();
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.text().contains("the agent's loop did not answer"), "{}", answer.text());
        assert_eq!(header(&answer, "refresh"), (path == "/").then_some("5"), "{path}");
    }
}

#[tokio::test]
async fn ten_thousand_images_make_a_small_page() {
    let status = statuses::many(10_000);
    let began = Instant::now();
    let (page, _) = html::page(&status, SystemTime::now(), true).unwrap();
    let took = began.elapsed();
    println!("{} KiB in {took:?}", page.len() >> 10);
    assert!(page.len() < 200 << 10, "{} bytes", page.len());
    assert!(took < Duration::from_secs(2), "{took:?}");
    for (title, more) in [("Failing", "900"), ("Waiting", "900"), ("Present", "7,900")] {
        assert!(page.contains(&format!("and {more} more: see <a href=\"api/v1/images\">")), "{title}");
    }
}

#[test]
fn the_page_of_a_node_at_work() {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_mins(29_538_912);
    let (page, _) = html::page(&statuses::at_work(), wall, true).unwrap();
    let page = page.replace(env!("CARGO_PKG_VERSION"), "VERSION").replace(env!("PREPULL_REVISION"), "REVISION");
    let style = page.split("style.css?v=").nth(1).unwrap().split('"').next().unwrap().to_owned();
    insta::assert_snapshot!(page.replace(&style, "STYLE"));
}

#[test]
fn the_text_of_a_node_at_work() {
    insta::assert_snapshot!(text::page(&statuses::at_work()));
}

#[test]
fn the_json_of_a_node_at_work() {
    insta::assert_json_snapshot!(statuses::at_work());
}
