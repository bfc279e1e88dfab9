//! What an agent answers at `/api/v1/images`, as far as it is used. Anything may answer in an agent's place, so everything
//! that grows with the answer is counted while it is read.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

/// Most images of one answer, more than any agent has. An answer with more is not used.
pub(super) const MAX_IMAGES: usize = 100_000;
/// Most lists of one answer. An answer with more is not used.
pub(super) const MAX_LISTS: usize = 10_000;

/// The whole answer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answer {
    /// Why the runtime does not answer.
    pub runtime_problem: Option<String>,
    /// Lists in force.
    #[serde(deserialize_with = "bounded::<_, _, MAX_LISTS>")]
    pub lists: Vec<ListAnswer>,
    /// Whether the node is warm.
    pub warm: bool,
    /// Why it is not.
    pub not_warm_reason: String,
    /// One for each text in the lists.
    #[serde(deserialize_with = "bounded::<_, _, MAX_IMAGES>")]
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
        let answer: Self = serde_json::from_slice(json).map_err(|e| {
            format!(
                "what answers is no agent of prepull: its answer cannot be read (line {}, column {})",
                e.line(),
                e.column()
            )
        })?;
        for (count, most, what) in
            [(answer.images.len(), MAX_IMAGES, "images"), (answer.lists.len(), MAX_LISTS, "lists")]
        {
            if count > most {
                return Err(format!(
                    "its answer has more than {most} {what}, and was not used; what answers is no agent of prepull"
                ));
            }
        }
        Ok(answer)
    }
}

/// Reads at most one element more than `MAX`, by which [`Answer::parse`] sees that there were too many, and skips the others.
fn bounded<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Elements<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut read = Vec::new();
            while read.len() <= MAX {
                match elements.next_element()? {
                    Some(element) => read.push(element),
                    None => return Ok(read),
                }
            }
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            Ok(read)
        }
    }

    deserializer.deserialize_seq(Elements::<T, MAX>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_too_much_is_not_used() {
        let answer = |what: &str, count: usize| format!("{{\"{what}\": [{}]}}", vec!["{}"; count].join(","));
        for (what, most) in [("images", MAX_IMAGES), ("lists", MAX_LISTS)] {
            let read = Answer::parse(answer(what, most).as_bytes()).unwrap();
            assert_eq!(read.images.len().max(read.lists.len()), most);
            for more in [most + 1, most + 2, most * 3] {
                let refused = Answer::parse(answer(what, more).as_bytes()).unwrap_err();
                assert!(refused.contains(&format!("more than {most} {what}")), "{refused}");
            }
        }
        assert!(Answer::parse(br#"{"images": {}}"#).unwrap_err().contains("cannot be read"));
    }
}
