//! Google's metadata server.

use std::sync::atomic::Ordering;

use axum::response::Response;

use crate::stand_in::{Node, Seen, StandIn, lookup, only, problem, reply};

const IMAGE: &str = "europe-docker.pkg.dev/p/r/app:1";
const BASE: &str = "/computeMetadata/v1/instance/service-accounts/default";

fn node(server: &StandIn) -> Node {
    Node::new().env("GCE_METADATA_HOST", server.address.to_string())
}

fn metadata(seen: &Seen, scopes: &'static str) -> Response {
    assert_eq!(seen.header("metadata-flavor"), "Google");
    assert_eq!(seen.method, "GET");
    match seen.uri.path_and_query().unwrap().as_str().strip_prefix(BASE).unwrap() {
        "/scopes?alt=json" => reply(200, scopes),
        "/token" => reply(200, r#"{"access_token":"ya29.canary","expires_in":3599,"token_type":"Bearer"}"#),
        other => panic!("asked for {other}"),
    }
}

#[tokio::test]
async fn one_token_serves_all_of_googles_registries() {
    let server = StandIn::plain(|seen| metadata(seen, r#"["https://www.googleapis.com/auth/cloud-platform"]"#)).await;
    let node = node(&server);
    let seconds = node.seconds();
    let clouds = node.clouds();
    assert_eq!(only(&lookup(&clouds, IMAGE).await), ("*.pkg.dev", "_token", "ya29.canary"));
    assert_eq!(only(&lookup(&clouds, "gcr.io/p/a").await).0, "gcr.io");
    assert_eq!(only(&lookup(&clouds, "eu.gcr.io/p/a").await).0, "*.gcr.io");
    assert_eq!(server.seen().await.len(), 2);
    let seen = &server.seen().await[0];
    assert_eq!(seen.header("host"), server.address.to_string());
    assert!(seen.header("user-agent").starts_with("prepull/"));

    seconds.fetch_add(3_298, Ordering::Relaxed);
    lookup(&clouds, IMAGE).await;
    assert_eq!(server.seen().await.len(), 2, "five minutes and a second before the end");
    seconds.fetch_add(1, Ordering::Relaxed);
    lookup(&clouds, IMAGE).await;
    assert_eq!(server.seen().await.len(), 4);
}

#[tokio::test]
async fn a_missing_scope_is_told_and_the_token_still_tried() {
    let server = StandIn::plain(|seen| metadata(seen, r#"["https://www.googleapis.com/auth/logging.write"]"#)).await;
    let found = lookup(&node(&server).clouds(), IMAGE).await;
    assert_eq!(found.found.len(), 1);
    assert!(found.problems[0].starts_with("gcp: the node's service account has neither a devstorage"), "{found:?}");
}

#[tokio::test]
async fn a_node_without_a_service_account_is_told() {
    let server = StandIn::plain(|_| reply(404, "<html>canary</html>")).await;
    let found = lookup(&node(&server).clouds(), IMAGE).await;
    assert!(problem(&found).starts_with("gcp: the metadata server gave no token: 404 Not Found; attach a service"));
}

#[tokio::test]
async fn a_server_that_stops_answering_is_told_apart_from_none() {
    let server = StandIn::plain(|seen| match seen.uri.query() {
        Some(_) => reply(200, "[]"),
        None => reply(307, ""),
    })
    .await;
    let found = lookup(&node(&server).clouds(), IMAGE).await;
    assert!(problem(&found).starts_with("gcp: the metadata service broke off: "), "{found:?}");
}
