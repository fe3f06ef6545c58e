//! What each processor costs: the same load through each chain, on Spanreel and on a real Collector, one after the other.
//!
//! Both have the walk-through's `memory_limiter` and `batch` around the chain, and the same text of settings. What a chain
//! adds is its CPU per span less that of the untouched path of the same subject. Spanreel stores everything meanwhile; that
//! is in both of its figures, and so not in what is added.
//!
//! The Collector beside us is built without `k8s_attributes`. So `k8s_attributes` and `resource` together, here, stand against
//! `resource` alone, there: the Collector would add more.

use crate::cluster::Cluster;
use crate::driver::Plan;
use crate::report::{cpu_micros, machine};
use crate::subject::{Path, Subject};
use std::fmt::Write;

/// Processors between `memory_limiter` and `batch`.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    pub name: &'static str,
    /// Component ids and their settings, as YAML in one line.
    pub processors: &'static [(&'static str, &'static str)],
    /// Every span reaches the destination.
    pub keeps_all: bool,
}

const RESOURCE: (&str, &str) = (
    "resource",
    "{attributes: [{key: deployment.environment, value: production, action: upsert}, \
     {key: k8s.cluster.name, value: home, action: insert}, {key: telemetry.sdk.version, action: delete}]}",
);
const ATTRIBUTES: (&str, &str) = (
    "attributes",
    "{actions: [{key: user_agent.original, action: delete}, {key: region, value: eu, action: insert}, \
     {key: enduser.id, action: hash}]}",
);
/// What tutorials have: health checks are dropped. None is among the load.
const FILTER: (&str, &str) =
    ("filter", "{error_mode: ignore, traces: {span: ['attributes[\"http.route\"] == \"/healthz\"']}}");
const TRANSFORM: (&str, &str) = (
    "transform",
    "{error_mode: ignore, trace_statements: [{context: span, statements: [\
     'set(attributes[\"peer.service\"], attributes[\"server.address\"])', \
     'replace_pattern(name, \"^GET \", \"\")', 'delete_key(attributes, \"thread.id\")']}]}",
);
const SAMPLER: (&str, &str) = ("probabilistic_sampler", "{sampling_percentage: 50}");
/// The three policies of most configurations.
const TAIL_SAMPLING: (&str, &str) = (
    "tail_sampling",
    "{decision_wait: 3s, policies: [{name: errors, type: status_code, status_code: {status_codes: [ERROR]}}, \
     {name: slow, type: latency, latency: {threshold_ms: 1000}}, \
     {name: some, type: probabilistic, probabilistic: {sampling_percentage: 10}}]}",
);

/// The untouched path.
pub const NONE: Chain = Chain { name: "none", processors: &[], keeps_all: true };
const CHAINS: [Chain; 7] = [
    NONE,
    Chain { name: "resource", processors: &[RESOURCE], keeps_all: true },
    Chain { name: "attributes", processors: &[ATTRIBUTES], keeps_all: true },
    Chain { name: "filter", processors: &[FILTER], keeps_all: true },
    Chain { name: "transform", processors: &[TRANSFORM], keeps_all: true },
    Chain { name: "probabilistic_sampler", processors: &[SAMPLER], keeps_all: false },
    Chain { name: "tail_sampling", processors: &[TAIL_SAMPLING], keeps_all: false },
];

/// The pod that the client's address belongs to, found for each resource.
const K8S: (&str, &str) = (
    "k8s_attributes",
    "{wait_for_metadata: true, pod_association: [{sources: [{from: connection}]}], extract: {metadata: \
     [k8s.namespace.name, k8s.pod.name, k8s.pod.uid, k8s.pod.start_time, k8s.node.name]}}",
);
/// Measured on Spanreel in a cluster, beside the untouched path there.
const IN_CLUSTER: Chain = Chain { name: "k8s_attributes, resource", processors: &[K8S, RESOURCE], keeps_all: true };
const NONE_IN_CLUSTER: Chain = Chain { name: "none, in a cluster", ..NONE };

