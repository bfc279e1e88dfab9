//! Which rights this agent has: asked once, before what needs them, and told once where they are absent.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

/// A right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Right {
    /// What is done.
    pub verb: &'static str,
    /// The API group; empty for the core one.
    pub group: &'static str,
    /// The resource.
    pub resource: &'static str,
    /// A part of it, such as `status`.
    pub subresource: Option<&'static str>,
    /// Where; none for the whole cluster.
    pub namespace: Option<String>,
    /// Which one; none for any.
    pub name: Option<String>,
}

impl Right {
    /// As a clause of a sentence.
    pub fn clause(&self) -> String {
        let part = self.subresource.map_or_else(String::new, |part| format!("/{part}"));
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let place = self.namespace.as_ref().map_or_else(String::new, |namespace| format!(" in namespace {namespace}"));
        format!("{} on {}{part}{group}{place}", self.verb, self.resource)
    }

    fn review(&self) -> SelfSubjectAccessReview {
        let text = |text: &str| Some(text.to_owned());
        SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: text(self.verb),
                    group: text(self.group),
                    resource: text(self.resource),
                    subresource: self.subresource.map(str::to_owned),
                    namespace: self.namespace.clone(),
                    name: self.name.clone(),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        }
    }
}

/// The first of these rights that is absent. Everybody may ask this about himself.
pub async fn absent(client: &Client, rights: &[Right]) -> Result<Option<Right>, kube::Error> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    for right in rights {
        let answer = reviews.create(&PostParams::default(), &right.review()).await?;
        if !answer.status.is_some_and(|status| status.allowed) {
            return Ok(Some(right.clone()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_told_as_people_grant_it() {
        let right = Right { verb: "patch", resource: "nodes", subresource: Some("status"), ..Right::default() };
        assert_eq!(right.clause(), "patch on nodes/status");
        let namespace = Some("prepull".to_owned());
        let right = Right { verb: "create", group: "events.k8s.io", resource: "events", namespace, ..Right::default() };
        assert_eq!(right.clause(), "create on events.events.k8s.io in namespace prepull");
    }
}
