//! Prometheus metrics. Families that count are updated as things happen; what describes the present is filled in from
//! a snapshot when somebody scrapes. The keeper owns them, so there is nothing to lock.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::{
    credentials::{Source, lookup},
    error_class::ErrorClass,
    image_ref::RegistryHost,
    image_state::{STATE_NAMES, Wait},
    runtime::Observer,
    status::Status,
    stock::Outcome,
};

/// Registries with a label of their own; the others share [`OTHER`].
const MOST_REGISTRIES: usize = 50;
const OTHER: &str = "other";
/// Bytes of a label that a list's author writes. No valid name is longer: a registry's host, 255 of a path, and a
/// digest.
const MOST_LABEL: usize = 1024;
/// CRI methods that the agent calls.
const METHODS: [&str; 4] = ["Version", "ListImages", "ImageStatus", "PullImage"];
/// Seconds up to one hour, for pulls.
const PULL_BUCKETS: [f64; 14] =
    [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0];
/// Seconds, for what answers at once or not at all.
const CALL_BUCKETS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    images: IntGaugeVec,
    image_present: IntGaugeVec,
    node_warm: IntGauge,
    time_to_warm: Gauge,
    pulls: IntCounterVec,
    pull_duration: HistogramVec,
    pulled_bytes: IntCounterVec,
    pulls_in_flight: IntGauge,
    pulls_waiting: IntGaugeVec,
    registry_cooldown: GaugeVec,
    credential_lookups: IntCounterVec,
    list_reloads: IntCounterVec,
    list_last_success: Gauge,
    list_invalid_entries: IntGauge,
    reconcile_duration: Histogram,
    cri_requests: HistogramVec,
    image_fs_used: Gauge,
    pinned_images: IntGauge,
    registries: BTreeSet<String>,
}

