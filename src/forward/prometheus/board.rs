//! What is shown to whoever scrapes: the latest value of every series, within a budget of memory, for a bounded time.

use super::decode::{Exemplar, Metric, MetricKind, Origin, Point, for_each_point, point_attributes};
use super::names::{Shape, label_name, metric_name};
use crate::forward::budget::{Budget, Share};
use crate::otlp::plain::{Value, attributes};
use crate::telemetry::text::{canonical, plain, write_escaped};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::ops::Bound;

/// Series beyond this are left out and counted.
pub const SERIES_MAX: usize = 20_000;
/// Labels of one series, as text.
const LABELS_BYTES_MAX: usize = 8 * 1024;
const BUCKETS_MAX: usize = 256;
/// What a description is cut to.
const HELP_BYTES_MAX: usize = 512;
/// Nodes of the maps, and what the allocator adds: per series, and per family.
const OVERHEAD_BYTES: usize = 64;
/// Series that are written while no points are taken in: at most a few hundred kilobytes of text.
const SERIES_PER_PART: usize = 64;

/// How metrics are named and shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Style {
    pub namespace: String,
    pub const_labels: Vec<(String, String)>,
    pub send_timestamps: bool,
    /// A series that no point came for goes after so long.
    pub expiration_millis: u64,
    /// All attributes of the resource become labels.
    pub resource_labels: bool,
    /// Units and `_total` are part of names.
    pub with_suffixes: bool,
}

/// Why a point is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// Exponential histograms have no place in the text formats.
    ExponentialHistogram,
    /// A difference of something that also falls.
    Delta,
    /// Another metric of this name has another type.
    TypeConflict,
    /// [`SERIES_MAX`], or labels or buckets beyond all measure.
    TooMany,
    /// The share of the memory budget is used up by other series.
    Memory,
    /// Without a name, or with a label that Prometheus keeps for itself: it would refuse the page.
    Invalid,
}

impl LeftOut {
    pub const ALL: [Self; 6] =
        [Self::ExponentialHistogram, Self::Delta, Self::TypeConflict, Self::TooMany, Self::Memory, Self::Invalid];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExponentialHistogram => "exponential_histogram",
            Self::Delta => "delta",
            Self::TypeConflict => "type_conflict",
            Self::TooMany => "too_many",
            Self::Memory => "memory",
            Self::Invalid => "invalid",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

#[derive(Debug)]
struct Family {
    kind: Type,
    help: String,
    /// By labels as they are shown, without braces.
    series: BTreeMap<Box<str>, Series>,
    _share: Share,
}

#[derive(Debug)]
struct Series {
    data: Data,
    /// Unix milliseconds of the point; when it came.
    time_millis: u64,
    came_millis: u64,
    share: Share,
}

/// How far a page was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// `None`: not begun.
    family: Option<String>,
    /// The last series of it that was written; `None`: all were.
    series: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Data {
    Number(f64, Option<Exemplar>),
    /// Counts are of one bucket each; there is one more than bounds.
    Histogram {
        bounds: Vec<f64>,
        counts: Vec<u64>,
        sum: f64,
        exemplar: Option<Exemplar>,
    },
    Summary {
        quantiles: Vec<(f64, f64)>,
        sum: f64,
        count: u64,
    },
}

/// The text formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    OpenMetrics,
}

#[derive(Debug)]
pub struct Board {
    style: Style,
    budget: Budget,
    families: BTreeMap<String, Family>,
    series: usize,
    left_out: BTreeMap<LeftOut, u64>,
    labels: String,
}

impl Board {
    pub fn new(style: Style, budget: Budget) -> Self {
        Self { style, budget, families: BTreeMap::new(), series: 0, left_out: BTreeMap::new(), labels: String::new() }
    }

    /// Points that are not shown, by reason.
    pub fn left_out(&self) -> &BTreeMap<LeftOut, u64> {
        &self.left_out
    }

    pub fn series(&self) -> usize {
        self.series
    }

