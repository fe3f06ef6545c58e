//! Our judgement of configurations beside a real Collector's: `otelcol validate` on every file under `tests/data/config`.

use super::config::{Case, cases};
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
