//! Span metrics: calls, latency and size of spans by service, operation, kind and status.

use super::facts::{Facts, Keys, Resource, Value, attributes};
use super::histogram::{Bounds, Histogram, Witness};
use super::labels::{Builder, Labels, sanitized};
use super::table::Table;
use super::{Census, Family, Now, Reading};

/// One label and where its value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    Service,
    SpanName,
    SpanKind,
    StatusCode,
    StatusMessage,
    /// `service.namespace/service.name`, or the name alone.
    Job,
    /// `service.instance.id`.
    Instance,
    /// An attribute by its index among the [`Keys`], and what stands in its place where it is absent.
    Attribute {
        key: usize,
        default: Option<String>,
    },
    /// An attribute of the resource or, where it is absent, nothing.
    Fixed(String),
}

/// Where an attribute is looked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precedence {
    /// As Tempo does.
    #[default]
    Resource,
    /// As the Collector does.
    Span,
}

/// What is counted and under which names.
#[derive(Debug, Clone)]
pub struct Plan {
    pub calls: Family,
    pub latency: Option<Family>,
    pub size: Option<Family>,
    /// Facts about resources, by job and instance.
    pub target_info: Option<Family>,
    /// Label names and their sources.
    pub dimensions: Vec<(String, Dimension)>,
    pub precedence: Precedence,
    pub bounds: Bounds,
    /// What a second is in `bounds`: 1, or 1000 for milliseconds.
    pub per_second: f64,
    pub exemplars: bool,
    /// Label sets of spans, and of targets.
    pub series_max: usize,
}

/// The figures of one label set.
#[derive(Debug)]
struct Figures {
    calls: u64,
    bytes: u64,
    latency: Histogram,
}

/// The indexes of the resource attributes that are always looked for.
#[derive(Debug, Clone, Copy)]
struct OfResource {
    service: usize,
    namespace: usize,
    instance: usize,
}

#[derive(Debug)]
pub struct SpanMetrics {
    plan: Plan,
    names: Vec<String>,
    families: Vec<(Family, Figure)>,
    keys: OfResource,
    reads_attributes: bool,
    table: Table<Figures>,
    targets: Table<()>,
    builder: Builder,
    job: Vec<u8>,
}

/// Which figure a family shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Calls,
    Latency,
    Size,
    Target,
}

impl SpanMetrics {
    pub fn new(plan: Plan, keys: &mut Keys) -> Self {
        let families = [
            Some((plan.calls.clone(), Figure::Calls)),
            plan.latency.clone().map(|family| (family, Figure::Latency)),
            plan.size.clone().map(|family| (family, Figure::Size)),
            plan.target_info.clone().map(|family| (family, Figure::Target)),
        ];
        let is_attribute = |(_, dimension): &(String, Dimension)| matches!(dimension, Dimension::Attribute { .. });
        Self {
            names: plan.dimensions.iter().map(|(name, _)| name.clone()).collect(),
            families: families.into_iter().flatten().collect(),
            keys: OfResource {
                service: keys.index_of("service.name"),
                namespace: keys.index_of("service.namespace"),
                instance: keys.index_of("service.instance.id"),
            },
            reads_attributes: plan.dimensions.iter().any(is_attribute),
            table: Table::new(plan.series_max),
            targets: Table::new(plan.series_max),
            builder: Builder::default(),
            job: Vec::new(),
            plan,
        }
    }

    /// Whether a span's attributes are needed.
    pub fn wants_attributes(&self) -> bool {
        self.reads_attributes
    }

    /// The spans that follow are of this resource.
    pub fn begin(&mut self, resource: &Resource<'_>, now: Now) {
        let find = |key: usize| resource.found.get(key).copied().flatten().filter(|value| !value.is_empty());
        self.job.clear();
        if let Some(service) = find(self.keys.service) {
            if let Some(namespace) = find(self.keys.namespace) {
                namespace.write(&mut self.job);
                self.job.push(b'/');
            }
            service.write(&mut self.job);
        }
        if self.plan.target_info.is_some() {
            self.note_target(resource, find(self.keys.instance), now);
        }
    }

