//! Which lists the agent follows.

use std::{ffi::OsString, path::PathBuf};

use crate::{
    agent::{ClusterOptions, Lists},
    cli::images::or_twin,
    kubernetes::configmaps::{ConfigMapName, Selection},
};

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// The list, a file; no API server is contacted. An edit takes effect at once
    #[arg(long, env = "PREPULL_IMAGES", value_name = "FILE")]
    images: Option<PathBuf>,
    /// A ConfigMap with a list under the key images.yaml, followed by watch; repeatable [env: PREPULL_CONFIGMAP,
    /// separated by commas]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    configmap: Vec<OsString>,
    /// Labels of ConfigMaps that are lists as well, such as prepull.dev/list=true; needs --configmap-namespace
    #[arg(long, env = "PREPULL_CONFIGMAP_SELECTOR", value_name = "SELECTOR")]
    configmap_selector: Option<String>,
    /// The namespace of the ConfigMaps that --configmap-selector names
    #[arg(long, env = "PREPULL_CONFIGMAP_NAMESPACE", value_name = "NAMESPACE")]
    configmap_namespace: Option<String>,
}

impl ListArgs {
    /// Where lists come from, or in one line why these flags do not go together. An empty variable is none.
    pub(super) fn into_lists(self, options: ClusterOptions) -> Result<Lists, String> {
        let Self { images, configmap, configmap_selector, configmap_namespace } = self;
        let images = images.filter(|path| !path.as_os_str().is_empty());
        let selector = configmap_selector.filter(|s| !s.is_empty());
        let namespace = configmap_namespace.filter(|n| !n.is_empty());
        let mut named: Vec<ConfigMapName> = Vec::new();
        for name in or_twin(configmap, "PREPULL_CONFIGMAP") {
            let text = name.to_string_lossy();
            let name = text.parse().map_err(|wrong| format!("`{text}` is no ConfigMap (--configmap); {wrong}"))?;
            if !named.contains(&name) {
                named.push(name);
            }
        }
        let selected = match (selector, namespace) {
            (None, None) => None,
            (Some(selector), Some(namespace)) => Some(Selection { namespace, selector, without: named.clone() }),
            (Some(_), None) => {
                return Err(
                    "--configmap-selector needs the ConfigMaps' namespace; add --configmap-namespace".to_owned()
                );
            }
            (None, Some(_)) => {
                return Err(
                    "--configmap-namespace goes with --configmap-selector; a single ConfigMap is --configmap NAMESPACE/NAME"
                        .to_owned(),
                );
            }
        };
        match images {
            Some(_) if !named.is_empty() || selected.is_some() => Err(
                "--images and ConfigMaps exclude each other; with --images no API server is contacted, so leave one out"
                    .to_owned(),
            ),
            Some(_) if options.writes.any() => {
                Err("--node-writes needs the API server, which --images leaves alone; use --configmap, or leave it out".to_owned())
            }
            Some(path) => Ok(Lists::File(path)),
            None if named.is_empty() && selected.is_none() => Err(
                "no list is named; give --images FILE, --configmap NAMESPACE/NAME or --configmap-selector".to_owned()
            ),
            None => Ok(Lists::Cluster { named, selected, options }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::node_writes::Parts;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        lists: ListArgs,
    }

    fn lists(flags: &[&str]) -> Result<Lists, String> {
        let flags = ["test"].iter().chain(flags);
        let options = ClusterOptions {
            pod: None,
            writes: Parts { label: flags.clone().any(|f| *f == "--label"), ..Parts::default() },
            startup_taint: String::new(),
            startup_taint_timeout: Duration::ZERO,
            readiness_gate: false,
        };
        Cli::try_parse_from(flags.filter(|f| **f != "--label")).map_err(|e| e.to_string())?.lists.into_lists(options)
    }

    #[test]
    fn what_does_not_go_together_says_what_to_do() {
        for (flags, remedy) in [
            (&[][..], "give --images"),
            (&["--images", "a", "--configmap", "a/b"], "leave one out"),
            (&["--images", "a", "--configmap-selector", "x", "--configmap-namespace", "y"], "leave one out"),
            (&["--images", "a", "--label"], "use --configmap"),
            (&["--configmap-selector", "x"], "add --configmap-namespace"),
            (&["--configmap", "a/b", "--configmap-namespace", "y"], "goes with --configmap-selector"),
            (&["--configmap", "b"], "NAMESPACE/NAME"),
            (&["--configmap", "a/b,c/d"], "NAMESPACE/NAME"),
        ] {
            let wrong = lists(flags).unwrap_err();
            assert!(wrong.contains(remedy), "{flags:?}: {wrong}");
        }
        assert!(matches!(lists(&["--images", "a"]), Ok(Lists::File(_))));
        let Ok(Lists::Cluster { named, selected: Some(selected), .. }) = lists(&[
            "--configmap",
            "a/b",
            "--configmap",
            "c/d",
            "--configmap",
            "a/b",
            "--configmap-selector",
            "x",
            "--configmap-namespace",
            "y",
        ]) else {
            panic!("no lists");
        };
        assert_eq!(named.len(), 2);
        assert_eq!(selected.without, named);
    }
}
