//! What an agent needs in a cluster: a namespace, a node, a pod on it, a service account with the rights of the base,
//! and a token that is bound to the pod, as a kubelet mounts it.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::{
    api::{
        authentication::v1::TokenRequest,
        core::v1::{ConfigMap, Namespace, Node, Pod, Secret, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    agent::{Agent, AgentOptions},
    apiserver::ApiServer,
};

/// The image of the agent's container is never pulled here.
const POD_IMAGE: &str = "prepull:test";

/// One agent's place in the cluster. Namespace, node and account carry the same name, so that tests do not meet.
pub struct Tenant<'a> {
    /// The server.
    pub server: &'a ApiServer,
    /// A client that may do anything.
    pub admin: Client,
    /// Name of namespace and node.
    pub name: String,
    /// The pod's unique id.
    pub pod_uid: String,
    kubeconfig: String,
}

impl<'a> Tenant<'a> {
    /// Makes one with the rights of the base, and no list yet.
    pub async fn new(server: &'a ApiServer, name: &str) -> Result<Self> {
        let admin = server.admin().await?;
        create::<Namespace>(&Api::all(admin.clone()), json!({"metadata": {"name": name}})).await?;
        let labels = json!({"kubernetes.io/hostname": name, "zone": "a"});
        create::<Node>(&Api::all(admin.clone()), json!({"metadata": {"name": name, "labels": labels}})).await?;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        Api::<Node>::all(admin.clone()).patch_status(name, &PatchParams::default(), &Patch::Strategic(ready)).await?;
        create::<ServiceAccount>(&Api::namespaced(admin.clone(), name), json!({"metadata": {"name": "prepull"}}))
            .await?;
        let pod = json!({"metadata": {"name": "agent"}, "spec": {"serviceAccountName": "prepull", "nodeName": name,
            "readinessGates": [{"conditionType": "prepull.dev/Warm"}],
            "containers": [{"name": "prepull", "image": POD_IMAGE}]}});
        let pod = create::<Pod>(&Api::namespaced(admin.clone(), name), pod).await?;
        let pod_uid = pod.metadata.uid.context("a pod without uid")?;
        let mut tenant = Self { server, admin, name: name.to_owned(), pod_uid, kubeconfig: String::new() };
        tenant.kubeconfig = server.kubeconfig_of(&tenant.token().await?);
        tenant
            .grant(json!([
                {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["prepull"], "verbs": ["list", "watch"]},
                {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
            ]))
            .await?;
        Ok(tenant)
    }

    async fn token(&self) -> Result<String> {
        let accounts: Api<ServiceAccount> = self.api();
        let request: TokenRequest =
            serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 3600,
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "agent", "uid": self.pod_uid}}}))?;
        let made = accounts.create_token_request("prepull", &PostParams::default(), &request).await?;
        Ok(made.status.context("no token")?.token)
    }

    /// The user that the agent is.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:prepull", self.name)
    }

    /// Objects of a kind in the namespace, as an administrator.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.admin.clone(), &self.name)
    }

    /// Gives the agent rights in its namespace.
    pub async fn grant(&self, rules: Value) -> Result<()> {
        self.grant_in(&self.name, rules).await
    }

    /// Gives the agent rights in a namespace.
    pub async fn grant_in(&self, namespace: &str, rules: Value) -> Result<()> {
        let roles: Api<Role> = Api::namespaced(self.admin.clone(), namespace);
        let name = create::<Role>(&roles, json!({"metadata": {"generateName": "prepull-"}, "rules": rules})).await?;
        let name = name.metadata.name.context("no name")?;
        let binding = json!({"metadata": {"name": name}, "subjects": [self.subject()],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}});
        create::<RoleBinding>(&Api::namespaced(self.admin.clone(), namespace), binding).await?;
        Ok(())
    }

    /// Gives the agent rights in the whole cluster.
    pub async fn grant_everywhere(&self, rules: Value) -> Result<()> {
        let prefix = format!("{}-", self.name);
        let role = json!({"metadata": {"generateName": prefix}, "rules": rules});
        let role = create::<ClusterRole>(&Api::all(self.admin.clone()), role).await?;
        let name = role.metadata.name.context("no name")?;
        let binding = json!({"metadata": {"name": name}, "subjects": [self.subject()],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
        create::<ClusterRoleBinding>(&Api::all(self.admin.clone()), binding).await?;
        Ok(())
    }

    fn subject(&self) -> Value {
        json!({"kind": "ServiceAccount", "name": "prepull", "namespace": self.name})
    }

    /// Writes the list into the ConfigMap `prepull`, whether it is there or not.
    pub async fn list(&self, text: &str) -> Result<()> {
        self.list_in(&self.name, "prepull", text, json!({})).await
    }

    /// Writes a list into a ConfigMap.
    pub async fn list_in(&self, namespace: &str, name: &str, text: &str, labels: Value) -> Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.admin.clone(), namespace);
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels},
            "data": {"images.yaml": text}});
        maps.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(map)).await?;
        Ok(())
    }

    /// Deletes a ConfigMap of the namespace.
    pub async fn delete_list(&self, name: &str) -> Result<()> {
        self.api::<ConfigMap>().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Writes a pull secret for a registry.
    pub async fn pull_secret(&self, namespace: &str, name: &str, registry: &str, login: (&str, &str)) -> Result<()> {
        let config = json!({"auths": {registry: {"username": login.0, "password": login.1}}}).to_string();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}});
        let secrets: Api<Secret> = Api::namespaced(self.admin.clone(), namespace);
        secrets.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(secret)).await?;
        Ok(())
    }

    /// The node as it is.
    pub async fn node(&self) -> Result<Node> {
        Ok(Api::<Node>::all(self.admin.clone()).get(&self.name).await?)
    }

    /// Patches the node as an administrator.
    pub async fn patch_node(&self, patch: Value) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        nodes.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// The kubeconfig of the agent's account.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// Starts the agent as this account, in its pod as far as it can tell.
    pub fn agent(&self, program: &Path, socket: &Path, flags: &[&str]) -> Result<Agent> {
        self.agent_by(&self.kubeconfig, program, socket, flags)
    }

    /// As [`Tenant::agent`], by another way to the API server.
    pub fn agent_by(&self, kubeconfig: &str, program: &Path, socket: &Path, flags: &[&str]) -> Result<Agent> {
        let folder = tempfile::Builder::new().prefix("prepull-agent-").tempdir()?;
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig)?;
        let kubeconfig = path;
        let environment = [
            ("KUBECONFIG", kubeconfig.display().to_string()),
            ("POD_NAME", "agent".to_owned()),
            ("POD_NAMESPACE", self.name.clone()),
            ("POD_UID", self.pod_uid.clone()),
            ("PREPULL_NODE_NAME", self.name.clone()),
        ];
        let options = AgentOptions {
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        };
        Agent::start_without_list(program, socket, folder, &options)
    }

    /// Starts the agent on the ConfigMap `prepull` of the namespace.
    pub fn agent_on_list(&self, program: &Path, socket: &Path, flags: &[&str]) -> Result<Agent> {
        let name = format!("{}/prepull", self.name);
        self.agent(program, socket, &[&["--configmap", &name], flags].concat())
    }
}

/// Creates an object.
pub async fn create<K>(api: &Api<K>, object: Value) -> Result<K>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    let object: K = serde_json::from_value(object)?;
    Ok(api.create(&PostParams::default(), &object).await?)
}

/// Waits until `is` gives something.
pub async fn wait_for<T>(patience: Duration, what: &str, mut is: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let end = tokio::time::Instant::now() + patience;
    loop {
        if let Some(found) = is().await? {
            return Ok(found);
        }
        if tokio::time::Instant::now() > end {
            anyhow::bail!("waited {patience:?} in vain until {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
