//! Settings of the `span_metrics` connector, with the Collector's names, defaults and checks.

use super::How;
use super::settings::{BUCKETS_MAX, SERIES_MAX, decode_bounds, decode_interval, family};
use crate::config::{Secrecy, Section, Shape, WhenNull};
use crate::red::facts::Keys;
use crate::red::glob::Globs;
use crate::red::histogram::{Bounds, Scheme};
use crate::red::otlp::Temporality;
use crate::red::settings::DIMENSIONS_MAX;
use crate::red::spans::{self, ByResource, Dimension, Figure, Group, Precedence, SpanMetrics, Subject};
use crate::red::{Engine, Family, Kind};
use std::time::Duration;

/// Of an exponential histogram, if nothing else is said.
const BUCKETS: u64 = 160;
const RESOURCES_MAX: u64 = 10_000;
/// A resource that makes room for another has been silent for so long, and for longer than the time between two reports:
/// so its last counts were reported.
const IDLE_MIN: Duration = Duration::from_secs(60);
/// What the Collector counts by without being asked, and so no name for more.
const RESERVED: [&str; 5] = ["service.name", "span.name", "span.kind", "status.code", "collector.instance.id"];

/// Attributes that become labels.
#[derive(Debug, Clone, PartialEq, Default)]
struct Attributes {
    /// And what stands for an absent one.
    named: Vec<(String, Option<String>)>,
    globs: Vec<String>,
}

/// `connectors::span_metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanMetricsConnectorSettings {
    namespace: String,
    /// `histogram`; `None`: disabled.
    latency: Option<Latency>,
    /// Of calls, durations and events alike.
    dimensions: Attributes,
    /// Of calls alone.
    calls_dimensions: Attributes,
    /// Of events alone; `None`: events are not counted.
    events: Option<Attributes>,
    /// Of the five that are there by themselves.
    excluded: Vec<String>,
    /// `include_instrumentation_scope`.
    scopes: Vec<String>,
    by_resource: ByResource,
    temporality: Temporality,
    interval: Duration,
    /// Zero: never.
    expiration: Duration,
    series_max: usize,
    /// `exemplars::max_per_data_point`, if they are enabled.
    exemplars_max: Option<usize>,
    /// `enable_metrics_sampling_method`: a label that tells counts from extrapolations.
    sampling_method: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Latency {
    is_seconds: bool,
    scheme: Scheme,
    /// Of durations alone.
    dimensions: Attributes,
}

impl SpanMetricsConnectorSettings {
    pub fn decode(section: &mut Section<'_>) -> Self {
        let namespace = section.text("namespace", "traces.span.metrics");
        let latency = section.section("histogram", Latency::decode);
        let dimensions = decode_attributes(section, "dimensions");
        let calls_dimensions = decode_attributes(section, "calls_dimensions");
        let events = section.section("events", |section| {
            let (on, dimensions) = (section.bool("enabled", false), decode_attributes(section, "dimensions"));
            if on && dimensions == Attributes::default() {
                section.error("dimensions", "events are counted by at least one", "e.g. [{name: exception.type}]");
            }
            on.then_some(dimensions)
        });
        let excluded = section.list("exclude_dimensions");
        let words = [
            ("AGGREGATION_TEMPORALITY_CUMULATIVE", Temporality::Cumulative),
            ("AGGREGATION_TEMPORALITY_DELTA", Temporality::Delta),
        ];
        let temporality = section.word("aggregation_temporality", &words, Temporality::Cumulative);
        let interval = decode_interval(section);
        let metrics_expiration = section.duration("metrics_expiration", Duration::ZERO);
        let series_expiration = section.duration("series_expiration", Duration::ZERO);
        let limit = section.u64("aggregation_cardinality_limit", 0);
        if limit > 10 * SERIES_MAX as u64 {
            section.error("aggregation_cardinality_limit", format!("must not be above {}", 10 * SERIES_MAX), "");
        }
        let exemplars_max = section.section("exemplars", |section| {
            let (on, max) = (section.bool("enabled", false), section.u64("max_per_data_point", 5));
            on.then_some(max as usize)
        });
        let key_attributes = section.list("resource_metrics_key_attributes");
        let resources_max = section.u64("resource_metrics_cache_size", 1_000);
        if !(1..=RESOURCES_MAX).contains(&resources_max) {
            section.error("resource_metrics_cache_size", format!("must be from 1 to {RESOURCES_MAX}"), "");
        }
        // What it asks for is done without being asked, as in the Collector while the feature gate
        // `connector.spanmetrics.excludeResourceMetrics` is off.
        section.accept("add_resource_attributes", Shape::Bool);
        for key in ["metric_timestamp_cache_size", "dimensions_cache_size"] {
            section.inert(key, Shape::Int, "series are bounded by aggregation_cardinality_limit");
        }
        Self {
            namespace,
            latency,
            dimensions,
            calls_dimensions,
            events,
            excluded,
            scopes: section.list("include_instrumentation_scope"),
            by_resource: ByResource {
                key_attributes,
                resources_max: resources_max as usize,
                series_max: (limit > 0).then_some(limit as usize),
                idle_millis: interval.max(IDLE_MIN).as_millis() as u64,
            },
            temporality,
            interval,
            expiration: if series_expiration.is_zero() { metrics_expiration } else { series_expiration },
            series_max: SERIES_MAX.max(limit as usize),
            exemplars_max,
            sampling_method: section.bool("enable_metrics_sampling_method", false),
        }
    }

