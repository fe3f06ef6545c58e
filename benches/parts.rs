//! The stations of the data path one by one: what a request costs in the scan, in the spool, and on its way out; and what
//! the webhook's answer about one pod costs.
//!
//! Requests are those of the load rig: 100 spans of about 400 bytes. The spool lies in the folder for temporary files
//! (`TMPDIR`), so `append` is as fast as that disk syncs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "load/payload.rs"]
#[expect(dead_code, reason = "the load rig uses the rest")]
mod payload;
#[path = "load/sink.rs"]
#[expect(dead_code, reason = "the load rig uses the rest")]
mod sink;
#[path = "../tests/support/mod.rs"]
mod support;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::Pod;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use payload::{GRPC_HEAD_BYTES, SERVICES, SPANS_PER_REQUEST, Template};
use prost::Message;
use serde::Deserialize as _;
use sink::Sink;
use spanreel::appliance::components::Components;
use spanreel::cluster::LifeLine;
use spanreel::config::{self, Config, Files, Input, Source};
use spanreel::forward::otlp_grpc::settings::OtlpGrpcSettings;
use spanreel::forward::settings::{ClientTlsSettings, Compression, ExporterSettings, QueueSettings, RetrySettings};
use spanreel::forward::{self, Destination};
use spanreel::inject::{self, Catalog, Instrumentation, OwnerMap, PodRequest, Settings, View};
use spanreel::otlp::Signal;
use spanreel::otlp::resource::speakers;
use spanreel::otlp::scan::{scan, trace_keys};
use spanreel::process::{Chain, Client, Surroundings};
use spanreel::receive::Witness;
use spanreel::red::{Red, RedSettings};
use spanreel::spool::{self, Append, PipelineId, Spool, TimeRange};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use support::traces::attribute;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Requests that wait for the same sync, as 4 connections with 8 calls each make them.
const CONCURRENT_APPENDS: u64 = 32;
/// Requests on their way out per measured drain.
const BACKLOG_REQUESTS: u64 = 2_000;
const DRAIN_BOUND: Duration = Duration::from_secs(60);

/// A request of traces that no other number has.
fn request(number: u64) -> Bytes {
    static TEMPLATES: LazyLock<Vec<Template>> =
        LazyLock::new(|| (0..SERVICES.len()).map(|service| Template::new(service, 1)).collect());
    let (group, service) = (number / SERVICES.len() as u64, number % SERVICES.len() as u64);
    Bytes::from(TEMPLATES[service as usize].request(group)).slice(GRPC_HEAD_BYTES..)
}

fn scan_request(criterion: &mut Criterion) {
    let request = request(0);
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(SPANS_PER_REQUEST as u64));
    group.bench_function("request of 100 spans", |bencher| bencher.iter(|| scan(black_box(&request)).unwrap()));
    group.finish();
}

/// What a cluster adds to each request: finding out who speaks, and noting it for a pod that is known by none of it.
fn hear_request(criterion: &mut Criterion) {
    let bare = request(0);
    let mut decoded = ExportTraceServiceRequest::decode(bare.clone()).unwrap();
    let pod = [("k8s.pod.uid", "2b1f9f0e-5f1c-4b8e-9d58-0a3e5a0d7c11"), ("k8s.container.name", "app")];
    for resource in decoded.resource_spans.iter_mut().filter_map(|spans| spans.resource.as_mut()) {
        resource.attributes.extend(pod.map(|(key, value)| attribute(key, Value::StringValue(value.to_owned()))));
    }
    let from_a_pod = Bytes::from(decoded.encode_to_vec());
    let life = LifeLine::new(Duration::from_secs(300));
    let peer = std::net::IpAddr::from([10, 0, 0, 7]);
    let mut group = criterion.benchmark_group("hear");
    group.throughput(Throughput::Elements(SPANS_PER_REQUEST as u64));
    for (name, request) in [("request of 100 spans", &bare), ("request of 100 spans that names its pod", &from_a_pod)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| speakers(black_box(request)).for_each(|speaker| life.spoke(peer, &speaker)));
        });
    }
    group.finish();
}

/// What metrics from spans add to each request: all of its label sets are known, and half of its spans wait or are waited for.
fn count_request(criterion: &mut Criterion) {
    let requests: Vec<Bytes> = (0..1_000).map(request).collect();
    let mut group = criterion.benchmark_group("count");
    group.throughput(Throughput::Elements(SPANS_PER_REQUEST as u64));
    for (name, service_graphs) in [
        ("span metrics of 100 spans", None),
        ("span metrics and service graph of 100 spans", RedSettings::default().service_graphs),
    ] {
        let settings = RedSettings { service_graphs, ..RedSettings::default() };
        let red = Red::new(settings.engine().unwrap());
        let mut next = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                next += 1;
                red.observe(black_box(&requests[next % requests.len()]));
            });
        });
        println!("{:?}", red.census());
    }
    group.finish();
}

