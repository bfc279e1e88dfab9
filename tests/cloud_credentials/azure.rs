//! Azure: three identities, the exchange at the registry, and the other clouds.

use std::sync::atomic::Ordering;

use axum::{
    http::{Method, StatusCode, header::WWW_AUTHENTICATE},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::stand_in::{Authority, Node, Seen, StandIn, lookup, only, problem, reply};

const IMAGE: &str = "team.azurecr.io/app:1";
const USER: &str = "00000000-0000-0000-0000-000000000000";

fn challenge(realm: &str, service: &str) -> Response {
    let challenge = format!(r#"Bearer realm="{realm}",service="{service}""#);
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response()
}

/// A login server that trades any token.
async fn registry(authority: &Authority, host: &'static str) -> StandIn {
    StandIn::tls(authority, &[host], move |seen| match (seen.method.as_str(), seen.path()) {
        ("GET", "/v2/") => challenge(&format!("https://{host}/oauth2/token"), host),
        ("POST", "/oauth2/exchange") => reply(200, r#"{"refresh_token":"canary-refresh"}"#),
        (method, path) => panic!("{method} {path}"),
    })
    .await
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn machine(seen: &Seen) -> Response {
    assert_eq!((&seen.method, seen.header("metadata")), (&Method::GET, "true"));
    let claims = URL_SAFE_NO_PAD.encode(r#"{"tid":"tenant-of-the-token"}"#);
    match seen.path() {
        "/metadata/versions" => reply(200, r#"{"apiVersions":["2018-02-01"]}"#),
        "/metadata/identity/oauth2/token" => {
            reply(200, format!(r#"{{"access_token":"canary.{claims}.canary","expires_in":"86399"}}"#))
        }
        other => panic!("asked for {other}"),
    }
}

#[tokio::test]
async fn a_managed_identity_is_traded_for_the_registrys_token() {
    let authority = Authority::new();
    let server = StandIn::plain(machine).await;
    let registry = registry(&authority, "team.azurecr.io").await;
    let node = Node::new()
        .trust(&authority)
        .route("team.azurecr.io", &registry)
        .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.url())
        .env("AZURE_CLIENT_ID", "kubelet-identity");
    let seconds = node.seconds();
    let clouds = node.clouds();
    assert_eq!(only(&lookup(&clouds, IMAGE).await), ("team.azurecr.io", USER, "canary-refresh"));

    let asked = server.seen().await;
    assert_eq!(
        asked[1].query(),
        pairs(&[
            ("api-version", "2018-02-01"),
            ("resource", "https://containerregistry.azure.net"),
            ("client_id", "kubelet-identity")
        ])
    );
    let token = format!("canary.{}.canary", URL_SAFE_NO_PAD.encode(r#"{"tid":"tenant-of-the-token"}"#));
    let traded = registry.seen().await;
    assert_eq!(traded[0].header("host"), "team.azurecr.io");
    assert_eq!(traded[0].header("authorization"), "", "the first request shows nothing");
    assert_eq!(traded[1].header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(
        traded[1].form(),
        pairs(&[
            ("service", "team.azurecr.io"),
            ("grant_type", "access_token_refresh_token"),
            ("access_token", &token),
            ("refresh_token", &token),
            ("tenant", "tenant-of-the-token"),
        ])
    );

    seconds.fetch_add(3_599, Ordering::Relaxed);
    lookup(&clouds, IMAGE).await;
    assert_eq!(registry.seen().await.len(), 2, "kept for an hour");
    seconds.fetch_add(1, Ordering::Relaxed);
    lookup(&clouds, IMAGE).await;
    assert_eq!(registry.seen().await.len(), 4);
    assert_eq!(server.seen().await.len(), 3, "the machine is known to be there and asked for the token only");
}

#[tokio::test]
async fn a_service_principal_asks_entra_id() {
    let authority = Authority::new();
    let entra = StandIn::plain(|_| reply(200, r#"{"access_token":"canary-aad","token_type":"Bearer"}"#)).await;
    let registry = registry(&authority, "team.azurecr.io").await;
    let node = Node::new()
        .trust(&authority)
        .route("team.azurecr.io", &registry)
        .env("AZURE_AUTHORITY_HOST", entra.url() + "/")
        .env("AZURE_CLIENT_ID", "client")
        .env("AZURE_TENANT_ID", "tenant")
        .env("AZURE_CLIENT_SECRET", "canary&secret");
    assert_eq!(only(&lookup(&node.clouds(), IMAGE).await), ("team.azurecr.io", USER, "canary-refresh"));
    let seen = &entra.seen().await[0];
    assert_eq!((&seen.method, seen.path()), (&Method::POST, "/tenant/oauth2/v2.0/token"));
    assert_eq!(
        seen.form(),
        pairs(&[
            ("grant_type", "client_credentials"),
            ("client_id", "client"),
            ("scope", "https://containerregistry.azure.net/.default"),
            ("client_secret", "canary&secret"),
        ])
    );
    assert_eq!(registry.seen().await[1].form()[4], ("tenant".to_owned(), "tenant".to_owned()));
}

#[tokio::test]
async fn a_workload_identity_in_a_sovereign_cloud_asks_that_clouds_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "canary.federated.token\n").unwrap();
    let authority = Authority::new();
    for (suffix, login, resource) in [
        ("cn", "login.chinacloudapi.cn", "https://management.chinacloudapi.cn/.default"),
        ("us", "login.microsoftonline.us", "https://management.usgovcloudapi.net/.default"),
    ] {
        let host: &'static str = format!("team.azurecr.{suffix}").leak();
        let entra = StandIn::tls(&authority, &[login], |_| reply(200, r#"{"access_token":"canary-aad"}"#)).await;
        let registry = registry(&authority, host).await;
        let node = Node::new()
            .trust(&authority)
            .route(host, &registry)
            .route(login, &entra)
            .env("AZURE_CLIENT_ID", "client")
            .env("AZURE_TENANT_ID", "tenant")
            .env("AZURE_FEDERATED_TOKEN_FILE", file.to_str().unwrap());
        assert_eq!(only(&lookup(&node.clouds(), &format!("{host}/a")).await), (host, USER, "canary-refresh"));
        assert_eq!(
            entra.seen().await[0].form(),
            pairs(&[
                ("grant_type", "client_credentials"),
                ("client_id", "client"),
                ("scope", resource),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", "canary.federated.token"),
            ])
        );
    }
}

#[tokio::test]
async fn a_challenge_that_leads_elsewhere_gets_no_token() {
    let authority = Authority::new();
    let server = StandIn::plain(machine).await;
    let evil = StandIn::tls(&authority, &["evil.example"], |_| reply(200, r#"{"refresh_token":"x"}"#)).await;
    let registry = StandIn::tls(&authority, &["team.azurecr.io"], |_| challenge("https://evil.example/x", "s")).await;
    let node = Node::new()
        .trust(&authority)
        .route("team.azurecr.io", &registry)
        .route("evil.example", &evil)
        .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.url());
    let found = lookup(&node.clouds(), IMAGE).await;
    assert_eq!(
        problem(&found),
        "acr: team.azurecr.io cannot be trusted with a token: its challenge leads to `https://evil.example/x`, so the \
         token was not sent; check that the name leads to Azure"
    );
    assert_eq!((registry.seen().await.len(), evil.seen().await.len()), (1, 0));
}

#[tokio::test]
async fn refusals_say_what_to_do_and_repeat_no_secret() {
    let authority = Authority::new();
    let body =
        r#"{"error":"invalid_client","error_description":"AADSTS7000215: canary-secret is no secret.\r\nTrace: 1"}"#;
    let entra = StandIn::plain(move |_| reply(401, body)).await;
    let principal = |entra: &StandIn| {
        Node::new()
            .trust(&authority)
            .env("AZURE_AUTHORITY_HOST", entra.url())
            .env("AZURE_CLIENT_ID", "client")
            .env("AZURE_TENANT_ID", "tenant")
            .env("AZURE_CLIENT_SECRET", "canary-secret")
    };
    let found = lookup(&principal(&entra).clouds(), IMAGE).await;
    assert_eq!(
        problem(&found),
        "acr: the service principal got no token: 401 Unauthorized: invalid_client: AADSTS7000215: [hidden] is no \
         secret.\\r\\nTrace: 1; check AZURE_CLIENT_ID, AZURE_TENANT_ID and the secret's expiry"
    );

    let entra = StandIn::plain(|_| reply(200, r#"{"access_token":"canary-aad"}"#)).await;
    let registry = StandIn::tls(&authority, &["team.azurecr.io"], |seen| match seen.path() {
        "/v2/" => challenge("https://team.azurecr.io/oauth2/token", "team.azurecr.io"),
        _ => reply(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"canary-aad is not welcome"}]}"#),
    })
    .await;
    let found = lookup(&principal(&entra).route("team.azurecr.io", &registry).clouds(), IMAGE).await;
    assert_eq!(
        problem(&found),
        "acr: team.azurecr.io did not take the token: 401 Unauthorized: UNAUTHORIZED: [hidden] is not welcome; give \
         the node's identity the role AcrPull on it"
    );
}

#[tokio::test]
async fn a_certificate_of_a_stranger_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = StandIn::plain(machine).await;
    let registry = registry(&stranger, "team.azurecr.io").await;
    let node = Node::new()
        .trust(&authority)
        .route("team.azurecr.io", &registry)
        .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.url());
    let found = lookup(&node.clouds(), IMAGE).await;
    assert!(problem(&found).starts_with("acr: cannot ask team.azurecr.io: invalid peer certificate"), "{found:?}");
    assert!(registry.seen().await.is_empty());
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let node = Node::new()
        .env("AZURE_CLIENT_ID", "client")
        .env("AZURE_TENANT_ID", "tenant")
        .env("AZURE_FEDERATED_TOKEN_FILE", "/nowhere/token");
    let found = lookup(&node.clouds(), IMAGE).await;
    assert!(problem(&found).contains("AZURE_FEDERATED_TOKEN_FILE cannot be read: No such file"), "{found:?}");
}
