//! What each family of metrics is called, what it counts and how it may be labelled: one table, of which the families
//! are made, their known labels shown at 0, and docs/metrics.md written.

use crate::{
    credentials::{Source, lookup},
    error_class::ErrorClass,
    image_state,
};

/// CRI methods that the agent calls.
pub const METHODS: [&str; 5] = ["Version", "ListImages", "ImageStatus", "PullImage", "ImageFsInfo"];
/// Seconds up to one hour, for pulls.
const PULL_BUCKETS: [f64; 14] =
    [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0];
/// Seconds, for what answers at once or not at all.
const CALL_BUCKETS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];

/// A family of metrics.
#[derive(Debug)]
pub struct Family {
    /// Its name without the prefix `prepull_`.
    pub name: &'static str,
    /// What it does with values.
    pub kind: Kind,
    /// What it counts, with its unit.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [Label],
}

/// What a family does with values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows, and begins at 0 when the agent starts.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by these upper bounds.
    Histogram(&'static [f64]),
}

/// A label.
#[derive(Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it may hold.
    pub values: Values,
}

/// What a label may hold.
#[derive(Debug)]
pub enum Values {
    /// One of these. Beside no other kind of label all of them are there from the start.
    Known(fn() -> Vec<&'static str>),
    /// What comes from outside, bounded as these words say.
    Bounded(&'static str),
}

const NONE: &[Label] = &[];
const REGISTRY: Label = Label {
    name: "registry",
    values: Values::Bounded(
        "a host with its port, from the first pull there; the hosts beyond the first 50 share `other`",
    ),
};

/// `images`.
pub const IMAGES: Family = Family {
    name: "images",
    kind: Kind::Gauge,
    help: "Listed images by state.",
    labels: &[Label { name: "state", values: Values::Known(|| image_state::STATE_NAMES.to_vec()) }],
};
/// `image_present`.
pub const IMAGE_PRESENT: Family = Family {
    name: "image_present",
    kind: Kind::Gauge,
    help: "Whether a listed image is in the runtime's store (1) or not (0).",
    labels: &[Label {
        name: "image",
        values: Values::Bounded(
            "as it is written in the list, up to 1024 bytes; one series for each image that is listed for this node",
        ),
    }],
};
/// `node_warm`.
pub const NODE_WARM: Family = Family {
    name: "node_warm",
    kind: Kind::Gauge,
    help: "Whether a list was read and every required image for this node is in the store (1) or not (0).",
    labels: NONE,
};
/// `time_to_warm_seconds`.
pub const TIME_TO_WARM: Family = Family {
    name: "time_to_warm_seconds",
    kind: Kind::Gauge,
    help: "Seconds from the agent's start until the node was warm for the first time; 0 until then.",
    labels: NONE,
};
/// `pulls_total`.
pub const PULLS: Family = Family {
    name: "pulls_total",
    kind: Kind::Counter,
    help: "Attempts to pull an image that ended; the credentials that one attempt tries in turn count once. The class of a success is empty.",
    labels: &[
        REGISTRY,
        Label { name: "result", values: Values::Known(|| vec!["success", "failure"]) },
        Label { name: "class", values: Values::Known(|| ErrorClass::ALL.map(ErrorClass::as_str).to_vec()) },
    ],
};
/// `pull_duration_seconds`.
pub const PULL_DURATION: Family = Family {
    name: "pull_duration_seconds",
    kind: Kind::Histogram(&PULL_BUCKETS),
    help: "Seconds that one attempt took, time in the queue not counted.",
    labels: &[REGISTRY],
};
/// `pulled_bytes_total`.
pub const PULLED_BYTES: Family = Family {
    name: "pulled_bytes_total",
    kind: Kind::Counter,
    help: "Bytes that came from a registry, each layer once; where the runtime does not tell, the sizes in its store of the images that came.",
    labels: &[REGISTRY],
};
/// `downloads_resumed_total`.
pub const DOWNLOADS_RESUMED: Family = Family {
    name: "downloads_resumed_total",
    kind: Kind::Counter,
    help: "Downloads that broke off and went on from where they were, without a back-off: no failed pull tells of them.",
    labels: &[REGISTRY],
};
/// `pulls_in_flight`.
pub const PULLS_IN_FLIGHT: Family = Family {
    name: "pulls_in_flight",
    kind: Kind::Gauge,
    help: "Pulls that the runtime of this node is at work on.",
    labels: NONE,
};
/// `pulls_waiting`.
pub const PULLS_WAITING: Family = Family {
    name: "pulls_waiting",
    kind: Kind::Gauge,
    help: "Images that wait to be pulled, by what they wait for.",
    labels: &[Label {
        name: "why",
        values: Values::Known(|| image_state::Wait::COUNTED.map(image_state::Wait::as_str).to_vec()),
    }],
};
/// `registry_cooldown_seconds`.
pub const REGISTRY_COOLDOWN: Family = Family {
    name: "registry_cooldown_seconds",
    kind: Kind::Gauge,
    help: "Seconds for which a registry is still left alone by this node; 0 when it is not.",
    labels: &[REGISTRY],
};
/// `credential_lookups_total`.
pub const CREDENTIAL_LOOKUPS: Family = Family {
    name: "credential_lookups_total",
    kind: Kind::Counter,
    help: "Looks for credentials, by source and result.",
    labels: &[
        Label { name: "source", values: Values::Known(|| Source::ALL.map(Source::as_str).to_vec()) },
        Label { name: "result", values: Values::Known(|| lookup::Outcome::ALL.map(lookup::Outcome::as_str).to_vec()) },
    ],
};
/// `list_reloads_total`.
pub const LIST_RELOADS: Family = Family {
    name: "list_reloads_total",
    kind: Kind::Counter,
    help: "Times that a list was read, by result.",
    labels: &[Label { name: "result", values: Values::Known(|| vec!["success", "failure"]) }],
};
/// `list_last_success_timestamp_seconds`.
pub const LIST_LAST_SUCCESS: Family = Family {
    name: "list_last_success_timestamp_seconds",
    kind: Kind::Gauge,
    help: "Unix time in seconds at which a list was last read well; 0 before.",
    labels: NONE,
};
/// `list_invalid_entries`.
pub const LIST_INVALID_ENTRIES: Family = Family {
    name: "list_invalid_entries",
    kind: Kind::Gauge,
    help: "Entries of the lists in force that cannot be used.",
    labels: NONE,
};
/// `lists_rejected`. A counter of failures forgets a text that stays broken; an alert must not.
pub const LISTS_REJECTED: Family = Family {
    name: "lists_rejected",
    kind: Kind::Gauge,
    help: "Lists whose newest text cannot be used, so that an older one or none is in force.",
    labels: NONE,
};
/// `reconcile_duration_seconds`.
pub const RECONCILE_DURATION: Family = Family {
    name: "reconcile_duration_seconds",
    kind: Kind::Histogram(&CALL_BUCKETS),
    help: "Seconds that one turn of the agent's loop took.",
    labels: NONE,
};
/// `cri_request_duration_seconds`.
pub const CRI_REQUESTS: Family = Family {
    name: "cri_request_duration_seconds",
    kind: Kind::Histogram(&CALL_BUCKETS),
    help: "Seconds that calls to the container runtime took.",
    labels: &[
        Label { name: "method", values: Values::Known(|| METHODS.to_vec()) },
        Label {
            name: "code",
            values: Values::Bounded(
                "gRPC's 17 codes in Go's words; `OK` from the start, another from its first answer",
            ),
        },
    ],
};
/// `image_fs_used_ratio`.
pub const IMAGE_FS_USED: Family = Family {
    name: "image_fs_used_ratio",
    kind: Kind::Gauge,
    help: "Used part of the image filesystem, from 0 to 1, as the kubelet counts it; 0 while unknown.",
    labels: NONE,
};
/// `pinned_images`.
pub const PINNED_IMAGES: Family = Family {
    name: "pinned_images",
    kind: Kind::Gauge,
    help: "Images in the store that the kubelet's garbage collector leaves, among those listed.",
    labels: NONE,
};
/// `build_info`.
pub const BUILD_INFO: Family = Family {
    name: "build_info",
    kind: Kind::Gauge,
    help: "Version and revision of this binary, always 1.",
    labels: &[
        Label { name: "version", values: Values::Bounded("one, the binary's own") },
        Label { name: "revision", values: Values::Bounded("one, the commit that it was built from") },
    ],
};

/// Every family, in the order of docs/metrics.md.
pub const ALL: [&Family; 21] = [
    &NODE_WARM,
    &TIME_TO_WARM,
    &IMAGES,
    &IMAGE_PRESENT,
    &PINNED_IMAGES,
    &PULLS,
    &PULL_DURATION,
    &PULLED_BYTES,
    &DOWNLOADS_RESUMED,
    &PULLS_IN_FLIGHT,
    &PULLS_WAITING,
    &REGISTRY_COOLDOWN,
    &CREDENTIAL_LOOKUPS,
    &LIST_RELOADS,
    &LIST_LAST_SUCCESS,
    &LIST_INVALID_ENTRIES,
    &LISTS_REJECTED,
    &IMAGE_FS_USED,
    &CRI_REQUESTS,
    &RECONCILE_DURATION,
    &BUILD_INFO,
];

impl Family {
    /// Its whole name.
    pub fn full_name(&self) -> String {
        format!("prepull_{}", self.name)
    }

    /// The unit that its name ends with, as Prometheus has it; none where it counts things.
    pub fn unit(&self) -> Option<&'static str> {
        let base = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes", "ratio"].into_iter().find(|unit| base.ends_with(&format!("_{unit}")))
    }

    /// Each set of label values that is known beforehand; none where a label's values come from outside.
    pub fn known(&self) -> Vec<Vec<&'static str>> {
        let mut sets = vec![Vec::new()];
        for label in self.labels {
            let Values::Known(values) = label.values else { return Vec::new() };
            sets = sets
                .into_iter()
                .flat_map(|set| values().into_iter().map(move |value| [&set[..], &[value]].concat()))
                .collect();
        }
        sets
    }

    /// The names of its labels.
    pub fn label_names(&self) -> Vec<&'static str> {
        self.labels.iter().map(|label| label.name).collect()
    }
}

impl Kind {
    /// Prometheus' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}