/// What processors that look into a request add to it: reading, changing, writing, scanning again.
fn process_request(criterion: &mut Criterion) {
    let request = request(0);
    let scanned = scan(&request).unwrap();
    let client = Client::of(std::net::Ipv4Addr::LOCALHOST.into());
    let runtime = runtime();
    let mut group = criterion.benchmark_group("process");
    group.throughput(Throughput::Elements(SPANS_PER_REQUEST as u64));
    let cases = [
        ("resource", "resource: {attributes: [{key: deployment.environment, value: prod, action: upsert}]}"),
        (
            "attributes",
            "attributes: {actions: [{key: http.route, action: delete}, {key: team, value: shop, action: insert}]}",
        ),
        ("probabilistic_sampler", "probabilistic_sampler: {sampling_percentage: 50}"),
        ("k8s_attributes", "k8s_attributes: {passthrough: true}"),
        ("filter, nothing goes", r#"filter: {trace_conditions: ['span.attributes["http.route"] == "/healthz"']}"#),
        (
            "filter, three conditions, nothing goes",
            r#"filter: {trace_conditions: ['IsMatch(span.name, "^GET /(health|ready)z?$$")', 'span.attributes["http.route"] == "/healthz"', 'resource.attributes["service.name"] == "loadgenerator"']}"#,
        ),
        (
            "filter, every second span goes",
            r#"filter: {trace_conditions: ['span.start_time_unix_nano / 2 * 2 == span.start_time_unix_nano']}"#,
        ),
        (
            "transform, nothing changes",
            r#"transform: {trace_statements: ['set(span.name, "x") where span.attributes["absent"] != nil']}"#,
        ),
        (
            "transform, one attribute set on each span",
            r#"transform: {trace_statements: ['set(span.attributes["deployment.environment"], "prod")']}"#,
        ),
        (
            "transform, four statements on each span",
            r#"transform: {trace_statements: ['set(span.attributes["deployment.environment"], "prod")', 'set(span.name, Concat([span.attributes["http.request.method"], span.attributes["http.route"]], " ")) where span.kind == SPAN_KIND_SERVER', 'delete_key(span.attributes, "user.id")', 'replace_pattern(span.attributes["http.route"], "/[0-9]+", "/{id}")']}"#,
        ),
    ];
    for (name, processor) in cases {
        let chain = runtime.block_on(chain(processor));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let scanned = scanned.clone();
                runtime.block_on(chain.process(black_box(request.clone()), scanned, &client)).unwrap()
            });
        });
    }
    group.finish();
}

/// The chain of a pipeline with one processor, given as its line in the configuration.
async fn chain(processor: &str) -> Chain {
    let kind = processor.split(':').next().unwrap();
    let text = format!(
        "receivers: {{otlp: {{protocols: {{http: }}}}}}\nprocessors:\n  {processor}\nexporters: {{debug: }}\n\
         service: {{pipelines: {{traces: {{receivers: [otlp], processors: [{kind}], exporters: [debug]}}}}}}\n"
    );
    let sources = [Source::Text { name: "bench".to_owned(), text }];
    let input = Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Refused };
    let config: Config<Components> = config::load(&input).map_err(|errors| errors.lines()).unwrap().config;
    let settings: Vec<_> = config.processors.values().map(|component| &component.settings).collect();
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    Chain::build(&settings, &Surroundings::default(), &tasks, &shutdown).await.unwrap()
}

fn append_requests(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder);
    let pipeline = runtime.block_on(spool.pipeline("traces")).unwrap();
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(SPANS_PER_REQUEST as u64 * CONCURRENT_APPENDS));
    let mut next = 0;
    group.bench_function("32 requests, one group commit", |bencher| {
        bencher.iter_batched(
            || {
                next += CONCURRENT_APPENDS;
                (next..next + CONCURRENT_APPENDS).map(|number| prepared(pipeline, number)).collect::<Vec<_>>()
            },
            |appends| {
                runtime.block_on(async {
                    let waiting: Vec<_> = appends
                        .into_iter()
                        .map(|append| {
                            let spool = spool.clone();
                            tokio::spawn(async move { spool.append(append).await.unwrap() })
                        })
                        .collect();
                    for append in waiting {
                        append.await.unwrap();
                    }
                });
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
    runtime.block_on(spool.close());
}

fn forward_backlog(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder);
    let pipeline = runtime.block_on(spool.pipeline("traces")).unwrap();
    let sink = runtime.block_on(Sink::start()).unwrap();
    let consumer = spool.consumer("otlp", pipeline).unwrap();
    let (metrics, budget, delivery) = Default::default();
    let around = forward::Surroundings {
        signal: Signal::Traces,
        batch: None,
        delivery: &delivery,
        credentials: None,
        metrics: &metrics,
        budget: &budget,
    };
    let destination = Destination::build("otlp", &to(sink.port), consumer.clone(), around).unwrap();
    let mut group = criterion.benchmark_group("forward");
    group.throughput(Throughput::Elements(SPANS_PER_REQUEST as u64 * BACKLOG_REQUESTS));
    group.sample_size(10);
    let mut next = 0;
    group.bench_function("drain 200,000 spans", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..rounds {
                runtime.block_on(async {
                    fill(&spool, pipeline, next..next + BACKLOG_REQUESTS).await;
                    next += BACKLOG_REQUESTS;
                    let shutdown = CancellationToken::new();
                    let start = Instant::now();
                    let running = destination.run(shutdown.clone());
                    let drained = async {
                        while consumer.backlog().spans > 0 {
                            assert!(start.elapsed() < DRAIN_BOUND, "the backlog is not drained");
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        elapsed += start.elapsed();
                        shutdown.cancel();
                    };
                    tokio::join!(running, drained);
                });
            }
            elapsed
        });
    });
    group.finish();
    runtime.block_on(spool.close());
}

