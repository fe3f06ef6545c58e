//! Our judgement of configurations beside a real Collector's: `otelcol validate` on every file under `tests/data/config`,
//! and on every line of `snippets.txt` there.

use super::config::{Case, cases, load_merged};
use crate::support::otelcol;
use std::process::Command;

/// Why the Collector refuses what loads here, by design.
const DEPARTURES: [&str; 3] = [
    // The store keeps traces with or without a destination.
    "no exporter configuration specified in config",
    "must have at least one exporter",
    // Gone from the Collector, and still in every tutorial.
    "'migration.MetricsConfigV030' has invalid keys: address",
];

/// The Collector beside us was built without something, or never had it: there is nothing to compare.
const NOT_BUILT_IN: &str = "unknown type";

/// Refused here when they are read. The Collector looks at the policies of `tail_sampling` only when it starts.
const REFUSED_AT_START: [&str; 1] = ["invalid/tail_sampling.yaml"];

/// Fewer would mean that the comparison has lost its object.
const COMPARED_MIN: usize = 75;

/// What the Collector says; empty if it is content.
fn otelcol_says(case: &Case) -> String {
    let mut command = Command::new(otelcol::binary());
    command.arg("validate").env_clear().envs(&case.env);
    for path in case.paths() {
        command.arg("--config").arg(path);
    }
    for set in &case.sets {
        command.args(["--set", set]);
    }
    let output = command.output().expect("otelcol runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { String::new() } else { said }
}

fn is_departure(said: &str) -> bool {
    let lines = said.lines().map(|line| line.trim_start_matches("Error: ").trim());
    let mut reasons = lines.filter(|line| !line.is_empty() && !line.ends_with("error(s):")).peekable();
    reasons.peek().is_some() && reasons.all(|line| DEPARTURES.iter().any(|departure| line.contains(departure)))
}

#[test]
fn what_loads_here_is_what_a_collector_finds_valid() {
    let (mut compared, mut wrong) = (0, String::new());
    for case in ["valid", "invalid", "real"].into_iter().flat_map(cases) {
        let loads = case.said().0;
        let said = otelcol_says(&case);
        if said.contains(NOT_BUILT_IN) {
            continue;
        }
        compared += 1;
        let is_later = REFUSED_AT_START.iter().any(|path| case.path.ends_with(path));
        if is_later && !loads && said.is_empty() {
            continue;
        }
        if loads != said.is_empty() && !(loads && is_departure(&said)) {
            wrong.push_str(&format!("\n{} loads: {loads}; otelcol: {said}", case.path.display()));
        }
    }
    assert!(wrong.is_empty(), "the Collector judges differently:{wrong}");
    assert!(compared >= COMPARED_MIN, "{compared}");
}

/// What each snippet is merged into: with nothing of its own it is valid.
const SNIPPETS_BASE: &str = "
receivers: {otlp: {protocols: {grpc: }}}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
";
const SNIPPETS: &str = include_str!("../data/config/snippets.txt");

fn otelcol_takes(snippet: &str) -> bool {
    let mut command = Command::new(otelcol::binary());
    command.arg("validate").env_clear();
    for text in [SNIPPETS_BASE, snippet] {
        command.arg("--config").arg(format!("yaml:{text}"));
    }
    command.output().expect("otelcol runs").status.success()
}

/// Each line is a judgement and a snippet: `ok` and `bad` are the Collector's and ours; behind `stricter` and `looser` we
/// refuse and take what it does not, for the reason that the comment above says.
#[test]
fn rarer_fields_are_judged_as_a_collector_judges_them() {
    let lines: Vec<&str> = SNIPPETS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let check = |line: &&str| {
        let (judgement, snippet) = line.split_once(' ').expect("a judgement and a snippet");
        let ours = load_merged(&[SNIPPETS_BASE, snippet.trim()]);
        let judged = match (ours.is_ok(), otelcol_takes(snippet.trim())) {
            (true, true) => "ok",
            (false, false) => "bad",
            (false, true) => "stricter",
            (true, false) => "looser",
        };
        let said = ours.err().unwrap_or_default();
        (judged != judgement).then(|| format!("\n{judged} {}\n  {said}", snippet.trim()))
    };
    let (left, right) = lines.split_at(lines.len() / 2);
    let judge = |lines: &[&str]| lines.iter().filter_map(check).collect::<String>();
    let wrong = std::thread::scope(|scope| {
        let right = scope.spawn(|| judge(right));
        judge(left) + &right.join().expect("judged")
    });
    assert!(wrong.is_empty(), "these are judged differently:{wrong}");
}
