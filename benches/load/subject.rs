//! What the load is put on, and what is read from it.

use crate::cluster::Cluster;
use crate::driver::{self, Plan, Sent};
use crate::payload::{self, SERVICES, SPANS_PER_TRACE_AND_SERVICE};
use crate::processors::{Chain, K8S, NONE};
use crate::sink::Sink;
use crate::support::otelcol::Otelcol;
use crate::support::otlp::Protocol;
use crate::support::process::Process;
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use std::time::{Duration, Instant};

const MEMORY_QUEUE: &str = include_str!("../../tests/otelcol/walkthrough.yaml");
const FILE_STORAGE: &str = include_str!("../../tests/otelcol/file-storage.yaml");
/// After the load, until the destination has everything.
const DRAIN_BOUND: Duration = Duration::from_secs(300);
/// Without news from the sink for this long, forwarding is over (the walk-through's batch waits up to 10 s).
const SILENCE: Duration = Duration::from_secs(25);
/// The same where the batch waits up to 1 s, and tail sampling 1 s.
const SHORT_SILENCE: Duration = Duration::from_secs(3);
/// Traces read back by id after a run, spread over all of it.
const SAMPLE_TRACES: u64 = 2_000;

/// What the load goes through.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    pub chain: Chain,
    /// The walk-through's batch, which waits up to 10 s; otherwise 1 s.
    pub waits_long: bool,
    /// Where the subject runs.
    pub cluster: Option<&'a Cluster>,
}

impl Default for Path<'_> {
    fn default() -> Self {
        Self { chain: NONE, waits_long: true, cluster: None }
    }
}

impl Path<'_> {
    fn batch_timeout(self) -> &'static str {
        if self.waits_long { "10s" } else { "1s" }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Spanreel,
    /// Without a store and without metrics from spans: what a Collector does, and durable.
    SpanreelEdge,
    /// The walk-through's configuration: the queue in memory.
    Otelcol,
    /// The queue on disk, synced at each write or not.
    OtelcolFileStorage {
        fsync: bool,
    },
}

/// One run on one subject.
pub struct Measured {
    pub subject: Subject,
    pub sent: Sent,
    /// User and system time from before the load until everything was forwarded.
    pub user: Duration,
    pub system: Duration,
    pub peak_memory: u64,
    pub idle_memory: u64,
    pub written_bytes: u64,
    /// From the last acknowledgement until the destination had everything.
    pub drain: Duration,
    pub forwarded_spans: u64,
    pub forwarded_requests: u64,
    pub forwarded_bytes: u64,
    /// Traces that were looked up by id and were complete, if the subject can be asked.
    pub traces_checked: Option<u64>,
}

impl Measured {
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

/// What `/proc` said before the load.
struct Before {
    user: Duration,
    system: Duration,
    written_bytes: u64,
    memory: u64,
}

impl Subject {
    pub fn from_name(name: &str) -> Result<Self, String> {
        Ok(match name {
            "spanreel" => Self::Spanreel,
            "spanreel-edge" => Self::SpanreelEdge,
            "otelcol" => Self::Otelcol,
            "otelcol-fsync" => Self::OtelcolFileStorage { fsync: true },
            "otelcol-file" => Self::OtelcolFileStorage { fsync: false },
            other => return Err(format!("unknown subject {other:?}")),
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Spanreel => "Spanreel, fsync",
            Self::SpanreelEdge => "Spanreel, fsync, without store and metrics from spans",
            Self::Otelcol => "otelcol, walk-through config, queue in memory",
            Self::OtelcolFileStorage { fsync: true } => "otelcol, file_storage, fsync",
            Self::OtelcolFileStorage { fsync: false } => "otelcol, file_storage, no fsync",
        }
    }

    /// One run of the walk-through's pipeline.
    pub async fn measure(self, plan: Plan) -> Measured {
        let path = Path::default();
        let mut running = self.start(path).await;
        let before = before(running.program.process()).await;
        let sent = driver::drive(running.port(plan.protocol), plan).await;
        let drain = drained(&running.sink, sent.spans, path).await;
        let mut measured = self.result(before, running.program.process(), sent, drain, &running.sink);
        running.check(measured.sent.spans).await;
        if let (Self::Spanreel, Program::Spanreel(spanreel)) = (self, &running.program) {
            measured.traces_checked = Some(check_sample(spanreel, plan, &measured.sent).await);
        }
        measured
    }

    /// Starts it, with a destination of its own.
    pub async fn start(self, path: Path<'_>) -> Running {
        let sink = Sink::start().await.expect("the sink listens");
        let program = match self {
            Self::Spanreel | Self::SpanreelEdge => {
                let mut options = Options::default().with_grpc_destination("otlp", sink.port);
                let batch = format!("{{send_batch_size: 10000, timeout: {}}}", path.batch_timeout());
                let around = [
                    ("memory_limiter", "{check_interval: 1s, limit_percentage: 75, spike_limit_percentage: 15}"),
                    ("batch", batch.as_str()),
                ];
                let chain = [&around[..1], path.chain.processors, &around[1..]].concat();
                options.processors = chain.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect();
                if self == Self::SpanreelEdge {
                    options.appliance.push("store: {enabled: false}".to_owned());
                    options.appliance.push("metrics_from_spans: {enabled: false}".to_owned());
                }
                if let Some(cluster) = path.cluster {
                    cluster.join(&mut options);
                }
                Program::Spanreel(Spanreel::start(&options).await)
            }
            Self::Otelcol | Self::OtelcolFileStorage { .. } => {
                let config = match self {
                    Self::OtelcolFileStorage { fsync } => {
                        FILE_STORAGE.replace("$FSYNC", if fsync { "true" } else { "false" })
                    }
                    _ => with_chain(MEMORY_QUEUE, path),
                };
                let mut otelcol = Otelcol::prepare(&config.replace("$DESTINATION", &sink.port.to_string()));
                otelcol.environment.extend(path.cluster.map(|cluster| ("KUBECONFIG", cluster.kubeconfig())));
                otelcol.start_again().await;
                Program::Otelcol(otelcol)
            }
        };
        Running { program, sink }
    }

    fn result(self, before: Before, process: &Process, sent: Sent, drain: Duration, sink: &Sink) -> Measured {
        let (user, system) = process.user_and_system_time();
        Measured {
            subject: self,
            sent,
            user: user - before.user,
            system: system - before.system,
            peak_memory: process.peak_memory(),
            idle_memory: before.memory,
            written_bytes: process.written_bytes() - before.written_bytes,
            drain,
            forwarded_spans: sink.spans(),
            forwarded_requests: sink.requests(),
            forwarded_bytes: sink.wire_bytes(),
            traces_checked: None,
        }
    }
}

/// A subject at work, and where it forwards to.
pub struct Running {
    program: Program,
    sink: Sink,
}

enum Program {
    Spanreel(Spanreel),
    Otelcol(Otelcol),
}

impl Program {
    fn process(&mut self) -> &mut Process {
        match self {
            Self::Spanreel(spanreel) => spanreel.process(),
            Self::Otelcol(otelcol) => otelcol.process(),
        }
    }
}

impl Running {
    fn port(&self, protocol: Protocol) -> u16 {
        match (&self.program, protocol) {
            (Program::Spanreel(spanreel), protocol) => spanreel.ports.of(protocol),
            (Program::Otelcol(otelcol), Protocol::Grpc) => otelcol.grpc,
            (Program::Otelcol(otelcol), _) => otelcol.http,
        }
    }

