//! Asking for traces, and saying what they hold in a line: what `search`, `show` and `tail` share.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::traceql::{self, ParseError};

/// The query itself is bounded by the server; this is for a server that does not answer.
pub(super) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(65);

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Plain,
    Coloured,
    Json,
}

/// What stands out on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Error,
    Faint,
    Strong,
    /// One of a few colours, the same for the same service.
    Service,
}

/// `text` in its colour, if the terminal is to have any.
pub(super) fn toned(text: &str, tone: Tone, coloured: bool) -> String {
    if !coloured || text.trim().is_empty() {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Error => 31,
        Tone::Faint => 2,
        Tone::Strong => 1,
        // Green to cyan and their bright forms: red is for errors.
        Tone::Service => {
            const COLOURS: [u8; 8] = [32, 33, 34, 35, 36, 92, 94, 96];
            let sum =
                text.trim().bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
            COLOURS[sum % COLOURS.len()]
        }
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// What a client wrote, safe for a terminal and of a bounded length: whoever sends spans must not steer the screen.
pub(super) fn printable(text: &str, length_max: usize) -> String {
    let mut out: String =
        text.chars().take(length_max + 1).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
    if out.chars().count() > length_max {
        out.pop();
        out.pop();
        out.push('…');
    }
    out
}

/// The text filled up with spaces; only what takes one column each is counted right.
pub(super) fn padded(text: &str, width: usize) -> String {
    let mut out = text.to_owned();
    for _ in text.chars().count()..width {
        out.push(' ');
    }
    out
}

/// Nanoseconds in the unit that suits them, three digits.
pub(super) fn duration(nanos: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(60_000_000_000, "min"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    let Some((unit, name)) = UNITS.iter().find(|(unit, _)| nanos >= *unit) else { return format!("{nanos} ns") };
    let value = nanos as f64 / *unit as f64;
    match value {
        0.0..10.0 => format!("{value:.2} {name}"),
        10.0..100.0 => format!("{value:.1} {name}"),
        _ => format!("{value:.0} {name}"),
    }
}

/// Unix nanoseconds as a moment in UTC, to the millisecond.
pub(super) fn moment(unix_nanos: u64) -> String {
    match Timestamp::from_nanosecond(i128::from(unix_nanos)) {
        Ok(moment) => moment.strftime("%Y-%m-%d %H:%M:%S.%3fZ").to_string(),
        Err(_) => format!("{unix_nanos} ns"),
    }
}

/// A 64-bit number, which this JSON has as a string; 0 where there is none.
pub(super) fn long(value: &Value) -> u64 {
    match value {
        Value::String(digits) => digits.parse().unwrap_or(0),
        other => other.as_u64().unwrap_or(0),
    }
}

/// Columns of the terminal that stdout is; without one lines may be as long as they are.
pub(super) fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map_or(usize::MAX, |size| if size.ws_col == 0 { usize::MAX } else { usize::from(size.ws_col) })
}

/// How long a text may be in a line of so many columns, of which the rest takes some: no longer than `most`, and at least
/// so long that it can be recognised.
pub(super) fn room(columns: usize, rest: usize, most: usize) -> usize {
    const RECOGNISED: usize = 12;
    columns.saturating_sub(rest).clamp(RECOGNISED, most)
}

/// Where a query cannot be parsed, if so: its line, with a mark below, for whoever has to find it in a long one.
pub(super) fn marked(query: &str) -> Option<String> {
    /// What is shown before the place, and behind it.
    const AROUND: usize = 60;
    let ParseError { line, column, .. } = traceql::parse(query).err()?;
    let (line, column) = (line.saturating_sub(1) as usize, column.saturating_sub(1) as usize);
    let line = query.split('\n').nth(line)?;
    let skipped = column.saturating_sub(AROUND);
    let shown: String = line.chars().skip(skipped).take(2 * AROUND).collect();
    let lead = if skipped > 0 { "..." } else { "" };
    let mark = " ".repeat(lead.len() + column - skipped);
    Some(format!("  {lead}{}\n  {mark}^", printable(&shown, 2 * AROUND)))
}

/// `1 error`, `2 errors`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let shown = [999, 1_500, 12_345_678, 557_000_000, 90_000_000_000].map(duration);
        assert_eq!(shown, ["999 ns", "1.50 us", "12.3 ms", "557 ms", "1.50 min"]);
    }

    #[test]
    fn nobody_who_sends_spans_steers_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n", 20), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(printable("abcdef", 4), "abc…");
        assert_eq!(printable("abcd", 4), "abcd");
    }

    #[test]
    fn the_place_where_a_query_is_wrong_is_marked() {
        assert_eq!(marked("{ name = }").unwrap(), "  { name = }\n           ^");
        assert_eq!(marked("{ name = `ä` } &&\n  {{}}").unwrap(), "    {{}}\n     ^");
        assert_eq!(marked("{").unwrap(), "  {\n   ^");
        assert_eq!(marked("{ name = 1 }"), None);
        let long = format!("{{ name = \"{}\" && }}", "x".repeat(500));
        let marked = marked(&long).unwrap();
        let (text, mark) = marked.split_once('\n').unwrap();
        assert!(text.starts_with("  ...") && text.len() < 200, "{text}");
        assert_eq!(text.chars().nth(mark.chars().count() - 1), Some('}'), "{marked}");
    }

    #[test]
    fn texts_are_cut_to_their_line_and_stay_recognisable() {
        assert_eq!((room(80, 50, 60), room(usize::MAX, 50, 60), room(20, 50, 60)), (30, 60, 12));
    }

    #[test]
    fn moments_are_in_utc() {
        assert_eq!(moment(1_544_712_660_123_000_000), "2018-12-13 14:51:00.123Z");
    }
}
