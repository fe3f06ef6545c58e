//! What paths mean: which field of which message, and what it holds.

use super::ast::Path;
use super::compile::Key;
use super::problem::Place;
use super::value::Types;
use crate::config::diagnostic::suggestion;

/// The message that a statement or condition is about. Each can reach the ones it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Context {
    Resource,
    Scope,
    Span,
    SpanEvent,
}

/// Whether paths must name their context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefixes {
    /// `span.name`; the context of the statement was found by them.
    Required,
    /// `name` means the statement's own context.
    Optional,
}

/// A field, with keys into what it holds.
#[derive(Debug)]
pub struct FieldPath {
    pub(super) context: Context,
    pub(super) field: Field,
    pub(super) keys: Vec<Key>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Attributes,
    DroppedAttributesCount,
    SchemaUrl,
    Name,
    Version,
    TraceId,
    TraceIdText,
    SpanId,
    SpanIdText,
    ParentSpanId,
    ParentSpanIdText,
    TraceState,
    Kind,
    KindText,
    KindDeprecatedText,
    Start,
    StartUnixNano,
    End,
    EndUnixNano,
    Events,
    DroppedEventsCount,
    Links,
    DroppedLinksCount,
    StatusCode,
    StatusMessage,
    Flags,
    Time,
    TimeUnixNano,
    Cache,
}

const RESOURCE: [(&str, Field); 3] = [
    ("attributes", Field::Attributes),
    ("dropped_attributes_count", Field::DroppedAttributesCount),
    ("schema_url", Field::SchemaUrl),
];

const SCOPE: [(&str, Field); 5] = [
    ("attributes", Field::Attributes),
    ("dropped_attributes_count", Field::DroppedAttributesCount),
    ("name", Field::Name),
    ("schema_url", Field::SchemaUrl),
    ("version", Field::Version),
];

const SPAN: [(&str, Field); 24] = [
    ("attributes", Field::Attributes),
    ("dropped_attributes_count", Field::DroppedAttributesCount),
    ("dropped_events_count", Field::DroppedEventsCount),
    ("dropped_links_count", Field::DroppedLinksCount),
    ("end_time", Field::End),
    ("end_time_unix_nano", Field::EndUnixNano),
    ("events", Field::Events),
    ("flags", Field::Flags),
    ("kind", Field::Kind),
    ("kind.deprecated_string", Field::KindDeprecatedText),
    ("kind.string", Field::KindText),
    ("links", Field::Links),
    ("name", Field::Name),
    ("parent_span_id", Field::ParentSpanId),
    ("parent_span_id.string", Field::ParentSpanIdText),
    ("span_id", Field::SpanId),
    ("span_id.string", Field::SpanIdText),
    ("start_time", Field::Start),
    ("start_time_unix_nano", Field::StartUnixNano),
    ("status.code", Field::StatusCode),
    ("status.message", Field::StatusMessage),
    ("trace_id", Field::TraceId),
    ("trace_id.string", Field::TraceIdText),
    ("trace_state", Field::TraceState),
];

const SPAN_EVENT: [(&str, Field); 5] = [
    ("attributes", Field::Attributes),
    ("dropped_attributes_count", Field::DroppedAttributesCount),
    ("name", Field::Name),
    ("time", Field::Time),
    ("time_unix_nano", Field::TimeUnixNano),
];

/// Enums of the span and span event contexts.
pub(super) const ENUMS: [(&str, i64); 9] = [
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
    ("STATUS_CODE_UNSET", 0),
    ("STATUS_CODE_OK", 1),
    ("STATUS_CODE_ERROR", 2),
];

/// From the outside in.
pub const CONTEXTS: [Context; 4] = [Context::Resource, Context::Scope, Context::Span, Context::SpanEvent];

/// What is wrong with a path: where, why, what to do.
pub(super) type Unclear = (Place, String, String);

impl Context {
    /// As configurations name it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Resource => "resource",
            Self::Scope => "scope",
            Self::Span => "span",
            Self::SpanEvent => "spanevent",
        }
    }

    /// The context of this name, or of the one it had before.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "instrumentation_scope" => Some(Self::Scope),
            name => CONTEXTS.into_iter().find(|context| context.word() == name),
        }
    }

    fn fields(self) -> &'static [(&'static str, Field)] {
        match self {
            Self::Resource => &RESOURCE,
            Self::Scope => &SCOPE,
            Self::Span => &SPAN,
            Self::SpanEvent => &SPAN_EVENT,
        }
    }

    pub(super) fn has_enums(self) -> bool {
        self >= Self::Span
    }
}

