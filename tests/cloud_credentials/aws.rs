//! Amazon: both registries, every source of keys, and the signature.

use std::sync::atomic::Ordering;

use axum::{body::Body, http::Method, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::stand_in::{Authority, Node, Seen, StandIn, lookup, only, problem, reply};

const IMAGE: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:1";
const API: &str = "api.ecr.eu-west-1.amazonaws.com";
const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn private_answer(password: &str, expires: i64) -> Response {
    let token = STANDARD.encode(format!("AWS:{password}"));
    reply(
        200,
        format!(
            r#"{{"authorizationData":[{{"authorizationToken":"{token}","expiresAt":{expires}.0,"proxyEndpoint":"https://x"}}]}}"#
        ),
    )
}

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new_with_prefix(block.map(|b| b ^ 0x36)).chain_update(message).finalize();
    Sha256::new_with_prefix(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// Checks a Signature Version 4, worked out here from what Amazon documents, and that it covers what it must.
fn check_signature(seen: &Seen, service: &str, region: &str, id: &str, secret: &str) {
    let authorization = seen.header("authorization");
    let date = seen.header("x-amz-date");
    let scope = format!("{}/{region}/{service}/aws4_request", &date[..8]);
    let signed = authorization.split_once("SignedHeaders=").unwrap().1.split_once(',').unwrap().0;
    for name in ["host", "x-amz-date", "x-amz-target", "x-amz-content-sha256"] {
        assert!(signed.split(';').any(|s| s == name), "{name} is signed: {signed}");
    }
    assert_eq!(seen.header("x-amz-content-sha256"), hex(&Sha256::digest(&seen.body)), "the body is covered");
    let headers: Vec<String> = signed.split(';').map(|name| format!("{name}:{}", seen.header(name))).collect();
    let headers = headers.join("\n");
    let canonical = format!("POST\n{}\n\n{headers}\n\n{signed}\n{}", seen.path(), seen.header("x-amz-content-sha256"));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in scope.split('/') {
        key = hmac(&key, part);
    }
    let signature = hex(&hmac(&key, &to_sign));
    let expected = format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={signed}, Signature={signature}");
    assert_eq!(authorization, expected);
}

#[tokio::test]
async fn twelve_hours_are_refreshed_at_half_life() {
    let authority = Authority::new();
    let node = Node::new().keys().trust(&authority);
    let seconds = node.seconds();
    let start = seconds.load(Ordering::Relaxed);
    let now = node.seconds();
    let api = StandIn::tls(&authority, &[API], move |_| {
        let now = now.load(Ordering::Relaxed);
        private_answer(&format!("canary-{now}"), now + 12 * 3600)
    })
    .await;
    let clouds = node.route(API, &api).clouds();

    let first = format!("canary-{start}");
    assert_eq!(only(&lookup(&clouds, IMAGE).await), (HOST, "AWS", first.as_str()));
    seconds.store(start + 6 * 3600 - 1, Ordering::Relaxed);
    assert_eq!(only(&lookup(&clouds, IMAGE).await).2, first, "a second before half-life");
    assert_eq!(api.seen().await.len(), 1);
    seconds.store(start + 6 * 3600, Ordering::Relaxed);
    assert_eq!(only(&lookup(&clouds, IMAGE).await).2, format!("canary-{}", start + 6 * 3600));

    let seen = &api.seen().await[0];
    assert_eq!((&seen.method, seen.path(), &seen.body[..]), (&Method::POST, "/", &b"{}"[..]));
    assert_eq!(seen.header("host"), API);
    assert_eq!(seen.header("content-type"), "application/x-amz-json-1.1");
    assert_eq!(seen.header("x-amz-target"), "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
    check_signature(seen, "ecr", "eu-west-1", "AKIDCANARY", "canary-aws-secret");
}

#[tokio::test]
async fn ten_pulls_ask_once_and_another_registry_asks_again() {
    let api = StandIn::plain(|_| private_answer("canary-pw", 1_800_000_000 + 43_200)).await;
    let clouds = Node::new().keys().env("AWS_ENDPOINT_URL_ECR", api.url()).clouds();
    let found = futures::future::join_all((0..10).map(|_| lookup(&clouds, IMAGE))).await;
    assert!(found.iter().all(|found| only(found).2 == "canary-pw"));
    assert_eq!(api.seen().await.len(), 1);
    lookup(&clouds, "210987654321.dkr.ecr.eu-west-1.amazonaws.com/app").await;
    assert_eq!(api.seen().await.len(), 2);
}

#[tokio::test]
async fn every_kind_of_name_reaches_its_own_endpoint() {
    let authority = Authority::new();
    for (image, api, region) in [
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com/a", "api.ecr-fips.us-east-1.amazonaws.com", "us-east-1"),
        ("123456789012.dkr-ecr.us-west-2.on.aws/a", "ecr.us-west-2.api.aws", "us-west-2"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/a", "api.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    ] {
        let server = StandIn::tls(&authority, &[api], |_| private_answer("canary-pw", 1_900_000_000)).await;
        // the node is elsewhere: the registry's region counts
        let node = Node::new().keys().env("AWS_REGION", "sa-east-1").trust(&authority).route(api, &server);
        assert_eq!(only(&lookup(&node.clouds(), image).await).2, "canary-pw", "{image}");
        check_signature(&server.seen().await[0], "ecr", region, "AKIDCANARY", "canary-aws-secret");
    }
}

#[tokio::test]
async fn ecr_public_is_asked_in_its_only_region() {
    let host = "api.ecr-public.us-east-1.amazonaws.com";
    let authority = Authority::new();
    let api = StandIn::tls(&authority, &[host], |_| {
        let token = STANDARD.encode("AWS:canary-public");
        reply(200, format!(r#"{{"authorizationData":{{"authorizationToken":"{token}","expiresAt":1.9E9}}}}"#))
    })
    .await;
    let node = Node::new().keys().env("AWS_SESSION_TOKEN", "canary-session").trust(&authority).route(host, &api);
    let clouds = node.clouds();
    let found = lookup(&clouds, "public.ecr.aws/docker/library/busybox:1").await;
    assert_eq!(only(&found), ("public.ecr.aws", "AWS", "canary-public"));
    lookup(&clouds, "public.ecr.aws/nginx/nginx").await;
    let seen = api.seen().await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("x-amz-target"), "SpencerFrontendService.GetAuthorizationToken");
    assert_eq!(seen[0].header("x-amz-security-token"), "canary-session");
    check_signature(&seen[0], "ecr-public", "us-east-1", "AKIDCANARY", "canary-aws-secret");
}

/// Answers an ECR request with the key that signed it as the password, and everything else by `other`.
fn ecr_or(seen: &Seen, other: impl Fn(&Seen) -> Response) -> Response {
    match seen.header("authorization").split_once("Credential=") {
        Some((_, rest)) => private_answer(rest.split('/').next().unwrap(), 1_900_000_000),
        None => other(seen),
    }
}

fn instance(seen: &Seen) -> Response {
    match (seen.method.as_str(), seen.path()) {
        ("PUT", "/latest/api/token") => reply(200, "canary-imds-session"),
        ("GET", "/latest/meta-data/iam/security-credentials/") => reply(200, "node-role\n"),
        ("GET", "/latest/meta-data/iam/security-credentials/node-role") => reply(
            200,
            r#"{"Code":"Success","AccessKeyId":"AKIDINSTANCE","SecretAccessKey":"canary-secret",
                "Token":"canary-instance","Expiration":"2099-01-01T00:00:00Z"}"#,
        ),
        _ => reply(404, ""),
    }
}

#[tokio::test]
async fn the_instances_role_gives_keys() {
    let server = StandIn::plain(|seen| ecr_or(seen, instance)).await;
    let node = Node::new().env("AWS_ENDPOINT_URL", server.url());
    let clouds = node.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url() + "/").clouds();
    assert_eq!(only(&lookup(&clouds, IMAGE).await).2, "AKIDINSTANCE");
    let seen = server.seen().await;
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0].header("x-aws-ec2-metadata-token-ttl-seconds"), "300");
    assert_eq!(seen[1].header("x-aws-ec2-metadata-token"), "canary-imds-session");
    assert_eq!(seen[2].header("x-aws-ec2-metadata-token"), "canary-imds-session");
    check_signature(&seen[3], "ecr", "eu-west-1", "AKIDINSTANCE", "canary-secret");
    assert_eq!(seen[3].header("x-amz-security-token"), "canary-instance");
}

#[tokio::test]
async fn an_instance_without_a_role_says_so() {
    let server = StandIn::plain(|seen| match seen.method {
        Method::PUT => reply(200, "t"),
        _ => reply(404, ""),
    })
    .await;
    let clouds = Node::new().env("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url()).clouds();
    let found = lookup(&clouds, IMAGE).await;
    assert!(problem(&found).starts_with("ecr: no AWS keys (the instance has no IAM role); give the node a role"));
}

#[tokio::test]
async fn eks_pod_identity_gives_keys() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "canary-pod-identity\n").unwrap();
    let server = StandIn::plain(|seen| {
        ecr_or(seen, |seen| match (seen.path(), seen.header("authorization")) {
            ("/v1/credentials", "canary-pod-identity") => reply(
                200,
                r#"{"AccessKeyId":"AKIDPOD","SecretAccessKey":"canary-secret","Token":"canary-t",
                    "Expiration":"2099-01-01T00:00:00Z","AccountId":"1"}"#,
            ),
            _ => reply(400, "no"),
        })
    })
    .await;
    let node = Node::new()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url() + "/v1/credentials")
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap())
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "the file outranks this")
        .env("AWS_ENDPOINT_URL_ECR", server.url());
    assert_eq!(only(&lookup(&node.clouds(), IMAGE).await).2, "AKIDPOD");
    assert_eq!(server.seen().await.len(), 2);
}