    /// Takes in every point of a request.
    pub fn take(&mut self, request: &[u8], now_millis: u64) {
        for_each_point(request, |origin, metric, point| {
            if let Err(why) = self.take_point(origin, metric, point, now_millis) {
                *self.left_out.entry(why).or_default() += 1;
            }
        });
    }

    fn take_point(
        &mut self,
        origin: &Origin<'_>,
        metric: &Metric<'_>,
        point: Point<'_>,
        now_millis: u64,
    ) -> Result<(), LeftOut> {
        let (kind, shape) = match metric.kind {
            MetricKind::ExponentialHistogram => return Err(LeftOut::ExponentialHistogram),
            MetricKind::Sum { is_monotonic: false, is_delta: true } => return Err(LeftOut::Delta),
            MetricKind::Sum { is_monotonic: true, .. } => (Type::Counter, Shape::Counter),
            MetricKind::Gauge | MetricKind::Sum { .. } => (Type::Gauge, Shape::Gauge),
            MetricKind::Histogram { .. } => (Type::Histogram, Shape::Other),
            MetricKind::Summary => (Type::Summary, Shape::Other),
        };
        // Only gauges proper are ratios.
        let shape =
            if matches!(metric.kind, MetricKind::Sum { is_monotonic: false, .. }) { Shape::Other } else { shape };
        let text = |bytes| String::from_utf8_lossy(bytes);
        let name =
            metric_name(&text(metric.name), &text(metric.unit), shape, &self.style.namespace, self.style.with_suffixes);
        let own_label = match kind {
            Type::Histogram => Some("le"),
            Type::Summary => Some("quantile"),
            Type::Counter | Type::Gauge => None,
        };
        if metric.name.is_empty() || name.is_empty() || !self.write_labels(origin, metric.kind, &point, own_label) {
            return Err(LeftOut::Invalid);
        }
        self.show_target(origin, point.time / 1_000_000, now_millis)?;
        let data = match metric.kind {
            MetricKind::Histogram { .. } => {
                if point.bounds.len() > BUCKETS_MAX {
                    return Err(LeftOut::TooMany);
                }
                let mut counts = point.bucket_counts.clone();
                if counts.len() != point.bounds.len() + 1 {
                    // Without buckets there is one for everything.
                    counts = vec![0; point.bounds.len()];
                    counts.push(point.count);
                }
                Data::Histogram { bounds: point.bounds.clone(), counts, sum: point.sum, exemplar: point.exemplar }
            }
            MetricKind::Summary => {
                let quantiles = point.quantiles.iter().copied().take(BUCKETS_MAX).collect();
                Data::Summary { quantiles, sum: point.sum, count: point.count }
            }
            _ => Data::Number(point.value, point.exemplar),
        };
        let is_delta =
            matches!(metric.kind, MetricKind::Sum { is_delta: true, .. } | MetricKind::Histogram { is_delta: true });
        let labels = std::mem::take(&mut self.labels);
        let mut help = text(metric.description).into_owned();
        help.truncate(help.floor_char_boundary(HELP_BYTES_MAX));
        let put = self.put(
            name,
            kind,
            help,
            &labels,
            data,
            is_delta,
            (point.time / 1_000_000, now_millis),
            point.has_no_value,
        );
        self.labels = labels;
        put
    }