impl Chain {
    /// The chains of a list of names, or all; always with the untouched path first.
    pub fn named(list: &str) -> Result<Vec<Self>, String> {
        if list == "all" {
            return Ok([&CHAINS[..], &[NONE_IN_CLUSTER, IN_CLUSTER]].concat());
        }
        let mut chains = vec![NONE];
        for name in list.split(',').filter(|name| *name != NONE.name) {
            if name == "k8s_attributes" {
                chains.extend([NONE_IN_CLUSTER, IN_CLUSTER]);
                continue;
            }
            let known = CHAINS.iter().find(|chain| chain.name == name);
            chains.push(*known.ok_or_else(|| format!("--processors has no chain {name:?}"))?);
        }
        Ok(chains)
    }
}

/// Runs each chain on both subjects; the report.
pub async fn measure(plan: Plan, chains: &[Chain]) -> String {
    let mut rows = Vec::new();
    let mut cluster = None;
    for chain in chains {
        let in_cluster = [NONE_IN_CLUSTER.name, IN_CLUSTER.name].contains(&chain.name);
        if in_cluster && cluster.is_none() {
            cluster = Some(Cluster::start().await);
        }
        let cluster = cluster.as_ref().filter(|_| in_cluster);
        let subjects = if in_cluster { &[Subject::Spanreel][..] } else { &[Subject::Spanreel, Subject::Otelcol] };
        let mut cpu = Vec::new();
        for subject in subjects {
            eprintln!("== {}: {}", chain.name, subject.name());
            let measured = subject.measure(plan, Path { chain: *chain, waits_long: false, cluster }).await;
            eprintln!("{}", crate::report::line(&measured));
            cpu.push(cpu_micros(&measured));
        }
        rows.push((*chain, cpu));
    }
    markdown(&plan, &rows)
}

/// `rows`: each chain's CPU per span in microseconds, here and there; there is none of the latter in a cluster.
fn markdown(plan: &Plan, rows: &[(Chain, Vec<f64>)]) -> String {
    let mut out = String::new();
    let pace = plan.rate.map_or_else(|| "full speed".to_owned(), |rate| format!("{rate} spans/s"));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:?}, {pace} for {} s each.\n{}\n", plan.protocol, plan.duration.as_secs(), machine());
    let _ = writeln!(
        out,
        "| processors | Spanreel, us CPU a span | added | otelcol, us CPU a span | added | added, Spanreel / otelcol |"
    );
    let _ = writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: |");
    let of = |name: &str, subject: usize| {
        let row = rows.iter().find(|(chain, _)| chain.name == name);
        row.and_then(|(_, cpu)| cpu.get(subject)).copied()
    };
    let added = |name: &str, untouched: &str, subject: usize| Some(of(name, subject)? - of(untouched, subject)?);
    let text = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"));
    for (Chain { name, processors, .. }, _) in rows {
        let in_cluster = *name == IN_CLUSTER.name;
        let untouched = if in_cluster { NONE_IN_CLUSTER.name } else { NONE.name };
        // What stands against it, see the head of this file.
        let opposite = if in_cluster { RESOURCE.0 } else { *name };
        let (ours, theirs) = (added(name, untouched, 0), added(opposite, NONE.name, 1));
        let ratio = match processors {
            [] => text(of(name, 0).zip(of(name, 1)).map(|(ours, theirs)| ours / theirs)) + " (of the whole)",
            _ => text(ours.zip(theirs).map(|(ours, theirs)| ours / theirs)),
        };
        let alone = if in_cluster { " (`resource` alone)" } else { "" };
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {}{alone} | {} | {ratio} |",
            text(of(name, 0)),
            text(ours),
            text(of(opposite, 1)),
            text(theirs)
        );
    }
    out
}
