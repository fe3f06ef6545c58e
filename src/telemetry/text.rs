//! How Prometheus' text formats write numbers and label values.

/// A number as OpenMetrics writes it: whole ones with `.0`.
pub fn canonical(number: f64) -> String {
    if !number.is_finite() {
        return plain(number);
    }
    if number.fract() == 0.0 && number.abs() < 1e15 { format!("{number:.1}") } else { format!("{number}") }
}

/// A number as the older format writes it.
pub fn plain(number: f64) -> String {
    match number {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        number if number.is_nan() => "NaN".to_owned(),
        number => number.to_string(),
    }
}

/// A label value as it stands between quotes.
pub fn write_escaped(out: &mut String, value: &str) {
    for char in value.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            char => out.push(char),
        }
    }
}
