//! The clouds' lookups, with local servers in the place of their metadata services and APIs.

use std::path::Path;

use anyhow::{Result, ensure};
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{
    canaries::{basic, token},
    shown::Setting,
    support::{
        background::Background,
        fake_cri::{FakeCri, Offer},
        journal::Method,
        sources::write,
    },
};

const ECR: &str = "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov/app:1";
const GOOGLE: &str = "gcr.io/project/app:1";
const AZURE: &str = "team.azurecr.io/app:1";

/// A server; it ends with the value.
fn serve(router: Router) -> Result<(Background, String)> {
    let background = Background::start("cloud")?;
    let (listener, address) = background.listen()?;
    background.spawn(async move {
        // it ends only with its runtime
        let _ = axum::serve(listener, router).await;
    });
    Ok((background, address))
}

/// Answers as both clouds do.
async fn tokens(request: Request) -> Response {
    match request.uri().path() {
        "/" => {
            let data = json!({"authorizationToken": basic("AWS", &token("ecr")), "expiresAt": 1_900_000_000});
            Json(json!({"authorizationData": [data]})).into_response()
        }
        path if path.ends_with("/scopes") => {
            Json(json!(["https://www.googleapis.com/auth/cloud-platform"])).into_response()
        }
        path if path.ends_with("/default/token") => {
            Json(json!({"access_token": token("google"), "expires_in": 3599, "token_type": "Bearer"})).into_response()
        }
        path if path.starts_with("/latest/api/token") => token("imds-session").into_response(),
        path if path.ends_with("/security-credentials/") => "role".into_response(),
        path if path.ends_with("/security-credentials/role") => Json(json!({
            "Code": "Success", "AccessKeyId": "AKIDOFATEST", "SecretAccessKey": token("imds-key"),
            "Token": token("imds-token"), "Expiration": "2099-01-01T00:00:00Z",
        }))
        .into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Refuses, and repeats all headers and the whole body where clouds write their messages.
async fn repeat(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/metadata/versions" {
        return Json(json!({"apiVersions": ["2018-02-01"]})).into_response();
    }
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let text = format!("{:?} {} {}", parts.headers, String::from_utf8_lossy(&body), parts.uri);
    let answer = json!({"__type": "AccessDeniedException", "message": text, "error": "invalid_client", "error_description": text});
    (StatusCode::BAD_REQUEST, Body::from(answer.to_string())).into_response()
}

fn variables(address: &str, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let url = format!("http://{address}");
    let mut all = vec![("PREPULL_CLOUD_CREDENTIALS".to_owned(), "auto".to_owned())];
    for name in [
        "AWS_ENDPOINT_URL",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AZURE_POD_IDENTITY_AUTHORITY_HOST",
        "AZURE_AUTHORITY_HOST",
    ] {
        all.push((name.to_owned(), url.clone()));
    }
    all.push(("GCE_METADATA_HOST".to_owned(), address.to_owned()));
    all.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    all
}

pub(crate) async fn that_work() -> Result<()> {
    let (_server, address) = serve(Router::new().fallback(tokens))?;
    let (key, session) = (token("aws-key"), token("aws-session"));
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIDOFATEST"),
        ("AWS_SECRET_ACCESS_KEY", key.as_str()),
        ("AWS_SESSION_TOKEN", &session),
    ];
    // once with keys in variables, and once with those of the instance's role
    for more in [&keys[..], &[]] {
        let fake = FakeCri::start()?;
        let folder = tempfile::tempdir()?;
        for (image, user, of) in [(ECR, "AWS", "ecr"), (GOOGLE, "_token", "google")] {
            fake.offer(image, Offer { logins: vec![(user.to_owned(), token(of))], ..Offer::default() });
        }
        look(&fake, folder.path(), &[ECR, GOOGLE], variables(&address, more), "Present").await?;
        ensure!(fake.journal().calls(Method::PullImage).iter().all(|call| call.login.is_some()));
    }
    Ok(())
}

pub(crate) async fn that_repeat() -> Result<()> {
    let (_server, address) = serve(Router::new().fallback(repeat))?;
    let folder = tempfile::tempdir()?;
    let federated = write(folder.path(), "federated", &token("federated"))?.display().to_string();
    let (key, session, secret) = (token("aws-key"), token("aws-session"), token("azure"));
    let aws = [
        ("AWS_ACCESS_KEY_ID", "AKIDOFATEST"),
        ("AWS_SECRET_ACCESS_KEY", key.as_str()),
        ("AWS_SESSION_TOKEN", &session),
    ];
    let web =
        [("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r"), ("AWS_WEB_IDENTITY_TOKEN_FILE", federated.as_str())];
    let azure = [("AZURE_CLIENT_ID", "client"), ("AZURE_TENANT_ID", "tenant")];
    for more in [
        [&aws[..], &azure, &[("AZURE_CLIENT_SECRET", &secret)]].concat(),
        [&web[..], &azure, &[("AZURE_FEDERATED_TOKEN_FILE", &federated)]].concat(),
        Vec::new(),
    ] {
        let fake = FakeCri::start()?;
        for image in [ECR, GOOGLE, AZURE] {
            fake.offer(image, Offer { logins: vec![("nobody".into(), "knows".into())], ..Offer::default() });
        }
        look(&fake, folder.path(), &[ECR, GOOGLE, AZURE], variables(&address, &more), "BackOff").await?;
    }
    Ok(())
}

async fn look(
    fake: &FakeCri,
    folder: &Path,
    images: &[&str],
    environment: Vec<(String, String)>,
    state: &str,
) -> Result<()> {
    let socket = fake.socket();
    let setting = Setting { socket: &socket, folder, images, flags: vec![], environment, state };
    let seen = setting.look().await?;
    for explained in seen.explained.as_array().into_iter().flatten() {
        let (credentials, problems) = (&explained["credentials"], &explained["problems"]);
        let worked = credentials[0]["source"] == "cloud" && *problems == json!([]);
        let failed = *credentials == json!([]) && problems[0].is_string();
        ensure!(if state == "Present" { worked } else { failed }, "{explained:#}");
    }
    Ok(())
}
