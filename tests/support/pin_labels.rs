//! The labels that stand for pins, as a runtime's records have them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};

use super::containerd::Containerd;

/// containerd's own.
pub const PINNED: &str = "io.cri-containerd.pinned=pinned";
/// Beside it where it is the agent's.
pub const OURS: &str = "prepull.dev/pinned=true";

/// Records with any of the two labels, and which of them each has.
pub async fn labels(containerd: &Containerd) -> Result<BTreeMap<String, (bool, bool)>> {
    let listed = containerd.ctr(&["images", "ls"]).await?;
    let mut found = BTreeMap::new();
    for line in listed.lines().skip(1) {
        let name = line.split_whitespace().next().context("a line without a name")?;
        let labels = line.split_whitespace().last().unwrap_or_default();
        let has = |wanted| labels.split(',').any(|label| label == wanted);
        if has(PINNED) || has(OURS) {
            found.insert(name.to_owned(), (has(PINNED), has(OURS)));
        }
    }
    Ok(found)
}

/// Waits until the records that carry labels are these, each as given.
pub async fn until_labelled(
    containerd: &Containerd,
    patience: Duration,
    wanted: &[(&str, (bool, bool))],
) -> Result<()> {
    let wanted: BTreeMap<_, _> = wanted.iter().map(|(name, has)| ((*name).to_owned(), *has)).collect();
    let end = Instant::now() + patience;
    loop {
        let found = labels(containerd).await?;
        if found == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < end, "labels are on {found:?}, and were to be on {wanted:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until this image alone is pinned by the agent, by its name and its ID; nothing where the runtime is one that does
/// not know pins.
pub async fn until_pinned_alone(containerd: &Containerd, patience: Duration, image: &str) -> Result<()> {
    if containerd.part().name() == UNABLE {
        return until_labelled(containerd, patience, &[]).await;
    }
    let id = containerd.client().status(image).await?.context("the image is not there")?.id;
    until_labelled(containerd, patience, &[(image, (true, true)), (&id, (true, true))]).await
}

/// The generation whose CRI does not know the label.
pub const UNABLE: &str = "containerd-1.6";
