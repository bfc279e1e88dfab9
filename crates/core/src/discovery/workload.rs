//! What is read of workloads: the few fields of the API's objects that say which images their pods use.
//!
//! One shape serves all kinds. A pod's own fields stand in `spec` of a Pod, in `spec.template.spec` of what makes pods,
//! and in `spec.jobTemplate.spec.template.spec` of a CronJob.

use serde::Deserialize;

/// A kind of workload that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `v1`
    Pod,
    /// `apps/v1`
    Deployment,
    /// `apps/v1`
    StatefulSet,
    /// `apps/v1`
    DaemonSet,
    /// `batch/v1`
    Job,
    /// `batch/v1`
    CronJob,
}

impl Kind {
    /// All, in the order in which they are asked for. What else makes pods (ReplicaSets of their own, custom resources)
    /// counts by its pods.
    pub const ALL: [Self; 6] =
        [Self::Pod, Self::Deployment, Self::StatefulSet, Self::DaemonSet, Self::Job, Self::CronJob];

    /// The API group; empty for the core one.
    pub fn group(self) -> &'static str {
        match self {
            Self::Pod => "",
            Self::Deployment | Self::StatefulSet | Self::DaemonSet => "apps",
            Self::Job | Self::CronJob => "batch",
        }
    }

    /// The resource's name in a path.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
            Self::Job => "jobs",
            Self::CronJob => "cronjobs",
        }
    }

    /// As in `kubectl get -o name`.
    pub fn singular(self) -> &'static str {
        let plural = self.plural();
        &plural[..plural.len() - 1]
    }
}

/// One object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
    pub(super) status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) owner_references: Option<Vec<Owner>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) controller: Option<bool>,
}

/// Of a Pod, of a template, and of what has a template.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    init_containers: Option<Vec<Container>>,
    containers: Option<Vec<Container>>,
    ephemeral_containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
    pub(super) image_pull_secrets: Option<Vec<Name>>,
    pub(super) service_account_name: Option<String>,
    pub(super) node_selector: Option<std::collections::BTreeMap<String, String>>,
    pub(super) affinity: Option<Affinity>,
    template: Option<Box<Template>>,
    job_template: Option<Box<Template>>,
    replicas: Option<u64>,
    parallelism: Option<u64>,
    suspend: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Template {
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    image: Option<String>,
    image_pull_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Volume {
    image: Option<ImageVolume>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ImageVolume {
    reference: Option<String>,
    pull_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Name {
    pub(super) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Affinity {
    pub(super) node_affinity: Option<NodeAffinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub(super) required: Option<Terms>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Terms {
    pub(super) node_selector_terms: Option<Vec<Term>>,
}

/// `matchFields` is not read: it names single nodes, as a DaemonSet's pods do.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Term {
    pub(super) match_expressions: Option<Vec<Expression>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Expression {
    pub(super) key: String,
    pub(super) operator: String,
    pub(super) values: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    phase: String,
    desired_number_scheduled: u64,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// How many pods an object stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pods {
    /// It is one.
    One,
    /// It asks for so many.
    Wanted(u64),
}

impl Object {
    /// The namespace that it names; empty without one.
    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    /// The pod that it is or makes, and how many; none where it uses no image any more, or where another kind tells.
    pub(super) fn pods(&self, kind: Kind) -> Option<(&Spec, Pods)> {
        let spec = &self.spec;
        let template = || spec.template.as_deref().map(|template| &template.spec);
        match kind {
            // what has ended runs nothing, and a static pod is its own kubelet's affair
            Kind::Pod => {
                let gone =
                    matches!(self.status.phase.as_str(), "Succeeded" | "Failed") || self.is_controlled_by("Node");
                (!gone).then_some((spec, Pods::One))
            }
            Kind::Deployment | Kind::StatefulSet => Some((template()?, Pods::Wanted(spec.replicas.unwrap_or(1)))),
            Kind::DaemonSet => Some((template()?, Pods::Wanted(self.status.desired_number_scheduled))),
            Kind::Job => {
                let done = self.status.conditions.iter().flatten();
                let mut done = done.filter(|c| matches!(c.kind.as_str(), "Complete" | "Failed") && c.status == "True");
                let gone = done.next().is_some() || self.is_controlled_by("CronJob");
                if gone { None } else { Some((template()?, spec.at_once())) }
            }
            Kind::CronJob => {
                let job = &spec.job_template.as_deref()?.spec;
                let pods = if spec.suspend == Some(true) { Pods::Wanted(0) } else { job.at_once() };
                Some((&job.template.as_deref()?.spec, pods))
            }
        }
    }

    /// Whether nothing that is asked for makes it.
    pub(super) fn stands_alone(&self) -> bool {
        !self.metadata.owner_references.iter().flatten().any(|owner| owner.controller == Some(true))
    }

    fn is_controlled_by(&self, kind: &str) -> bool {
        let owners = self.metadata.owner_references.iter().flatten();
        owners.filter(|owner| owner.controller == Some(true)).any(|owner| owner.kind == kind)
    }
}

impl Spec {
    /// The pods of a Job.
    fn at_once(&self) -> Pods {
        Pods::Wanted(if self.suspend == Some(true) { 0 } else { self.parallelism.unwrap_or(1) })
    }

    /// Images with their pull policies, of init, plain and ephemeral containers and of image volumes.
    pub(super) fn images(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let containers = [&self.init_containers, &self.containers, &self.ephemeral_containers].into_iter().flatten();
        let containers = containers.flatten().map(|c| (c.image.as_deref(), c.image_pull_policy.as_deref()));
        let volumes = self.volumes.iter().flatten().filter_map(|v| v.image.as_ref());
        let volumes = volumes.map(|v| (v.reference.as_deref(), v.pull_policy.as_deref()));
        containers.chain(volumes).filter_map(|(image, policy)| Some((image.filter(|i| !i.is_empty())?, policy)))
    }
}