    /// The counters and how they are reported.
    pub fn build(&self, name: String) -> (Engine, How) {
        let mut keys = Keys::default();
        let named = |suffix: &str| match self.namespace.as_str() {
            "" => suffix.to_owned(),
            namespace => format!("{namespace}.{suffix}"),
        };
        let calls = (family(named("calls"), "", Kind::Counter, "Spans"), Figure::Calls);
        let (mut groups, is_seconds) = (Vec::new(), self.latency.as_ref().is_some_and(|latency| latency.is_seconds));
        let mut group = |subject, more: &Attributes, families| self.group(subject, more, families, &mut keys);
        let of_calls = group(Subject::Spans, &self.calls_dimensions, vec![calls]);
        match &self.latency {
            None => groups.push(of_calls),
            Some(latency) => {
                let kind = match latency.scheme {
                    Scheme::Explicit(_) => Kind::Histogram,
                    Scheme::Exponential { .. } => Kind::ExponentialHistogram,
                };
                let unit = if is_seconds { "s" } else { "ms" };
                let duration = (family(named("duration"), unit, kind, "Duration of spans"), Figure::Latency);
                let mut of_durations = group(Subject::Spans, &latency.dimensions, vec![duration]);
                groups.push(of_calls);
                match groups.first_mut() {
                    Some(calls) if calls.has_the_labels_of(&of_durations) => {
                        calls.families.append(&mut of_durations.families);
                    }
                    _ => groups.push(of_durations),
                }
            }
        }
        if let Some(events) = &self.events {
            let families = vec![(family(named("events"), "", Kind::Counter, "Events of spans"), Figure::Calls)];
            groups.push(group(Subject::Events, events, families));
        }
        let scheme = self.latency.as_ref().map(|latency| latency.scheme.clone());
        let plan = spans::Plan {
            groups,
            target_info: None,
            precedence: Precedence::Span,
            scheme: scheme.unwrap_or_else(|| Scheme::Explicit(Bounds::new(&[]))),
            unit_nanos: if is_seconds { 1e9 } else { 1e6 },
            exemplars: self.exemplars_max.is_some(),
            series_max: self.series_max,
            by_resource: Some(self.by_resource.clone()),
            needs_service: true,
            extrapolates: true,
            scopes: self.scopes.clone(),
        };
        let spans = SpanMetrics::new(plan, &mut keys);
        let engine = Engine::new(keys, Some(spans), None, self.expiration.as_millis() as u64);
        let how = How {
            name,
            scope: "spanmetricsconnector",
            interval: self.interval,
            temporality: self.temporality,
            exemplars_max: self.exemplars_max.unwrap_or(0),
            offset: Duration::ZERO,
        };
        (engine, how)
    }

    /// With the labels of all, and these.
    fn group(&self, subject: Subject, more: &Attributes, families: Vec<(Family, Figure)>, keys: &mut Keys) -> Group {
        let globs: Vec<String> = self.dimensions.globs.iter().chain(&more.globs).cloned().collect();
        // Each was compiled when it was read.
        let globs = Globs::compile(&globs).ok().flatten();
        Group { subject, dimensions: self.labels(more, keys), globs, families }
    }

    fn labels(&self, more: &Attributes, keys: &mut Keys) -> Vec<(String, Dimension)> {
        let intrinsic = [
            Dimension::Service,
            Dimension::SpanName,
            Dimension::SpanKind,
            Dimension::StatusCode,
            Dimension::Fixed(instance_id()),
        ];
        let is_wanted = |name: &str| !self.excluded.iter().any(|excluded| excluded == name);
        let intrinsic = RESERVED.into_iter().zip(intrinsic).filter(|(name, _)| is_wanted(name));
        let mut labels: Vec<_> = intrinsic.map(|(name, dimension)| (name.to_owned(), dimension)).collect();
        if !self.scopes.is_empty() {
            labels.push(("span.instrumentation.scope.name".to_owned(), Dimension::ScopeName));
            labels.push(("span.instrumentation.scope.version".to_owned(), Dimension::ScopeVersion));
        }
        if self.sampling_method {
            labels.push(("sampling.method".to_owned(), Dimension::SamplingMethod));
        }
        for (name, default) in self.dimensions.named.iter().chain(&more.named) {
            let dimension = Dimension::Attribute { key: keys.index_of(name), default: default.clone() };
            // Named in both lists, the latter's default holds.
            match labels.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = dimension,
                None => labels.push((name.clone(), dimension)),
            }
        }
        labels
    }
}