async fn fill(spool: &Spool, pipeline: PipelineId, numbers: std::ops::Range<u64>) {
    let waiting: Vec<_> = numbers
        .map(|number| {
            let (spool, append) = (spool.clone(), prepared(pipeline, number));
            tokio::spawn(async move { spool.append(append).await.unwrap() })
        })
        .collect();
    for append in waiting {
        append.await.unwrap();
    }
}

fn prepared(pipeline: PipelineId, number: u64) -> Append {
    let request = request(number);
    let scanned = scan(&request).unwrap();
    Append {
        pipeline,
        request,
        spans: scanned.spans,
        rejected: 0,
        filtered: 0,
        sampled_out: 0,
        time: TimeRange { min_start: scanned.min_start, max_end: scanned.max_end },
        keys: scanned.keys,
    }
}

fn to(port: u16) -> ExporterSettings {
    ExporterSettings::OtlpGrpc(OtlpGrpcSettings {
        endpoint: format!("127.0.0.1:{port}"),
        tls: ClientTlsSettings { insecure: true, ..ClientTlsSettings::default() },
        compression: Compression::Auto,
        headers: Vec::new(),
        balancer: Default::default(),
        authority: None,
        timeout: Duration::from_secs(30),
        retry: RetrySettings::default(),
        queue: QueueSettings::default(),
        authenticator: None,
    })
}

fn open(folder: &tempfile::TempDir) -> Spool {
    let settings = spool::Settings {
        directory: folder.path().to_owned(),
        bytes_max: 10 * 1024 * 1024 * 1024,
        age_max: None,
        free_bytes_min: 0,
        sync_interval: Duration::ZERO,
        memory: spanreel::spool::Memory::default(),
        trace_keys,
    };
    Spool::open(settings, spool::Metrics::default()).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// One pod from the JSON of its review to the JSON of the answer's patch, all of it from caches.
fn review_pod(criterion: &mut Criterion) {
    let object = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "checkout-5d4f8c7b9-", "namespace": "shop",
            "labels": {"app.kubernetes.io/name": "checkout", "pod-template-hash": "5d4f8c7b9"},
            "annotations": {"instrumentation.opentelemetry.io/inject-java": "true"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "checkout-5d4f8c7b9", "uid": "u", "controller": true,
            }],
        },
        "spec": {"containers": [{
            "name": "app", "image": "registry.example/shop/checkout:1.4.2",
            "ports": [{"containerPort": 8080}], "resources": {"limits": {"memory": "512Mi"}},
            "env": (0..20).map(|n| serde_json::json!({"name": format!("SETTING_{n}"), "value": "x"})).collect::<Vec<_>>(),
        }]},
    });
    let body = object.to_string();
    let mut catalog = Catalog::default();
    let spec = serde_json::json!({"exporter": {"endpoint": "http://spanreel.spanreel:4318"}});
    catalog.insert("shop", "default", Instrumentation::read("shop", "default", 1, spec).map(Arc::new));
    let (settings, built_in, owners) =
        (Settings::default(), Instrumentation::built_in("http://x:4318"), OwnerMap::new());
    let (no_annotations, absent) = (BTreeMap::new(), []);
    criterion.bench_function("review/pod that asks for Java", |bencher| {
        bencher.iter(|| {
            let object: serde_json::Value = serde_json::from_str(black_box(&body)).unwrap();
            let pod = Pod::deserialize(&object).unwrap();
            let request = PodRequest { pod: &pod, namespace: "shop", namespace_annotations: &no_annotations };
            let view =
                View { settings: &settings, catalog: &catalog, built_in: &built_in, owners: &owners, absent: &absent };
            let decision = inject::decide(&request, &view);
            let patch = inject::patch(&object, &pod, decision.pod.as_ref().unwrap()).unwrap();
            serde_json::to_string(&patch).unwrap()
        });
    });
}

criterion_group!(
    parts,
    scan_request,
    hear_request,
    count_request,
    process_request,
    append_requests,
    forward_backlog,
    review_pod
);
criterion_main!(parts);
