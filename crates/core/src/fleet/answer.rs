//! What an agent answers at `/api/v1/images`, as far as it is looked at.

use serde::Deserialize;

/// The whole answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answer {
    /// Why the runtime does not answer.
    pub runtime_problem: Option<String>,
    /// Lists in force.
    pub lists: Vec<ListAnswer>,
    /// Whether the node is warm.
    pub warm: bool,
    /// Why it is not.
    pub not_warm_reason: String,
    /// One for each text in the lists.
    pub images: Vec<ImageAnswer>,
}

/// A list in force.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListAnswer {
    /// `namespace/name` of a ConfigMap, or a file's path.
    pub source: String,
    /// The revision that is in force.
    pub revision: String,
    /// What is wrong with its newest text.
    pub problems: Vec<String>,
}

/// One image.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageAnswer {
    /// As written.
    pub image: String,
    /// The state's name.
    pub state: String,
    /// The kubelet's word for it.
    pub reason: Option<String>,
    /// Class of the last error.
    pub class: Option<String>,
    /// The last error, or why it waits.
    pub message: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Digest in the store: whatever the state, it is there.
    pub digest: Option<String>,
    /// Whether it counts for "warm".
    pub required: bool,
}

impl Answer {
    /// Reads one. The error says what came instead, without showing it.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|e| {
            format!(
                "what answers is no agent of prepull: its answer cannot be read (line {}, column {})",
                e.line(),
                e.column()
            )
        })
    }
}
