//! The API server's clock. Ages of objects are told by it, because a node's own clock may be years off when it has just booted.

use std::time::Duration;

use http::header::DATE;
use jiff::fmt::rfc2822::DateTimeParser;
use kube::{Client, client::Body};
use tokio::time::timeout;

use super::watch::Trouble;

/// The request takes no longer.
const BOUND: Duration = Duration::from_secs(10);
/// What every account may ask for. The answer does not matter, only when it was given.
const PATH: &str = "/version";

/// The API server's time since the Unix epoch, in whole seconds.
pub async fn now(client: &Client) -> Result<Duration, Trouble> {
    let request = http::Request::get(PATH).body(Body::empty()).map_err(|e| Trouble::NoAnswer(e.to_string()))?;
    let answer = timeout(BOUND, client.send(request)).await;
    let answer = answer.map_err(|_| Trouble::NoAnswer(format!("no answer within {} s", BOUND.as_secs())))?;
    let answer = answer.map_err(|error| Trouble::of_request(&error))?;
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    date.and_then(parse).ok_or_else(|| Trouble::NoAnswer("its answers have no valid Date header".to_owned()))
}

fn parse(date: &str) -> Option<Duration> {
    let at = DateTimeParser::new().parse_timestamp(date).ok()?;
    u64::try_from(at.as_second()).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_header_is_read() {
        assert_eq!(parse("Tue, 01 Dec 2026 12:00:01 GMT"), Some(Duration::from_secs(1_796_126_401)));
        for wrong in ["", "soon", "Tue, 01 Dec 1926 12:00:00 GMT", "2026-12-01T12:00:00Z"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
