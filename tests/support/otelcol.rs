//! A real OpenTelemetry Collector, as destination and as peer.

use super::http;
use super::metrics::Metrics;
use super::ports;
use super::process::Process;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const READY_BOUND: Duration = Duration::from_secs(60);

/// What a configuration for [`Otelcol::start`] may leave open: `$GRPC`, `$HTTP`, `$METRICS`, `$HEALTH` and `$FOLDER`
/// are replaced by free ports and a temporary folder.
pub const PRINT_EVERYTHING: &str = include_str!("../otelcol/print-everything.yaml");

pub struct Otelcol {
    pub grpc: u16,
    pub http: u16,
    metrics: u16,
    health: u16,
    config: PathBuf,
    log: PathBuf,
    /// Variables that it gets besides its own environment.
    pub environment: Vec<(&'static str, String)>,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

impl Otelcol {
    /// Starts it with this configuration and waits until its health check is content.
    pub async fn start(config: &str) -> Self {
        let mut otelcol = Self::prepare(config);
        otelcol.start_again().await;
        otelcol
    }

    /// Chooses the ports and writes the configuration, starts nothing: a destination that is away.
    pub fn prepare(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [grpc, http, metrics, health] = std::array::from_fn(|_| ports::free());
        let path = folder.path().join("config.yaml");
        let text = config
            .replace("$GRPC", &grpc.to_string())
            .replace("$HTTP", &http.to_string())
            .replace("$METRICS", &metrics.to_string())
            .replace("$HEALTH", &health.to_string())
            .replace("$FOLDER", &folder.path().to_string_lossy());
        std::fs::write(&path, text).expect("the temporary folder is writable");
        let log = folder.path().join("otelcol.log");
        Self { grpc, http, metrics, health, config: path, log, environment: Vec::new(), process: None, folder }
    }

    pub async fn start_again(&mut self) {
        let mut command = Command::new(binary());
        command.arg("--config").arg(&self.config).current_dir(self.folder.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start("otelcol", command, &self.log));
        let deadline = Instant::now() + READY_BOUND;
        let health = self.health;
        while !http::get(health, "/", &[]).await.is_ok_and(|response| response.status == 200) {
            let process = self.process();
            let ended = process.ended();
            assert!(ended.is_none(), "otelcol ended: {ended:?}\n{}", process.last_lines());
            assert!(Instant::now() < deadline, "otelcol is not ready\n{}", process.last_lines());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the process was started")
    }

    pub fn kill(&mut self) {
        self.process().kill();
    }

    /// Its own metrics; counters that were never raised are absent.
    pub async fn metrics(&self) -> Metrics {
        Metrics::scrape(self.metrics).await.expect("otelcol's /metrics answers")
    }

    /// Spans that its receiver took since it was started.
    pub async fn accepted_spans(&self) -> u64 {
        self.counter("otelcol_receiver_accepted_spans").await
    }

    /// Spans that its exporters delivered since it was started.
    pub async fn sent_spans(&self) -> u64 {
        self.counter("otelcol_exporter_sent_spans").await
    }

    async fn counter(&self, name: &str) -> u64 {
        let metrics = self.metrics().await;
        let total = format!("{name}_total");
        metrics.sum(name, &[]).or_else(|| metrics.sum(&total, &[])).unwrap_or(0.0) as u64
    }

    /// The attributes of the resource that its `debug` exporter printed last, where they are texts.
    pub fn printed_resource(&self) -> BTreeMap<String, String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let block = log.rsplit("Resource attributes:").next().unwrap_or_default();
        let lines = block.lines().skip(1).map_while(|line| line.trim().strip_prefix("-> "));
        lines
            .filter_map(|line| {
                let (key, value) = line.split_once(": ")?;
                Some((key.to_owned(), value.strip_prefix("Str(")?.strip_suffix(')')?.to_owned()))
            })
            .collect()
    }

    /// Every trace that its `debug` exporter printed, with the number of spans (of [`PRINT_EVERYTHING`]).
    pub fn printed_traces(&self) -> BTreeMap<String, usize> {
        let mut traces = BTreeMap::new();
        for line in std::fs::read_to_string(&self.log).unwrap_or_default().lines() {
            if let Some(id) = line.trim_start().strip_prefix("Trace ID") {
                *traces.entry(id.trim_start_matches([' ', ':']).to_owned()).or_default() += 1;
            }
        }
        traces
    }
}

/// The binary of `.ci/otelcol`, built on first use if it is not there yet.
pub fn binary() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| built_by(".ci/otelcol"))
}

/// The path that one of the scripts in `.ci` prints.
pub fn built_by(script: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(&path).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{} cannot be run: {error}", path.display()));
    assert!(output.status.success(), "{} failed", path.display());
    String::from_utf8(output.stdout).expect("a path in UTF-8").trim().to_owned()
}
