//! The disk of the images: when it is too full, and when there is room again.
#![allow(clippy::float_cmp, reason = "counts are whole numbers")]
#![allow(clippy::wildcard_imports, reason = "a part of the suite above it")]

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use prepull::{
    agent::{
        LogReporter,
        cluster::Cluster,
        keeper::{Inputs, Keeper, Settings},
        link,
        sources::SourceNames,
    },
    credentials::{
        lookup::{Credentials, Options},
        node_search::NodeConfigs,
    },
    http::Query,
    image_state::Wait,
    list::{ImageList, affinity::NodeFacts},
    list_update::{ListUpdate, Read},
    metrics::Metrics,
    node_report::ReadyWhen,
    process_clock::Clock,
    runtime::Endpoint,
};
use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};
use tokio::sync::{mpsc, oneshot, watch};

use super::{support::containerd, *};

/// Bytes of the file systems of these trials.
const DISK: u64 = 96 << 20;
/// Bytes of a layer that does not get smaller by packing: an image takes twice as much.
const LAYER: usize = 6 << 20;

/// A list with the guard's own marks.
fn guarded(images: &[impl AsRef<str>]) -> String {
    format!("limits: {{maxDiskUsage: 80%}}\n{}", list(images))
}

/// Somebody else's file on the disk of the images.
struct Filler<'a>(&'a Containerd);

