//! The real binary: started with a configuration of its own, stopped, killed, started again on the same data.

use super::http;
use super::ledger::Ledger;
use super::metrics::Metrics;
use super::otlp::Protocol;
use super::ports;
use super::process::Process;
use super::query::Query;
use rustix::process::Signal;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// From the start of the process to `/ready`. The goal is 300 ms; a loaded test machine gets more.
const READY_BOUND: Duration = Duration::from_secs(30);
/// The promise: an ordered stop takes at most 10 s.
pub const STOP_BOUND: Duration = Duration::from_secs(10);
/// The name of the one pipeline of [`Options`].
pub const PIPELINE: &str = "traces";

/// What differs from an appliance with one `otlp` receiver, one pipeline and no destination.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where data lies; default: a temporary folder that goes with the [`Spanreel`].
    pub data: Option<PathBuf>,
    /// Receivers beside `otlp`: component id and its settings as YAML in one line.
    pub receivers: Vec<(String, String)>,
    /// Destinations: component id and its settings as YAML in one line, e.g. `("otlp/tempo", "{endpoint: ...}")`.
    pub exporters: Vec<(String, String)>,
    /// Processors in the order of the pipeline, as `exporters`.
    pub processors: Vec<(String, String)>,
    /// Extensions beside `spanreel`: component id and its settings as YAML in one line.
    pub extensions: Vec<(String, String)>,
    /// Lines under `extensions::spanreel`, e.g. `spool: {min_free_mib: 8}`.
    pub appliance: Vec<String>,
    /// Lines under `receivers::otlp::protocols::http`.
    pub http: Vec<String>,
    /// Lines under `receivers::otlp::protocols::grpc`.
    pub grpc: Vec<String>,
    /// Further arguments of `spanreel run`, e.g. `--kubeconfig` and its file.
    pub arguments: Vec<String>,
}

impl Options {
    /// With a destination that speaks OTLP/gRPC in the clear at a port of this machine.
    pub fn with_grpc_destination(mut self, id: &str, port: u16) -> Self {
        // Short waits, so that a test of an outage does not wait half a minute for the next attempt.
        let settings = format!(
            "{{endpoint: '127.0.0.1:{port}', tls: {{insecure: true}}, \
             retry_on_failure: {{initial_interval: 200ms, max_interval: 1s}}}}"
        );
        self.exporters.push((id.to_owned(), settings));
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub grpc: u16,
    pub http: u16,
    pub query: u16,
}

impl Ports {
    fn free() -> Self {
        Self { grpc: ports::free(), http: ports::free(), query: ports::free() }
    }

    /// The port at which a client of this protocol knocks by default.
    pub fn of(&self, protocol: Protocol) -> u16 {
        match protocol {
            Protocol::Grpc => self.grpc,
            Protocol::HttpProtobuf | Protocol::HttpJson => self.http,
        }
    }
}

/// One appliance: its ports and data stay the same over restarts.
pub struct Spanreel {
    pub ports: Ports,
    pub data: PathBuf,
    config: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
    /// Holds configuration, log and, by default, data.
    _folder: tempfile::TempDir,
}

impl Spanreel {
    /// Starts it and waits until it says that it is ready.
    pub async fn start(options: &Options) -> Self {
        let mut spanreel = Self::prepare(options);
        spanreel.start_again().await;
        spanreel
    }

    /// Writes the configuration, starts nothing.
    pub fn prepare(options: &Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ports = Ports::free();
        let config = folder.path().join("config.yaml");
        std::fs::write(&config, config_text(options, ports)).expect("the temporary folder is writable");
        Self {
            ports,
            data: options.data.clone().unwrap_or_else(|| folder.path().join("data")),
            config,
            arguments: options.arguments.clone(),
            log: folder.path().join("spanreel.log"),
            process: None,
            _folder: folder,
        }
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = binary();
        command.arg("run").arg("--config").arg(&self.config).arg("--data").arg(&self.data);
        command.args(&self.arguments);
        command
    }

