//! What the signing library needs from outside: variables, files and HTTP, each within our bounds.

use std::{collections::HashMap, error::Error as StdError, fmt, io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, Uri};
use reqsign_core::{Context, Error, FileRead, HttpSend, StaticEnv};
use tokio::io::AsyncReadExt;

use super::super::{
    environment::Environment,
    http::{Http, HttpError},
    text::shown,
};

/// Longest file of tokens or profiles that is read.
const MAX_FILE: u64 = 1024 * 1024;

/// A context whose requests go through our client. `base` replaces scheme, host and port of every request, for a
/// service whose endpoint a variable names and whose name the library fixes.
pub(super) fn context(env: &Environment, http: Arc<Http>, base: Option<&str>) -> Context {
    let mut envs: HashMap<String, String> = env.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    if envs.contains_key("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        // the file is rotated, so it outranks the variable, as in the SDKs; the library has it the other way round
        envs.remove("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    }
    let home_dir = env.get("HOME").map(PathBuf::from);
    Context::new()
        .with_file_read(Files)
        .with_http_send(Sender { http, base: base.map(str::to_owned) })
        .with_env(StaticEnv { home_dir, envs })
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        read_bounded(path).await.map_err(Error::from)
    }
}

/// Reads a small file; an error where it is none.
pub(crate) async fn read_bounded(path: &str) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    // a fifo or device would never end
    if !file.metadata().await?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    file.take(MAX_FILE + 1).read_to_end(&mut content).await?;
    if content.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 1 MiB"));
    }
    Ok(content)
}

struct Sender {
    http: Arc<Http>,
    base: Option<String>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("base", &self.base).finish_non_exhaustive()
    }
}

impl HttpSend for Sender {
    async fn http_send(&self, mut request: Request<Bytes>) -> reqsign_core::Result<Response<Bytes>> {
        if let Some(base) = &self.base {
            *request.uri_mut() = rebased(request.uri(), base)
                .map_err(|_| Error::config_invalid("no web address").with_source(HttpError::Address(shown(base))))?;
        }
        let answer =
            self.http.send(request).await.map_err(|err| Error::unexpected(err.to_string()).with_source(err))?;
        // the library puts the body of a refusal into its message
        let body = if answer.status.is_success() { answer.body.clone() } else { answer.scrubbed_body().into() };
        let mut response = Response::new(body);
        *response.status_mut() = answer.status;
        Ok(response)
    }
}

fn rebased(uri: &Uri, base: &str) -> Result<Uri, http::uri::InvalidUri> {
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    format!("{}{path}", base.trim_end_matches('/')).parse()
}

/// The library's message, with the cause behind it where that is known to hold no answer's content.
pub(super) fn explained(error: &Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            return shown(&format!("{error}: {http}"));
        }
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return shown(&format!("{error}: {io}"));
        }
        cause = inner.source();
    }
    shown(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_replaces_the_host() {
        let to = |base: &str| rebased(&"https://sts.eu-west-1.amazonaws.com/".parse().unwrap(), base).unwrap();
        assert_eq!(to("http://127.0.0.1:5000").to_string(), "http://127.0.0.1:5000/");
        assert_eq!(to("http://127.0.0.1:5000/sts/").to_string(), "http://127.0.0.1:5000/sts/");
    }

    #[tokio::test]
    async fn files_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("long");
        std::fs::write(&long, vec![b'a'; 2 << 20]).unwrap();
        assert_eq!(read_bounded(long.to_str().unwrap()).await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(read_bounded(dir.path().to_str().unwrap()).await.is_err());
        assert!(read_bounded("/dev/zero").await.is_err());
    }
}
