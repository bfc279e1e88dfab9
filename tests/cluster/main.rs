//! The manifests, the chart and the image on a real three-node cluster.
//!
//! | variable | meaning |
//! |---|---|
//! | `PREPULL_TEST_CLUSTER` | the script that starts a cluster: `up DIR NODES`, `down DIR`, `api-down DIR`, `runtime-down DIR N` and their opposites |
//! | `PREPULL_TEST_CLUSTER_DIR` | a cluster of that script that is up already: it is used, and stays up |
//! | `KUBEBUILDER_ASSETS` | where `kubectl` is looked for before `PATH` |
//! | `PREPULL_TEST_BINARY` | a static release binary for the image; without it `hack/build-static` makes one, which takes minutes once |
//! | `PREPULL_TEST_REQUIRE_ALL` | `1`: a part that is missing fails its tests instead of skipping them |
//!
//! One cluster serves all trials, so they run one after the other; each brings the installation that it needs.
#![allow(clippy::print_stderr, reason = "a test says what it waits for")]

#[path = "../support/mod.rs"]
mod support;

mod cap;
mod chart;
mod discovery;
mod disk;
mod fleet;
mod image;
mod installation;
mod kube;
mod kubelet;
mod lists;
mod manifests;
mod monitoring;
mod outages;
mod parts;
mod policies;
mod prometheus;
mod render;
mod rights;
mod secrets;
mod verification;
mod writes;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use support::trials::trial;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // one cluster, and fixed ports
    arguments.test_threads = Some(1);
    let trials = vec![
        trial("manifests::a_renamed_overlay_is_followed_into_cel", parts::kubectl(), manifests::renamed),
        trial("manifests::renamed_together_with_other_parts", parts::kubectl(), manifests::renamed_with_others),
        trial("manifests::what_components_take_away", parts::kubectl(), manifests::mounted_list),
        trial("manifests::pods_have_nowhere_to_write", parts::kubectl(), manifests::nowhere_to_write),
        trial("manifests::a_renamed_list_of_discovery", parts::kubectl(), discovery::renamed),
        trial("chart::lints", parts::helm(), chart::lints),
        trial("chart::values_are_checked", parts::helm(), chart::schema),
        trial("chart::the_digest_wins_over_the_tag", parts::helm(), chart::digest),
        trial("chart::renders_what_kustomize_renders", parts::chart(), chart::same_objects),
        trial("image::its_compiler_is_new_enough", Ok(()), image::compiler),
        trial("image::buildah_builds_it", parts::buildah(), image::built),
        trial("manifests::the_api_server_takes_them_all", parts::cluster_and_operator(), manifests::server_dry_run),
        trial("rights::of_the_base_and_nothing_else", parts::cluster(), rights::base),
        trial("rights::of_every_component", parts::cluster(), rights::components),
        trial("rights::of_who_looks", parts::cluster(), fleet::least_rights),
        trial("rights::of_discovery", parts::cluster(), discovery::least_rights),
        trial("policies::an_agent_changes_only_its_own_node", parts::cluster(), policies::own_node),
        trial("policies::an_agent_changes_only_its_own_pods_gate", parts::cluster(), policies::own_pod),
        trial("lists::rollout_status_ends_when_every_node_has_every_image", parts::cluster(), lists::rollout),
        trial("lists::without_root_and_capabilities", parts::cluster(), lists::hardened),
        trial("lists::edited_broken_deleted_and_made_again", parts::cluster(), lists::edited),
        trial("lists::a_removed_image_comes_back", parts::cluster(), lists::removed),
        trial("lists::a_label_of_a_node_flips_an_entry", parts::cluster(), lists::labelled),
        trial("lists::failures_are_told_by_events", parts::cluster(), lists::events),
        trial("outages::of_the_api_server_in_a_pull", parts::cluster(), outages::api_server),
        trial("outages::of_the_agent_in_a_pull", parts::cluster(), outages::pod_deleted),
        trial("outages::of_a_nodes_runtime", parts::cluster(), outages::runtime),
        trial("cap::one_node_after_another", parts::cluster(), cap::one_after_another),
        trial("secrets::a_new_password_is_tried_at_once", parts::cluster(), secrets::rotated),
        trial("secrets::of_a_service_account", parts::cluster(), secrets::service_account),
        trial("secrets::of_another_namespace_are_out_of_reach", parts::cluster(), secrets::team),
        trial("status::agrees_with_every_runtime_and_waits_for_an_edit", parts::cluster(), fleet::agrees),
        trial("status::by_a_port_forward_where_the_proxy_is_not_granted", parts::cluster(), fleet::forwarded),
        trial("status::names_a_dead_node", parts::cluster(), fleet::dead_node),
        trial("discovery::a_run_stocks_every_node", parts::cluster(), discovery::stocks),
        trial("secrets::of_private_images_under_every_policy_of_the_kubelet", parts::cluster(), verification::table),
        trial("writes::condition_label_and_taint", parts::cluster(), writes::warm),
        trial("writes::the_taint_has_a_deadline", parts::cluster(), writes::deadline),
        trial("writes::nothing_without_a_policy_that_guards", parts::cluster(), writes::unguarded),
        trial("writes::cleanup_leaves_nothing", parts::cluster(), writes::cleanup),
        trial("writes::a_gate_instead_of_a_probe", parts::cluster(), writes::gate),
        trial(
            "monitoring::a_real_prometheus_sees_every_reason_and_its_end",
            parts::monitored_cluster(),
            monitoring::observed,
        ),
        trial("chart::lives_on_a_cluster", parts::cluster_and_helm(), chart::life),
        // last, because it ends the cluster of the others
        trial("disk::the_kubelet_collects_and_nobody_fights", parts::own_cluster(), disk::pressure),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    kube::down();
    conclusion.exit_code()
}
