//! What a registry was asked for, by its own access log.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// `GET`, `HEAD`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The status that was answered.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// Who asked, by its own word.
    pub user_agent: String,
}

impl Access {
    /// Whether a manifest of `repository` was asked for.
    pub fn is_manifest_of(&self, repository: &str) -> bool {
        self.reads() && self.path.starts_with(&format!("/v2/{repository}/manifests/"))
    }

    /// Whether a blob of `repository` was downloaded.
    pub fn is_blob_of(&self, repository: &str) -> bool {
        self.method == "GET" && self.status < 300 && self.path.starts_with(&format!("/v2/{repository}/blobs/"))
    }

    fn reads(&self) -> bool {
        self.method == "GET" || self.method == "HEAD"
    }
}

/// All requests in the log once it has come to rest: a line is written only after its answer was sent.
pub async fn read(log: &Path) -> Result<Vec<Access>> {
    let mut length = 0;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = fs::metadata(log).with_context(|| format!("there is no access log {}", log.display()))?.len();
        if now == length {
            break;
        }
        length = now;
    }
    Ok(fs::read_to_string(log)?.lines().filter_map(parse).collect())
}

/// One line of the combined log format.
fn parse(line: &str) -> Option<Access> {
    let mut quoted = line.split('"');
    let (_client, request, result) = (quoted.next()?, quoted.next()?, quoted.next()?);
    let (_referer, _space, user_agent) = (quoted.next()?, quoted.next()?, quoted.next()?);
    let (method, rest) = request.split_once(' ')?;
    let (path, _protocol) = rest.rsplit_once(' ')?;
    let (status, bytes) = result.trim().split_once(' ')?;
    Some(Access {
        method: method.to_owned(),
        path: path.to_owned(),
        status: status.parse().ok()?,
        bytes: bytes.parse().ok()?,
        user_agent: user_agent.to_owned(),
    })
}