fn web_identity_node(sts: &StandIn, token: &std::path::Path) -> Node {
    Node::new()
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/puller")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap())
        .env("AWS_ENDPOINT_URL_ECR", sts.url())
}

#[tokio::test]
async fn a_web_identity_gives_keys_at_the_regional_sts() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "canary.web.identity").unwrap();
    let authority = Authority::new();
    let sts = StandIn::tls(&authority, &["sts.eu-west-1.amazonaws.com"], |_| {
        reply(
            200,
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">
             <AssumeRoleWithWebIdentityResult><Credentials><SessionToken>canary-s</SessionToken>
             <SecretAccessKey>canary-secret</SecretAccessKey><Expiration>2099-01-01T00:00:00Z</Expiration>
             <AccessKeyId>AKIDWEB</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>
             </AssumeRoleWithWebIdentityResponse>",
        )
    })
    .await;
    let ecr = StandIn::plain(|seen| ecr_or(seen, |_| reply(500, ""))).await;
    let node = web_identity_node(&ecr, &token).trust(&authority).route("sts.eu-west-1.amazonaws.com", &sts);
    assert_eq!(only(&lookup(&node.clouds(), IMAGE).await).2, "AKIDWEB");
    let seen = &sts.seen().await[0];
    assert_eq!((&seen.method, seen.path()), (&Method::POST, "/"));
    assert_eq!(seen.header("content-type"), "application/x-www-form-urlencoded");
    let mut form = seen.form();
    form.sort();
    let expected = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("RoleArn", "arn:aws:iam::123456789012:role/puller"),
        ("RoleSessionName", "prepull"),
        ("Version", "2011-06-15"),
        ("WebIdentityToken", "canary.web.identity"),
    ];
    assert_eq!(form, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[tokio::test]
async fn a_refused_web_identity_is_not_replaced_by_the_instance() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "canary.web.identity").unwrap();
    let server = StandIn::plain(|seen| {
        assert_eq!(seen.method, Method::POST, "the instance is not asked");
        let body = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no trust in canary.web.identity\n\
                    </Message></Error></ErrorResponse>";
        reply(403, body)
    })
    .await;
    let clouds = web_identity_node(&server, &token)
        .env("AWS_ENDPOINT_URL_STS", server.url())
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url())
        .clouds();
    let found = lookup(&clouds, IMAGE).await;
    let problem = problem(&found);
    assert!(
        problem.starts_with("ecr: the web identity gives no AWS keys: AccessDenied: no trust in [hidden]"),
        "{problem}"
    );
    assert!(problem.contains("AWS_ROLE_ARN"), "{problem}");
    assert_eq!(server.seen().await.len(), 1);
}