impl Metrics {
    /// Registers every family, with its known label values at 0.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("prepull".to_owned()), None)?;
        let make = Make { registry: &registry };
        let metrics = Self {
            images: make.int_gauges("images", "Listed images by state.", &["state"])?,
            image_present: make.int_gauges(
                "image_present",
                "Whether a listed image is in the runtime's store (1) or not (0).",
                &["image"],
            )?,
            node_warm: make.int_gauge(
                "node_warm",
                "Whether a list was read and every required image for this node is in the store.",
            )?,
            time_to_warm: make.gauge(
                "time_to_warm_seconds",
                "Seconds from the agent's start until the node was warm for the first time; 0 until then.",
            )?,
            pulls: make.counters(
                "pulls_total",
                "Attempts to pull an image, each credential in turn counted as one attempt.",
                &["registry", "result", "class"],
            )?,
            pull_duration: make.histograms(
                "pull_duration_seconds",
                "Seconds that one attempt took, time in the queue not counted.",
                &["registry"],
                &PULL_BUCKETS,
            )?,
            pulled_bytes: make.counters(
                "pulled_bytes_total",
                "Bytes of images that were pulled, as the runtime counts them in its store.",
                &["registry"],
            )?,
            pulls_in_flight: make.int_gauge("pulls_in_flight", "Pulls under way on this node.")?,
            pulls_waiting: make.int_gauges(
                "pulls_waiting",
                "Images that wait to be pulled, by what they wait for.",
                &["why"],
            )?,
            registry_cooldown: make.gauges(
                "registry_cooldown_seconds",
                "Seconds for which a registry is still left alone.",
                &["registry"],
            )?,
            credential_lookups: make.counters(
                "credential_lookups_total",
                "Looks for credentials, by source and result.",
                &["source", "result"],
            )?,
            list_reloads: make.counters("list_reloads_total", "Times that a list was read, by result.", &["result"])?,
            list_last_success: make.gauge(
                "list_last_success_timestamp_seconds",
                "Unix time at which a list was last read well; 0 before.",
            )?,
            list_invalid_entries: make
                .int_gauge("list_invalid_entries", "Entries of the lists in force that cannot be used.")?,
            reconcile_duration: make.histogram(
                "reconcile_duration_seconds",
                "Seconds that one turn of the agent's loop took.",
                &CALL_BUCKETS,
            )?,
            cri_requests: make.histograms(
                "cri_request_duration_seconds",
                "Seconds that calls to the container runtime took.",
                &["method", "code"],
                &CALL_BUCKETS,
            )?,
            image_fs_used: make.gauge(
                "image_fs_used_ratio",
                "Used part of the image filesystem, from 0 to 1, as the kubelet counts it; 0 while unknown.",
            )?,
            pinned_images: make.int_gauge(
                "pinned_images",
                "Images in the store that the kubelet's garbage collector leaves, among those listed.",
            )?,
            registries: BTreeSet::new(),
            registry: registry.clone(),
        };
        let build =
            make.int_gauges("build_info", "Version and revision of this binary, always 1.", &["version", "revision"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("PREPULL_REVISION")]).set(1);
        metrics.show_known_labels();
        process_metrics()?;
        Ok(metrics)
    }

    fn show_known_labels(&self) {
        for state in STATE_NAMES {
            self.images.with_label_values(&[state]).set(0);
        }
        for why in Wait::COUNTED {
            self.pulls_waiting.with_label_values(&[why.as_str()]).set(0);
        }
        for source in Source::ALL {
            for result in lookup::Outcome::ALL {
                self.credential_lookups.with_label_values(&[source.as_str(), result.as_str()]).reset();
            }
        }
        for result in ["success", "failure"] {
            self.list_reloads.with_label_values(&[result]).reset();
        }
        for method in METHODS {
            drop(self.cri_requests.with_label_values(&[method, "OK"]));
        }
    }

    /// For the runtime to report its calls to.
    pub fn cri_observer(&self) -> Observer {
        let requests = self.cri_requests.clone();
        Arc::new(move |method, code, took| requests.with_label_values(&[method, code]).observe(took.as_secs_f64()))
    }

    /// One attempt ended.
    pub fn pulled(&mut self, registry: &RegistryHost, outcome: &Outcome, took: Duration) {
        let registry = self.label(registry);
        let registry = registry.as_str();
        let (result, class) = match outcome {
            Outcome::Pulled { stored, .. } => {
                self.pulled_bytes.with_label_values(&[registry]).inc_by(stored.size);
                ("success", "")
            }
            Outcome::Failed(error) => ("failure", error.class.as_str()),
            Outcome::Interrupted => ("failure", ErrorClass::RuntimeUnavailable.as_str()),
        };
        self.pulls.with_label_values(&[registry, result, class]).inc();
        self.pull_duration.with_label_values(&[registry]).observe(took.as_secs_f64());
    }

    /// One source was asked for credentials.
    pub fn credential_lookup(&self, source: Source, result: lookup::Outcome) {
        self.credential_lookups.with_label_values(&[source.as_str(), result.as_str()]).inc();
    }

    /// A list was read, or could not be.
    pub fn list_reloaded(&self, well: bool) {
        self.list_reloads.with_label_values(&[if well { "success" } else { "failure" }]).inc();
        if well {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.list_last_success.set(now.as_secs_f64());
        }
    }

    /// The node became warm for the first time.
    pub fn first_warm(&self, after: Duration) {
        self.time_to_warm.set(after.as_secs_f64());
    }

    /// One turn of the loop took so long.
    pub fn turned(&self, took: Duration) {
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// The page that Prometheus scrapes, with the present as `status` has it.
    pub fn page(&mut self, status: &Status) -> Result<String, prometheus::Error> {
        let mut states: HashMap<&str, i64> = HashMap::new();
        let mut waits: HashMap<&str, i64> = HashMap::new();
        self.image_present.reset();
        for image in &status.images {
            *states.entry(image.state).or_default() += 1;
            if let Some(wait) = image.wait {
                *waits.entry(wait.as_str()).or_default() += 1;
            }
            // a text that stands for several entries is present if any of them is; one for other nodes is not missed
            if image.state != "NotForThisNode" {
                let label = bounded(&image.image);
                let known = self.image_present.with_label_values(&[label.as_ref()]);
                known.set(known.get().max(i64::from(image.present)));
            }
        }
        let count = |map: &HashMap<&str, i64>, name| map.get(name).copied().unwrap_or(0);
        for state in STATE_NAMES {
            self.images.with_label_values(&[state]).set(count(&states, state));
        }
        for why in Wait::COUNTED {
            self.pulls_waiting.with_label_values(&[why.as_str()]).set(count(&waits, why.as_str()));
        }
        self.pulls_in_flight.set(status.pulls_in_flight);
        self.node_warm.set(i64::from(status.warm));
        self.pinned_images.set(status.images.iter().map(|i| i64::from(i.pinned)).sum());
        self.list_invalid_entries.set(count(&states, "Invalid"));
        self.image_fs_used.set(status.image_fs_used_ratio.unwrap_or(0.0));
        for registry in &self.registries {
            self.registry_cooldown.with_label_values(&[registry]).set(0.0);
        }
        for (registry, left) in &status.cooldowns {
            let label = if self.registries.contains(registry) { registry } else { OTHER };
            let known = self.registry_cooldown.with_label_values(&[label]);
            known.set(known.get().max(left.as_secs_f64()));
        }
        let mut page = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        // the process' own figures have no prefix: dashboards know them by their usual names
        page.push_str(&TextEncoder::new().encode_to_string(&prometheus::gather())?);
        Ok(page)
    }

    /// The label of a registry: its host, or `other` beyond the bound. Its families begin at 0 with the first pull.
    fn label(&mut self, registry: &RegistryHost) -> String {
        let host = registry.as_str();
        if self.registries.contains(host) {
            return host.to_owned();
        }
        let label = if self.registries.len() < MOST_REGISTRIES { host } else { OTHER };
        if self.registries.insert(label.to_owned()) {
            self.pulls.with_label_values(&[label, "success", ""]).reset();
            for class in ErrorClass::ALL {
                self.pulls.with_label_values(&[label, "failure", class.as_str()]).reset();
            }
            self.pulled_bytes.with_label_values(&[label]).reset();
            self.registry_cooldown.with_label_values(&[label]).set(0.0);
        }
        label.to_owned()
    }
}

