//! A v2 span and what becomes of it (the rules of the Collector's `zipkinv2` translator).

use super::Rules;
use super::text::{attributes_of_json, last_bar, typed};
use crate::otlp::draft::{
    Attributes, Draft, EventDraft, LinkDraft, ScopeDraft, SpanDraft, SpanKind, StatusCode, Text, TooLong, Value,
};
use crate::otlp::ids;
use std::net::IpAddr;

/// Says that the source had no start time; what turns spans back into Zipkin's looks for it.
pub const START_TIME_ABSENT: &str = "otel.zipkin.absentField.startTime";
/// Names the resource attribute that the service name came from.
const SERVICE_NAME_SOURCE: &str = "otlp.service.name.source";
/// How many links a span may carry in its tags, `otlp.link.0` onwards.
const LINKS_MAX: usize = 128;

/// Tags that describe the resource, sorted.
#[rustfmt::skip]
const RESOURCE_TAGS: &[&str] = &[
    "aws.ecs.cluster.arn", "aws.ecs.container.arn", "aws.ecs.launchtype", "aws.ecs.task.arn", "aws.ecs.task.family",
    "aws.ecs.task.revision", "aws.eks.cluster.arn", "aws.log.group.arns", "aws.log.group.names", "aws.log.stream.arns",
    "aws.log.stream.names", "cloud.account.id", "cloud.availability_zone", "cloud.platform", "cloud.provider",
    "cloud.region", "cloud.resource_id", "container.id", "container.image.name", "container.image.tag",
    "container.name", "container.runtime", "deployment.environment", "device.id", "device.manufacturer",
    "device.model.identifier", "device.model.name", "faas.id", "faas.instance", "faas.max_memory", "faas.name",
    "faas.version", "host.arch", "host.id", "host.image.id", "host.image.name", "host.image.version", "host.name",
    "host.type", "k8s.cluster.name", "k8s.container.name", "k8s.container.restart_count", "k8s.cronjob.name",
    "k8s.cronjob.uid", "k8s.daemonset.name", "k8s.daemonset.uid", "k8s.deployment.name", "k8s.deployment.uid",
    "k8s.job.name", "k8s.job.uid", "k8s.namespace.name", "k8s.node.name", "k8s.node.uid", "k8s.pod.name",
    "k8s.pod.uid", "k8s.replicaset.name", "k8s.replicaset.uid", "k8s.statefulset.name", "k8s.statefulset.uid",
    "opencensus.exporterversion", "opencensus.resourcetype", "opencensus.starttime", "os.description", "os.name",
    "os.type", "os.version", "process.command", "process.command_args", "process.command_line",
    "process.executable.name", "process.executable.path", "process.owner", "process.pid",
    "process.runtime.description", "process.runtime.name", "process.runtime.version", "service.instance.id",
    "service.name", "service.namespace", "service.version", "telemetry.auto.version", "telemetry.sdk.language",
    "telemetry.sdk.name", "telemetry.sdk.version", "webengine.description", "webengine.name", "webengine.version",
];

/// A span of Zipkin's v2 model. Times are microseconds.
#[derive(Debug, Default)]
pub struct Span<'a> {
    pub trace_id: [u8; 16],
    pub id: [u8; 8],
    pub parent_id: Option<[u8; 8]>,
    pub name: Text<'a>,
    pub kind: SpanKind,
    /// 0: absent.
    pub timestamp: u64,
    pub duration: u64,
    pub local: Endpoint<'a>,
    pub remote: Endpoint<'a>,
    pub annotations: Vec<(u64, Text<'a>)>,
    /// All of them text.
    pub tags: Attributes<'a>,
}

/// A side of a call. Empty and 0: absent.
#[derive(Debug, Default)]
pub struct Endpoint<'a> {
    pub service_name: Text<'a>,
    pub ipv4: Text<'a>,
    pub ipv6: Text<'a>,
    pub port: u16,
}

impl<'a> Span<'a> {
    pub fn push(mut self, rules: Rules, draft: &mut Draft) -> Result<(), TooLong> {
        let resource = draft.resource(&mut self.resource())?;
        let scope = self.scope();
        let mut span = self.span(rules);
        draft.push(resource, &scope, &mut span)
    }

    fn resource(&mut self) -> Attributes<'a> {
        let service_name = std::mem::take(&mut self.local.service_name);
        let source = self.tags.take(SERVICE_NAME_SOURCE).map(Value::into_text).filter(|source| !source.is_empty());
        let mut resource = Attributes::default();
        if !service_name.is_empty() {
            resource.put(source.unwrap_or(b"service.name".into()), Value::Text(service_name));
        }
        for (key, value) in self.tags.split_off(RESOURCE_TAGS) {
            resource.put(key, value);
        }
        resource
    }

    fn scope(&mut self) -> ScopeDraft<'a> {
        let mut of_either = |now: &str, before: &str| {
            let before = self.tags.take(before);
            self.tags.take(now).or(before).map(Value::into_text).unwrap_or_default()
        };
        let name = of_either("otel.scope.name", "otel.library.name");
        ScopeDraft { name, version: of_either("otel.scope.version", "otel.library.version") }
    }

    fn span(mut self, rules: Rules) -> SpanDraft<'a> {
        let tags = &mut self.tags;
        let mut span = SpanDraft {
            trace_id: self.trace_id,
            span_id: self.id,
            // A span that is its own parent is Zipkin's way of saying root.
            parent_span_id: self.parent_id.filter(|parent| *parent != self.id && *parent != [0; 8]),
            trace_state: tags.take("w3c.tracestate").map(Value::into_text).unwrap_or_default(),
            name: self.name,
            kind: self.kind,
            start: self.timestamp.saturating_mul(1_000),
            end: self.timestamp.saturating_add(self.duration).saturating_mul(1_000),
            ..SpanDraft::default()
        };
        if span.kind == SpanKind::Unspecified && tags.take("span.kind").is_some_and(|kind| kind.text() == b"internal") {
            span.kind = SpanKind::Internal;
        }
        (span.status, span.status_message) = status(tags);
        span.links = links(tags);
        if rules.parse_string_tags {
            tags.change_values(typed);
        }
        span.attributes = std::mem::take(tags);
        let local = ["net.host.ip", "net.host.port"];
        self.local.describe(local, &mut span.attributes);
        self.remote.describe_remote(&mut span.attributes);
        if self.timestamp == 0 {
            span.attributes.put(START_TIME_ABSENT.as_bytes(), Value::Bool(true));
        }
        span.events = self.annotations.into_iter().map(|(timestamp, value)| event(timestamp, value)).collect();
        span
    }
}

