//! What each processor costs: the same spans through each chain, on Spanreel and on a real Collector.
//!
//! Both have the walk-through's `memory_limiter` and `batch` around the chain, and the same text of settings; Spanreel runs
//! as an edge, which does what a Collector does, so that sealing and counting do not blur what a processor takes. What a
//! chain adds is its CPU per span less that of the untouched path of the same subject.
//!
//! A processor takes tenths of a microsecond, so what is not its own must be the same on both sides of a difference. The two
//! processes of a difference, with the chain and without, run beside each other; each gets a slice of the load at full
//! speed, a fixed number of spans, and its CPU time is read when the slice has been forwarded, from the kernel's account of
//! its threads in nanoseconds. Slices alternate; the first of each is not counted (heaps grow, code is read). What is
//! reported is the median of the differences of neighbours, and beside it the middle half of them: a difference that is
//! smaller says nothing.

use crate::cluster::Cluster;
use crate::driver::Plan;
use crate::payload::SPANS_PER_REQUEST;
use crate::report::machine;
use crate::subject::{Path, Running, Subject};
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
    /// It asks an API server.
    pub is_in_cluster: bool,
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
pub const NONE: Chain = Chain { name: "none", processors: &[], keeps_all: true, is_in_cluster: false };
const CHAINS: [Chain; 7] = [
    Chain { name: "k8s_attributes, resource", processors: &[K8S, RESOURCE], is_in_cluster: true, ..NONE },
    Chain { name: "resource", processors: &[RESOURCE], ..NONE },
    Chain { name: "attributes", processors: &[ATTRIBUTES], ..NONE },
    Chain { name: "filter", processors: &[FILTER], ..NONE },
    Chain { name: "transform", processors: &[TRANSFORM], ..NONE },
    Chain { name: "probabilistic_sampler", processors: &[SAMPLER], keeps_all: false, ..NONE },
    Chain { name: "tail_sampling", processors: &[TAIL_SAMPLING], keeps_all: false, ..NONE },
];

/// The pod that the client's address belongs to, found for each resource.
pub const K8S: (&str, &str) = (
    "k8s_attributes",
    "{wait_for_metadata: true, pod_association: [{sources: [{from: connection}]}], extract: {metadata: \
     [k8s.namespace.name, k8s.pod.name, k8s.pod.uid, k8s.pod.start_time, k8s.node.name]}}",
);

impl Chain {
    /// The chains of a list of names, or all. The first name of a chain is enough.
    pub fn named(list: &str) -> Result<Vec<Self>, String> {
        if list == "all" {
            return Ok(CHAINS.to_vec());
        }
        let first_name = |chain: &Chain| chain.name.split(',').next();
        let find = |name: &str| CHAINS.iter().copied().find(|chain| first_name(chain) == Some(name));
        list.split(',').map(|name| find(name).ok_or_else(|| format!("--processors has no chain {name:?}"))).collect()
    }
}

/// Spans of one slice, if nothing else is said: half a second to two seconds at full speed.
pub const SPANS: u64 = 300_000;
/// Counted slices of each chain on each subject, if nothing else is said.
pub const ROUNDS: u64 = 7;
/// A slice that is not over by then would say nothing.
const SLICE_BOUND: Duration = Duration::from_secs(60);

/// What a chain is compared with on each subject.
const SUBJECTS: [Subject; 2] = [Subject::SpanreelEdge, Subject::Otelcol];

/// Figures of several slices, in microseconds of CPU a span.
#[derive(Debug, Default, Clone)]
struct Figures(Vec<f64>);

impl Figures {
    /// The value that this share of the figures does not exceed.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let place = share * sorted.len().saturating_sub(1) as f64;
        let at = |place: f64| sorted.get(place as usize).copied().unwrap_or(f64::NAN);
        let (low, high) = (at(place.floor()), at(place.ceil()));
        low + (high - low) * place.fract()
    }

    fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Median and middle half.
    fn cell(&self) -> String {
        match self.0.as_slice() {
            [] => "-".to_owned(),
            _ => format!("{:.3} ({:.3} to {:.3})", self.median(), self.quantile(0.25), self.quantile(0.75)),
        }
    }
}

