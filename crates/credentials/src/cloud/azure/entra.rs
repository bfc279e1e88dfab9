//! Entra ID (Azure AD): the access token of a service principal, a workload identity or a managed identity. Requests and
//! answers are pure; the file of a workload identity is read by the caller.

use std::fmt;

use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::super::{
    answer::{Answer, Unreadable},
    environment::Environment,
    names::AzureCloud,
};

/// Where the metadata service of every virtual machine is.
const DEFAULT_METADATA: &str = "http://169.254.169.254";
/// The metadata service's contract.
const METADATA_VERSION: &str = "2018-02-01";
/// How a client assertion is named in a form.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Whom the node asks as, in the order in which Azure's SDKs look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// `AZURE_CLIENT_SECRET` with `AZURE_CLIENT_ID` and `AZURE_TENANT_ID`.
    ServicePrincipal,
    /// `AZURE_FEDERATED_TOKEN_FILE` with the same two: the path.
    Workload(String),
    /// Neither: the machine's own, `AZURE_CLIENT_ID` chooses among several.
    Managed,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServicePrincipal => "the service principal",
            Self::Workload(_) => "the workload identity",
            Self::Managed => "the managed identity",
        })
    }
}

impl Identity {
    /// Chooses by the variables that are there.
    pub(super) fn of(env: &Environment) -> Self {
        let has = |name| env.get(name).is_some();
        let named = has("AZURE_CLIENT_ID") && has("AZURE_TENANT_ID");
        match env.get("AZURE_FEDERATED_TOKEN_FILE") {
            _ if named && has("AZURE_CLIENT_SECRET") => Self::ServicePrincipal,
            Some(path) if named => Self::Workload(path.to_owned()),
            _ => Self::Managed,
        }
    }
}

/// What a cloud of Azure's is called by: the host that gives tokens, and the resource that a registry's token is for.
///
/// The resource of the public cloud is the registries' own; elsewhere it is the resource manager's, as in Azure's SDKs.
fn names(cloud: AzureCloud) -> (&'static str, &'static str) {
    match cloud {
        AzureCloud::Public => ("https://login.microsoftonline.com", "https://containerregistry.azure.net"),
        AzureCloud::China => ("https://login.chinacloudapi.cn", "https://management.chinacloudapi.cn"),
        AzureCloud::Government => ("https://login.microsoftonline.us", "https://management.usgovcloudapi.net"),
        AzureCloud::Germany => ("https://login.microsoftonline.de", "https://management.microsoftazure.de"),
    }
}

/// Where the token of a service principal or workload identity is asked for; empty without a tenant.
pub(super) fn token_url(cloud: AzureCloud, env: &Environment) -> String {
    let authority = env.get("AZURE_AUTHORITY_HOST").unwrap_or(names(cloud).0).trim_end_matches('/');
    // the tenant is part of a path, so what has a meaning there is encoded
    let tenant: String =
        form_urlencoded::byte_serialize(env.get("AZURE_TENANT_ID").unwrap_or_default().as_bytes()).collect();
    format!("{authority}/{tenant}/oauth2/v2.0/token")
}

/// What proves the client.
pub(super) enum Proof<'a> {
    /// A password.
    Secret(&'a str),
    /// A token of the cluster's.
    Assertion(&'a SecretString),
}

/// The form that trades a secret or a cluster's token for an access token.
pub(super) fn client_request(
    cloud: AzureCloud,
    env: &Environment,
    proof: &Proof<'_>,
) -> Result<Request<Bytes>, http::Error> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials")
        .append_pair("client_id", env.get("AZURE_CLIENT_ID").unwrap_or_default())
        .append_pair("scope", &format!("{}/.default", names(cloud).1));
    match proof {
        Proof::Secret(secret) => form.append_pair("client_secret", secret),
        Proof::Assertion(token) => form
            .append_pair("client_assertion_type", ASSERTION_TYPE)
            .append_pair("client_assertion", token.expose_secret()),
    };
    Request::post(token_url(cloud, env))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Bytes::from(form.finish()))
}

