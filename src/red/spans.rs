//! Span metrics: calls, latency and size of spans, and their events, by service, operation, kind and status.

use super::extrapolation::Extrapolation;
use super::facts::{Facts, Keys, Resource, Value, attributes};
use super::glob::{GLOBBED_MAX, Globbed, Globs};
use super::histogram::{Distribution, Scheme, Witness};
use super::labels::{Builder, Labels, sanitized, split_first};
use super::resources::{self, NAMELESS, Resources};
use super::table::Table;
use super::{Census, Family, Now, Reading};
use crate::otlp::view::messages;
use crate::otlp::wire::Fields;

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
    /// Of the scopes in [`Plan::scopes`].
    ScopeName,
    ScopeVersion,
    /// Whether a span is counted for others that were left out.
    SamplingMethod,
    /// An attribute by its index among the [`Keys`], and what stands in its place where it is absent.
    Attribute {
        key: usize,
        default: Option<String>,
    },
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

/// What series are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Spans,
    /// Events of spans; their attributes come after the span's and before the resource's.
    Events,
}

/// Which figure a family shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    Calls,
    Latency,
    Size,
}

/// Families with the same labels.
#[derive(Debug, Clone)]
pub struct Group {
    pub subject: Subject,
    /// Label names and their sources.
    pub dimensions: Vec<(String, Dimension)>,
    /// Attributes that are labels too, under their own names.
    pub globs: Option<Globs>,
    pub families: Vec<(Family, Figure)>,
}

impl Group {
    pub fn has_the_labels_of(&self, other: &Self) -> bool {
        (self.subject, &self.dimensions, &self.globs) == (other.subject, &other.dimensions, &other.globs)
    }
}

/// Series of different resources are kept apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByResource {
    /// What tells resources apart; with none: all of their attributes.
    pub key_attributes: Vec<String>,
    pub resources_max: usize,
    /// Label sets of one resource in each group, if they are bounded.
    pub series_max: Option<usize>,
    /// With so many there: after so long without a span one makes room for another.
    pub idle_millis: u64,
}

/// What is counted and under which names.
#[derive(Debug, Clone)]
pub struct Plan {
    pub groups: Vec<Group>,
    /// Facts about resources, by job and instance.
    pub target_info: Option<Family>,
    pub precedence: Precedence,
    pub scheme: Scheme,
    /// The unit of `scheme` in nanoseconds.
    pub unit_nanos: f64,
    pub exemplars: bool,
    /// Label sets of each group, and of targets.
    pub series_max: usize,
    pub by_resource: Option<ByResource>,
    /// Spans of a resource without `service.name` are passed over, as in the Collector.
    pub needs_service: bool,
    /// A span of a sampled trace is counted for those that were left out.
    pub extrapolates: bool,
    /// Names of scopes that become labels.
    pub scopes: Vec<String>,
}

/// A span, or an event of it, and what it stands under.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub resource: Resource<'a>,
    /// Name and version, where they become labels.
    pub scope: Option<(&'a [u8], &'a [u8])>,
    pub span: Facts<'a>,
    pub of_span: &'a [Option<Value<'a>>],
    /// The encoded event, and its attributes by the index of [`Keys`].
    pub event: Option<(&'a [u8], &'a [Option<Value<'a>>])>,
}

/// How many spans one stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    times: u64,
    is_extrapolated: bool,
}

/// The figures of one label set.
#[derive(Debug)]
struct Figures {
    calls: u64,
    bytes: u64,
    latency: Option<Distribution>,
}

/// A group at work.
#[derive(Debug)]
struct Counted {
    group: Group,
    names: Vec<String>,
    has_latency: bool,
    table: Table<Figures>,
}

/// Where a family's series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Group(usize, Figure),
    Targets,
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
    groups: Vec<Counted>,
    families: Vec<(Family, Place)>,
    keys: OfResource,
    reads_attributes: bool,
    targets: Table<()>,
    resources: Option<Resources>,
    extrapolation: Extrapolation,
    builder: Builder,
    /// Of the resource that is looked at.
    current: Current,
}

#[derive(Debug, Default)]
struct Current {
    job: Vec<u8>,
    number: u32,
    is_counted: bool,
    warned_of_globs: bool,
}

