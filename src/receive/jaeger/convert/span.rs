//! A Jaeger span and what becomes of it (the rules of the Collector's `jaeger` translator).

use crate::otlp::draft::{
    Attributes, Draft, EventDraft, LinkDraft, ResourceAt, ScopeDraft, SpanDraft, SpanKind, StatusCode, Text, TooLong,
    Value,
};

/// What a Collector names a resource for which it must send some service: none.
const NO_SERVICE_NAME: &[u8] = b"OTLPResourceNoServiceName";
/// Bit 0 of a span's flags, in Jaeger and in OTLP.
const SAMPLED: u32 = 1;

/// A span of Jaeger's model. Times are nanoseconds.
#[derive(Debug, Default)]
pub struct Span<'a> {
    pub trace_id: [u8; 16],
    pub id: [u8; 8],
    /// Named on its own (Thrift), or among the references.
    pub parent_id: Option<[u8; 8]>,
    pub operation_name: Text<'a>,
    pub references: Vec<Reference>,
    pub flags: u32,
    pub start: u64,
    pub duration: u64,
    pub tags: Attributes<'a>,
    pub logs: Vec<Log<'a>>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Reference {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub relation: Relation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Relation {
    #[default]
    ChildOf,
    FollowsFrom,
}

#[derive(Debug, Default)]
pub struct Log<'a> {
    pub time: u64,
    pub fields: Attributes<'a>,
}

/// The process that spans come from.
#[derive(Debug, Clone, Default)]
pub struct Process<'a> {
    pub service_name: Text<'a>,
    pub tags: Attributes<'a>,
}

impl<'a> Process<'a> {
    /// The attributes of the resource.
    pub fn into_resource(self) -> Attributes<'a> {
        let mut resource = Attributes::default();
        if *self.service_name == *NO_SERVICE_NAME {
            return resource;
        }
        if !self.service_name.is_empty() {
            resource.put_text("service.name", self.service_name);
        }
        for (key, value) in self.tags {
            resource.put(key, value);
        }
        if resource.get("host.name").is_none()
            && let Some(host) = resource.take("hostname")
        {
            resource.put("host.name".as_bytes(), host);
        }
        if resource.get("opencensus.exporterversion").is_none()
            && let Some(version) = resource.take("jaeger.version")
        {
            resource.put_text("opencensus.exporterversion", [b"Jaeger-", version.text()].concat());
        }
        resource
    }
}

impl<'a> Span<'a> {
    pub fn push(mut self, resource: ResourceAt, draft: &mut Draft) -> Result<(), TooLong> {
        let scope = scope(&mut self.tags);
        draft.push(resource, &scope, &mut self.draft())
    }

    fn draft(self) -> SpanDraft<'a> {
        let parent_id = self.parent_id.filter(|id| *id != [0; 8]).or_else(|| self.referenced_parent());
        let mut tags = self.tags;
        let kind = tags.take("span.kind").map(|kind| span_kind(kind.text())).unwrap_or_default();
        let (status, status_message) = status(&mut tags, kind);
        let of_parent = |reference: &Reference| {
            reference.relation == Relation::ChildOf
                && reference.trace_id == self.trace_id
                && Some(reference.span_id) == parent_id
        };
        SpanDraft {
            trace_id: self.trace_id,
            span_id: self.id,
            parent_span_id: parent_id,
            trace_state: tags.take("w3c.tracestate").map(Value::into_text).unwrap_or_default(),
            flags: self.flags & SAMPLED,
            name: self.operation_name,
            kind,
            start: self.start,
            end: self.start.saturating_add(self.duration),
            status,
            status_message,
            attributes: tags,
            events: self.logs.into_iter().map(event).collect(),
            links: self.references.iter().filter(|reference| !of_parent(reference)).map(link).collect(),
        }
    }

    /// A span without a parent of its own is the child of what it refers to in its trace, what it follows last.
    fn referenced_parent(&self) -> Option<[u8; 8]> {
        let mut inside = self.references.iter().filter(|reference| reference.trace_id == self.trace_id);
        let child_of = inside.clone().find(|reference| reference.relation == Relation::ChildOf);
        child_of.or_else(|| inside.next()).map(|reference| reference.span_id).filter(|id| *id != [0; 8])
    }
}

fn scope<'a>(tags: &mut Attributes<'a>) -> ScopeDraft<'a> {
    match tags.take("otel.scope.name") {
        None => ScopeDraft::default(),
        Some(name) => {
            let version = tags.take("otel.scope.version").map(Value::into_text).unwrap_or_default();
            ScopeDraft { name: name.into_text(), version }
        }
    }
}

fn span_kind(word: &[u8]) -> SpanKind {
    match word {
        b"client" => SpanKind::Client,
        b"server" => SpanKind::Server,
        b"producer" => SpanKind::Producer,
        b"consumer" => SpanKind::Consumer,
        b"internal" => SpanKind::Internal,
        _ => SpanKind::Unspecified,
    }
}

/// From `error`, else `otel.status_code`, else the HTTP status.
fn status<'a>(tags: &mut Attributes<'a>, kind: SpanKind) -> (StatusCode, Text<'a>) {
    let http_message =
        |tags: &Attributes<'a>| tags.get("http.status_message").cloned().map(Value::into_text).unwrap_or_default();
    let mut outcome = None;
    if tags.get("error") == Some(&Value::Bool(true)) {
        tags.take("error");
        let described = tags.take("otel.status_description").map(Value::into_text);
        outcome = Some((StatusCode::Error, described.unwrap_or_else(|| http_message(tags))));
    }
    if let Some(said) = tags.take("otel.status_code") {
        return outcome.unwrap_or_else(|| {
            let code = match said.text().to_ascii_uppercase().as_slice() {
                b"OK" => StatusCode::Ok,
                b"ERROR" => StatusCode::Error,
                _ => StatusCode::Unset,
            };
            (code, tags.take("otel.status_description").map(Value::into_text).unwrap_or_default())
        });
    }
    let http = tags.get("http.status_code").or_else(|| tags.get("http.response.status_code"));
    let by_http = || match (http.and_then(number)?, kind) {
        // What a client did wrong is no error of the server.
        (400..500, SpanKind::Server) | (100..400, _) => None,
        _ => Some((StatusCode::Error, http_message(tags))),
    };
    outcome.or_else(by_http).unwrap_or_default()
}

fn number(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn event(log: Log<'_>) -> EventDraft<'_> {
    let Log { time, mut fields } = log;
    let name = fields.take("event").map(Value::into_text).unwrap_or_default();
    EventDraft { time, name, attributes: fields, dropped_attributes: 0 }
}

fn link(reference: &Reference) -> LinkDraft<'static> {
    let mut attributes = Attributes::default();
    let relation = match reference.relation {
        Relation::ChildOf => "child_of",
        Relation::FollowsFrom => "follows_from",
    };
    attributes.put_text("opentracing.ref_type", relation.as_bytes());
    LinkDraft { trace_id: reference.trace_id, span_id: reference.span_id, attributes, ..LinkDraft::default() }
}