#[tokio::test]
async fn a_missing_web_identity_is_told_and_the_instance_not_asked() {
    let server = StandIn::plain(|seen| ecr_or(seen, instance)).await;
    let clouds = web_identity_node(&server, std::path::Path::new("/nowhere/token"))
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url())
        .clouds();
    let found = lookup(&clouds, IMAGE).await;
    let expected = "ecr: the web identity gives no AWS keys: failed to read web identity token file: No such file";
    assert!(problem(&found).starts_with(expected), "{found:?}");
    assert!(server.seen().await.is_empty());
}

#[tokio::test]
async fn shared_config_gives_keys_and_a_profile_without_keys_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(".aws")).unwrap();
    let ini = "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = canary-secret\n[sso]\nregion = x\n";
    std::fs::write(dir.path().join(".aws/credentials"), ini).unwrap();
    let server = StandIn::plain(|seen| ecr_or(seen, |_| reply(500, ""))).await;
    let node = || Node::new().env("HOME", dir.path().to_str().unwrap()).env("AWS_ENDPOINT_URL_ECR", server.url());
    assert_eq!(only(&lookup(&node().clouds(), IMAGE).await).2, "AKIDFILE");
    let found = lookup(&node().env("AWS_PROFILE", "sso").clouds(), IMAGE).await;
    assert!(problem(&found).contains("profile `sso` holds no keys"), "{found:?}");
}