impl SpanMetrics {
    pub fn new(mut plan: Plan, keys: &mut Keys) -> Self {
        let groups: Vec<Counted> = std::mem::take(&mut plan.groups)
            .into_iter()
            .map(|group| Counted {
                names: group.dimensions.iter().map(|(name, _)| name.clone()).collect(),
                has_latency: group.families.iter().any(|(_, figure)| *figure == Figure::Latency),
                table: Table::bounded(plan.series_max, plan.by_resource.as_ref().and_then(|by| by.series_max)),
                group,
            })
            .collect();
        let of_groups = groups.iter().enumerate().flat_map(|(index, counted)| {
            counted.group.families.iter().map(move |(family, figure)| (family.clone(), Place::Group(index, *figure)))
        });
        let families = of_groups.chain(plan.target_info.clone().map(|family| (family, Place::Targets))).collect();
        let is_attribute = |(_, dimension): &(String, Dimension)| matches!(dimension, Dimension::Attribute { .. });
        Self {
            families,
            keys: OfResource {
                service: keys.index_of("service.name"),
                namespace: keys.index_of("service.namespace"),
                instance: keys.index_of("service.instance.id"),
            },
            reads_attributes: groups.iter().any(|counted| counted.group.dimensions.iter().any(is_attribute)),
            targets: Table::new(plan.series_max),
            resources: plan
                .by_resource
                .as_ref()
                .map(|by| Resources::new(&by.key_attributes, by.resources_max, by.idle_millis)),
            extrapolation: Extrapolation::default(),
            builder: Builder::default(),
            current: Current::default(),
            groups,
            plan,
        }
    }

    /// Whether a span's attributes are needed.
    pub fn wants_attributes(&self) -> bool {
        self.reads_attributes
    }

    pub fn wants_events(&self) -> bool {
        self.groups.iter().any(|counted| counted.group.subject == Subject::Events)
    }

