//! Texts that must not be seen anywhere.

use anyhow::{Result, bail};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// A secret with everything in it that encodings change.
pub(crate) fn canary(of: &str) -> String {
    format!("canary-{of}/\"<&>+%~?:é")
}

/// A secret that is fit for a header.
pub(crate) fn token(of: &str) -> String {
    format!("canary-{of}-0123456789.abcdefghij_~+/x==")
}

/// Basic authentication's encoding.
pub(crate) fn basic(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

/// How a server may repeat a secret.
pub(crate) fn echoes(secret: &str) -> Vec<String> {
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let json = serde_json::Value::from(secret).to_string();
    vec![
        secret.to_owned(),
        STANDARD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        encoded.to_lowercase(),
        encoded,
        json.trim_matches('"').replace('<', "\\u003c").replace('&', "\\u0026"),
        json,
        secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;"),
    ]
}

/// Fails where any part of any canary is seen: all of them hold the same word, which base64 spells in three ways,
/// wherever it begins.
pub(crate) fn look_for(what: &str, text: &str) -> Result<()> {
    // behind zero, one and two other bytes, without the characters that these have a part in
    let spelled = |before: &str, from, to| STANDARD_NO_PAD.encode(format!("{before}canary"))[from..to].to_owned();
    let needles = ["canary".to_owned(), spelled("", 0, 8), spelled("?", 2, 9), spelled("??", 3, 10)];
    let lower = text.to_lowercase();
    for (needle, text) in needles.iter().map(|needle| (needle, text)).chain([(&needles[0], lower.as_str())]) {
        if let Some(at) = text.find(needle) {
            let (from, to) = (text.floor_char_boundary(at.saturating_sub(300)), text.ceil_char_boundary(at + 200));
            bail!("{what} shows `{needle}`:\n… {} …", &text[from..to]);
        }
    }
    Ok(())
}
