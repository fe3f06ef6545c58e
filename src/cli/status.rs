//! `spanreel status`: the figures of a running process, for people or as JSON.

use super::client;
use super::outcome::Outcome;
use serde_json::Value;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Workloads that catch-up found; `-o json` has more.
const CATCH_UP_SHOWN_MAX: usize = 20;

pub fn status(endpoint: &str, as_json: bool) -> Outcome {
    match client::get(endpoint, "/api/spanreel/status", ANSWER_WAIT_MAX) {
        Ok(status) if as_json => Outcome::printed(format!("{status:#}\n")),
        Ok(status) => Outcome::printed(describe(&status)),
        Err(failure) => Outcome::failed(&[failure.line(endpoint)]),
    }
}

/// The same figures as text.
fn describe(status: &Value) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_status(&mut out, status);
    out
}

fn write_status(out: &mut String, status: &Value) -> std::fmt::Result {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let uptime = Duration::from_secs(number(&status["uptime_seconds"]));
    writeln!(
        out,
        "spanreel {}, up {}, {} resident",
        text(&status["version"]),
        duration(uptime),
        bytes(number(&status["resident_bytes"]))
    )?;
    let spool = &status["spool"];
    writeln!(
        out,
        "spool     {} of {} in {} ({} as OTLP, oldest {} ago), {} free on the disk{}",
        bytes(number(&spool["bytes"])),
        bytes(number(&spool["bytes_max"])),
        text(&spool["directory"]),
        bytes(number(&spool["raw_bytes"])),
        duration(Duration::from_secs(number(&spool["oldest_age_seconds"]))),
        bytes(number(&spool["disk_free_bytes"])),
        if spool["disk_full"] == true { "  DISK FULL: intake is refused" } else { "" },
    )?;
    if let Some(left) = spool["full_in_seconds"].as_u64() {
        writeln!(out, "          full in {} at the last hour's rate", duration(Duration::from_secs(left)))?;
    }
    if let Some(written) = spool["written_per_day_bytes"].as_u64() {
        writeln!(out, "          {} written to disk per day at the last hour's rate", bytes(written))?;
    }
    if let Some(problem) = spool["disk_error"].as_str() {
        writeln!(out, "          THE DISK REFUSES WRITES: intake is refused: {problem}")?;
    }
    if number(&spool["lost_to_damage"]) > 0 {
        writeln!(out, "          {} spans were lost to a damaged log", number(&spool["lost_to_damage"]))?;
    }
    if number(&spool["syncs"]) > 0 {
        writeln!(
            out,
            "syncs     {}, {:.1} ms on average, {:.1} ms at most",
            number(&spool["syncs"]),
            number(&spool["sync_mean_micros"]) as f64 / 1000.0,
            number(&spool["sync_max_micros"]) as f64 / 1000.0,
        )?;
    }
    let store = &status["store"];
    if store["runs"].is_u64() {
        let ago = |value: &Value| value.as_u64().map(|at| duration(Duration::from_secs(now.saturating_sub(at))));
        let sealed_until =
            ago(&store["sealed_until"]).map_or_else(String::new, |until| format!(", sealed up to {until} ago"));
        let oldest = ago(&store["oldest_received"]).map_or_else(String::new, |oldest| format!(", oldest {oldest} ago"));
        writeln!(
            out,
            "store     {} in {} runs with {} spans ({} as OTLP{oldest}{sealed_until}), {} spans wait to be sealed",
            bytes(number(&store["bytes"])),
            number(&store["runs"]),
            number(&store["spans"]),
            bytes(number(&store["raw_bytes"])),
            number(&store["waiting_spans"]),
        )?;
        if number(&store["damaged_runs"]) > 0 {
            let damaged = number(&store["damaged_runs"]);
            writeln!(out, "          {damaged} runs are damaged and not searched; `spanreel verify` says where")?;
        }
    }
    for listener in rows(&status["listeners"]) {
        let owner = listener["owner"].as_str().map_or_else(String::new, |owner| format!("  for {owner}"));
        writeln!(out, "listens   {} ({}){owner}", text(&listener["address"]), text(&listener["receiver"]))?;
    }
    for pipeline in rows(&status["pipelines"]) {
        writeln!(
            out,
            "pipeline  {}: received {} = stored {} + sampled out {}{}",
            text(&pipeline["pipeline"]),
            number(&pipeline["received"]),
            number(&pipeline["stored"]),
            number(&pipeline["sampled_out"]),
            reasons(" + dropped", &pipeline["dropped"]),
        )?;
    }
    for destination in rows(&status["destinations"]) {
        writeln!(
            out,
            "forwards  {} ({}): sent {}, queued {}{}  {}",
            text(&destination["destination"]),
            text(&destination["pipeline"]),
            number(&destination["sent"]),
            number(&destination["queued"]),
            reasons(", expired", &destination["expired"]),
            if destination["configured"] == false {
                "not configured any more".to_owned()
            } else {
                text(&destination["state"])
            },
        )?;
    }
    for injection in rows(&status["injections"]) {
        writeln!(
            out,
            "injects   {}: {} {} ({})",
            text(&injection["language"]),
            number(&injection["count"]),
            text(&injection["result"]),
            text(&injection["reason"]),
        )?;
    }
    let life = &status["life"];
    if number(&life["workloads"]) > 0 {
        writeln!(
            out,
            "life      {} workloads asked, {} speaking, {} silent",
            number(&life["workloads"]),
            number(&life["workloads_speaking"]),
            number(&life["workloads_silent"]),
        )?;
    }
    for silent in rows(&life["silent"]) {
        writeln!(
            out,
            "silent    {}/{}: {}",
            text(&silent["namespace"]),
            text(&silent["pod"]),
            text(&silent["life"]["likely_cause"]),
        )?;
    }
    let found = &status["catch_up"];
    for found in rows(&found["workloads"]).take(CATCH_UP_SHOWN_MAX) {
        let state = text(&found["state"]);
        let why = found["waits"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        writeln!(
            out,
            "{state:<9} {} {}/{} ({} pods){why}",
            text(&found["kind"]),
            text(&found["namespace"]),
            text(&found["name"]),
            number(&found["pods"][&state]),
        )?;
    }
    for looping in rows(&found["crash_loops"]).take(CATCH_UP_SHOWN_MAX) {
        let perhaps = if looping["evidence"] == "revision" { "perhaps " } else { "" };
        writeln!(
            out,
            "crashing  {} {}/{}, {perhaps}only since it is injected",
            text(&looping["kind"]),
            text(&looping["namespace"]),
            text(&looping["name"]),
        )?;
    }
    for discarded in rows(&status["discarded"]) {
        writeln!(
            out,
            "discards  {} from {}: {} requests (no pipeline takes {})",
            text(&discarded["signal"]),
            text(&discarded["service"]),
            number(&discarded["requests"]),
            text(&discarded["signal"]),
        )?;
    }
    Ok(())
}

pub(super) fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn reasons(lead: &str, value: &Value) -> String {
    let reasons = value.as_object().into_iter().flatten();
    reasons.map(|(reason, spans)| format!("{lead} {spans} ({reason})")).collect()
}

fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

pub(super) fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!((bytes(1023), bytes(10 << 20)), ("1023 B".to_owned(), "10.0 MiB".to_owned()));
        assert_eq!(duration(Duration::from_secs(7_200)), "2 h");
    }

    #[test]
    fn only_http_is_asked() {
        let outcome = status("https://127.0.0.1:3200", false);
        assert_eq!(outcome.code, 1);
        assert!(outcome.stderr.contains("only http:// can be asked, not https://"), "{}", outcome.stderr);
    }

    #[test]
    fn workloads_that_ask_are_told_in_one_line() {
        let life = serde_json::json!({ "workloads": 3, "workloads_speaking": 2, "workloads_silent": 1 });
        let text = describe(&serde_json::json!({ "life": life }));
        assert!(text.contains("3 workloads asked, 2 speaking, 1 silent"), "{text}");
    }

    #[test]
    fn workloads_that_are_out_of_date_have_a_line_with_why_they_wait() {
        let web = serde_json::json!({ "kind": "Deployment", "namespace": "shop", "name": "web", "state": "missed",
            "pods": { "missed": 2 }, "waits": "not now" });
        let looping = serde_json::json!({ "kind": "DaemonSet", "namespace": "shop", "name": "node" });
        let unsure =
            serde_json::json!({ "kind": "StatefulSet", "namespace": "shop", "name": "db", "evidence": "revision" });
        let found = serde_json::json!({ "workloads": [web], "crash_loops": [looping, unsure] });
        let text = describe(&serde_json::json!({ "catch_up": found }));
        assert!(text.contains("missed    Deployment shop/web (2 pods): not now\n"), "{text}");
        assert!(text.contains("crashing  DaemonSet shop/node, only since it is injected\n"), "{text}");
        assert!(text.contains("crashing  StatefulSet shop/db, perhaps only since it is injected\n"), "{text}");
    }

    #[test]
    fn a_status_of_another_version_still_prints() {
        assert!(describe(&serde_json::json!({ "pipelines": [{ "pipeline": "traces" }] })).contains("traces"));
    }
}
