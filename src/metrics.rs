//! Prometheus metrics. Families that count are updated as things happen; what describes the present is filled in from
//! a snapshot when somebody scrapes. The keeper owns them, so there is nothing to lock.

pub mod families;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use families::{Family, Kind};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
    core::{MetricVec, MetricVecBuilder},
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
    downloads_resumed: IntCounterVec,
    pulls_in_flight: IntGauge,
    pulls_waiting: IntGaugeVec,
    registry_cooldown: GaugeVec,
    credential_lookups: IntCounterVec,
    list_reloads: IntCounterVec,
    list_last_success: Gauge,
    list_invalid_entries: IntGauge,
    lists_rejected: IntGauge,
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
            images: make.int_gauges(&families::IMAGES)?,
            image_present: make.int_gauges(&families::IMAGE_PRESENT)?,
            node_warm: make.int_gauge(&families::NODE_WARM)?,
            time_to_warm: make.gauge(&families::TIME_TO_WARM)?,
            pulls: make.counters(&families::PULLS)?,
            pull_duration: make.histograms(&families::PULL_DURATION)?,
            pulled_bytes: make.counters(&families::PULLED_BYTES)?,
            downloads_resumed: make.counters(&families::DOWNLOADS_RESUMED)?,
            pulls_in_flight: make.int_gauge(&families::PULLS_IN_FLIGHT)?,
            pulls_waiting: make.int_gauges(&families::PULLS_WAITING)?,
            registry_cooldown: make.gauges(&families::REGISTRY_COOLDOWN)?,
            credential_lookups: make.counters(&families::CREDENTIAL_LOOKUPS)?,
            list_reloads: make.counters(&families::LIST_RELOADS)?,
            list_last_success: make.gauge(&families::LIST_LAST_SUCCESS)?,
            list_invalid_entries: make.int_gauge(&families::LIST_INVALID_ENTRIES)?,
            lists_rejected: make.int_gauge(&families::LISTS_REJECTED)?,
            reconcile_duration: make.histogram(&families::RECONCILE_DURATION)?,
            cri_requests: make.histograms(&families::CRI_REQUESTS)?,
            image_fs_used: make.gauge(&families::IMAGE_FS_USED)?,
            pinned_images: make.int_gauge(&families::PINNED_IMAGES)?,
            registries: BTreeSet::new(),
            registry: registry.clone(),
        };
        let build = make.int_gauges(&families::BUILD_INFO)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("PREPULL_REVISION")]).set(1);
        for method in families::METHODS {
            drop(metrics.cri_requests.with_label_values(&[method, "OK"]));
        }
        process_metrics()?;
        Ok(metrics)
    }

    /// For the runtime to report its calls to.
    pub fn cri_observer(&self) -> Observer {
        let requests = self.cri_requests.clone();
        Arc::new(move |method, code, took| requests.with_label_values(&[method, code]).observe(took.as_secs_f64()))
    }

    /// One attempt begins. A registry's families are at 0 from here on, so that a scrape sees them before the first
    /// end, which `increase()` would otherwise not count.
    pub fn pulling(&mut self, registry: &RegistryHost) {
        self.label(registry);
    }

    /// One attempt ended, or its download broke off and goes on.
    pub fn pulled(&mut self, registry: &RegistryHost, outcome: &Outcome, took: Duration) {
        let registry = self.label(registry);
        let registry = registry.as_str();
        let (result, class) = match outcome {
            Outcome::BrokeOff(_) => return self.downloads_resumed.with_label_values(&[registry]).inc(),
            Outcome::Pulled { .. } => ("success", ""),
            Outcome::Failed(error) => ("failure", error.class.as_str()),
            Outcome::Interrupted => ("failure", ErrorClass::RuntimeUnavailable.as_str()),
        };
        self.pulls.with_label_values(&[registry, result, class]).inc();
        self.pull_duration.with_label_values(&[registry]).observe(took.as_secs_f64());
    }

    /// So many bytes came from a registry.
    pub fn downloaded(&mut self, registry: &RegistryHost, bytes: u64) {
        let registry = self.label(registry);
        self.pulled_bytes.with_label_values(&[&registry]).inc_by(bytes);
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
        self.lists_rejected.set(status.lists_rejected);
        self.image_fs_used.set(status.image_fs_used_ratio.unwrap_or(0.0));
        for registry in &self.registries {
            self.registry_cooldown.with_label_values(&[registry]).set(0.0);
        }
        for (registry, left) in &status.cooldowns {
            let label = if self.registries.contains(registry) { registry } else { OTHER };
            let known = self.registry_cooldown.with_label_values(&[label]);
            known.set(known.get().max(left.as_secs_f64()));
        }
        let families = self.registry.gather();
        let mut page = TextEncoder::new().encode_to_string(&families)?;
        // a family that no registry or image has a series in yet is announced all the same
        for family in families::ALL.iter().filter(|f| families.iter().all(|g| g.name() != f.full_name())) {
            let (name, kind) = (family.full_name(), family.kind.as_str());
            // writing into a String cannot fail
            let _ = writeln!(page, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
        }
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
            drop(self.pull_duration.with_label_values(&[label]));
            self.pulled_bytes.with_label_values(&[label]).reset();
            self.downloads_resumed.with_label_values(&[label]).reset();
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

    fn int_gauge(&self, of: &Family) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(of.name, of.help)?)
    }

    fn gauge(&self, of: &Family) -> Result<Gauge, prometheus::Error> {
        self.add(Gauge::new(of.name, of.help)?)
    }

    fn int_gauges(&self, of: &Family) -> Result<IntGaugeVec, prometheus::Error> {
        self.shown(of, IntGaugeVec::new(Opts::new(of.name, of.help), &of.label_names())?)
    }

    fn gauges(&self, of: &Family) -> Result<GaugeVec, prometheus::Error> {
        self.shown(of, GaugeVec::new(Opts::new(of.name, of.help), &of.label_names())?)
    }

    fn counters(&self, of: &Family) -> Result<IntCounterVec, prometheus::Error> {
        self.shown(of, IntCounterVec::new(Opts::new(of.name, of.help), &of.label_names())?)
    }

    fn histogram(&self, of: &Family) -> Result<Histogram, prometheus::Error> {
        self.add(Histogram::with_opts(histogram_options(of))?)
    }

    fn histograms(&self, of: &Family) -> Result<HistogramVec, prometheus::Error> {
        self.shown(of, HistogramVec::new(histogram_options(of), &of.label_names())?)
    }

    /// Registers a family, with every set of labels that is known beforehand at 0.
    fn shown<B: MetricVecBuilder + 'static>(
        &self,
        of: &Family,
        family: MetricVec<B>,
    ) -> Result<MetricVec<B>, prometheus::Error> {
        for labels in of.known() {
            drop(family.with_label_values(&labels));
        }
        self.add(family)
    }
}

fn histogram_options(of: &Family) -> HistogramOpts {
    let options = HistogramOpts::new(of.name, of.help);
    match of.kind {
        Kind::Histogram(buckets) => options.buckets(buckets.to_vec()),
        Kind::Counter | Kind::Gauge => options,
    }
}

#[cfg(test)]
mod tests;
