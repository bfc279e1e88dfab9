//! The faults by name, what each run of them came to, and the table that docs/reliability.md shows.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use tokio::sync::watch;

use super::{
    support::{
        apiserver::ApiServerPart,
        parts::{self, ContainerdPart, Missing},
        trials::trial,
    },
    watcher::Seen,
};

const BEGIN: &str = "<!-- faults: written by make faults -->";
const END: &str = "<!-- faults: end -->";

/// Where a fault is brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// On real runtimes.
    Containerd,
    /// On real runtimes, with a file system of their own.
    Disk,
    /// Between the agent and a real API server; its runtime is in memory.
    ApiServer,
    /// With a runtime in memory.
    Memory,
    /// With a runtime in memory and a wall clock that can be set.
    SetClock,
}

/// What a fault is given.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Containerd(ContainerdPart),
    ApiServer(ApiServerPart),
    Memory,
    SetClock(PathBuf),
}

/// What one run came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Came {
    /// What was seen on the way.
    pub(crate) seen: Seen,
    /// Resident bytes after the fault, less those before it.
    pub(crate) grown: i64,
    /// From the fault's end until everything was there.
    pub(crate) recovered: Duration,
}

type Run = Arc<dyn Fn(Place) -> Pin<Box<dyn Future<Output = Result<Came>>>> + Send + Sync>;

/// One row of the matrix.
#[derive(Clone)]
pub(crate) struct Fault {
    /// Its name, as a test is called.
    pub(crate) name: &'static str,
    /// What is done, in words.
    pub(crate) done: &'static str,
    /// What the agent has to say or do meanwhile, in words.
    pub(crate) expected: &'static str,
    /// Where.
    pub(crate) on: On,
    /// Brings it about, ends it, and checks.
    pub(crate) run: Run,
}

impl Fault {
    pub(crate) fn new<F, R>(name: &'static str, on: On, done: &'static str, expected: &'static str, run: F) -> Self
    where
        F: Fn(Place) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Came>> + 'static,
    {
        Self { name, done, expected, on, run: Arc::new(move |place| Box::pin(run(place))) }
    }
}

/// How often each fault is brought about on each runtime; none: once, the runtimes taking turns.
fn rounds() -> Option<usize> {
    env::var("PREPULL_FAULT_ROUNDS").ok()?.parse().ok()
}

/// What the runs of each fault came to.
type Notes = BTreeMap<&'static str, Vec<Result<Came, String>>>;

/// Everything that was run, by fault.
#[derive(Clone, Default)]
pub(crate) struct Matrix {
    came: Arc<watch::Sender<Notes>>,
}

impl Matrix {
    /// The trials of all faults.
    pub(crate) fn trials(&self, faults: &[Fault]) -> Vec<Trial> {
        let containerds = parts::containerds();
        let mut trials = Vec::new();
        for (index, fault) in faults.iter().enumerate() {
            let places: Vec<(String, Result<Place, Missing>)> = match fault.on {
                On::Containerd | On::Disk => {
                    let all = containerds.iter().map(|part| {
                        let name = part.as_ref().map_or_else(|missing| missing.part.clone(), ContainerdPart::name);
                        let place = part.clone().and_then(|part| {
                            parts::docker_registry()?;
                            if fault.on == On::Disk {
                                parts::mkfs()?;
                            }
                            Ok(Place::Containerd(part))
                        });
                        (name, place)
                    });
                    match rounds() {
                        Some(_) => all.collect(),
                        None => all.cycle().skip(index % containerds.len()).take(1).collect(),
                    }
                }
                On::ApiServer => vec![("kube-apiserver".to_owned(), ApiServerPart::find().map(Place::ApiServer))],
                On::Memory => vec![("fake_cri".to_owned(), Ok(Place::Memory))],
                On::SetClock => vec![("libfaketime".to_owned(), libfaketime().map(Place::SetClock))],
            };
            for (on, place) in places {
                let (fault, matrix) = (fault.clone(), self.clone());
                trials.push(trial(&format!("faults::{on}::{}", fault.name), place, move |place| async move {
                    for round in 1..=rounds().unwrap_or(1) {
                        let came = (fault.run)(place.clone()).await;
                        matrix.note(fault.name, &came);
                        came.with_context(|| format!("in round {round}"))?;
                    }
                    Ok(())
                }));
            }
        }
        trials
    }

    fn note(&self, name: &'static str, came: &Result<Came>) {
        let note = match came {
            Ok(came) => Ok(came.clone()),
            Err(error) => Err(format!("{error:#}")),
        };
        self.came.send_modify(|all| all.entry(name).or_default().push(note));
    }

    /// Writes the table into the file that `PREPULL_FAULT_TABLE` names, between its markers.
    pub(crate) fn write(&self, faults: &[Fault]) -> Result<()> {
        let Some(path) = env::var_os("PREPULL_FAULT_TABLE") else { return Ok(()) };
        let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let (before, rest) = text.split_once(BEGIN).context("the file has no marker where the table begins")?;
        let (_, after) = rest.split_once(END).context("the file has no marker where the table ends")?;
        fs::write(&path, format!("{before}{BEGIN}\n{}{END}{after}", self.table(faults)?))?;
        Ok(())
    }

    fn table(&self, faults: &[Fault]) -> Result<String> {
        let came = self.came.borrow();
        let mut text = String::from(
            "| fault | what was done | what the agent does meanwhile | runs | result | slowest `/healthz` | memory after | well again after |\n|---|---|---|---|---|---|---|---|\n",
        );
        let (mut runs_in_all, mut well_in_all, mut answers, mut compared) = (0, 0, 0, 0);
        for fault in faults {
            let Some(runs) = came.get(fault.name) else { continue };
            let well: Vec<&Came> = runs.iter().flatten().collect();
            let result = if well.len() == runs.len() {
                "as it should".to_owned()
            } else {
                format!("**{} failed**", runs.len() - well.len())
            };
            let slowest = well.iter().map(|came| came.seen.slowest).max().unwrap_or_default();
            let grown = well.iter().map(|came| came.grown).max().unwrap_or_default();
            let recovered = well.iter().map(|came| came.recovered).max().unwrap_or_default();
            runs_in_all += runs.len();
            well_in_all += well.len();
            answers += well.iter().map(|came| came.seen.answers).sum::<usize>();
            compared += well.iter().map(|came| came.seen.compared).sum::<usize>();
            writeln!(
                text,
                "| {} | {} | {} | {} | {result} | {} ms | {:+.1} MiB | {:.1} s |",
                fault.name.replace('_', " "),
                fault.done,
                fault.expected,
                runs.len(),
                slowest.as_millis(),
                grown as f64 / f64::from(1 << 20),
                recovered.as_secs_f64()
            )?;
        }
        ensure!(runs_in_all > 0, "no fault was run");
        writeln!(
            text,
            "\n{runs_in_all} runs, {well_in_all} of them as they should be; `/healthz` answered {answers} times, and the status was compared with the runtime's own list {compared} times."
        )?;
        Ok(text)
    }
}

/// The library that lets one process have a wall clock of its own (Debian: libfaketime).
fn libfaketime() -> Result<PathBuf, Missing> {
    let folders =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    let found =
        folders.iter().map(|folder| PathBuf::from(folder).join("faketime/libfaketime.so.1")).find(|p| p.is_file());
    found.ok_or_else(|| Missing {
        part: "libfaketime".to_owned(),
        sentence: "libfaketime is not installed: run hack/install-parts --optional, or install the package libfaketime"
            .to_owned(),
    })
}