    #[expect(clippy::too_many_arguments, reason = "one point, taken apart")]
    fn put(
        &mut self,
        name: String,
        kind: Type,
        help: String,
        labels: &str,
        data: Data,
        is_delta: bool,
        (time_millis, came_millis): (u64, u64),
        ends: bool,
    ) -> Result<(), LeftOut> {
        if labels.len() > LABELS_BYTES_MAX || name.len() > LABELS_BYTES_MAX {
            return Err(LeftOut::TooMany);
        }
        let known = self.families.get(&name);
        if known.is_some_and(|family| family.kind != kind) {
            return Err(LeftOut::TypeConflict);
        }
        let is_new = !known.is_some_and(|family| family.series.contains_key(labels));
        if ends || is_new && self.series >= SERIES_MAX {
            if let Some(family) = self.families.get_mut(&name).filter(|_| ends) {
                self.series -= usize::from(family.series.remove(labels).is_some());
            }
            return if ends { Ok(()) } else { Err(LeftOut::TooMany) };
        }
        let bytes = size_of::<Series>() + OVERHEAD_BYTES + labels.len() + data.heap_bytes();
        if is_new {
            let series =
                Series { data, time_millis, came_millis, share: self.budget.shown(bytes).ok_or(LeftOut::Memory)? };
            let family = match self.families.entry(name) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let bytes = size_of::<Family>() + OVERHEAD_BYTES + place.key().len() + help.len();
                    let share = self.budget.shown(bytes).ok_or(LeftOut::Memory)?;
                    place.insert(Family { kind, help, series: BTreeMap::new(), _share: share })
                }
            };
            family.series.insert(labels.into(), series);
            self.series += 1;
            return Ok(());
        }
        let Some(series) = self.families.get_mut(&name).and_then(|family| family.series.get_mut(labels)) else {
            return Ok(());
        };
        // An older point must not undo a newer one.
        if time_millis < series.time_millis && !is_delta {
            return Ok(());
        }
        let more = bytes.saturating_sub(series.share.bytes());
        if more > 0 {
            series.share.grow(self.budget.shown(more).ok_or(LeftOut::Memory)?);
        }
        series.share.shrink(bytes);
        series.data = if is_delta { series.data.plus(data) } else { data };
        (series.time_millis, series.came_millis) = (time_millis, came_millis);
        Ok(())
    }

    /// `target_info`: the attributes of a resource that can be told from others.
    fn show_target(&mut self, origin: &Origin<'_>, time_millis: u64, now_millis: u64) -> Result<(), LeftOut> {
        let mut target = Labels::default();
        target.identity(origin.resource);
        if target.pairs.is_empty() {
            return Ok(());
        }
        let identity = target.pairs.len();
        for (key, value) in attributes(origin.resource, 1) {
            if !matches!(key, b"service.name" | b"service.namespace" | b"service.instance.id") {
                target.add(key, value);
            }
        }
        // The others of the resource say enough.
        target.pairs.retain(|name, _| is_shown(name));
        if target.pairs.len() == identity {
            return Ok(());
        }
        let mut labels = String::new();
        target.constant(&self.style.const_labels);
        target.write(&mut labels);
        let name = metric_name("target_info", "", Shape::Other, &self.style.namespace, false);
        let help = "Target metadata".to_owned();
        self.put(name, Type::Gauge, help, &labels, Data::Number(1.0, None), false, (time_millis, now_millis), false)
    }

    /// Whether they can be shown beside the label that the lines of such a series have of their own.
    fn write_labels(
        &mut self,
        origin: &Origin<'_>,
        kind: MetricKind,
        point: &Point<'_>,
        own_label: Option<&str>,
    ) -> bool {
        let mut labels = Labels::default();
        point_attributes(kind, point).for_each(|(key, value)| labels.add(key, value));
        if self.style.resource_labels {
            attributes(origin.resource, 1).for_each(|(key, value)| labels.add(key, value));
        }
        labels.identity(origin.resource);
        labels.add(b"otel_scope_name", Some(Value::Text(origin.scope_name)));
        labels.add(b"otel_scope_version", Some(Value::Text(origin.scope_version)));
        labels.constant(&self.style.const_labels);
        self.labels.clear();
        labels.write(&mut self.labels);
        labels.pairs.keys().all(|name| is_shown(name) && Some(name.as_str()) != own_label)
    }

    /// Removes series for which nothing came for long.
    pub fn expire(&mut self, now_millis: u64) {
        if self.style.expiration_millis == 0 {
            return;
        }
        let oldest = now_millis.saturating_sub(self.style.expiration_millis);
        for family in self.families.values_mut() {
            family.series.retain(|_, series| series.came_millis >= oldest);
        }
        self.families.retain(|_, family| !family.series.is_empty());
        self.series = self.families.values().map(|family| family.series.len()).sum();
    }

    /// The next series behind `place`, as text, and how far that went; `None`: there are no more.
    pub fn text_from(&self, place: &Place, format: Format) -> Option<(String, Place)> {
        let family = place.family.as_deref();
        let (mut name, mut after) = (family, place.series.as_deref());
        if after.is_none() {
            let behind = family.map_or(Bound::Unbounded, Bound::Excluded);
            name = self.families.range::<str, _>((behind, Bound::Unbounded)).next().map(|(name, _)| name.as_str());
        }
        // A family that has gone meanwhile has nothing more to show.
        let Some((name, family)) = name.and_then(|name| Some((name, self.families.get(name)?))) else {
            let gone = Place { family: place.family.clone(), series: None };
            return after.and_then(|_| self.text_from(&gone, format));
        };
        let mut out = String::new();
        if after.is_none() {
            Self::write_head(&mut out, name, family, format);
        }
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut series = family.series.range::<str, _>((behind, Bound::Unbounded));
        for (labels, series) in series.by_ref().take(SERIES_PER_PART) {
            self.write_series(&mut out, name, labels, series, format);
            after = Some(labels);
        }
        let after = series.next().and(after).map(Box::from);
        Some((out, Place { family: Some(name.to_owned()), series: after }))
    }

    fn write_head(out: &mut String, name: &str, family: &Family, format: Format) {
        // Of a counter, OpenMetrics names the family without its ending.
        let head = match (format, family.kind) {
            (Format::OpenMetrics, Type::Counter) => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let kind = match family.kind {
            // OpenMetrics knows no counter of another name.
            Type::Counter if format == Format::OpenMetrics && !name.ends_with("_total") => "unknown",
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
            Type::Summary => "summary",
        };
        // Writing into memory does not fail.
        let _ = write!(out, "# HELP {head} ");
        write_escaped(out, &family.help);
        let _ = write!(out, "\n# TYPE {head} {kind}\n");
    }

    fn write_series(&self, out: &mut String, name: &str, labels: &str, series: &Series, format: Format) {
        let number = |number| if format == Format::OpenMetrics { canonical(number) } else { plain(number) };
        let time = match (self.style.send_timestamps, format) {
            (false, _) => String::new(),
            (true, Format::Text) => format!(" {}", series.time_millis),
            (true, Format::OpenMetrics) => format!(" {}.{:03}", series.time_millis / 1_000, series.time_millis % 1_000),
        };
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let comma = if labels.is_empty() { "" } else { "," };
        let exemplar_in = |exemplar: &Option<Exemplar>, above: f64, upto: f64| {
            let exemplar = exemplar.filter(|it| format == Format::OpenMetrics && above < it.value && it.value <= upto);
            exemplar.map_or_else(String::new, |it| exemplar_text(&it))
        };
        let _ = match &series.data {
            Data::Number(value, exemplar) => {
                let counts = name.ends_with("_total");
                let exemplar =
                    if counts { exemplar_in(exemplar, f64::NEG_INFINITY, f64::INFINITY) } else { String::new() };
                writeln!(out, "{name}{braced} {}{time}{exemplar}", number(*value))
            }
            Data::Histogram { bounds, counts, sum, exemplar } => {
                let (mut total, mut below) = (0u64, f64::NEG_INFINITY);
                for (count, bound) in counts.iter().zip(bounds.iter().copied().chain([f64::INFINITY])) {
                    total = total.saturating_add(*count);
                    let (le, exemplar) = (number(bound), exemplar_in(exemplar, below, bound));
                    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{le}\"}} {total}{time}{exemplar}");
                    below = bound;
                }
                writeln!(out, "{name}_sum{braced} {}{time}\n{name}_count{braced} {total}{time}", number(*sum))
            }
            Data::Summary { quantiles, sum, count } => {
                for (quantile, value) in quantiles {
                    let (quantile, value) = (number(*quantile), number(*value));
                    let _ = writeln!(out, "{name}{{{labels}{comma}quantile=\"{quantile}\"}} {value}{time}");
                }
                writeln!(out, "{name}_sum{braced} {}{time}\n{name}_count{braced} {count}{time}", number(*sum))
            }
        };
    }
}