    /// The scope of a ScopeSpans message, if it becomes labels.
    pub fn scope<'a>(&self, scope_spans: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        if self.plan.scopes.is_empty() {
            return None;
        }
        let (mut name, mut version): (&[u8], &[u8]) = (b"", b"");
        for field in messages(scope_spans, 1).flat_map(|scope| Fields::new(scope).map_while(Result::ok)) {
            name = field.bytes(1).unwrap_or(name);
            version = field.bytes(2).unwrap_or(version);
        }
        self.plan.scopes.iter().any(|wanted| wanted.as_bytes() == name).then_some((name, version))
    }

    /// The spans that follow are of this resource.
    pub fn begin(&mut self, resource: &Resource<'_>, now: Now) {
        let of_resource = |key: usize| resource.found.get(key).copied().flatten();
        let find = |key: usize| of_resource(key).filter(|value| !value.is_empty());
        self.current.is_counted = !self.plan.needs_service || of_resource(self.keys.service).is_some();
        if let Some(known) = self.resources.as_mut().filter(|_| self.current.is_counted) {
            self.current.number = known.number_of(resource.message, now.uptime_millis);
            // Their numbers are given to others.
            let evicted = known.take_evicted();
            if !evicted.is_empty() {
                let stays = |values: &[u8]| !number_of(values).is_some_and(|(number, _)| evicted.contains(&number));
                self.groups.iter_mut().for_each(|counted| counted.table.retain(stays));
            }
        }
        let job = &mut self.current.job;
        job.clear();
        if let Some(service) = find(self.keys.service) {
            if let Some(namespace) = find(self.keys.namespace) {
                namespace.write(job);
                job.push(b'/');
            }
            service.write(job);
        }
        if self.plan.target_info.is_some() {
            self.note_target(resource, find(self.keys.instance), now);
        }
    }

    /// Only a target that can be told from others, and of which there is something to say.
    fn note_target(&mut self, resource: &Resource<'_>, instance: Option<Value<'_>>, now: Now) {
        const IDENTITY: [&[u8]; 3] = [b"service.name", b"service.namespace", b"service.instance.id"];
        if self.current.job.is_empty() && instance.is_none() {
            return;
        }
        let mut said: Vec<(String, Value<'_>)> = Vec::new();
        for message in messages(resource.message, 1) {
            for (key, value) in attributes(message, 1) {
                let begins_badly = key.first().is_none_or(u8::is_ascii_digit);
                let Some(value) = value.filter(|_| !begins_badly && !IDENTITY.contains(&key)) else { continue };
                let name = sanitized(&String::from_utf8_lossy(key));
                match name.as_str() {
                    // An attribute must not pass for the label that tells targets apart.
                    "job" | "instance" => said.push((format!("__{name}"), value)),
                    // Prometheus keeps such names for itself: a second `__name__` takes the whole page away from it.
                    name if name.starts_with("__") => {}
                    _ => said.push((name, value)),
                }
            }
        }
        if said.is_empty() {
            return;
        }
        // Keys that become one label are one label, as in a Collector: a page with a label twice is refused as a whole.
        said.sort_by(|(left, _), (right, _)| left.cmp(right));
        self.builder.clear();
        for same in said.chunk_by(|(left, _), (right, _)| left == right) {
            let Some((name, _)) = same.first() else { continue };
            self.builder.push(name.as_bytes());
            self.builder.push_with(|out| {
                for (index, (_, value)) in same.iter().enumerate() {
                    if index > 0 {
                        out.push(b';');
                    }
                    value.write(out);
                }
            });
        }
        if !self.current.job.is_empty() {
            self.builder.push(b"job");
            self.builder.push(&self.current.job);
        }
        if let Some(instance) = instance {
            self.builder.push(b"instance");
            self.builder.push_with(|out| instance.write(out));
        }
        self.targets.update(self.builder.values(), now, || (), |()| ());
    }

    /// Counts a span; returns how many it stands for.
    #[inline]
    pub fn observe(&mut self, seen: &Seen<'_>, now: Now) -> Times {
        let extrapolated = match self.plan.extrapolates {
            true => self.extrapolation.count(seen.span.trace_state),
            false => None,
        };
        let times = Times { times: extrapolated.unwrap_or(1), is_extrapolated: extrapolated.is_some() };
        self.count_in(Subject::Spans, seen, times, now);
        times
    }

    /// Counts an event of a span that stands for so many.
    pub fn observe_event(&mut self, seen: &Seen<'_>, times: Times, now: Now) {
        self.count_in(Subject::Events, seen, times, now);
    }

    #[inline]
    fn count_in(&mut self, subject: Subject, seen: &Seen<'_>, times: Times, now: Now) {
        let Self { plan, groups, keys, builder, current, .. } = self;
        if !current.is_counted {
            return;
        }
        let span = &seen.span;
        let witness = plan.exemplars.then(|| Witness {
            trace_id: span.trace(),
            span_id: span.span_id.try_into().unwrap_or_default(),
            unix_millis: now.unix_millis,
        });
        for counted in groups.iter_mut().filter(|counted| counted.group.subject == subject) {
            builder.clear();
            if plan.by_resource.is_some() {
                builder.push(&resources::encode(current.number));
            }
            for (_, dimension) in &counted.group.dimensions {
                write_value(builder, dimension, seen, (keys, plan.precedence), &current.job, times);
            }
            if let Some(globs) = &counted.group.globs
                && write_globbed(builder, globs, &counted.names, seen)
                && !std::mem::replace(&mut current.warned_of_globs, true)
            {
                tracing::warn!(
                    GLOBBED_MAX,
                    "a span has more attributes that a glob makes labels of; those beyond are left out"
                );
            }
            let new = || Figures {
                calls: 0,
                bytes: 0,
                latency: counted.has_latency.then(|| Distribution::new(&plan.scheme)),
            };
            counted.table.update(builder.values(), now, new, |figures| {
                // A span may say that it stands for 2^56.
                figures.calls = figures.calls.saturating_add(times.times);
                figures.bytes += span.message.len() as u64;
                if let Some(latency) = &mut figures.latency {
                    latency.observe(&plan.scheme, span.nanos() as f64 / plan.unit_nanos, times.times, witness);
                }
            });
        }
    }

    pub fn forget(&mut self, seen_since_millis: u64) {
        self.groups.iter_mut().for_each(|counted| counted.table.forget(seen_since_millis));
        self.targets.forget(seen_since_millis);
        if let Some(resources) = &mut self.resources {
            resources.forget(seen_since_millis);
        }
    }

    pub fn families(&self) -> impl ExactSizeIterator<Item = &Family> {
        self.families.iter().map(|(family, _)| family)
    }

    pub fn slots(&self, family: usize) -> usize {
        match self.families.get(family) {
            Some((_, Place::Group(group, _))) => self.groups.get(*group).map_or(0, |counted| counted.table.slots()),
            Some((_, Place::Targets)) => self.targets.slots(),
            None => 0,
        }
    }

    pub fn read(&self, family: usize, slot: usize) -> Option<(Labels<'_>, Reading<'_>)> {
        let (group, figure) = match self.families.get(family)?.1 {
            Place::Group(group, figure) => (self.groups.get(group)?, figure),
            Place::Targets => {
                let series = self.targets.get(slot)?;
                return Some((series.labels(&[], &series.values, (NAMELESS, &[])), Reading::Gauge(1)));
            }
        };
        let series = group.table.get(slot)?;
        let (mut values, mut resource): (&[u8], (u32, &[u8])) = (&series.values, (NAMELESS, &[]));
        // The overflow series of all has no values, and no resource.
        if let Some(known) = self.resources.as_ref().filter(|_| !series.values.is_empty()) {
            let (number, rest) = number_of(&series.values)?;
            (values, resource) = (rest, (number, known.message(number)));
        }
        let reading = match figure {
            Figure::Calls => Reading::Counter(series.state.calls),
            Figure::Size => Reading::Counter(series.state.bytes),
            Figure::Latency => series.state.latency.as_ref()?.read(&self.plan.scheme)?,
        };
        Some((series.labels(&group.names, values, resource), reading))
    }

    pub fn count(&self, census: &mut Census) {
        census.span_series = self.groups.iter().map(|counted| counted.table.len()).sum();
        census.overflowed_spans = self.groups.iter().map(|counted| counted.table.overflowed()).sum();
        census.target_series = self.targets.len();
        census.overflowed_targets = self.targets.overflowed();
        census.overflowed_resources = self.resources.as_ref().map_or(0, Resources::overflowed);
        census.evicted_resources = self.resources.as_ref().map_or(0, Resources::evicted);
    }
}