/// Finds the context and field that a path means in a statement about `own`. Its keys are for the caller: they belong
/// to the last segment.
pub(super) fn resolve(path: &Path, own: Context, prefixes: Prefixes) -> Result<(Context, Field), Unclear> {
    let Some((first, rest)) = path.segments.split_first() else {
        return Err((Place::default(), "a path without names".to_owned(), String::new()));
    };
    let named = Context::named(&first.name).filter(|_| first.keys.is_empty() && !rest.is_empty());
    let (context, segments) = match named {
        Some(context) => (context, rest),
        None if first.name == "otelcol" => {
            let reason =
                "paths of the otelcol context are not supported: what a client sent along is not kept with its spans";
            return Err((first.place, reason.to_owned(), String::new()));
        }
        None if prefixes == Prefixes::Required => {
            let reason = format!("{path} does not say whose it is");
            return Err((first.place, reason, format!("write e.g. {}.{path}", own.word())));
        }
        None => (own, path.segments.as_slice()),
    };
    if context > own {
        let reason = format!("{} is out of reach from the {} context", context.word(), own.word());
        return Err((first.place, reason, format!("use the context {}", context.word())));
    }
    let place = segments.first().map_or(first.place, |segment| segment.place);
    if let Some(segment) = segments.iter().rev().skip(1).find(|segment| !segment.keys.is_empty()) {
        let remedy = "the keys of attributes stand in brackets".to_owned();
        return Err((segment.place, format!("nothing can stand behind {}[...]", segment.name), remedy));
    }
    let name = segments.iter().map(|segment| segment.name.as_str()).collect::<Vec<_>>().join(".");
    if name == "cache" {
        return match context == own {
            true => Ok((context, Field::Cache)),
            false => {
                Err((place, format!("only the cache of the {} context itself can be used", own.word()), String::new()))
            }
        };
    }
    match context.fields().iter().find(|(known, _)| *known == name) {
        Some((_, field)) => Ok((context, *field)),
        None => Err(unknown(context, &name, place)),
    }
}

fn unknown(context: Context, name: &str, place: Place) -> Unclear {
    let (reason, remedy) = match (context, name) {
        (Context::Span, "status") => {
            ("a status as a whole is not supported", "use status.code and status.message".to_owned())
        }
        (Context::SpanEvent, "event_index") => ("the index of an event is not supported", String::new()),
        _ if name.starts_with("attributes.") => {
            let key = name.trim_start_matches("attributes.");
            ("the keys of attributes stand in brackets", format!("write attributes[\"{key}\"]"))
        }
        _ => {
            let known = context.fields().iter().map(|(known, _)| *known).chain(["cache"]);
            let reason = format!("a {} has no {name}", context.word());
            return (place, reason, suggestion(name, "it has", known));
        }
    };
    (place, reason.to_owned(), remedy)
}

impl Field {
    /// Whether keys can stand behind it.
    pub(super) fn has_keys(self) -> bool {
        matches!(self, Self::Attributes | Self::Cache | Self::TraceState)
    }

    /// What reading it may give.
    pub(super) fn gives(self, with_keys: bool) -> Types {
        match self {
            Self::Attributes | Self::Cache if with_keys => Types::ATTRIBUTE,
            Self::TraceState if with_keys => Types::TEXT.or(Types::NIL),
            Self::Attributes | Self::Cache => Types::MAP,
            Self::TraceId => Types::TRACE_ID,
            Self::SpanId | Self::ParentSpanId => Types::SPAN_ID,
            Self::Start | Self::End | Self::Time => Types::TIME,
            Self::Events | Self::Links => Types::MESSAGES,
            Self::SchemaUrl
            | Self::Name
            | Self::Version
            | Self::TraceIdText
            | Self::SpanIdText
            | Self::ParentSpanIdText
            | Self::TraceState
            | Self::KindText
            | Self::KindDeprecatedText
            | Self::StatusMessage => Types::TEXT,
            Self::DroppedAttributesCount
            | Self::Kind
            | Self::StartUnixNano
            | Self::EndUnixNano
            | Self::DroppedEventsCount
            | Self::DroppedLinksCount
            | Self::StatusCode
            | Self::Flags
            | Self::TimeUnixNano => Types::INT,
        }
    }

    /// What can be put into it.
    pub(super) fn takes(self, with_keys: bool) -> Types {
        match self {
            Self::Attributes | Self::Cache if !with_keys => Types::MAP.or(Types::NIL),
            Self::Events | Self::Links => Types::NIL,
            Self::TraceState => Types::TEXT,
            _ => self.gives(with_keys),
        }
    }
}
