//! A real Prometheus (Debian's), as scraper, as remote-write receiver, and as judge of queries and rules.

use super::http::{self, Connection};
use super::ports;
use super::process::Process;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const READY_BOUND: Duration = Duration::from_secs(60);

pub struct Prometheus {
    pub port: u16,
    _process: Process,
    _folder: tempfile::TempDir,
}

/// One series of an answer.
#[derive(Debug, Clone)]
pub struct Sample {
    pub labels: Value,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> &str {
        self.labels[name].as_str().unwrap_or_default()
    }
}

impl Prometheus {
    /// One that scrapes these ports of this machine twice a second, and takes remote writes.
    pub async fn start(scraped: &[u16]) -> Self {
        Self::start_on(ports::free(), scraped).await
    }

    /// The same, at a port of one's own choice.
    pub async fn start_on(port: u16, scraped: &[u16]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let targets: Vec<String> = scraped.iter().map(|port| format!("'127.0.0.1:{port}'")).collect();
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\n\
             scrape_configs:\n- job_name: spanreel\n  static_configs: [{{targets: [{}]}}]\n",
            targets.join(", ")
        );
        let path = folder.path().join("prometheus.yml");
        std::fs::write(&path, config).expect("the temporary folder is writable");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--enable-feature=exemplar-storage")
            .arg("--web.enable-remote-write-receiver")
            .current_dir(folder.path());
        let mut process = Process::start("prometheus (installed by .ci/tools)", command, &folder.path().join("log"));
        let deadline = Instant::now() + READY_BOUND;
        while !http::get(port, "/-/ready", &[]).await.is_ok_and(|response| response.status == 200) {
            assert!(process.ended().is_none(), "prometheus ended\n{}", process.last_lines());
            assert!(Instant::now() < deadline, "prometheus is not ready\n{}", process.last_lines());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { port, _process: process, _folder: folder }
    }

    /// The answer to an instant query; panics if Prometheus refuses it.
    pub async fn query(&self, query: &str) -> Vec<Sample> {
        let answer = self.ask("/api/v1/query", &[("query", query)]).await;
        let series = answer["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
        let sample = |series: &Value| Sample {
            labels: series["metric"].clone(),
            value: series["value"][1].as_str().expect("a number as text").parse().expect("a number"),
        };
        series.iter().map(sample).collect()
    }

    /// Waits until the query's answer fits.
    pub async fn until(&self, query: &str, bound: Duration, fits: impl Fn(&[Sample]) -> bool) -> Vec<Sample> {
        let deadline = Instant::now() + bound;
        loop {
            let answer = self.query(query).await;
            if fits(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{query} answers for {bound:?} only: {answer:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The label sets of exemplars of a query, of the last hour.
    pub async fn exemplars(&self, query: &str) -> Vec<Value> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("past 1970").as_secs();
        let (start, end) = ((now - 3_600).to_string(), (now + 60).to_string());
        let answer = self.ask("/api/v1/query_exemplars", &[("query", query), ("start", &start), ("end", &end)]).await;
        let series = answer.as_array().expect("a list of series");
        series
            .iter()
            .flat_map(|it| it["exemplars"].as_array().expect("a list"))
            .map(|it| it["labels"].clone())
            .collect()
    }

    /// What Prometheus says about a target's last scrape: empty if it went well.
    pub async fn scrape_errors(&self) -> Vec<String> {
        let answer = self.ask("/api/v1/targets", &[]).await;
        let targets = answer["activeTargets"].as_array().expect("a list of targets");
        let errors = targets.iter().map(|target| target["lastError"].as_str().unwrap_or_default().to_owned());
        errors.filter(|error| !error.is_empty()).collect()
    }

    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let encoded: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let mut connection = Connection::open(self.port).await.expect("prometheus takes connections");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let (method, path, body) = match path {
            "/api/v1/targets" => (http_method("GET"), path, String::new()),
            _ => (http_method("POST"), path, encoded.join("&")),
        };
        let response = connection.send(method, path, &headers, body.into()).await.expect("prometheus answers");
        let answer: Value = serde_json::from_slice(&response.body).expect("JSON");
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        answer["data"].clone()
    }
}

fn http_method(name: &str) -> ::http::Method {
    name.parse().expect("a method")
}

/// For a form.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// What `promtool check rules` says about a file; panics unless it is content.
pub fn check_rules(path: &Path) {
    let output = Command::new("promtool").args(["check", "rules"]).arg(path).output();
    let output = output.expect("promtool runs (installed by .ci/tools with prometheus)");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
}