impl Data {
    /// What it holds besides itself.
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Number(..) => 0,
            Self::Histogram { bounds, counts, .. } => (bounds.len() + counts.len()) * 8,
            Self::Summary { quantiles, .. } => quantiles.len() * 16,
        }
    }

    /// This and what came since.
    fn plus(&self, more: Self) -> Self {
        match (self, more) {
            (Self::Number(before, _), Self::Number(more, exemplar)) => Self::Number(before + more, exemplar),
            (
                Self::Histogram { bounds: of_before, counts: before, sum: sum_before, .. },
                Self::Histogram { bounds, mut counts, sum, exemplar },
            ) if *of_before == bounds => {
                counts.iter_mut().zip(before).for_each(|(count, before)| *count = count.saturating_add(*before));
                Self::Histogram { bounds, counts, sum: sum + sum_before, exemplar }
            }
            (_, more) => more,
        }
    }
}

fn exemplar_text(exemplar: &Exemplar) -> String {
    let mut ids = String::new();
    let mut put = |name: &str, id: &[u8]| {
        if id.iter().any(|byte| *byte != 0) {
            let _ = write!(ids, "{}{name}=\"", if ids.is_empty() { "" } else { "," });
            for byte in id {
                let _ = write!(ids, "{byte:02x}");
            }
            ids.push('"');
        }
    };
    put("trace_id", &exemplar.trace_id);
    put("span_id", &exemplar.span_id);
    let millis = exemplar.time / 1_000_000;
    format!(" # {{{ids}}} {} {}.{:03}", canonical(exemplar.value), millis / 1_000, millis % 1_000)
}