impl Latency {
    fn decode(section: &mut Section<'_>) -> Option<Self> {
        let disabled = section.bool("disable", false);
        let is_seconds = section.word("unit", &[("ms", false), ("s", true)], false);
        let per_second = if is_seconds { 1.0 } else { 1_000.0 };
        let dimensions = decode_attributes(section, "dimensions");
        let bounds =
            section.optional("explicit", WhenNull::Absent, |section| decode_bounds(section, "buckets", per_second));
        let exponential = section.optional("exponential", WhenNull::Absent, |section| {
            let buckets_max = section.u64("max_size", BUCKETS);
            if buckets_max == 1 || buckets_max > BUCKETS_MAX {
                section.error("max_size", format!("must be from 2 to {BUCKETS_MAX}"), "160 is the default");
            }
            // Zero is the default, too, as in the Collector.
            if buckets_max == 0 { BUCKETS } else { buckets_max.min(BUCKETS_MAX) }
        });
        if bounds.is_some() && exponential.is_some() {
            section.error("exponential", "a histogram is either explicit or exponential", "remove one of them");
        }
        let default: Vec<f64> =
            super::settings::BOUNDS_MILLIS.iter().map(|millis| millis / 1_000.0 * per_second).collect();
        let scheme = match exponential {
            Some(buckets_max) => Scheme::Exponential { buckets_max: buckets_max as u32 },
            None => Scheme::Explicit(bounds.flatten().unwrap_or_else(|| Bounds::new(&default))),
        };
        (!disabled).then_some(Self { is_seconds, scheme, dimensions })
    }
}

fn decode_attributes(section: &mut Section<'_>, key: &'static str) -> Attributes {
    let entries = section.sections(key, |section| {
        let (name, glob) = (section.text("name", ""), section.text("glob", ""));
        let default = section.optional_text("default", Secrecy::Open);
        match (name.is_empty(), glob.is_empty()) {
            (true, true) => section.error("name", "is missing", "the attribute's name, or a glob for several names"),
            (false, false) => section.error("glob", "cannot be given together with name", "keep one of them"),
            (false, true) => {}
            (true, false) => {
                if default.is_some() {
                    section.error("default", "is not supported together with glob", "remove it, or name the attribute");
                }
                if let Err(problem) = Globs::compile(std::slice::from_ref(&glob)) {
                    section.error("glob", format!("{glob:?} {problem}"), "e.g. db.* (no dots), db.** (any)");
                }
            }
        }
        (name, default, glob)
    });
    if entries.len() > DIMENSIONS_MAX {
        section.error(key, format!("at most {DIMENSIONS_MAX}, are {}", entries.len()), "");
    }
    let mut attributes = Attributes::default();
    for (name, default, glob) in entries {
        if name.is_empty() {
            attributes.globs.push(glob);
            continue;
        }
        let is_twice = attributes.named.iter().any(|(earlier, _)| *earlier == name);
        if is_twice || RESERVED.contains(&name.as_str()) {
            section.error(key, format!("duplicate dimension name {name:?}"), "name each once; five are there anyway");
        }
        attributes.named.push((name, default));
    }
    for glob in &attributes.globs {
        let Ok(Some(pattern)) = Globs::compile(std::slice::from_ref(glob)) else { continue };
        let names = RESERVED.into_iter().chain(attributes.named.iter().map(|(name, _)| name.as_str()));
        if let Some(name) = names.into_iter().find(|name| pattern.matches(name.as_bytes())) {
            let reason = format!("the glob {glob:?} matches {name:?}, which is a dimension already");
            section.error(key, reason, "narrow the glob");
        }
    }
    attributes
}

/// What tells this process' series from another's: different at each start.
fn instance_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    use std::sync::OnceLock;
    static ID: OnceLock<String> = OnceLock::new();
    let random = || RandomState::new().hash_one(std::process::id());
    let make = || {
        let (high, low) = (random(), random());
        // The shape of a random UUID.
        let high = high & !0xf000 | 0x4000;
        let low = low & !(0b11 << 62) | 0b10 << 62;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    };
    ID.get_or_init(make).clone()
}