/// The number of the resource that a series belongs to, and its label values.
fn number_of(values: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = split_first(values)?;
    Some((resources::decode(number)?, rest))
}

/// Names and values of the attributes that match, where no label is named so. Whether there were too many.
fn write_globbed(builder: &mut Builder, globs: &Globs, names: &[String], seen: &Seen<'_>) -> bool {
    let mut globbed = Globbed::default();
    let of_resource = messages(seen.resource.message, 1).flat_map(|message| attributes(message, 1));
    let of_event = seen.event.into_iter().flat_map(|(event, _)| attributes(event, 3));
    for (name, value) in attributes(seen.span.message, 9).chain(of_event).chain(of_resource) {
        if globs.matches(name) && !names.iter().any(|label| label.as_bytes() == name) {
            globbed.add(name, value);
        }
    }
    for (name, value) in globbed.iter() {
        builder.push(name);
        builder.push_with(|out| value.write(out));
    }
    globbed.overflowed
}

/// The value of one label.
#[inline]
fn write_value(
    builder: &mut Builder,
    dimension: &Dimension,
    seen: &Seen<'_>,
    (keys, precedence): (&OfResource, Precedence),
    job: &[u8],
    times: Times,
) {
    let of_resource = |key: usize| seen.resource.found.get(key).copied().flatten();
    let put = |builder: &mut Builder, value: Option<Value<'_>>| match value {
        Some(Value::Text(text)) => builder.push(text),
        Some(value) => builder.push_with(|out| value.write(out)),
        None => builder.push(b""),
    };
    let span = &seen.span;
    match dimension {
        Dimension::Service => put(builder, of_resource(keys.service)),
        Dimension::SpanName => builder.push(span.name),
        Dimension::SpanKind => builder.push(span.kind_name().as_bytes()),
        Dimension::StatusCode => builder.push(span.status_name().as_bytes()),
        Dimension::StatusMessage => builder.push(span.status_message),
        Dimension::Job => builder.push(job),
        Dimension::Instance => put(builder, of_resource(keys.instance)),
        Dimension::ScopeName => builder.push(seen.scope.map_or(b"", |(name, _)| name)),
        Dimension::ScopeVersion => builder.push(seen.scope.map_or(b"", |(_, version)| version)),
        Dimension::SamplingMethod => builder.push(if times.is_extrapolated { b"extrapolated" } else { b"counted" }),
        Dimension::Attribute { key, default } => {
            let of_span = seen.of_span.get(*key).copied().flatten();
            let of_event = || seen.event?.1.get(*key).copied().flatten();
            let value = match precedence {
                Precedence::Resource => of_resource(*key).or(of_span),
                Precedence::Span => of_span.or_else(of_event).or_else(|| of_resource(*key)),
            };
            let default = default.as_ref().map(|text| Value::Text(text.as_bytes()));
            put(builder, value.or(default));
        }
        Dimension::Fixed(text) => builder.push(text.as_bytes()),
    }
}
