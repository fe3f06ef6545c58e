//! `spanreel doctor`: what a running process knows of pods, for people or as JSON.

use super::client;
use super::outcome::Outcome;
use super::status::{duration, rows};
use super::traces::Form;
use crate::otlp::percent::url_value;
use jiff::Timestamp;
use serde_json::Value;
use std::fmt::Write;
use std::time::Duration;

/// The process looks for 8 s, and may have to wait as long for its turn.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
/// Width of the longest condition.
const CONDITION_WIDTH: usize = 12;

/// `scope`: empty, `namespace`, or `namespace/name`.
pub fn doctor(endpoint: &str, scope: &str, form: Form) -> Outcome {
    match client::get(endpoint, &path(scope), ANSWER_WAIT_MAX) {
        Ok(report) if form == Form::Json => Outcome::printed(format!("{report:#}\n")),
        Ok(report) => Outcome::printed(describe(&report, Timestamp::now(), form == Form::Coloured)),
        Err(failure) => Outcome::failed(&[failure.line(endpoint)]),
    }
}

fn path(scope: &str) -> String {
    let (namespace, name) = scope.split_once('/').unwrap_or((scope, ""));
    format!("/api/spanreel/doctor?namespace={}&name={}", url_value(namespace), url_value(name))
}

/// The report as text.
fn describe(report: &Value, now: Timestamp, coloured: bool) -> String {
    let mut writer = Writer { out: String::new(), now, coloured, said: Vec::new() };
    // Writing to a string cannot fail.
    let _ = writer.report(report);
    writer.out
}

struct Writer {
    out: String,
    now: Timestamp,
    coloured: bool,
    /// Sentences about the workload at hand that were written already.
    said: Vec<String>,
}

impl Writer {
    fn report(&mut self, report: &Value) -> std::fmt::Result {
        if report["webhook_registered"] == false {
            writeln!(
                self.out,
                "the API server does not ask Spanreel about new pods yet, so none is injected; Spanreel's log tells why\n"
            )?;
        }
        for note in rows(&report["notes"]) {
            writeln!(self.out, "note: {}\n", text(note))?;
        }
        let workloads: Vec<&Value> = rows(&report["workloads"]).collect();
        if report["scope"]["name"].is_string() {
            for (at, workload) in workloads.iter().enumerate() {
                if at > 0 {
                    writeln!(self.out)?;
                }
                self.in_full(workload)?;
            }
        } else {
            self.summary(report)?;
            let width = workloads.iter().map(|workload| self.name(report, workload).len()).max().unwrap_or_default();
            let (unasked, others): (Vec<&Value>, Vec<&Value>) = workloads.iter().partition(|workload| {
                workload["condition"] == "not_asked" && rows(&workload["asked"]).next().is_none()
            });
            for workload in others {
                self.in_short(workload, &self.name(report, workload), width)?;
            }
            self.unasked(&unasked.iter().map(|workload| self.name(report, workload)).collect::<Vec<_>>(), &unasked)?;
        }
        let left_out = &report["left_out"];
        let workloads_left = match report["scope"]["namespace"].is_string() {
            true => "workloads are not shown; ask for one by its name",
            false => "workloads are not shown; ask for one namespace",
        };
        for (count, what) in [(&left_out["workloads"], workloads_left), (&left_out["pods"], "pods are not shown")] {
            if let Some(count) = count.as_u64().filter(|count| *count > 0) {
                writeln!(self.out, "\nand {count} more {what}")?;
            }
        }
        Ok(())
    }