    /// Starts the process without waiting for anything.
    pub fn spawn(&mut self) -> &mut Process {
        self.process = Some(Process::start("spanreel", self.command(), &self.log));
        self.process()
    }

    /// Starts it (again) and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.spawn();
        let deadline = Instant::now() + READY_BOUND;
        loop {
            let query = self.ports.query;
            let process = self.process();
            if let Some(status) = process.ended() {
                panic!("spanreel ended before it was ready: {status}\n{}", process.last_lines());
            }
            if http::get(query, "/ready", &[]).await.is_ok_and(|response| response.status == 200) {
                return;
            }
            assert!(Instant::now() < deadline, "not ready within {READY_BOUND:?}\n{}", process.last_lines());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the process was started")
    }

    /// Everything that it has written so far, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process().kill();
    }

    /// SIGTERM, and the exit status of the ordered stop.
    pub fn stop(&mut self) -> ExitStatus {
        self.process().signal(Signal::TERM);
        self.process().wait(STOP_BOUND)
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics::scrape(self.ports.query).await.expect("/metrics answers")
    }

    pub async fn ledger(&self) -> Ledger {
        Ledger::of(&self.metrics().await)
    }

    pub async fn query(&self) -> Query {
        Query::open(self.ports.query).await.expect("the query port takes connections")
    }

    /// Waits until a destination has nothing queued any more; the ledger at that moment.
    pub async fn drained(&self, destination: &str, bound: Duration) -> Ledger {
        let deadline = Instant::now() + bound;
        loop {
            let ledger = self.ledger().await;
            let delivery = ledger.destination(destination);
            if delivery.queued == 0 && delivery.sent + delivery.expired > 0 {
                return ledger;
            }
            assert!(Instant::now() < deadline, "{destination} is not drained within {bound:?}: {ledger:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The binary under test, without anything of this environment that would steer it.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spanreel"));
    command.env_remove("RUST_LOG").env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
    command
}

fn config_text(options: &Options, ports: Ports) -> String {
    let mut text = String::new();
    let lines = |out: &mut String, indent: usize, lines: &[String]| {
        for line in lines {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{:indent$}{line}", "");
        }
    };
    let named = |list: &[(String, String)]| -> Vec<String> {
        list.iter().map(|(id, settings)| format!("{id}: {settings}")).collect()
    };
    let ids = |list: &[(String, String)]| list.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", ");
    text.push_str("extensions:\n  spanreel:\n");
    lines(&mut text, 4, &[format!("query_endpoint: 127.0.0.1:{}", ports.query)]);
    lines(&mut text, 4, &options.appliance);
    lines(&mut text, 2, &named(&options.extensions));
    text.push_str("receivers:\n  otlp:\n    protocols:\n      grpc:\n");
    lines(&mut text, 8, &[format!("endpoint: 127.0.0.1:{}", ports.grpc)]);
    lines(&mut text, 8, &options.grpc);
    text.push_str("      http:\n");
    lines(&mut text, 8, &[format!("endpoint: 127.0.0.1:{}", ports.http)]);
    lines(&mut text, 8, &options.http);
    lines(&mut text, 2, &named(&options.receivers));
    for (section, list) in [("processors", &options.processors), ("exporters", &options.exporters)] {
        if !list.is_empty() {
            let _ = writeln!(text, "{section}:");
            lines(&mut text, 2, &named(list));
        }
    }
    // The Collector's own metrics would be served on one fixed port, 8888, by every instance.
    let extensions: String = options.extensions.iter().map(|(id, _)| format!(", {id}")).collect();
    let _ = writeln!(text, "service:\n  extensions: [spanreel{extensions}]");
    text.push_str("  telemetry: {metrics: {level: none}}\n  pipelines:\n");
    let receivers: String = options.receivers.iter().map(|(id, _)| format!(", {id}")).collect();
    let _ = writeln!(text, "    {PIPELINE}:\n      receivers: [otlp{receivers}]");
    let _ = writeln!(text, "      processors: [{}]", ids(&options.processors));
    let _ = writeln!(text, "      exporters: [{}]", ids(&options.exporters));
    text
}
