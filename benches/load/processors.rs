//! What each processor costs: the same load through each chain, on Spanreel and on a real Collector, one after the other.
//!
//! Both have the walk-through's `memory_limiter` and `batch` around the chain, and the same text of settings. What a chain
//! adds is its CPU per span less that of the untouched path of the same subject. Spanreel stores everything meanwhile; that
//! is in both of its figures, and so not in what is added.

use crate::driver::Plan;
use crate::report::{cpu_micros, machine};
use crate::subject::{Measured, Path, Subject};
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

impl Chain {
    /// The chains of a list of names, or all; always with the untouched path first.
    pub fn named(list: &str) -> Result<Vec<Self>, String> {
        if list == "all" {
            return Ok(CHAINS.into());
        }
        let mut chains = vec![NONE];
        for name in list.split(',').filter(|name| *name != NONE.name) {
            let known = CHAINS.iter().find(|chain| chain.name == name);
            chains.push(*known.ok_or_else(|| format!("--processors has no chain {name:?}"))?);
        }
        Ok(chains)
    }
}

/// Runs each chain on both subjects; the report.
pub async fn measure(plan: Plan, chains: &[Chain]) -> String {
    let mut rows = Vec::new();
    for chain in chains {
        let mut row = Vec::new();
        for subject in [Subject::Spanreel, Subject::Otelcol] {
            eprintln!("== {}: {}", chain.name, subject.name());
            let measured = subject.measure(plan, Path { chain: *chain, waits_long: false }).await;
            eprintln!("{}", crate::report::line(&measured));
            row.push(measured);
        }
        rows.push((*chain, row));
    }
    markdown(&plan, &rows)
}

fn markdown(plan: &Plan, rows: &[(Chain, Vec<Measured>)]) -> String {
    let mut out = String::new();
    let pace = plan.rate.map_or_else(|| "full speed".to_owned(), |rate| format!("{rate} spans/s"));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:?}, {pace} for {} s each.\n{}\n", plan.protocol, plan.duration.as_secs(), machine());
    let _ = writeln!(
        out,
        "| processors | Spanreel, us CPU a span | added | otelcol, us CPU a span | added | added, Spanreel / otelcol |"
    );
    let _ = writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: |");
    let untouched: Vec<f64> = rows.first().map(|(_, row)| row.iter().map(cpu_micros).collect()).unwrap_or_default();
    for (chain, row) in rows {
        let cpu: Vec<f64> = row.iter().map(cpu_micros).collect();
        let added: Vec<f64> = cpu.iter().zip(&untouched).map(|(cpu, untouched)| cpu - untouched).collect();
        let ([ours, theirs], [ours_added, theirs_added]) = (cpu[..].try_into().unwrap(), added[..].try_into().unwrap());
        let (ours, theirs, ours_added, theirs_added): (f64, f64, f64, f64) = (ours, theirs, ours_added, theirs_added);
        let ratio = match chain.processors {
            [] => format!("(of the whole path: {:.2})", ours / theirs),
            _ => format!("{:.2}", ours_added / theirs_added),
        };
        let _ = writeln!(
            out,
            "| {} | {ours:.2} | {ours_added:+.2} | {theirs:.2} | {theirs_added:+.2} | {ratio} |",
            chain.name
        );
    }
    out
}
