//! Starts the tasks that lists, node and secrets come from, and hands out the keeper's ends.

use std::{path::PathBuf, sync::Arc};

use kube::Client;
use tokio::sync::{mpsc, watch};

use super::{
    cluster::Cluster,
    lists::{self, ListUpdate},
    sources::SourceNames,
};
use crate::{
    kubernetes::{
        configmaps::{self, ConfigMapName, Selection},
        node, rotation,
        secrets::ClusterSecrets,
    },
    node_view::NodeView,
};

/// Follows a file.
pub(super) fn file(path: PathBuf, updates: mpsc::Sender<ListUpdate>) -> SourceNames {
    let source: Arc<str> = path.display().to_string().into();
    tokio::spawn(lists::follow_file(path, source.clone(), updates));
    SourceNames { named: vec![source], selector: None }
}

/// Follows ConfigMaps, each named one by a watch of its own.
pub(super) fn lists(
    client: &Client,
    named: Vec<ConfigMapName>,
    selected: Option<Selection>,
    updates: &mpsc::Sender<ListUpdate>,
) -> SourceNames {
    let names = SourceNames {
        named: named.iter().map(|name| name.to_string().into()).collect(),
        selector: selected.as_ref().map(|s| s.source().into()),
    };
    for which in named {
        tokio::spawn(configmaps::follow_named(client.clone(), which, updates.clone()));
    }
    if let Some(selection) = selected {
        tokio::spawn(configmaps::follow_selected(client.clone(), selection, updates.clone()));
    }
    names
}

/// Tells the keeper about its node and about the objects that entries name.
pub(super) fn cluster(client: &Client, node: &str) -> Cluster {
    let (cluster, news, needs) = Cluster::new(Arc::new(ClusterSecrets::new(client.clone())));
    let (seen, _) = watch::channel(NodeView::default());
    tokio::spawn(rotation::follow(client.clone(), needs.clone(), news.clone()));
    tokio::spawn(node::follow(client.clone(), node.to_owned(), false, needs, news, seen));
    cluster
}