    /// More load, until it is forwarded: what was sent, and the CPU time of all threads for it.
    pub async fn carry(&mut self, plan: Plan, path: Path<'_>) -> (u64, Duration) {
        let before = self.program.process().thread_times();
        let forwarded = self.sink.spans();
        let sent = driver::drive(self.port(plan.protocol), plan).await;
        drained(&self.sink, forwarded + sent.spans, path).await;
        (sent.spans, self.program.process().thread_times().since(&before))
    }

    /// Of Spanreel: that all `spans` it acknowledged are in its account, and the account balances.
    pub async fn check(&self, spans: u64) {
        if let Program::Spanreel(spanreel) = &self.program {
            let ledger = spanreel.ledger().await;
            ledger.assert_balanced();
            let account = ledger.pipeline(PIPELINE);
            let known = account.stored + account.sampled_out + account.dropped;
            assert_eq!(known, spans, "the ledger: {ledger:#?}");
        }
    }
}

/// The walk-through's configuration with the chain between its processors.
fn with_chain(config: &str, path: Path<'_>) -> String {
    let mut config = config.replace("timeout: 10s", &format!("timeout: {}", path.batch_timeout()));
    for (id, settings) in path.chain.processors {
        let settings = match path.cluster {
            // Spanreel uses the access that it has anyway.
            Some(_) if *id == K8S.0 => settings.replacen('{', "{auth_type: kubeConfig, ", 1),
            _ => (*settings).to_owned(),
        };
        config = config.replace("  batch:\n", &format!("  {id}: {settings}\n  batch:\n"));
        config = config.replace(", batch]", &format!(", {id}, batch]"));
    }
    config
}

async fn before(process: &Process) -> Before {
    // Whatever it still does after its start is not the load's.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (user, system) = process.user_and_system_time();
    Before { user, system, written_bytes: process.written_bytes(), memory: process.resident_memory() }
}

/// Waits until the sink has as many spans as were acknowledged, or until nothing comes any more (the report shows the
/// difference then).
async fn drained(sink: &Sink, spans: u64, path: Path<'_>) -> Duration {
    let silence = if path.waits_long { SILENCE } else { SHORT_SILENCE };
    let start = Instant::now();
    let (mut last, mut news) = (sink.spans(), start);
    while sink.spans() < spans {
        if sink.spans() > last {
            (last, news) = (sink.spans(), Instant::now());
        }
        if news.elapsed() > silence || start.elapsed() > DRAIN_BOUND {
            if path.chain.keeps_all {
                eprintln!("forwarding stopped at {last} of {spans} spans");
            }
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

/// Reads a sample of the acknowledged traces back by id; panics if one lacks a span. Returns how many were looked up.
async fn check_sample(spanreel: &Spanreel, plan: Plan, sent: &Sent) -> u64 {
    let mut query = spanreel.query().await;
    let groups = sent.acknowledged.len() as u64;
    let mut checked = 0;
    for sample in 0..(SAMPLE_TRACES / payload::TRACES_PER_GROUP).min(groups) {
        // The first and the last group, and between them wherever chance falls.
        let group = match sample {
            0 => 0,
            1 => groups - 1,
            _ => payload::spread(sample) % groups,
        };
        let services = sent.acknowledged[group as usize].count_ones() as usize;
        debug_assert!(services <= SERVICES.len());
        for id in payload::trace_ids(plan.seed, group) {
            let spans = query.spans(id).await.expect("the query API answers").len();
            assert_eq!(spans, services * SPANS_PER_TRACE_AND_SERVICE, "an acknowledged trace is incomplete");
            checked += 1;
        }
    }
    checked
}
