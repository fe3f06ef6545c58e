//! The series as OpenMetrics text, a page at a time, so that neither memory nor the lock is held for long.

use super::histogram::Exemplar;
use super::labels::Labels;
use super::{Engine, Family, Kind, Reading, Red};
use crate::telemetry::text::{canonical, write_escaped};
use std::fmt::Write as _;
use std::sync::Arc;

/// Slots that are written while nobody can count: a tenth of a millisecond.
const SLOTS_PER_PAGE: usize = 64;

/// The pages of one scrape, without the `# EOF` at its end.
pub struct Pages {
    red: Arc<Red>,
    family: usize,
    slot: usize,
}

impl Pages {
    pub fn of(red: Arc<Red>) -> Self {
        Self { red, family: 0, slot: 0 }
    }
}

impl Iterator for Pages {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let Self { red, family, slot } = self;
        red.with_engine(|engine| {
            let about = engine.families().nth(*family)?;
            let mut page = String::new();
            if *slot == 0 {
                write_head(&mut page, about);
            }
            let end = *slot + SLOTS_PER_PAGE;
            write_series(&mut page, engine, about, *family, *slot..end);
            if end < engine.slots(*family) {
                *slot = end;
            } else {
                (*family, *slot) = (*family + 1, 0);
            }
            Some(page)
        })
    }
}

fn write_head(page: &mut String, family: &Family) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram | Kind::ExponentialHistogram => "histogram",
    };
    // Writing into memory does not fail.
    let _ = write!(page, "# HELP {0} {1}.\n# TYPE {0} {kind}\n", family.name, family.help);
}

fn write_series(page: &mut String, engine: &Engine, about: &Family, family: usize, slots: std::ops::Range<usize>) {
    let name = &about.name;
    let mut labels = String::new();
    for (of_series, reading) in slots.filter_map(|slot| engine.read(family, slot)) {
        labels.clear();
        write_labels(&mut labels, of_series);
        let _ = match reading {
            Reading::Counter(value) => writeln!(page, "{name}_total{} {value}", Braced(&labels)),
            Reading::Gauge(value) => writeln!(page, "{name}{} {value}", Braced(&labels)),
            // Only connectors make these, and they report as OTLP.
            Reading::Exponential(_) => Ok(()),
            Reading::Histogram(histogram, bounds) => {
                let comma = if labels.is_empty() { "" } else { "," };
                let last = "+Inf".to_owned();
                let texts = bounds.texts.iter().chain(std::iter::once(&last));
                let mut total = 0;
                for (bucket, (count, bound)) in histogram.cumulative().zip(texts).enumerate() {
                    total = count;
                    let _ = write!(page, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
                    if let Some(exemplar) = histogram.exemplar_of(bucket) {
                        write_exemplar(page, exemplar);
                    }
                    page.push('\n');
                }
                let sum = canonical(histogram.sum);
                write!(page, "{name}_sum{0} {sum}\n{name}_count{0} {total}\n", Braced(&labels))
            }
        };
    }
}

fn write_exemplar(page: &mut String, exemplar: &Exemplar) {
    page.push_str(" # {traceID=\"");
    for byte in exemplar.trace_id {
        let _ = write!(page, "{byte:02x}");
    }
    let (seconds, millis) = (exemplar.unix_millis / 1_000, exemplar.unix_millis % 1_000);
    let _ = write!(page, "\"}} {} {seconds}.{millis:03}", canonical(exemplar.value));
}

fn write_labels(out: &mut String, labels: Labels<'_>) {
    for (name, value) in labels.iter() {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{name}=\"");
        write_escaped(out, &value);
        out.push('"');
    }
}

/// Labels in braces, or nothing.
struct Braced<'a>(&'a str);

impl std::fmt::Display for Braced<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{{{}}}", self.0) }
    }
}
