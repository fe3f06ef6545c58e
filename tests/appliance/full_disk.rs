//! Promise 1 on a full disk: intake is refused so that clients try again, queries go on, nothing acknowledged is lost,
//! and intake comes back by itself with the space.
//!
//! The disk is a tmpfs of its own, which only root may mount.

use crate::support::compression::Compression;
use crate::support::eventually;
use crate::support::metrics::Metrics;
use crate::support::otlp::{Answer, Client, Protocol};
use crate::support::spanreel::{Options, PIPELINE, Spanreel};
use crate::support::traces::{Traces, attribute, hex, noise};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::any_value::Value;

const DISK_MIB: u64 = 192;
const TRACES_PER_REQUEST: u64 = 20;
/// Makes each request large enough to fill the disk within seconds, and does not compress.
const NOISE_BYTES: usize = 8 * 1024;
/// Within this time of the space going or coming back, intake follows.
const REACTION_BOUND: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_free_space_to_keep_intake_is_refused_and_comes_back() {
    let disk = Disk::mount(DISK_MIB);
    // What else lies on the disk: when it goes, there is room again.
    let ballast = disk.fill_all_but(96);
    let mut run = Run::start(&disk, "{min_free_mib: 32}").await;
    let traces = Traces { seed: 0x6675_6c6c, spans_per_trace: 1 };

    run.send_until_refused(traces).await;
    assert!(disk.free_mib() >= 8, "the free space was to be kept, {} MiB are left", disk.free_mib());
    run.assert_refused_retryably(traces).await;
    run.assert_all_readable(traces).await;

    std::fs::remove_file(ballast).unwrap();
    run.assert_taken_again(traces).await;
    run.assert_all_readable(traces).await;

    // And over a restart that nobody prepared.
    run.spanreel.kill();
    run.spanreel.start_again().await;
    run.assert_all_readable(traces).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_left_on_the_disk_loses_nothing() {
    let disk = Disk::mount(DISK_MIB);
    // No reserve: it is the write itself that fails.
    let mut run = Run::start(&disk, "{min_free_mib: 0}").await;
    let traces = Traces { seed: 0x656d_7074, spans_per_trace: 1 };
    run.send(traces, Protocol::Grpc).await.expect("the disk is empty");

    // Someone else takes all there is, at once, while the spool is open.
    let ballast = disk.fill_all_but(0);
    run.send_until_refused(traces).await;
    run.assert_refused_retryably(traces).await;
    run.assert_all_readable(traces).await;

    std::fs::remove_file(ballast).unwrap();
    run.assert_taken_again(traces).await;
    run.spanreel.kill();
    run.spanreel.start_again().await;
    run.assert_all_readable(traces).await;
}

/// Retention by free space on a disk that really runs out: the oldest runs go, counted, so that intake is never refused for
/// history.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_of_space_the_oldest_runs_go_and_intake_goes_on() {
    let disk = Disk::mount(DISK_MIB);
    // What is older than a quarter of the spool's age is sealed; the rest of it is for a slow machine.
    let mut run = Run::start(&disk, "{min_free_mib: 32, max_age: 24s}").await;
    let traces = Traces { seed: 0x7370_6163, spans_per_trace: 1 };
    let sum = |metrics: &Metrics, name: &str| metrics.sum(name, &[]).unwrap_or_default();
    // The oldest run, and one behind it.
    for runs in 1..=2 {
        for _ in 0..20 {
            run.send(traces, Protocol::Grpc).await.expect("there is room");
        }
        eventually("a run is sealed", Duration::from_secs(60), async || {
            sum(&run.spanreel.metrics().await, "spanreel_store_sealed_spans_total") >= f64::from(runs * 20 * 20)
        })
        .await;
    }
    let ballast = disk.fill_all_but(44);
    eventually("a run is dropped", Duration::from_secs(60), async || {
        let reason = [("reason", "free_space")];
        run.spanreel.metrics().await.sum("spanreel_store_dropped_spans_total", &reason) > Some(0.0)
    })
    .await;
    run.send(traces, Protocol::Grpc).await.expect("intake goes on");
    let mut query = run.spanreel.query().await;
    assert!(query.spans(traces.id(0)).await.unwrap().is_empty(), "the oldest goes first");
    eventually("each drop is counted", Duration::from_secs(60), async || {
        let metrics = run.spanreel.metrics().await;
        let in_runs = sum(&metrics, "spanreel_store_spans") + sum(&metrics, "spanreel_store_dropped_spans_total");
        (in_runs - sum(&metrics, "spanreel_store_sealed_spans_total")).abs() < 0.5
    })
    .await;
    std::fs::remove_file(ballast).unwrap();
}

