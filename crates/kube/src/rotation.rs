//! Watches on Secrets and service accounts, each by name, and only while the keeper needs to know of them.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    messages::{Needs, News},
    secrets::{ClusterSecrets, account_print, named_secrets, secret_print},
    watch::{Told, Watch},
};
use prepull_credentials::pull_secrets::{Fingerprint, ObjectKey, ObjectKind};

/// Watches what is needed. Ends when nobody listens.
pub async fn follow(
    client: Client,
    secrets: ClusterSecrets,
    mut needs: watch::Receiver<Needs>,
    news: mpsc::Sender<News>,
) {
    let mut watches: BTreeMap<ObjectKey, JoinSet<()>> = BTreeMap::new();
    loop {
        let wanted = needs.borrow_and_update().secrets.clone();
        // dropping the set ends the watch in it
        watches.retain(|key, _| wanted.contains(key));
        for key in wanted {
            watches.entry(key.clone()).or_insert_with(|| {
                let mut watch = JoinSet::new();
                watch.spawn(follow_one(client.clone(), secrets.clone(), key, news.clone()));
                watch
            });
        }
        if needs.changed().await.is_err() {
            return;
        }
    }
}

async fn follow_one(client: Client, secrets: ClusterSecrets, key: ObjectKey, news: mpsc::Sender<News>) {
    let Some(namespace) = key.name.namespace.clone() else { return };
    // a watch begins with two requests: a LIST and a WATCH
    secrets.turn().await;
    secrets.turn().await;
    match key.kind {
        ObjectKind::Secret => {
            let api: Api<Secret> = Api::namespaced(client, &namespace);
            tell(api, secrets, key, news, |secret: &Secret| secret_print(secret)).await;
        }
        ObjectKind::ServiceAccount => {
            let api: Api<ServiceAccount> = Api::namespaced(client, &namespace);
            tell(api, secrets, key, news, |account: &ServiceAccount| account_print(&named_secrets(account))).await;
        }
    }
}

/// Tells how the object looks, first of all and then at each change.
async fn tell<K>(
    api: Api<K>,
    secrets: ClusterSecrets,
    key: ObjectKey,
    news: mpsc::Sender<News>,
    print: fn(&K) -> [u8; 32],
) where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let mut watch = Watch::one(api, &key.name.name);
    let mut last: Option<Fingerprint> = None;
    loop {
        let fingerprint = match watch.next().await {
            Told::All(all) => all.first().map(print),
            Told::Applied(object) => Some(print(&object)),
            Told::Deleted(_) => None,
            Told::Lost(trouble) => {
                // the pull itself already told what is wrong; a rotation is then noticed at the next attempt
                tracing::debug!(object = %key, problem = %trouble, "a change of this object would not be noticed");
                continue;
            }
        };
        if last != Some(fingerprint) {
            last = Some(fingerprint);
            secrets.changed(&key).await;
            if news.send(News::Object(key.clone(), fingerprint)).await.is_err() {
                return;
            }
        }
    }
}