    /// How many stand how.
    fn summary(&mut self, report: &Value) -> std::fmt::Result {
        let place = match report["scope"]["namespace"].as_str() {
            Some(namespace) => format!("namespace {namespace}"),
            None => "cluster".to_owned(),
        };
        let all = report["conditions"].as_object().into_iter().flatten();
        // In the order of the list below, then those that are not in it; the map is in the order of its words.
        let shown = rows(&report["workloads"]).map(|workload| text(&workload["condition"]));
        let mut counts: Vec<(&str, u64)> = Vec::new();
        for condition in shown.chain(all.map(|(condition, _)| condition.as_str())) {
            if !counts.iter().any(|(known, _)| *known == condition) {
                counts.push((condition, report["conditions"][condition].as_u64().unwrap_or_default()));
            }
        }
        write!(self.out, "{place}: ")?;
        match counts.is_empty() {
            true => write!(self.out, "nothing asks for instrumentation")?,
            false => {
                let parts: Vec<String> =
                    counts.iter().map(|(word, count)| format!("{count} {}", spoken(word))).collect();
                write!(self.out, "{}", parts.join(", "))?;
            }
        }
        match report["left_out"]["not_asking"].as_u64().unwrap_or_default() {
            0 => writeln!(self.out, "\n"),
            count => writeln!(self.out, "; {count} that ask for nothing are not shown\n"),
        }
    }

    fn name(&self, report: &Value, workload: &Value) -> String {
        let name = format!("{}/{}", text(&workload["kind"]).to_ascii_lowercase(), text(&workload["name"]));
        match report["scope"]["namespace"].is_string() {
            true => name,
            false => format!("{} {name}", text(&workload["namespace"])),
        }
    }

    /// One to three lines.
    fn in_short(&mut self, workload: &Value, name: &str, width: usize) -> std::fmt::Result {
        let condition = text(&workload["condition"]);
        let mut what = reached(workload);
        let pods = pod_counts(workload);
        if !pods.is_empty() {
            what = if what.is_empty() { pods } else { format!("{what}; {pods}") };
        }
        let word = self.condition(condition, CONDITION_WIDTH);
        writeln!(self.out, "{word} {name:width$}  {}", what.trim_end())?;
        if is_plain(condition) {
            let last = rows(&workload["examples"]).flat_map(|pod| rows(&pod["containers"])).find_map(|container| {
                let first = self.ago(&container["life"]["first_span"])?;
                Some((first, self.ago(&container["life"]["last_span"])?))
            });
            if let Some((first, last)) = last {
                writeln!(self.out, "{:CONDITION_WIDTH$} first span {first} ago, last {last} ago", "")?;
            }
            return Ok(());
        }
        writeln!(self.out, "{:CONDITION_WIDTH$} {}", "", text(&workload["why"]))?;
        self.remedy(&workload["remedy"], CONDITION_WIDTH + 1)?;
        for note in rows(&workload["notes"]).filter(|note| **note != workload["why"]) {
            writeln!(self.out, "{:CONDITION_WIDTH$} note: {}", "", text(note))?;
        }
        Ok(())
    }