/// A text as a label: what is no image name may be of any length.
fn bounded(text: &str) -> Cow<'_, str> {
    if text.len() <= MOST_LABEL {
        Cow::Borrowed(text)
    } else {
        text.chars().take(MOST_LABEL / 4).chain(['…']).collect()
    }
}

/// CPU, memory, start time and file descriptors of the process, under their usual names.
fn process_metrics() -> Result<(), prometheus::Error> {
    match prometheus::register(Box::new(prometheus::process_collector::ProcessCollector::for_self())) {
        Ok(()) | Err(prometheus::Error::AlreadyReg) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Makes families and registers them.
struct Make<'a> {
    registry: &'a Registry,
}

impl Make<'_> {
    fn add<T: prometheus::core::Collector + Clone + 'static>(&self, family: T) -> Result<T, prometheus::Error> {
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn int_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.add(Gauge::new(name, help)?)
    }

    fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        self.add(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{image_ref::ImageRef, image_state::Stored};

    #[test]
    fn every_family_is_there_from_the_start() {
        let page = Metrics::new().unwrap().page(&Status::default()).unwrap();
        for family in [
            "prepull_images{state=\"Present\"} 0",
            "prepull_node_warm 0",
            "prepull_time_to_warm_seconds 0",
            "prepull_pulls_waiting{why=\"io-pressure\"} 0",
            "prepull_credential_lookups_total{result=\"found\",source=\"cloud\"} 0",
            "prepull_list_reloads_total{result=\"failure\"} 0",
            "prepull_cri_request_duration_seconds_count{code=\"OK\",method=\"PullImage\"} 0",
            "prepull_image_fs_used_ratio 0",
            "prepull_build_info{",
            "process_resident_memory_bytes",
        ] {
            assert!(page.contains(family), "{family} is not on the page:\n{page}");
        }
    }

    #[test]
    fn registries_beyond_the_bound_share_a_label() {
        let mut metrics = Metrics::new().unwrap();
        let stored = Stored { digest: "sha256:1".into(), size: 2, pinned: false };
        for n in 0..60 {
            let image = ImageRef::parse(&format!("r{n}.example.com/a")).unwrap();
            let outcome = Outcome::Pulled { stored: stored.clone(), credential: None };
            metrics.pulled(image.registry(), &outcome, Duration::from_secs(1));
        }
        let page = metrics.page(&Status::default()).unwrap();
        assert!(page.contains("prepull_pulled_bytes_total{registry=\"other\"} 20"), "{page}");
        assert_eq!(page.matches("prepull_pulled_bytes_total{registry=").count(), MOST_REGISTRIES + 1);
    }
}
