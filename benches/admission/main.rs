//! Pod creations at a rate, through a real API server that asks the real binary about each.
//!
//! ```text
//! cargo bench --bench admission -- [--rate 500] [--seconds 10] [--clients 32] [--store yes|no]
//! ```
//!
//! Two rounds of the same pods on the same machine: such that ask for nothing, which the API server should not even ask
//! about, and such that ask for the Java agent. The difference is what injection costs whoever creates pods. The webhook's
//! own times are its histogram's (`spanreel_webhook_latency_seconds`: from a request's last byte to its answer), so a
//! quantile is known as "at most" a bucket's bound. `--store no` makes dry runs of them, which spares etcd the disk.
//! etcd, API server, clients and Spanreel share the machine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "../../tests/support/kube.rs"]
mod kube_rig;
#[path = "../../tests/support/mod.rs"]
mod support;

use kube_rig::{KubeCluster, client_of, free_ports, wait_until};
use support::metrics::Metrics;
use support::spanreel::{Options, Spanreel};

const SOON: Duration = Duration::from_secs(60);
const LATENCY: &str = "spanreel_webhook_latency_seconds";

#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Creations per second.
    rate: u64,
    duration: Duration,
    clients: u64,
    store: bool,
}

/// What a round gave.
struct Round {
    created: u64,
    refused: u64,
    elapsed: Duration,
    /// Of creations, as their clients see them, sorted.
    latencies: Vec<Duration>,
    /// Upper bounds in seconds, and decisions within them.
    webhook: Vec<(f64, u64)>,
    cpu: Duration,
}