    /// Only a target that can be told from others, and of which there is something to say.
    fn note_target(&mut self, resource: &Resource<'_>, instance: Option<Value<'_>>, now: Now) {
        const IDENTITY: [&[u8]; 3] = [b"service.name", b"service.namespace", b"service.instance.id"];
        if self.job.is_empty() && instance.is_none() {
            return;
        }
        self.builder.clear();
        let mut says_something = false;
        for message in crate::otlp::view::messages(resource.message, 1) {
            for (key, value) in attributes(message, 1) {
                let begins_badly = key.first().is_none_or(u8::is_ascii_digit);
                let Some(value) = value.filter(|_| !begins_badly && !IDENTITY.contains(&key)) else { continue };
                let name = sanitized(&String::from_utf8_lossy(key));
                // An attribute must not pass for the label that tells targets apart.
                let name = if matches!(name.as_str(), "job" | "instance") { format!("__{name}") } else { name };
                self.builder.push(name.as_bytes());
                self.builder.push_with(|out| value.write(out));
                says_something = true;
            }
        }
        if !says_something {
            return;
        }
        if !self.job.is_empty() {
            self.builder.push(b"job");
            self.builder.push(&self.job);
        }
        if let Some(instance) = instance {
            self.builder.push(b"instance");
            self.builder.push_with(|out| instance.write(out));
        }
        self.targets.update(self.builder.values(), now.uptime_millis, || (), |()| ());
    }

    #[inline]
    pub fn observe(&mut self, resource: &Resource<'_>, span: &Facts<'_>, of_span: &[Option<Value<'_>>], now: Now) {
        let Self { plan, keys, builder, table, job, .. } = self;
        builder.clear();
        let of_resource = |key: usize| resource.found.get(key).copied().flatten();
        let put = |builder: &mut Builder, value: Option<Value<'_>>| match value {
            Some(Value::Text(text)) => builder.push(text),
            Some(value) => builder.push_with(|out| value.write(out)),
            None => builder.push(b""),
        };
        for (_, dimension) in &plan.dimensions {
            match dimension {
                Dimension::Service => put(builder, of_resource(keys.service)),
                Dimension::SpanName => builder.push(span.name),
                Dimension::SpanKind => builder.push(span.kind_name().as_bytes()),
                Dimension::StatusCode => builder.push(span.status_name().as_bytes()),
                Dimension::StatusMessage => builder.push(span.status_message),
                Dimension::Job => builder.push(job),
                Dimension::Instance => put(builder, of_resource(keys.instance)),
                Dimension::Attribute { key, default } => {
                    let of_span = of_span.get(*key).copied().flatten();
                    let value = match plan.precedence {
                        Precedence::Resource => of_resource(*key).or(of_span),
                        Precedence::Span => of_span.or(of_resource(*key)),
                    };
                    let default = default.as_ref().map(|text| Value::Text(text.as_bytes()));
                    put(builder, value.or(default));
                }
                Dimension::Fixed(text) => builder.push(text.as_bytes()),
            }
        }
        let witness = plan.exemplars.then(|| Witness {
            trace_id: span.trace(),
            span_id: span.span_id.try_into().unwrap_or_default(),
            unix_millis: now.unix_millis,
        });
        let new = || Figures { calls: 0, bytes: 0, latency: Histogram::new(&plan.bounds) };
        table.update(builder.values(), now.uptime_millis, new, |figures| {
            figures.calls += 1;
            figures.bytes += span.bytes as u64;
            if plan.latency.is_some() {
                figures.latency.observe(&plan.bounds, span.seconds() * plan.per_second, witness);
            }
        });
    }

    pub fn forget(&mut self, seen_since_millis: u64) {
        self.table.forget(seen_since_millis);
        self.targets.forget(seen_since_millis);
    }

    pub fn families(&self) -> impl ExactSizeIterator<Item = &Family> {
        self.families.iter().map(|(family, _)| family)
    }

    pub fn slots(&self, family: usize) -> usize {
        match self.families.get(family) {
            Some((_, Figure::Target)) => self.targets.slots(),
            _ => self.table.slots(),
        }
    }

    pub fn read(&self, family: usize, slot: usize) -> Option<(Labels<'_>, Reading<'_>)> {
        let (_, figure) = self.families.get(family)?;
        if *figure == Figure::Target {
            let series = self.targets.get(slot)?;
            let labels = Labels { names: &[], values: &series.values, is_overflow: series.is_overflow };
            return Some((labels, Reading::Gauge(1)));
        }
        let series = self.table.get(slot)?;
        let labels = Labels { names: &self.names, values: &series.values, is_overflow: series.is_overflow };
        let reading = match figure {
            Figure::Size => Reading::Counter(series.state.bytes),
            Figure::Latency => Reading::Histogram(&series.state.latency, &self.plan.bounds),
            Figure::Calls | Figure::Target => Reading::Counter(series.state.calls),
        };
        Some((labels, reading))
    }

    pub fn count(&self, census: &mut Census) {
        census.span_series = self.table.len();
        census.overflowed_spans = self.table.overflowed();
        census.target_series = self.targets.len();
        census.overflowed_targets = self.targets.overflowed();
    }
}