/// What one chain took on one subject.
#[derive(Debug, Default, Clone)]
struct Costs {
    whole: Figures,
    /// Less the neighbouring slice without the chain.
    added: Figures,
}

/// A process that takes slices.
struct Stand<'c> {
    running: Running,
    path: Path<'c>,
    spans: u64,
}

impl<'c> Stand<'c> {
    async fn start(subject: Subject, chain: Chain, cluster: Option<&'c Cluster>) -> Self {
        let path = Path { chain, waits_long: false, cluster };
        Self { running: subject.start(path).await, path, spans: 0 }
    }

    /// Microseconds of CPU a span.
    async fn slice(&mut self, plan: Plan) -> f64 {
        let seed = plan.seed.wrapping_add(self.spans);
        let (spans, cpu) = self.running.carry(Plan { seed, ..plan }, self.path).await;
        self.spans += spans;
        cpu.as_secs_f64() * 1e6 / spans.max(1) as f64
    }
}

/// Runs each chain on both subjects, so many times; the report.
pub async fn measure(plan: Plan, chains: &[Chain], rounds: u64) -> String {
    let plan = Plan { spans_max: plan.spans_max.or(Some(SPANS)), duration: SLICE_BOUND, ..plan };
    let mut rows = Vec::new();
    // Spanreel has work in a cluster that it does not have elsewhere: there it is compared with itself in another one.
    let in_cluster = chains.iter().any(|chain| chain.is_in_cluster);
    let clusters = if in_cluster { Some((Cluster::start().await, Cluster::start().await)) } else { None };
    for chain in chains.iter().filter(|chain| !chain.processors.is_empty()) {
        let (with, without) = match &clusters {
            Some((with, without)) if chain.is_in_cluster => (Some(with), Some(without)),
            _ => (None, None),
        };
        let mut costs: [Costs; 2] = Default::default();
        let mut untouched: [Figures; 2] = Default::default();
        for ((subject, costs), untouched) in SUBJECTS.iter().zip(&mut costs).zip(&mut untouched) {
            // A Collector does nothing in a cluster unless a processor asks it to.
            let without = without.filter(|_| *subject == Subject::SpanreelEdge);
            let mut bare = Stand::start(*subject, NONE, without).await;
            let mut loaded = Stand::start(*subject, *chain, with).await;
            for round in 0..=rounds {
                let (without, with) = (bare.slice(plan).await, loaded.slice(plan).await);
                eprintln!("{}, {}, round {round}: {without:.3} us, {with:.3} us", chain.name, subject.name());
                if round > 0 {
                    untouched.0.push(without);
                    costs.whole.0.push(with);
                    costs.added.0.push(with - without);
                }
            }
            bare.running.check(bare.spans).await;
            loaded.running.check(loaded.spans).await;
        }
        rows.push((*chain, untouched, costs));
    }
    markdown(&plan, &rows, rounds)
}

/// A chain; of each subject, what it took without the chain, and with it.
type Row = (Chain, [Figures; 2], [Costs; 2]);

fn markdown(plan: &Plan, rows: &[Row], rounds: u64) -> String {
    let mut out = String::new();
    let pace = plan.rate.map_or_else(|| "full speed".to_owned(), |rate| format!("{rate} spans/s"));
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{:?}, {pace}, {rounds} slices of {} spans each, {SPANS_PER_REQUEST} spans a request; us CPU a span, the median and \
         the middle half. Spanreel without store and metrics from spans.\n{}\n",
        plan.protocol,
        plan.spans_max.unwrap_or_default(),
        machine()
    );
    let _ = writeln!(
        out,
        "| processors | Spanreel without | added | otelcol without | added | added, Spanreel / otelcol |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |"
    );
    for (chain, [ours, theirs], [cost, their_cost]) in rows {
        let ratio = match their_cost.added.median() {
            added if added > 0.0 => format!("{:.2}", cost.added.median() / added),
            _ => "-".to_owned(),
        };
        let (ours, theirs) = (ours.median(), theirs.median());
        let (added, their_added) = (cost.added.cell(), their_cost.added.cell());
        let _ = writeln!(out, "| {} | {ours:.3} | {added} | {theirs:.3} | {their_added} | {ratio} |", chain.name);
    }
    out
}
