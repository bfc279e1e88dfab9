//! What the service account may do, asked of the API server in the account's name, and that it may do nothing else.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::{
    installation::NAMESPACE,
    kube::{self, Kube},
    parts::ClusterPart,
    render::Overlay,
};

/// Lines of `kubectl auth can-i --list` that an account without any right does not have. `who` are kubectl's flags.
fn rights(kube: &Kube, who: &str, namespace: &str) -> Result<BTreeSet<String>> {
    let ask = |who: &str| -> Result<BTreeSet<String>> {
        let text = kube.kubectl(&format!("auth can-i --list --no-headers -n {namespace} {who}"))?;
        Ok(text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
    };
    let everybody = ask(&account_flags("somebody-else"))?;
    ensure!(!everybody.is_empty(), "every account may ask what it may do");
    Ok(ask(who)?.difference(&everybody).cloned().collect())
}

fn account_flags(account: &str) -> String {
    format!(
        "--as=system:serviceaccount:{NAMESPACE}:{account} --as-group=system:serviceaccounts \
         --as-group=system:serviceaccounts:{NAMESPACE} --as-group=system:authenticated"
    )
}

/// An account has exactly these rights in a namespace.
pub(crate) fn expect(kube: &Kube, account: &str, namespace: &str, expected: &[&str]) -> Result<()> {
    expect_of(kube, &account_flags(account), namespace, expected)
}

/// Whoever these flags of kubectl name has exactly these rights in a namespace.
pub(crate) fn expect_of(kube: &Kube, who: &str, namespace: &str, expected: &[&str]) -> Result<()> {
    let found = rights(kube, who, namespace)?;
    let expected: BTreeSet<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    ensure!(found == expected, "in {namespace} {who} may\n{found:#?}\nand not\n{expected:#?}");
    Ok(())
}

const AGENT: &str = "prepull";
/// What the base grants in its namespace: its list.
pub(crate) const LIST: &str = "configmaps [] [prepull] [list watch]";
/// And Events.
pub(crate) const EVENTS: &str = "events.events.k8s.io [] [] [create patch]";

pub(crate) async fn base(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.grant(&Overlay::default()).await?;
    expect(kube, AGENT, NAMESPACE, &[LIST, EVENTS])?;
    for namespace in ["default", "kube-system"] {
        expect(kube, AGENT, namespace, &[])?;
    }
    // what the two rights are in practice
    let agent = kube.token(NAMESPACE, None)?;
    let configmaps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    for (path, code) in [
        (format!("{configmaps}?fieldSelector=metadata.name%3Dprepull"), 200),
        (configmaps.clone(), 403),
        (format!("{configmaps}?labelSelector=app.kubernetes.io%2Fname%3Dprepull"), 403),
        (format!("{configmaps}?fieldSelector=metadata.name%3Dkube-root-ca.crt"), 403),
        (format!("{configmaps}/kube-root-ca.crt"), 403),
        (format!("/api/v1/namespaces/{NAMESPACE}/secrets"), 403),
        ("/api/v1/nodes".to_owned(), 403),
        ("/api/v1/configmaps?fieldSelector=metadata.name%3Dprepull".to_owned(), 403),
    ] {
        let (answered, text) = agent.send("GET", &path, "application/json", "")?;
        ensure!(answered == code, "{path}: {answered} {text}");
    }
    Ok(())
}

pub(crate) async fn components(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.namespace("team-a")?;
    let secrets =
        ["secrets [] [registry-credentials] [get list watch]", "serviceaccounts [] [default] [get list watch]"];
    // kubectl has a line for each name
    let leases = |slot| format!("leases.coordination.k8s.io [] [prepull-slot-{slot}] [get update]");
    let leases: Vec<String> = (0..50).map(leases).collect();
    // component, namespace, what comes to the base's rights there
    let cases: [(&str, &str, Vec<&str>); 10] = [
        ("cluster-wide-cap", NAMESPACE, leases.iter().map(String::as_str).collect()),
        ("node-selection", "default", vec!["nodes [] [] [list watch]"]),
        ("pull-secrets", NAMESPACE, secrets.to_vec()),
        ("team-lists", "team-a", [&["configmaps [] [] [list watch]"][..], &secrets].concat()),
        ("node-writes", "default", vec![EVENTS, "nodes [] [] [list watch patch]", "nodes/status [] [] [patch]"]),
        ("readiness-gate", NAMESPACE, vec!["pods/status [] [] [patch]"]),
        ("node-docker-config", NAMESPACE, vec![]),
        ("root-no-caps", NAMESPACE, vec![]),
        ("host-network", NAMESPACE, vec![]),
        ("network-policy", NAMESPACE, vec![]),
    ];
    for (component, namespace, more) in cases {
        let name: &'static str = format!("components/{component}").leak();
        let mut overlay = Overlay::with(&[name]);
        if component == "team-lists" {
            overlay.more_resources.push("components/team-lists/team");
        }
        kube.grant(&overlay).await.context(component)?;
        for asked in [NAMESPACE, "default", "team-a", "kube-system"] {
            let cluster_wide = more.iter().filter(|line| line.starts_with("nodes"));
            let mut expected: Vec<&str> = cluster_wide.copied().collect();
            if asked == namespace {
                expected.clone_from(&more);
            }
            if asked == NAMESPACE {
                expected.extend([LIST, EVENTS]);
            }
            expect(kube, AGENT, asked, &expected).with_context(|| format!("with the component {component}"))?;
        }
    }
    Ok(())
}
