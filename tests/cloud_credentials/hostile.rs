//! Servers that are dead, or answer what they should not.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use prepull::credentials::cloud::LOOKUP_LIMIT;
use tokio::net::TcpListener;

use crate::stand_in::{Authority, Node, StandIn, lookup, problem, reply};

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app";
const GOOGLE: &str = "gcr.io/p/a";
const AZURE: &str = "team.azurecr.io/a";
/// Each cloud's image, and the variable that leads to its metadata service.
const CLOUDS: [(&str, &str, &str); 3] = [
    (ECR, "AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://"),
    (GOOGLE, "GCE_METADATA_HOST", ""),
    (AZURE, "AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://"),
];

/// How long a piece of work takes.
async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    #[expect(clippy::disallowed_methods, reason = "the real time is what is measured")]
    let start = Instant::now();
    let result = work.await;
    (result, start.elapsed())
}

#[tokio::test]
async fn a_silent_metadata_address_costs_a_second_once() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    for (image, variable, scheme) in CLOUDS {
        let node = Node::new().env(variable, format!("{scheme}{address}"));
        let seconds = node.seconds();
        let clouds = node.clouds();
        let (found, took) = timed(lookup(&clouds, image)).await;
        assert!(problem(&found).contains("did not answer within 1 s (not asked again for 300 s)"), "{found:?}");
        assert!((Duration::from_millis(900)..Duration::from_millis(2_500)).contains(&took), "{image}: {took:?}");

        // beyond the ten seconds for which a failure is shared, it is still known that nobody is there
        seconds.fetch_add(289, Ordering::Relaxed);
        let (again, took) = timed(lookup(&clouds, image)).await;
        assert_eq!(problem(&again), problem(&found));
        assert!(took < Duration::from_millis(500), "{image}: {took:?}");
        seconds.fetch_add(11, Ordering::Relaxed);
        let (_, took) = timed(lookup(&clouds, image)).await;
        assert!(took > Duration::from_millis(900), "asked again after five minutes, {image}: {took:?}");
    }
}

#[tokio::test]
async fn registries_that_serve_anybody_are_no_problem_outside_their_cloud() {
    // no route leads to a metadata service, and no variable says that there is one
    let clouds = Node::new().clouds();
    for image in [GOOGLE, "us-docker.pkg.dev/p/r/a", "public.ecr.aws/docker/library/busybox"] {
        let found = lookup(&clouds, image).await;
        assert!(found.found.is_empty() && found.problems.is_empty(), "{image}: {found:?}");
    }
    let found = lookup(&clouds, ECR).await;
    assert!(problem(&found).contains("no AWS keys"), "a private registry needs an identity: {found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_api_is_left_within_the_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let start = tokio::time::Instant::now();
    let found = lookup(&Node::new().keys().env("AWS_ENDPOINT_URL", url).clouds(), ECR).await;
    assert!(problem(&found).contains("check the node's way to the ECR API"), "{found:?}");
    assert!((Duration::from_secs(1)..LOOKUP_LIMIT).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn many_registries_wait_for_one_detection() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let clouds = Node::new().env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{address}")).clouds();
    let images: Vec<String> = (0..8).map(|n| format!("12345678901{n}.dkr.ecr.eu-west-1.amazonaws.com/app")).collect();
    let (found, took) = timed(futures::future::join_all(images.iter().map(|image| lookup(&clouds, image)))).await;
    assert!(found.iter().all(|found| problem(found).contains("did not answer")));
    assert!(took < Duration::from_millis(2_500), "{took:?}");
}

#[tokio::test]
async fn a_refusing_metadata_address_costs_nothing() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    for (image, variable, scheme) in CLOUDS {
        let node = Node::new().env(variable, format!("{scheme}{address}"));
        let (found, took) = timed(lookup(&node.clouds(), image)).await;
        assert!(problem(&found).contains("Connection refused (os error 111) (not asked again for 30 s)"), "{found:?}");
        assert!(took < Duration::from_millis(800), "{image}: {took:?}");
    }
}

#[tokio::test]
async fn metadata_can_be_switched_off() {
    let found = lookup(&Node::new().env("AWS_EC2_METADATA_DISABLED", "TRUE").clouds(), ECR).await;
    assert!(problem(&found).contains("switched off by AWS_EC2_METADATA_DISABLED"), "{found:?}");
}

#[tokio::test]
async fn other_registries_ask_nobody() {
    let found = lookup(&Node::new().clouds(), "quay.io/a/b").await;
    assert!(found.found.is_empty() && found.problems.is_empty());
}

/// One thing that a server answers to everything.
struct Bad {
    what: &'static str,
    answer: fn() -> Response,
    /// A part of what is said about it.
    said: &'static str,
}

fn endless() -> Response {
    let chunk = || Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096]));
    reply(200, Body::from_stream(futures::stream::repeat_with(chunk)))
}

fn redirect() -> Response {
    (StatusCode::FOUND, [(LOCATION, "http://127.0.0.1:1/")]).into_response()
}

const BAD: [Bad; 7] = [
    Bad { what: "huge", answer: || reply(200, vec![b'a'; 8 << 20]), said: "more than 256 KiB" },
    Bad { what: "endless", answer: endless, said: "more than 256 KiB" },
    Bad { what: "a redirect", answer: redirect, said: "redirect (302)" },
    Bad { what: "garbage", answer: || reply(200, "\u{1b}[31mcanary\u{0}"), said: "; " },
    Bad { what: "nothing", answer: || reply(200, ""), said: "; " },
    Bad { what: "another version", answer: || reply(200, r#"{"version":2,"canary":{"token":[1]}}"#), said: "; " },
    Bad { what: "an error page", answer: || reply(503, "<html>canary</html>"), said: "503 Service Unavailable" },
];

#[tokio::test]
async fn bad_answers_are_one_problem_with_a_remedy() {
    for Bad { what, answer, said } in BAD {
        let server = StandIn::plain(move |_| answer()).await;
        for (image, variable, scheme) in CLOUDS {
            let node = Node::new().env(variable, format!("{scheme}{}", server.address));
            let found = lookup(&node.clouds(), image).await;
            let problem = problem(&found);
            assert!(problem.contains(said) && problem.contains("; "), "{what} at {image}: {problem}");
        }
        let keys = Node::new().keys().env("AWS_ENDPOINT_URL_ECR", server.url());
        let found = lookup(&keys.clouds(), ECR).await;
        let problem = problem(&found);
        assert!(problem.contains(said) && problem.contains("; "), "{what} from the API: {problem}");
    }
}

#[tokio::test]
async fn without_certificates_nothing_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let host = "api.ecr.eu-west-1.amazonaws.com";
    let api = StandIn::tls(&authority, &[host], |_| reply(200, "{}")).await;
    let node = Node::new().keys().route(host, &api).env("SSL_CERT_DIR", dir.path().to_str().unwrap());
    let found = lookup(&node.clouds(), ECR).await;
    assert!(problem(&found).contains("no CA certificates were found: mount /etc/ssl/certs"), "{found:?}");
}

#[tokio::test]
async fn hosts_that_are_none_are_told() {
    for (image, variable, _) in CLOUDS {
        let node = Node::new().env(variable, "no host\n");
        let found = lookup(&node.clouds(), image).await;
        assert!(problem(&found).contains("address") || problem(&found).contains(variable), "{found:?}");
    }
}