fn main() -> ExitCode {
    let plan = match arguments(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(problem) => {
            eprintln!("{problem}; see the head of benches/admission/main.rs");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(plan));
    ExitCode::SUCCESS
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Plan, String> {
    let mut plan = Plan { rate: 500, duration: Duration::from_secs(10), clients: 32, store: true };
    while let Some(flag) = given.next() {
        // `cargo bench` says so itself.
        if flag == "--bench" {
            continue;
        }
        let value = given.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{flag} needs a number above 0"));
        match flag.as_str() {
            "--rate" => plan.rate = number()?,
            "--seconds" => plan.duration = Duration::from_secs(number()?),
            "--clients" => plan.clients = number()?,
            "--store" => plan.store = value == "yes",
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(plan)
}

async fn run(plan: Plan) {
    let kube = KubeCluster::start().await;
    let manifests = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/install.yaml"));
    kube.apply("spanreel", &manifests.expect("deploy/install.yaml")).await;
    let [webhook] = free_ports();
    let kubeconfig = kube.service_account("spanreel", "spanreel").await;
    let mut spanreel = Spanreel::start(&Options {
        appliance: vec![format!(
            "webhook: {{endpoint: '127.0.0.1:{webhook}', url: 'https://127.0.0.1:{webhook}', namespace: spanreel}}"
        )],
        arguments: ["--kubeconfig", &kubeconfig.display().to_string(), "--log-level", "warn"]
            .map(str::to_owned)
            .to_vec(),
        ..Options::default()
    })
    .await;
    let instrumentation = json!({
        "apiVersion": "opentelemetry.io/v1alpha1", "kind": "Instrumentation", "metadata": {"name": "inst"},
        "spec": {"exporter": {"endpoint": "http://spanreel.spanreel:4318"}, "propagators": ["tracecontext"]},
    });
    let path = "/apis/opentelemetry.io/v1alpha1/namespaces/default/instrumentations";
    wait_until("the definitions to be served", SOON, async || kube.create(path, &instrumentation).await.ok()).await;
    wait_until("the API server to ask about pods", SOON, async || {
        let stored = kube.create("/api/v1/namespaces/default/pods?dryRun=All", &pod("probe", true)).await.ok()?;
        stored["spec"]["initContainers"].is_array().then_some(())
    })
    .await;

    println!(
        "## Admission: {} pod creations per second for {} s{}\n",
        plan.rate,
        plan.duration.as_secs(),
        if plan.store { "" } else { ", dry run" }
    );
    println!("| pods | created/s | refused | creation p50 / p99 | asked about | webhook p50 / p99 | CPU per pod |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (name, asks) in [("ask for nothing", false), ("ask for java", true)] {
        let round = round(&kube, &mut spanreel, plan, asks).await;
        let asked = round.webhook.last().map_or(0, |(_, count)| *count);
        let seconds = round.elapsed.as_secs_f64();
        println!(
            "| {name} | {:.0} | {} | {:.1} / {:.1} ms | {asked} | {} / {} | {:.0} us |",
            round.created as f64 / seconds,
            round.refused,
            milliseconds(&round.latencies, 0.5),
            milliseconds(&round.latencies, 0.99),
            at_most(&round.webhook, 0.5),
            at_most(&round.webhook, 0.99),
            round.cpu.as_secs_f64() * 1e6 / (round.created.max(1)) as f64,
        );
    }
    println!("\nSpanreel's peak RSS: {:.1} MiB", spanreel.process().peak_memory() as f64 / (1024.0 * 1024.0));
}

/// Sends the pods at their times; a client that is late sends at once, so that a slow server is not spared.
async fn round(kube: &KubeCluster, spanreel: &mut Spanreel, plan: Plan, asks: bool) -> Round {
    let before = buckets(&spanreel.metrics().await);
    let (user, system) = spanreel.process().user_and_system_time();
    let total = plan.rate * plan.duration.as_secs();
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..plan.clients {
        let (client, next) = (client_of(&kube.admin_kubeconfig()).await, Arc::clone(&next));
        clients.push(tokio::spawn(async move {
            let (mut latencies, mut refused) = (Vec::new(), 0);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return (latencies, refused);
                }
                let due = started + Duration::from_secs_f64(number as f64 / plan.rate as f64);
                tokio::time::sleep_until(due.into()).await;
                let query = if plan.store { "" } else { "?dryRun=All" };
                let request = http::Request::post(format!("/api/v1/namespaces/default/pods{query}"))
                    .header("content-type", "application/json")
                    .body(pod(&format!("pod-{asks}-{number}"), asks).to_string().into_bytes())
                    .expect("a valid request");
                let sent = Instant::now();
                match client.request::<Value>(request).await {
                    Ok(stored) => {
                        latencies.push(sent.elapsed());
                        assert_eq!(stored["spec"]["initContainers"].is_array(), asks, "{stored:#}");
                    }
                    Err(_) => refused += 1,
                }
            }
        }));
    }
    let (mut latencies, mut refused) = (Vec::new(), 0);
    for client in clients {
        let (own, own_refused) = client.await.expect("a client that does not panic");
        latencies.extend(own);
        refused += own_refused;
    }
    let elapsed = started.elapsed();
    latencies.sort_unstable();
    let (user_after, system_after) = spanreel.process().user_and_system_time();
    let after = buckets(&spanreel.metrics().await);
    let webhook = after
        .into_iter()
        .map(|(bound, count)| {
            let earlier = before.iter().find(|(other, _)| *other == bound).map_or(0, |(_, count)| *count);
            (bound, count - earlier)
        })
        .collect();
    let cpu = (user_after + system_after) - (user + system);
    Round { created: latencies.len() as u64, refused, elapsed, latencies, webhook, cpu }
}

/// A pod as a Deployment's controller makes it.
fn pod(name: &str, asks: bool) -> Value {
    let annotations = if asks { json!({"instrumentation.opentelemetry.io/inject-java": "inst"}) } else { json!({}) };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "annotations": annotations,
            "labels": {"app": "shop", "pod-template-hash": "7d4b9c6f5"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7d4b9c6f5", "controller": true,
                "uid": "0a0a0a0a-1111-4222-8333-444444444444",
            }],
        },
        "spec": {
            "containers": [{
                "name": "app", "image": "registry.example/shop:1.2.3",
                "env": [{"name": "JAVA_TOOL_OPTIONS", "value": "-Xmx64m"}, {"name": "MODE", "value": "bench"}],
                "ports": [{"containerPort": 8080}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            }],
        },
    })
}

/// The webhook's latency histogram, cumulative.
fn buckets(metrics: &Metrics) -> Vec<(f64, u64)> {
    let name = format!("{LATENCY}_bucket");
    let mut buckets: Vec<(f64, u64)> = metrics
        .matching(&name, &[])
        .map(|series| {
            let bound = series.labels["le"].parse().unwrap_or(f64::INFINITY);
            (bound, series.value as u64)
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets
}

fn milliseconds(sorted: &[Duration], quantile: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * quantile) as usize).copied().unwrap_or_default().as_secs_f64() * 1e3
}

/// The bound of the first bucket that holds the quantile.
fn at_most(buckets: &[(f64, u64)], quantile: f64) -> String {
    let total = buckets.last().map_or(0, |(_, count)| *count);
    if total == 0 {
        return "-".to_owned();
    }
    let rank = (total as f64 * quantile).ceil() as u64;
    let bound = buckets.iter().find(|(_, count)| *count >= rank).map_or(f64::INFINITY, |(bound, _)| *bound);
    format!("<= {} ms", bound * 1e3)
}