/// Base address of the metadata service, without a slash at its end.
pub(super) fn metadata_base(env: &Environment) -> &str {
    env.get("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or(DEFAULT_METADATA).trim_end_matches('/')
}

/// A question that the metadata service answers without asking anybody else.
pub(super) fn quick_request(env: &Environment) -> Result<Request<Bytes>, http::Error> {
    Request::get(format!("{}/metadata/versions", metadata_base(env))).header("Metadata", "true").body(Bytes::new())
}

/// The request for the token of the machine's identity.
pub(super) fn managed_request(cloud: AzureCloud, env: &Environment) -> Result<Request<Bytes>, http::Error> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("api-version", METADATA_VERSION).append_pair("resource", names(cloud).1);
    if let Some(client) = env.get("AZURE_CLIENT_ID") {
        query.append_pair("client_id", client);
    }
    Request::get(format!("{}/metadata/identity/oauth2/token?{}", metadata_base(env), query.finish()))
        .header("Metadata", "true")
        .body(Bytes::new())
}

#[derive(Deserialize)]
struct AccessToken {
    access_token: SecretString,
}

/// Reads the access token out of an answer of either service.
pub(super) fn read_token(answer: &Answer) -> Result<SecretString, Unreadable> {
    let token = answer.json::<AccessToken>()?.access_token;
    if token.expose_secret().is_empty() { Err(Unreadable) } else { Ok(token) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    const BOTH: [(&str, &str); 4] = [
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_SECRET", "a&b"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
    ];

    #[test]
    fn the_identity_follows_from_the_variables() {
        assert_eq!(Identity::of(&environment(&BOTH)), Identity::ServicePrincipal);
        let workload = [BOTH[0], BOTH[1], BOTH[3]];
        assert_eq!(Identity::of(&environment(&workload)), Identity::Workload("/token".to_owned()));
        assert_eq!(Identity::of(&environment(&[BOTH[0], BOTH[2], BOTH[3]])), Identity::Managed, "no tenant");
        assert_eq!(Identity::of(&environment(&[])), Identity::Managed);
    }

    #[test]
    fn every_cloud_has_its_own_hosts() {
        let form = |cloud| {
            let request = client_request(cloud, &environment(&BOTH), &Proof::Secret("a&b")).unwrap();
            (request.uri().to_string(), String::from_utf8(request.body().to_vec()).unwrap())
        };
        let (url, body) = form(AzureCloud::Public);
        assert_eq!(url, "https://login.microsoftonline.com/tenant/oauth2/v2.0/token");
        assert_eq!(
            body,
            "grant_type=client_credentials&client_id=client&scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default\
             &client_secret=a%26b"
        );
        for (cloud, host, resource) in [
            (AzureCloud::China, "login.chinacloudapi.cn", "management.chinacloudapi.cn"),
            (AzureCloud::Government, "login.microsoftonline.us", "management.usgovcloudapi.net"),
            (AzureCloud::Germany, "login.microsoftonline.de", "management.microsoftazure.de"),
        ] {
            let (url, body) = form(cloud);
            assert!(url.starts_with(&format!("https://{host}/tenant/")), "{url}");
            assert!(body.contains(&format!("{resource}%2F.default")), "{body}");
        }
    }

    #[test]
    fn a_workloads_token_is_the_assertion() {
        let assertion = SecretString::from("eyJ.x");
        let env = environment(&[BOTH[0], BOTH[1], ("AZURE_AUTHORITY_HOST", "https://login.example/")]);
        let request = client_request(AzureCloud::Public, &env, &Proof::Assertion(&assertion)).unwrap();
        assert_eq!(request.uri(), "https://login.example/tenant/oauth2/v2.0/token");
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        assert!(body.ends_with(
            "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=eyJ.x"
        ));
    }

    #[test]
    fn the_tenant_cannot_leave_its_place() {
        let env = environment(&[("AZURE_TENANT_ID", "../x?y")]);
        let url = token_url(AzureCloud::Public, &env);
        assert_eq!(url, "https://login.microsoftonline.com/..%2Fx%3Fy/oauth2/v2.0/token");
    }

    #[test]
    fn the_machines_token_is_asked_for_by_client() {
        let request = managed_request(AzureCloud::Public, &environment(&[BOTH[0]])).unwrap();
        assert_eq!(
            request.uri(),
            "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
             &resource=https%3A%2F%2Fcontainerregistry.azure.net&client_id=client"
        );
        assert_eq!(request.headers()["metadata"], "true");
    }
}