impl Filler<'_> {
    fn root(&self) -> PathBuf {
        self.0.folder().join("root")
    }

    fn disk(&self) -> Result<StatVfs> {
        Ok(statvfs(self.root())?)
    }

    /// Used share as the kubelet counts it.
    fn used(&self) -> Result<f64> {
        let disk = self.disk()?;
        Ok(1.0 - disk.f_bavail as f64 / disk.f_blocks as f64)
    }

    /// Makes so much of the disk used in all.
    fn fill(&self, share: f64) -> Result<()> {
        self.clear()?;
        let disk = self.disk()?;
        let bytes = (share - self.used()?) * (disk.f_blocks * disk.f_frsize) as f64;
        ensure!(bytes > 0.0, "more than {share} is used already: {}", self.used()?);
        let file = fs::File::create(self.root().join("filler"))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and a few megabytes")]
        let bytes = bytes as u64;
        Ok(fallocate(file, FallocateFlags::empty(), 0, bytes)?)
    }

    fn clear(&self) -> Result<()> {
        match fs::remove_file(self.root().join("filler")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

struct Node {
    registry: Registry,
    containerd: Containerd,
    proxy: CriProxy,
    images: Vec<String>,
}

impl Node {
    async fn with(part: &ContainerdPart, names: &[&str]) -> Result<Self> {
        let registry = Registry::start(RegistryKind::Plain).await?;
        let mut images = Vec::new();
        for (n, name) in names.iter().enumerate() {
            let image = Image::new(name, &[Layer::new(170 + n as u64, LAYER, Content::Random)?]);
            images.push(registry.push(&format!("{name}:1"), &image).await?.by_tag);
        }
        let options = containerd::Options { disk: Some(DISK), ext4: true, ..containerd::Options::default() };
        let containerd = Containerd::start_with(part, &[&registry], options).await?;
        let proxy = CriProxy::start(&containerd.socket())?;
        Ok(Self { registry, containerd, proxy, images })
    }

    fn pulls_of(&self, image: &str) -> usize {
        self.proxy.journal().calls(Method::PullImage).iter().filter(|call| call.image == image).count()
    }
}

/// Above one mark nothing begins; between the marks nothing does either; below the lower one everything does, by itself.
pub(super) async fn marks(part: ContainerdPart) -> Result<()> {
    let node = Node::with(&part, &["app"]).await?;
    let (image, filler) = (&node.images[0], Filler(&node.containerd));
    filler.fill(0.82)?;
    let agent = agent(&node.proxy.socket(), &guarded(&[image]))?;
    let row = agent.until_image(PATIENCE, image, "Pending").await?;
    let row = if row["reason"] == "disk" {
        row
    } else {
        agent.until(PATIENCE, "it waits for the disk", |s| of(s, image).is_some_and(|i| i["reason"] == "disk")).await?;
        agent.image(image).await?
    };
    let message = row["message"].as_str().unwrap_or_default();
    ensure!(message.contains("maxDiskUsage") && message.contains("% full"), "{row:#}");
    ensure!(row["remedy"].as_str().is_some_and(|remedy| remedy.contains("Free space")), "{row:#}");
    ensure!(agent.metric("prepull_pulls_waiting{why=\"disk\"}").await? == 1.0);
    let (told, is) = (agent.metric("prepull_image_fs_used_ratio").await?, filler.used()?);
    ensure!((told - is).abs() < 0.005, "{told} is told, {is} is so");
    let (_, page) = agent.get("/").await?;
    ensure!(page.contains("maxDiskUsage"), "{page}");

    filler.fill(0.77)?;
    agent
        .until(PATIENCE, "the disk was looked at again", |s| {
            of(s, image).is_some_and(|i| {
                i["message"].as_str().is_some_and(|m| m.contains("77 % full") || m.contains("78 % full"))
            })
        })
        .await?;
    ensure!(node.pulls_of(image) == 0, "nothing is pulled between the marks: {}", agent.log());
    filler.clear()?;
    agent.until_warm(PATIENCE).await?;
    ensure!(agent.metric("prepull_pulls_waiting{why=\"disk\"}").await? == 0.0);
    ensure!(node.pulls_of(image) == 1);
    for told in ["the disk stops pulls", "pulls go on"] {
        ensure!(agent.log().matches(told).count() == 1, "{told}: {}", agent.log());
    }
    Ok(())
}

/// An image that was collected comes back only where it fits, and one that is required before one that is not.
pub(super) async fn collected(part: ContainerdPart) -> Result<()> {
    let node = Node::with(&part, &["big", "other"]).await?;
    let (image, other, filler) = (&node.images[0], &node.images[1], Filler(&node.containerd));
    let agent = agent_with(&node.proxy.socket(), &guarded(&[image]), &["--resync", "500ms"])?;
    agent.until_warm(PATIENCE).await?;
    // it was looked at how much it took
    sleep(Duration::from_secs(1)).await;
    // 70 % without the image: its 12 of 96 MiB do not fit under 80 %, and the 6 that it has packed would
    filler.fill(0.83)?;
    node.containerd.remove(image).await?;
    agent
        .until(PATIENCE, "it waits until it fits", |s| {
            of(s, image).is_some_and(|i| i["message"].as_str().is_some_and(|m| m.contains("it takes")))
        })
        .await
        .with_context(|| format!("pulled {} times", node.pulls_of(image)))?;
    ensure!(node.pulls_of(image) == 1, "it is pulled only where it fits");
    let text = guarded(&[image]) + &format!("  - {{image: '{other}', required: false}}\n");
    agent.edit(&text)?;
    agent
        .until(PATIENCE, "what is not required waits", |s| {
            of(s, other).is_some_and(|i| i["message"].as_str().is_some_and(|m| m.contains("required images")))
        })
        .await?;
    ensure!(node.pulls_of(other) == 0);
    filler.clear()?;
    agent.until_image(PATIENCE, image, "Present").await?;
    agent.until_image(PATIENCE, other, "Present").await?;
    ensure!((node.pulls_of(image), node.pulls_of(other)) == (2, 1));
    drop(node.registry);
    Ok(())
}

/// An image that somebody removes again at once is not pulled for ever.
pub(super) async fn contested() -> Result<()> {
    let fake = FakeCri::start()?;
    let image = "contested.example.com/app:1";
    let agent = agent_with(&fake.socket(), &guarded(&[image]), &["--resync", "200ms"])?;
    for pulls in 1..=2 {
        fake.journal().wait_until(PATIENCE, |j| j.of(Method::PullImage).count() == pulls).await?;
        agent.until_warm(PATIENCE).await?;
        fake.take(image);
    }
    let row = agent.until_image(PATIENCE, image, "Pending").await?;
    ensure!(row["message"].as_str().is_some_and(|m| m.contains("removed from the store twice")), "{row:#}");
    ensure!(row["remedy"].as_str().is_some_and(|r| r.contains("imageMaximumGCAge")), "{row:#}");
    sleep(Duration::from_secs(2)).await;
    ensure!(fake.journal().count(Method::PullImage) == 2, "it is pulled again and again");
    agent.edit(&format!("limits: {{maxDiskUsage: 100%}}\n{}", list(&[image])))?;
    agent.until_warm(PATIENCE).await.map(drop)
}

/// Where the disk cannot be seen that is said once, and images are pulled.
pub(super) async fn unseen() -> Result<()> {
    let fake = FakeCri::start()?;
    fake.script().add(Rule::fail(Method::ImageFsInfo, tonic::Code::Unimplemented, "not here"));
    let images = ["unseen.example.com/a:1", "unseen.example.com/b:1"];
    let agent = agent_with(&fake.socket(), &guarded(&images), &["--resync", "200ms"])?;
    agent.until_warm(PATIENCE).await?;
    sleep(Duration::from_secs(1)).await;
    ensure!(agent.log().matches("maxDiskUsage has no effect").count() == 1, "{}", agent.log());
    ensure!(agent.metric("prepull_image_fs_used_ratio").await? == 0.0);
    Ok(())
}

/// `prepull pull` only warns.
pub(super) async fn pull_warns(part: ContainerdPart) -> Result<()> {
    let node = Node::with(&part, &["app"]).await?;
    Filler(&node.containerd).fill(0.82)?;
    let output = tokio::process::Command::new(program())
        .args(["pull", "--cloud-credentials", "off", "--runtime-endpoint"])
        .arg(node.proxy.socket())
        .arg(&node.images[0])
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    ensure!(said.matches("prepull: warning: the image filesystem is").count() == 1, "{said}");
    ensure!(node.pulls_of(&node.images[0]) == 1);
    Ok(())
}

/// A keeper by itself, whose figures of the kernel are a file.
struct Alone {
    fake: FakeCri,
    queries: mpsc::Sender<Query>,
    lists: mpsc::Sender<ListUpdate>,
    _stop: watch::Sender<bool>,
}

impl Alone {
    fn start(pressure: &Path) -> Result<Self> {
        let fake = FakeCri::start()?;
        let (lists, list_receiver) = mpsc::channel(4);
        let (link_sender, link) = mpsc::channel(4);
        let (queries, query_receiver) = mpsc::channel(16);
        let (stop, stopped) = watch::channel(false);
        let metrics = Metrics::new()?;
        tokio::spawn(link::keep_linked(Some(Endpoint::of_path(fake.socket())), metrics.cri_observer(), link_sender));
        let no_credentials = Options {
            node_configs: NodeConfigs::Named(Vec::new()),
            pull_secret_files: Vec::new(),
            plugins: None,
            clouds: None,
        };
        let settings = Settings {
            node: NodeFacts { name: "alone".to_owned(), labels: Some(BTreeMap::new()) },
            resync: Duration::from_mins(5),
            ready_when: ReadyWhen::Warm,
            sources: SourceNames { named: vec!["list".into()], selector: None },
            cluster: Cluster::none(),
            credentials: Arc::new(Credentials::new(no_credentials)),
            io_pressure: pressure.to_owned(),
            once: None,
        };
        let inputs = Inputs { lists: list_receiver, link, queries: query_receiver, stop: stopped };
        tokio::spawn(Keeper::new(settings, metrics, Clock::start(), LogReporter::default()).run(inputs));
        Ok(Self { fake, queries, lists, _stop: stop })
    }

    async fn want(&self, text: &str) -> Result<()> {
        let list = ImageList::parse(text)?;
        ensure!(list.problems.is_empty(), "{:?}", list.problems);
        let read = Read::List { revision: prepull::list::revision(text).into(), list: Arc::new(list) };
        self.lists.send(ListUpdate { source: "list".into(), namespace: None, read }).await.context("no keeper")
    }

    async fn until(&self, what: &str, is: impl Fn(&prepull::status::ImageStatus) -> bool) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let (ask, answer) = oneshot::channel();
            self.queries.send(Query::Status(ask)).await.ok().context("no keeper")?;
            let status = answer.await?;
            if status.images.iter().all(&is) && !status.images.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "waited in vain until {what}: {status:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// While the kernel says that the disks are busy nothing begins.
pub(super) async fn busy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("io");
    let pressure = |avg10: &str| {
        let text = format!(
            "some avg10={avg10} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
        );
        fs::write(&file, text)
    };
    pressure("63.20")?;
    let node = Alone::start(&file)?;
    node.want("limits: {maxIOPressure: 40, maxDiskUsage: 100%}\nimages: ['busy.example.com/app:1']\n").await?;
    node.until("it waits", |image| {
        let told = image.message.as_deref().unwrap_or_default();
        image.wait == Some(Wait::IoPressure) && told.contains("63.2 %") && told.contains("40 % (maxIOPressure)")
    })
    .await?;
    ensure!(node.fake.journal().count(Method::PullImage) == 0);
    pressure("39.99")?;
    node.until("it goes on by itself", |image| image.state == "Present").await?;

    // though the disk hangs, the kernel tells
    pressure("63.20")?;
    let node = Alone::start(&file)?;
    node.fake.script().add(Rule::hang(Method::ImageFsInfo));
    node.want("limits: {maxIOPressure: 40}\nimages: ['busy.example.com/app:1']\n").await?;
    node.until("it waits", |image| image.wait == Some(Wait::IoPressure)).await?;
    sleep(Duration::from_secs(1)).await;
    ensure!(node.fake.journal().count(Method::PullImage) == 0);

    // a kernel that tells nothing holds nothing up
    let node = Alone::start(&folder.path().join("nowhere"))?;
    node.want("limits: {maxIOPressure: 0}\nimages: ['busy.example.com/app:1']\n").await?;
    node.until("it is pulled", |image| image.state == "Present").await
}