    /// Whoever asks for nothing, together.
    fn unasked(&mut self, names: &[String], workloads: &[&Value]) -> std::fmt::Result {
        const NAMES_MAX: usize = 10;
        let Some(first) = workloads.first() else { return Ok(()) };
        let word = self.condition("not_asked", CONDITION_WIDTH);
        let shown = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match names.len().saturating_sub(NAMES_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        writeln!(self.out, "{word} {shown}{more}")?;
        writeln!(self.out, "{:CONDITION_WIDTH$} {}", "", text(&first["why"]))?;
        self.remedy(&first["remedy"], CONDITION_WIDTH + 1)
    }

    /// A sentence that was not written yet.
    fn sentence(&mut self, sentence: &Value, indent: usize) -> std::fmt::Result {
        let sentence = text(sentence);
        if sentence.is_empty() || self.said.iter().any(|said| said == sentence) {
            return Ok(());
        }
        writeln!(self.out, "{:indent$}{sentence}", "")?;
        self.said.push(sentence.to_owned());
        Ok(())
    }

    fn in_full(&mut self, workload: &Value) -> std::fmt::Result {
        let condition = text(&workload["condition"]);
        let word = self.condition(condition, 0);
        let kind = text(&workload["kind"]).to_ascii_lowercase();
        writeln!(self.out, "{kind}/{} in {}: {word}", text(&workload["name"]), text(&workload["namespace"]))?;
        self.said.clear();
        self.sentence(&workload["why"], 2)?;
        self.remedy(&workload["remedy"], 2)?;
        writeln!(self.out)?;
        let mut lead = "asked";
        for asked in rows(&workload["asked"]) {
            writeln!(
                self.out,
                "{lead:8}  {}: \"{}\"  (annotation of the {})",
                text(&asked["annotation"]),
                text(&asked["value"]),
                match (text(&asked["where"]), kind.as_str()) {
                    ("pod", "pod") => "pod",
                    ("pod", _) => "pod template",
                    (place, _) => place,
                },
            )?;
            lead = "";
        }
        if lead == "asked" {
            writeln!(self.out, "asked     nothing")?;
        }
        let mut lead = "now";
        for decision in rows(&workload["decisions"]) {
            self.decision(lead, decision)?;
            lead = "";
        }
        let mut lead = "note";
        for note in rows(&workload["notes"]).filter(|note| **note != workload["why"]) {
            writeln!(self.out, "{lead:8}  {}", text(note))?;
            lead = "";
        }
        let pods = pod_counts(workload);
        writeln!(self.out, "pods      {}", if pods.is_empty() { "none" } else { &pods })?;
        for pod in rows(&workload["examples"]) {
            self.pod(pod, text(&workload["remedy"]))?;
        }
        Ok(())
    }

    /// What would become of a pod that came now.
    fn decision(&mut self, lead: &str, decision: &Value) -> std::fmt::Result {
        let container = decision["container"].as_str().map_or_else(String::new, |name| format!(" in {name}"));
        let language = text(&decision["language"]);
        write!(self.out, "{lead:8}  {language}{container}: ")?;
        match (text(&decision["result"]), text(&decision["reason"])) {
            ("injected", _) => writeln!(self.out, "a pod that came now would be injected")?,
            (result, reason) => {
                let would = if reason == "already_instrumented" { "it is" } else { "a pod that came now would be" };
                writeln!(self.out, "{would} {result} ({reason})")?;
                self.sentence(&decision["message"], 10)?;
            }
        }
        if let Some(used) = self.instrumentation(&decision["instrumentation"]) {
            writeln!(self.out, "{:8}  Instrumentation {used}", "")?;
        }
        if let Some(image) = decision["agent_image"].as_str() {
            writeln!(self.out, "{:8}  agent {image}", "")?;
        }
        Ok(())
    }

    fn pod(&mut self, pod: &Value, known_remedy: &str) -> std::fmt::Result {
        let age = self.ago(&pod["created"]).map_or_else(String::new, |age| format!("  created {age} ago"));
        writeln!(self.out, "\n  {}{age}", text(&pod["name"]))?;
        for container in rows(&pod["containers"]) {
            let condition = text(&container["condition"]);
            let word = self.condition(condition, CONDITION_WIDTH);
            let place: Vec<&str> =
                [&container["container"], &container["language"]].into_iter().filter_map(Value::as_str).collect();
            writeln!(self.out, "    {word} {}", place.join(": "))?;
            let indent = 5 + CONDITION_WIDTH;
            let life = &container["life"];
            if let (Some(first), Some(last)) = (self.ago(&life["first_span"]), self.ago(&life["last_span"])) {
                writeln!(self.out, "{:indent$}first span {first} ago, last {last} ago", "")?;
            }
            if condition != "speaking" {
                self.sentence(&container["why"], indent)?;
            }
            if container["instrumentation"]["injected_generation"].is_i64()
                && let Some(used) = self.instrumentation(&container["instrumentation"])
            {
                writeln!(self.out, "{:indent$}from Instrumentation {used}", "")?;
            }
            if let Some(image) = container["agent_image"].as_str() {
                writeln!(self.out, "{:indent$}agent {image}", "")?;
            }
            if text(&container["remedy"]) != known_remedy {
                self.remedy(&container["remedy"], indent)?;
            }
        }
        Ok(())
    }

    fn instrumentation(&self, used: &Value) -> Option<String> {
        let mut out = used["name"].as_str()?.to_owned();
        let now = used["generation"].as_i64();
        match (used["injected_generation"].as_i64(), now) {
            _ if out == "built-in" => {}
            (Some(then), Some(now)) if then != now => out.push_str(&format!(", generation {then} of now {now}")),
            (Some(then), None) => out.push_str(&format!(", generation {then}, which is gone")),
            (_, Some(now)) => out.push_str(&format!(", generation {now}")),
            (None, None) => {}
        }
        if let Some(age) = self.ago(&used["created"]) {
            out.push_str(&format!(", {age} old"));
        }
        Some(out)
    }

    fn remedy(&mut self, remedy: &Value, indent: usize) -> std::fmt::Result {
        match remedy.as_str() {
            Some(line) => {
                let line = self.paint(line.trim_start_matches("# "), "36");
                writeln!(self.out, "{:indent$}→ {line}", "")
            }
            None => Ok(()),
        }
    }

    fn condition(&self, condition: &str, width: usize) -> String {
        let colour = match condition {
            "silent" | "stuck" | "refused" | "excluded" | "misplaced" | "misspelt" => "31",
            "missed" | "refused_next" | "stale" | "unwanted" | "quiet" => "33",
            "speaking" => "32",
            _ => "0",
        };
        self.paint(&format!("{:width$}", spoken(condition)), colour)
    }

    fn paint(&self, text: &str, colour: &str) -> String {
        if self.coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// How long ago, or in how long: clocks differ by a little.
    fn ago(&self, time: &Value) -> Option<String> {
        let time: Timestamp = time.as_str()?.parse().ok()?;
        Some(duration(self.now.duration_since(time).try_into().unwrap_or(Duration::ZERO)))
    }
}

/// Conditions that need no explanation.
fn is_plain(condition: &str) -> bool {
    ["injected", "started", "ready", "speaking"].contains(&condition)
}

fn spoken(condition: &str) -> String {
    condition.replace('_', " ")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `java in app, python in worker`
fn reached(workload: &Value) -> String {
    let decisions = rows(&workload["decisions"]).map(|decision| {
        let container = decision["container"].as_str().map_or_else(String::new, |name| format!(" in {name}"));
        format!("{}{container}", text(&decision["language"]))
    });
    decisions.collect::<Vec<_>>().join(", ")
}

/// `3 pods: 1 missed, 2 speaking`
fn pod_counts(workload: &Value) -> String {
    let conditions: Vec<(String, u64)> = workload["pod_conditions"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(condition, count)| (spoken(condition), count.as_u64().unwrap_or_default()))
        .collect();
    let pods = workload["pods"].as_u64().unwrap_or_default();
    let pods = if pods == 1 { "1 pod".to_owned() } else { format!("{pods} pods") };
    match conditions.as_slice() {
        [] => String::new(),
        [_] => pods,
        several => {
            let parts: Vec<String> = several.iter().map(|(word, count)| format!("{count} {word}")).collect();
            format!("{pods}: {}", parts.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(name: Option<&str>, workloads: Value) -> Value {
        json!({
            "scope": {"namespace": "shop", "name": name}, "webhook_registered": true,
            "conditions": {"missed": 1, "speaking": 1, "not_asked": 2}, "workloads": workloads,
            "left_out": {"workloads": 0, "not_asking": 0, "pods": 3}, "notes": [],
        })
    }

    fn now() -> Timestamp {
        "2026-11-25T02:00:00Z".parse().unwrap()
    }

    fn speaking() -> Value {
        let used = json!({"name": "shop/main", "generation": 2, "created": "2026-11-20T02:00:00Z"});
        let mut then = used.clone();
        then["injected_generation"] = json!(2);
        json!({
            "kind": "Deployment", "namespace": "shop", "name": "web", "condition": "speaking", "why": "spans come",
            "remedy": null, "notes": [], "pods": 2, "pod_conditions": {"speaking": 2},
            "asked": [{"language": "java", "annotation": "a/inject-java", "value": "main", "where": "pod"}],
            "decisions": [{"language": "java", "container": "app", "result": "injected", "reason": "asked",
                "message": "m", "instrumentation": used, "agent_image": "java:1", "remedy": "r"}],
            "examples": [{"name": "web-1", "created": "2026-11-25T01:50:00Z", "condition": "speaking", "containers": [{
                "container": "app", "language": "java", "condition": "speaking", "reason": "asked", "why": "spans come",
                "instrumentation": then, "agent_image": "java:1", "remedy": null,
                "life": {"state": "speaking", "first_span": "2026-11-25T01:55:00Z", "last_span": "2026-11-25T01:59:57Z"}}]}],
        })
    }

    fn missed() -> Value {
        json!({
            "kind": "StatefulSet", "namespace": "shop", "name": "database", "condition": "missed", "why": "it was missed",
            "remedy": "kubectl do", "notes": [], "pods": 1, "pod_conditions": {"missed": 1}, "asked": [], "decisions": [],
            "examples": [],
        })
    }

    fn unasked(name: &str) -> Value {
        json!({"kind": "Job", "namespace": "shop", "name": name, "condition": "not_asked", "why": "nobody asks",
            "remedy": "ask: \"true\"", "asked": [], "pod_conditions": {"not_asked": 1}, "pods": 1})
    }

    #[test]
    fn a_namespace_is_told_in_few_lines_and_trouble_comes_with_its_remedy() {
        let report = report(None, json!([missed(), speaking(), unasked("a"), unasked("b")]));
        let expected = "\
namespace shop: 1 missed, 1 speaking, 2 not asked

missed       statefulset/database  1 pod
             it was missed
             → kubectl do
speaking     deployment/web        java in app; 2 pods
             first span 5 min ago, last 3 s ago
not asked    job/a, job/b
             nobody asks
             → ask: \"true\"

and 3 more pods are not shown
";
        assert_eq!(describe(&report, now(), false), expected);
        let coloured = describe(&report, now(), true);
        assert!(coloured.contains("\x1b[33mmissed      \x1b[0m"), "{coloured:?}");
    }

    #[test]
    fn a_workload_is_told_in_full() {
        let mut report = report(Some("web"), json!([speaking()]));
        report["left_out"] = json!({});
        let expected = "\
deployment/web in shop: speaking
  spans come

asked     a/inject-java: \"main\"  (annotation of the pod template)
now       java in app: a pod that came now would be injected
          Instrumentation shop/main, generation 2, 5 days old
          agent java:1
pods      2 pods

  web-1  created 10 min ago
    speaking     app: java
                 first span 5 min ago, last 3 s ago
                 from Instrumentation shop/main, generation 2, 5 days old
                 agent java:1
";
        assert_eq!(describe(&report, now(), false), expected);
    }

    #[test]
    fn a_report_of_another_version_still_prints() {
        let text = describe(&json!({"workloads": [{"kind": "Pod", "name": "x"}]}), now(), false);
        assert!(text.contains("pod/x"), "{text}");
        assert!(describe(&json!({}), now(), false).contains("nothing asks for instrumentation"));
    }

    #[test]
    fn scopes_cannot_become_other_parameters() {
        assert_eq!(path("shop/a&b=c"), "/api/spanreel/doctor?namespace=shop&name=a%26b%3Dc");
        assert_eq!(path(""), "/api/spanreel/doctor?namespace=&name=");
        assert_eq!(path("shop/deployment/web"), "/api/spanreel/doctor?namespace=shop&name=deployment%2Fweb");
    }
}
