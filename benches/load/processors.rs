//! What each processor costs: the same spans through each chain, on Spanreel and on a real Collector.
//!
//! Both have the walk-through's `memory_limiter` and `batch` around the chain, and the same text of settings; Spanreel runs
//! as an edge, which does what a Collector does, so that sealing and counting do not blur what a processor takes. What a
//! chain adds is its CPU per span less that of the untouched path of the same subject.
//!
//! A processor takes tenths of a microsecond. So the number of spans is fixed, not the time; each chain runs several times
//! on each subject, one subject after the other and one chain after the other; and the median counts. Beside it stands the
//! distance between the least and the most: a difference that is smaller says nothing.

use crate::cluster::Cluster;
use crate::driver::Plan;
use crate::report::{cpu_micros, machine};
use crate::subject::{Path, Subject};
use std::fmt::Write;
use std::time::Duration;

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
    "{decision_wait: 1s, policies: [{name: errors, type: status_code, status_code: {status_codes: [ERROR]}}, \
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
pub const K8S: (&str, &str) = (
    "k8s_attributes",
    "{wait_for_metadata: true, pod_association: [{sources: [{from: connection}]}], extract: {metadata: \
     [k8s.namespace.name, k8s.pod.name, k8s.pod.uid, k8s.pod.start_time, k8s.node.name]}}",
);
/// Measured in a cluster, Spanreel beside the untouched path there: it has work there that a Collector does not have.
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

/// Spans of one run, if nothing else is said: with ticks of 10 ms, 0.04 us a span.
pub const SPANS: u64 = 240_000;
/// Spans per second, if nothing else is said: what a Collector keeps up with on two cores that it shares with the client.
pub const RATE: u64 = 80_000;
/// Runs of each chain on each subject, if nothing else is said.
pub const ROUNDS: u64 = 3;
/// A run that is not over by then would say nothing.
const RUN_BOUND: Duration = Duration::from_secs(60);

const SUBJECTS: [Subject; 2] = [Subject::SpanreelEdge, Subject::Otelcol];

/// CPU per span of one chain on one subject, in microseconds, run by run.
#[derive(Debug, Default, Clone)]
struct Runs(Vec<f64>);

impl Runs {
    fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() % 2 {
            1 => sorted.get(middle).copied(),
            _ => Some((sorted.get(middle)? + sorted.get(middle.checked_sub(1)?)?) / 2.0),
        }
    }

    /// From the least to the most.
    fn spread(&self) -> f64 {
        let (least, most) =
            self.0.iter().fold((f64::MAX, f64::MIN), |(least, most), it| (least.min(*it), most.max(*it)));
        (most - least).max(0.0)
    }
}

/// A chain, and its runs on each of [`SUBJECTS`].
type Row = (Chain, [Runs; 2]);

/// Runs each chain on both subjects, so many times; the report.
pub async fn measure(plan: Plan, chains: &[Chain], rounds: u64) -> String {
    let plan =
        Plan { rate: plan.rate.or(Some(RATE)), spans_max: plan.spans_max.or(Some(SPANS)), duration: RUN_BOUND, ..plan };
    let mut rows: Vec<Row> = chains.iter().map(|chain| (*chain, Default::default())).collect();
    let mut cluster = None;
    for round in 1..=rounds {
        for (chain, runs) in &mut rows {
            let in_cluster = [NONE_IN_CLUSTER.name, IN_CLUSTER.name].contains(&chain.name);
            if in_cluster && cluster.is_none() {
                cluster = Some(Cluster::start().await);
            }
            let cluster = cluster.as_ref().filter(|_| in_cluster);
            for (subject, runs) in SUBJECTS.iter().zip(runs.iter_mut()) {
                // A Collector does nothing in a cluster unless a processor asks it to.
                if chain.name == NONE_IN_CLUSTER.name && *subject == Subject::Otelcol {
                    continue;
                }
                eprintln!("== round {round}, {}: {}", chain.name, subject.name());
                let path = Path { chain: *chain, waits_long: false, cluster };
                let measured = subject.measure(plan, path).await;
                eprintln!("{}", crate::report::line(&measured));
                runs.0.push(cpu_micros(&measured));
            }
        }
    }
    markdown(&plan, &rows, rounds)
}

fn markdown(plan: &Plan, rows: &[Row], rounds: u64) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{:?}, {} spans at {} spans/s, {rounds} runs each: the median, and from the least to the most. Spanreel without store \
         and metrics from spans.\n{}\n",
        plan.protocol,
        plan.spans_max.unwrap_or_default(),
        plan.rate.unwrap_or_default(),
        machine()
    );
    let _ = writeln!(
        out,
        "| processors | Spanreel, us CPU a span | added | otelcol, us CPU a span | added | added, Spanreel / otelcol |"
    );
    let _ = writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: |");
    let runs = |name: &str, subject: usize| {
        let row = rows.iter().find(|(chain, _)| chain.name == name);
        row.and_then(|(_, runs)| runs.get(subject)).filter(|runs| !runs.0.is_empty())
    };
    let of = |name: &str, subject: usize| runs(name, subject).and_then(Runs::median);
    let text = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"));
    let cell = |name: &str, subject: usize| match runs(name, subject) {
        Some(runs) => format!("{} ({:.2})", text(runs.median()), runs.spread()),
        None => "-".to_owned(),
    };
    for (Chain { name, processors, .. }, _) in rows {
        let untouched = if *name == IN_CLUSTER.name { NONE_IN_CLUSTER.name } else { NONE.name };
        let added = |untouched: &str, subject: usize| Some(of(name, subject)? - of(untouched, subject)?);
        let (ours, theirs) = match processors {
            [] => (None, None),
            _ => (added(untouched, 0), added(NONE.name, 1)),
        };
        let ratio = match processors {
            [] => of(name, 0).zip(of(name, 1)).map(|(ours, theirs)| format!("{:.2} (of the whole)", ours / theirs)),
            _ => ours.zip(theirs).map(|(ours, theirs)| format!("{:.2}", ours / theirs)),
        };
        let ratio = ratio.unwrap_or_else(|| "-".to_owned());
        let (here, there) = (cell(name, 0), cell(name, 1));
        let _ = writeln!(out, "| {name} | {here} | {} | {there} | {} | {ratio} |", text(ours), text(theirs));
    }
    out
}