#[tokio::test]
async fn a_refusal_names_the_permissions() {
    let body =
        r#"{"__type":"AccessDeniedException","Message":"User: arn:aws:sts::1:assumed-role/n is not authorized"}"#;
    let server = StandIn::plain(move |_| reply(400, Body::from(body))).await;
    let node = Node::new().keys().env("AWS_ENDPOINT_URL", server.url());
    let seconds = node.seconds();
    let clouds = node.clouds();
    let found = lookup(&clouds, IMAGE).await;
    assert_eq!(
        problem(&found),
        "ecr: the ECR API refused a token: 400 Bad Request: AccessDeniedException: User: arn:aws:sts::1:assumed-role/n \
         is not authorized; allow the node's identity ecr:GetAuthorizationToken, ecr:BatchGetImage and \
         ecr:GetDownloadUrlForLayer"
    );
    let public = lookup(&clouds, "public.ecr.aws/a/b").await;
    assert!(problem(&public).starts_with("ecr-public: ") && problem(&public).contains("sts:GetServiceBearerToken"));

    // the failure is shared for ten seconds, so that fifty images do not ask fifty times
    lookup(&clouds, IMAGE).await;
    assert_eq!(server.seen().await.len(), 2);
    seconds.fetch_add(10, Ordering::Relaxed);
    lookup(&clouds, IMAGE).await;
    assert_eq!(server.seen().await.len(), 3);
}

#[tokio::test]
async fn an_expired_token_is_used_once_and_not_kept() {
    let server = StandIn::plain(|_| private_answer("canary-old", 1_420_070_400)).await;
    let clouds = Node::new().keys().env("AWS_ENDPOINT_URL_ECR", server.url()).clouds();
    for asked in 1..=2 {
        assert_eq!(only(&lookup(&clouds, IMAGE).await).2, "canary-old");
        assert_eq!(server.seen().await.len(), asked);
    }
}