impl<'a> Endpoint<'a> {
    /// The attributes of the other side of a call.
    pub fn describe_remote(mut self, attributes: &mut Attributes<'a>) {
        let service_name = std::mem::take(&mut self.service_name);
        if !service_name.is_empty() {
            attributes.put_text("peer.service", service_name);
        }
        self.describe(["net.peer.ip", "net.peer.port"], attributes);
    }

    fn describe(self, [ip, port]: [&'static str; 2], attributes: &mut Attributes<'a>) {
        for address in [self.ipv4, self.ipv6].into_iter().filter(|address| !address.is_empty()) {
            attributes.put_text(ip, canonical(address));
        }
        if self.port > 0 {
            attributes.put(port.as_bytes(), Value::Int(self.port.into()));
        }
    }
}

/// An address as it is usually written; what is no address stays as it is.
fn canonical(address: Text<'_>) -> Text<'_> {
    match std::str::from_utf8(&address).ok().and_then(|text| text.parse::<IpAddr>().ok()) {
        Some(ip) => ip.to_canonical().to_string().into_bytes().into(),
        None => address,
    }
}

fn status<'a>(tags: &mut Attributes<'a>) -> (StatusCode, Text<'a>) {
    let (mut code, mut message) = (StatusCode::Unset, Text::default());
    if let Some(said) = tags.take("otel.status_code") {
        code = match said.text() {
            b"STATUS_CODE_OK" | b"Ok" | b"OK" => StatusCode::Ok,
            b"STATUS_CODE_ERROR" | b"Error" | b"ERROR" => StatusCode::Error,
            _ => StatusCode::Unset,
        };
        message = tags.take("otel.status_description").map(Value::into_text).unwrap_or_default();
    }
    // That the tag is there says that there was an error; more than "true" is worth keeping.
    if let Some(error) = tags.get("error") {
        code = StatusCode::Error;
        if error.text() == b"true" {
            tags.take("error");
        }
    }
    (code, message)
}

/// An annotation; one that was an OTLP event once carries its attributes: `name|{...}|dropped`.
fn event(timestamp: u64, value: Text<'_>) -> EventDraft<'_> {
    let time = timestamp.saturating_mul(1_000);
    let parsed = std::str::from_utf8(&value).ok().and_then(|text| {
        let (name, rest) = text.split_once('|')?;
        let (json, dropped_attributes) = last_bar(rest)?;
        Some((name.len(), attributes_of_json(json)?, dropped_attributes))
    });
    match parsed {
        Some((name_len, attributes, dropped_attributes)) => {
            EventDraft { time, name: front(value, name_len), attributes, dropped_attributes }
        }
        None => EventDraft { time, name: value, ..EventDraft::default() },
    }
}

/// Links that were OTLP once: tags `otlp.link.N`, each `trace id|span id|trace state|{...}|dropped`. A tag that is not
/// one stays a tag.
fn links<'a>(tags: &mut Attributes<'a>) -> Vec<LinkDraft<'a>> {
    let mut links = Vec::new();
    if !tags.iter().any(|(key, _)| key.starts_with(b"otlp.link.")) {
        return links;
    }
    for at in 0..LINKS_MAX {
        let key = format!("otlp.link.{at}");
        let Some(link) = tags.get(&key).and_then(|value| link(value.text())) else { break };
        tags.take(&key);
        links.push(link);
    }
    links
}

fn link<'a>(value: &[u8]) -> Option<LinkDraft<'a>> {
    let mut parts = std::str::from_utf8(value).ok()?.splitn(4, '|');
    let (trace_id, span_id, trace_state) = (parts.next()?, parts.next()?, parts.next()?);
    let (json, dropped_attributes) = last_bar(parts.next()?)?;
    Some(LinkDraft {
        trace_id: ids::from_hex(trace_id)?,
        span_id: ids::from_hex(span_id)?,
        trace_state: trace_state.to_owned().into_bytes().into(),
        attributes: attributes_of_json(json)?,
        dropped_attributes,
    })
}

fn front(text: Text<'_>, len: usize) -> Text<'_> {
    match text {
        Text::Borrowed(text) => Text::Borrowed(text.get(..len).unwrap_or_default()),
        Text::Owned(mut text) => {
            text.truncate(len);
            Text::Owned(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RESOURCE_TAGS;

    #[test]
    fn resource_tags_are_sorted_for_their_search() {
        assert!(RESOURCE_TAGS.is_sorted());
    }
}