/// Whether Prometheus takes a label of this name. Those that begin with two underscores are its own.
fn is_shown(name: &str) -> bool {
    !name.is_empty() && !name.starts_with("__")
}

/// The labels of one series, by name.
#[derive(Default)]
struct Labels {
    pairs: BTreeMap<String, String>,
}

impl Labels {
    /// Two attributes that become one label share it, as in the Collector.
    fn add(&mut self, key: &[u8], value: Option<Value<'_>>) {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return };
        let mut text = Vec::new();
        value.write(&mut text);
        let text = String::from_utf8_lossy(&text);
        let place = self.pairs.entry(label_name(&String::from_utf8_lossy(key))).or_default();
        if !place.is_empty() {
            place.push(';');
        }
        place.push_str(&text);
    }

    /// `job` and `instance`.
    fn identity(&mut self, resource: &[u8]) {
        let (mut name, mut namespace, mut instance) = (None, None, None);
        for (key, value) in attributes(resource, 1) {
            match key {
                b"service.name" => name = value,
                b"service.namespace" => namespace = value,
                b"service.instance.id" => instance = value,
                _ => {}
            }
        }
        let text = |value: Value<'_>| {
            let mut text = Vec::new();
            value.write(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        };
        if let Some(name) = name.map(text).filter(|name| !name.is_empty()) {
            let job = match namespace.map(text).filter(|namespace| !namespace.is_empty()) {
                Some(namespace) => format!("{namespace}/{name}"),
                None => name,
            };
            self.pairs.insert("job".to_owned(), job);
        }
        if let Some(instance) = instance.map(text).filter(|instance| !instance.is_empty()) {
            self.pairs.insert("instance".to_owned(), instance);
        }
    }

    fn constant(&mut self, labels: &[(String, String)]) {
        labels.iter().for_each(|(name, value)| drop(self.pairs.insert(name.clone(), value.clone())));
    }

    fn write(&self, out: &mut String) {
        for (name, value) in &self.pairs {
            let _ = write!(out, "{}{name}=\"", if out.is_empty() { "" } else { "," });
            write_escaped(out, value);
            out.push('"');
        }
    }
}

#[cfg(test)]
mod tests;
