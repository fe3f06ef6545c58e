//! How OTLP's names and units become Prometheus' (the Collector's rules, `UnderscoreEscapingWithSuffixes`).

/// What the units of UCUM are called in names.
const UNITS: [(&str, &str); 30] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
    ("kBy", "kilobytes"),
    ("k", "kelvin"),
    ("K", "kelvin"),
    ("bit", "bits"),
];

/// What stands behind the slash of a unit.
const PER: [(&str, &str); 7] =
    [("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// What a name says about its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// It only rises.
    Counter,
    Gauge,
    Other,
}

/// The name of a metric, with `_total` where it is a counter's.
pub fn metric_name(name: &str, unit: &str, shape: Shape, namespace: &str, with_suffixes: bool) -> String {
    let is_kept = |char: char| char.is_ascii_alphanumeric() || char == ':';
    if !with_suffixes {
        let clean: String = name.chars().map(|char| if is_kept(char) { char } else { '_' }).collect();
        return finished(namespace, &clean);
    }
    let mut tokens: Vec<&str> = name.split(|char| !is_kept(char)).filter(|token| !token.is_empty()).collect();
    let (main, per) = match unit.split_once('/') {
        Some((main, per)) => (main.trim(), Some(per.trim())),
        None => (unit.trim(), None),
    };
    let main = clean_unit(main, &UNITS);
    let per = per.map(|per| clean_unit(per, &PER)).filter(|per| !per.is_empty());
    // Units that the name says already are not said again.
    let said: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
    let is_said = |words: &str| words.split('_').all(|word| said.iter().any(|token| token == word));
    let is_counter = shape == Shape::Counter;
    if is_counter {
        tokens.retain(|token| *token != "total");
    }
    if !main.is_empty() && !is_said(&main) {
        tokens.extend(main.split('_'));
    }
    if let Some(per) = per.as_ref().filter(|per| !is_said(per)) {
        tokens.push("per");
        tokens.extend(per.split('_'));
    }
    if is_counter {
        tokens.push("total");
    }
    if shape == Shape::Gauge && unit == "1" {
        tokens.retain(|token| *token != "ratio");
        tokens.push("ratio");
    }
    finished(namespace, &tokens.join("_"))
}

/// A unit in words; what stands in braces is an annotation and no unit.
fn clean_unit(unit: &str, words: &[(&str, &str)]) -> String {
    if unit.contains(['{', '}']) {
        return String::new();
    }
    let known = words.iter().find(|(short, _)| *short == unit).map(|(_, long)| *long);
    let word = known.unwrap_or(unit);
    let parts = word.split(|char: char| !char.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("_")
}

fn finished(namespace: &str, name: &str) -> String {
    let clean = |text: &str| -> String {
        text.chars().map(|char| if char.is_ascii_alphanumeric() || char == ':' { char } else { '_' }).collect()
    };
    let mut whole = match namespace {
        "" => name.to_owned(),
        namespace => format!("{}_{name}", clean(namespace)),
    };
    if whole.starts_with(|char: char| char.is_ascii_digit()) {
        whole.insert(0, '_');
    }
    whole
}

/// The name of a label.
pub fn label_name(name: &str) -> String {
    let mut clean: String = name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
    if clean.starts_with(|char: char| char.is_ascii_digit()) {
        clean.insert_str(0, "key_");
    } else if clean.starts_with('_') && !clean.starts_with("__") {
        clean.insert_str(0, "key");
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_become_the_collectors() {
        use Shape::{Counter, Gauge, Other};
        for (name, unit, shape, expected) in [
            ("traces.span.metrics.calls", "1", Counter, "traces_span_metrics_calls_total"),
            ("traces.span.metrics.duration", "ms", Other, "traces_span_metrics_duration_milliseconds"),
            ("traces_service_graph_request_total", "1", Counter, "traces_service_graph_request_total"),
            ("traces_service_graph_request_server", "s", Other, "traces_service_graph_request_server_seconds"),
            ("http.server.request.duration", "s", Other, "http_server_request_duration_seconds"),
            ("process.memory.usage", "By", Gauge, "process_memory_usage_bytes"),
            ("system.cpu.utilization", "1", Gauge, "system_cpu_utilization_ratio"),
            ("hw.fan.speed", "rpm", Gauge, "hw_fan_speed_rpm"),
            ("network.io", "By/s", Gauge, "network_io_bytes_per_second"),
            ("queue.size", "{items}", Gauge, "queue_size"),
            ("request_duration_seconds", "s", Other, "request_duration_seconds"),
            ("2xx.responses", "", Counter, "_2xx_responses_total"),
            ("jvm.gc.duration", "%", Gauge, "jvm_gc_duration_percent"),
        ] {
            assert_eq!(metric_name(name, unit, shape, "", true), expected);
        }
        assert_eq!(metric_name("a.b", "s", Counter, "my.ns", true), "my_ns_a_b_seconds_total");
        assert_eq!(metric_name("a.b", "s", Counter, "", false), "a_b");
    }

    #[test]
    fn labels_are_named_as_prometheus_wants() {
        for (name, expected) in
            [("service.name", "service_name"), ("1st", "key_1st"), ("_a", "key_a"), ("__b", "__b"), ("ok", "ok")]
        {
            assert_eq!(label_name(name), expected);
        }
    }
}