/// An appliance with its data on the small disk, and what it has acknowledged.
struct Run {
    spanreel: Spanreel,
    acknowledged: Vec<u64>,
    next: u64,
}

impl Run {
    async fn start(disk: &Disk, spool: &str) -> Self {
        let options = Options {
            data: Some(disk.path().join("data")),
            appliance: vec![format!("spool: {spool}")],
            ..Options::default()
        };
        Self { spanreel: Spanreel::start(&options).await, acknowledged: Vec::new(), next: 0 }
    }

    /// One request of new traces; noted if acknowledged, the answer otherwise.
    async fn send(&mut self, traces: Traces, protocol: Protocol) -> Result<(), Answer> {
        let indices = self.next..self.next + TRACES_PER_REQUEST;
        self.next = indices.end;
        let mut request = traces.request("full-disk", indices.clone());
        let spans = request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
        for (number, span) in spans.flat_map(|scope| &mut scope.spans).enumerate() {
            let noise = noise(indices.start + number as u64, NOISE_BYTES);
            span.attributes.push(attribute("noise", Value::StringValue(noise)));
        }
        let mut client = Client::connect(self.spanreel.ports.of(protocol), protocol).await.unwrap();
        let answer = client.export(&request, Compression::Identity).await.unwrap();
        if answer.is_ok() {
            self.acknowledged.extend(indices);
            return Ok(());
        }
        Err(answer)
    }

    async fn send_until_refused(&mut self, traces: Traces) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.send(traces, Protocol::HttpProtobuf).await.is_ok() {
            assert!(Instant::now() < deadline, "a full disk was never noticed");
        }
    }

    async fn assert_refused_retryably(&mut self, traces: Traces) {
        for protocol in Protocol::ALL {
            let answer = self.send(traces, protocol).await.expect_err("the disk is full");
            assert!(answer.is_retryable(), "{protocol:?}: a client would drop the data: {answer:?}");
            assert!(answer.retry_after.is_some(), "{protocol:?}: neither RetryInfo nor Retry-After: {answer:?}");
        }
        assert!(self.spanreel.process().ended().is_none(), "a full disk ended the process");
    }

    async fn assert_taken_again(&mut self, traces: Traces) {
        let deadline = Instant::now() + REACTION_BOUND;
        while let Err(answer) = self.send(traces, Protocol::Grpc).await {
            assert!(Instant::now() < deadline, "there is room again, still refused: {answer:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for protocol in Protocol::ALL {
            self.send(traces, protocol).await.unwrap_or_else(|answer| panic!("{protocol:?}: {answer:?}"));
        }
    }

    async fn assert_all_readable(&mut self, traces: Traces) {
        let ledger = self.spanreel.ledger().await;
        ledger.assert_balanced();
        let spans = (self.acknowledged.len() * traces.spans_per_trace) as u64;
        assert!(ledger.pipeline(PIPELINE).stored >= spans, "{spans} spans were acknowledged: {ledger:#?}");
        let mut query = self.spanreel.query().await;
        let ids = self.acknowledged.iter().map(|index| traces.id(*index));
        let missing = query.missing(ids, traces.spans_per_trace).await.unwrap();
        assert!(missing.is_empty(), "{} of {} traces are gone, e.g. {}", missing.len(), spans, hex(&missing[0]));
    }
}

/// A tmpfs on a temporary folder, gone with its owner.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn mount(mib: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "spanreel-full-disk"])
            .arg(folder.path())
            .output()
            .expect("mount(8) is there");
        assert!(
            output.status.success(),
            "this test needs a small disk of its own and may not mount a tmpfs; run it as root: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    fn free_mib(&self) -> u64 {
        self.free_bytes() / (1024 * 1024)
    }

    /// Writes one file so large that only `mib` stay free.
    fn fill_all_but(&self, mib: u64) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        let block = vec![1; 64 * 1024];
        while self.free_bytes() > mib * 1024 * 1024 {
            // Meanwhile the appliance writes as well: no space left is what was wanted.
            if file.write_all(&block).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the process that uses it may be dropped later.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
