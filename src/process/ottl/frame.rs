//! What a statement is about: the message itself and those it belongs to.

use std::borrow::Cow;

use super::compile::Key;
use super::evaluate;
use super::failure::Failure;
use super::path::{Context, Field, FieldPath};
use super::value::{self, Types, Value};
use crate::otlp::edit::{self, Attributes, Event, Resource, SchemaUrl, Scope, Span};
use crate::otlp::{SpanId, TraceId};

/// A list that a statement makes longer by naming an index beyond its end stays within this.
const INDEX_MAX: i64 = 1024;

/// The messages, to be read.
#[derive(Clone, Copy)]
pub struct View<'v, 'a> {
    pub resource: (&'v Resource<'a>, &'v SchemaUrl<'a>),
    pub scope: Option<(&'v Scope<'a>, &'v SchemaUrl<'a>)>,
    pub span: Option<&'v Span<'a>>,
    /// Which of the span's events.
    pub event: Option<usize>,
    pub cache: Option<&'v Attributes<'a>>,
}

/// The messages, to be changed.
pub struct Frame<'f, 'a> {
    pub resource: (&'f mut Resource<'a>, &'f mut SchemaUrl<'a>),
    pub scope: Option<(&'f mut Scope<'a>, &'f mut SchemaUrl<'a>)>,
    pub span: Option<&'f mut Span<'a>>,
    pub event: Option<usize>,
    /// Scratch space of the statements of one group, for one message.
    pub cache: Attributes<'a>,
}

/// Only statements that were compiled for another context get here.
const OUT_OF_REACH: Failure = Failure::because("the path is out of reach");

impl<'v, 'a> View<'v, 'a> {
    fn event(self) -> Option<&'v Event<'a>> {
        self.span?.events().get(self.event?)
    }

    fn attributes(self, context: Context) -> Option<&'v Attributes<'a>> {
        Some(match context {
            Context::Resource => self.resource.0.attributes(),
            Context::Scope => self.scope?.0.attributes(),
            Context::Span => self.span?.attributes(),
            Context::SpanEvent => self.event()?.attributes(),
        })
    }

    /// The map that a path names before its keys.
    fn map(self, path: &FieldPath) -> Option<&'v Attributes<'a>> {
        match path.field {
            Field::Attributes => self.attributes(path.context),
            Field::Cache => self.cache,
            _ => None,
        }
    }

    /// The attribute that a path with one constant key names, as it is kept. None: it is another kind of path.
    pub(super) fn attribute(self, path: &FieldPath) -> Option<Option<&'v edit::Value<'a>>> {
        match path.keys.as_slice() {
            [Key::Text(key)] => Some(self.map(path)?.get(key)),
            _ => None,
        }
    }

    pub(super) fn get(self, path: &'v FieldPath) -> Result<Value<'v, 'a>, Failure> {
        if matches!(path.field, Field::Attributes | Field::Cache) {
            let Some(map) = self.map(path) else {
                return match path.field {
                    // Nothing was put into it yet.
                    Field::Cache if path.keys.is_empty() => Ok(Value::map(Attributes::default())),
                    Field::Cache => Ok(Value::Nil),
                    _ => Err(OUT_OF_REACH),
                };
            };
            return match path.keys.split_first() {
                None => Ok(Value::Map(Cow::Borrowed(map))),
                Some((first, rest)) => self.entry(map, first, rest),
            };
        }
        self.scalar(path).ok_or(OUT_OF_REACH)
    }

    fn entry(self, map: &'v Attributes<'a>, first: &'v Key, rest: &'v [Key]) -> Result<Value<'v, 'a>, Failure> {
        let Some(mut value) = map.get(&self.text_key(first)?) else { return Ok(Value::Nil) };
        for key in rest {
            value = match value {
                edit::Value::Map(map) => match map.entries().get(&self.text_key(key)?) {
                    Some(entry) => entry,
                    None => return Ok(Value::Nil),
                },
                edit::Value::List(list) => {
                    let index = self.index_key(key)?;
                    let items = list.items();
                    let bounds = Failure::Bounds { index, length: items.len() };
                    usize::try_from(index).ok().and_then(|index| items.get(index)).ok_or(bounds)?
                }
                other => {
                    return Err(Failure::Index { indexed: Value::of(other).types(), key: Types::TEXT.or(Types::INT) });
                }
            };
        }
        Ok(Value::of(value))
    }

    pub(super) fn text_key(self, key: &'v Key) -> Result<Cow<'v, str>, Failure> {
        match key {
            Key::Text(text) => Ok(Cow::Borrowed(text)),
            Key::Index(_) => Err(Failure::Index { indexed: Types::MAP, key: Types::INT }),
            Key::Expr(expr) => evaluate::text(expr, self),
        }
    }

    pub(super) fn index_key(self, key: &'v Key) -> Result<i64, Failure> {
        match key {
            Key::Index(index) => Ok(*index),
            Key::Text(_) => Err(Failure::Index { indexed: Types::LIST, key: Types::TEXT }),
            Key::Expr(expr) => match evaluate::value(expr, self)? {
                Value::Int(index) => Ok(index),
                other => Err(Failure::of_type(Types::INT, &other)),
            },
        }
    }

    fn scalar(self, path: &'v FieldPath) -> Option<Value<'v, 'a>> {
        let count = |count: u32| Value::Int(count.into());
        Some(match path.context {
            Context::Resource => match path.field {
                Field::DroppedAttributesCount => count(self.resource.0.dropped_attributes_count()),
                _ => Value::Text(self.resource.1.get()),
            },
            Context::Scope => {
                let (scope, url) = self.scope?;
                match path.field {
                    Field::DroppedAttributesCount => count(scope.dropped_attributes_count()),
                    Field::Name => Value::Text(scope.name()),
                    Field::Version => Value::Text(scope.version()),
                    _ => Value::Text(url.get()),
                }
            }
            Context::Span => of_span(self.span?, path)?,
            Context::SpanEvent => {
                let event = self.event()?;
                match path.field {
                    Field::DroppedAttributesCount => count(event.dropped_attributes_count()),
                    Field::Name => Value::Text(event.name()),
                    Field::Time => Value::Time(event.time() as i64),
                    _ => Value::Int(event.time() as i64),
                }
            }
        })
    }
}

fn of_span<'v, 'a>(span: &'v Span<'a>, path: &'v FieldPath) -> Option<Value<'v, 'a>> {
    let hex = |id: &[u8]| Value::text(super::like::hex(id));
    Some(match path.field {
        Field::TraceId => Value::TraceId(TraceId(fixed(span.trace_id()))),
        Field::TraceIdText => hex(&fixed::<16>(span.trace_id())),
        Field::SpanId => Value::SpanId(SpanId(fixed(span.span_id()))),
        Field::SpanIdText => hex(&fixed::<8>(span.span_id())),
        Field::ParentSpanId => Value::SpanId(SpanId(fixed(span.parent_span_id()))),
        Field::ParentSpanIdText => hex(&fixed::<8>(span.parent_span_id())),
        Field::TraceState => match path.keys.first() {
            Some(Key::Text(key)) => trace_state_member(&span.trace_state(), key),
            _ => Value::Text(span.trace_state()),
        },
        Field::Name => Value::Text(span.name()),
        Field::Kind => Value::Int(span.kind().into()),
        Field::KindText => Value::text(kind_name(&KINDS, span.kind())),
        Field::KindDeprecatedText => Value::text(kind_name(&DEPRECATED_KINDS, span.kind())),
        Field::Start => Value::Time(span.start() as i64),
        Field::StartUnixNano => Value::Int(span.start() as i64),
        Field::End => Value::Time(span.end() as i64),
        Field::EndUnixNano => Value::Int(span.end() as i64),
        Field::DroppedAttributesCount => Value::Int(span.dropped_attributes_count().into()),
        Field::Events => Value::Messages(span.events().len()),
        Field::DroppedEventsCount => Value::Int(span.dropped_events_count().into()),
        Field::Links => Value::Messages(span.links().len()),
        Field::DroppedLinksCount => Value::Int(span.dropped_links_count().into()),
        Field::StatusCode => Value::Int(span.status_code().into()),
        Field::StatusMessage => Value::Text(span.status_message()),
        Field::Flags => Value::Int(span.flags().into()),
        _ => return None,
    })
}

const KINDS: [&str; 6] = ["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"];
const DEPRECATED_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

fn kind_name(names: &[&'static str; 6], kind: i32) -> &'static str {
    usize::try_from(kind).ok().and_then(|kind| names.get(kind)).copied().unwrap_or("")
}

/// The id, or zeros if it is of another length.
fn fixed<const LEN: usize>(id: &[u8]) -> [u8; LEN] {
    id.try_into().unwrap_or([0; LEN])
}

/// A member of a W3C trace state: an empty text if it is not there, nil if the state is malformed.
fn trace_state_member<'v, 'a>(state: &str, key: &str) -> Value<'v, 'a> {
    match members(state) {
        Some(members) => {
            let found = members.into_iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value);
            Value::text(found.to_owned())
        }
        None => Value::Nil,
    }
}

fn members(state: &str) -> Option<Vec<(&str, &str)>> {
    let members = state.split(',').map(str::trim).filter(|member| !member.is_empty());
    members.map(|member| member.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty())).collect()
}

impl<'a> Frame<'_, 'a> {
    pub fn view(&self) -> View<'_, 'a> {
        View {
            resource: (&*self.resource.0, &*self.resource.1),
            scope: self.scope.as_ref().map(|(scope, url)| (&**scope, &**url)),
            span: self.span.as_deref(),
            event: self.event,
            cache: Some(&self.cache),
        }
    }

    fn map_mut(&mut self, path: &FieldPath) -> Option<&mut Attributes<'a>> {
        Some(match (path.field, path.context) {
            (Field::Cache, _) => &mut self.cache,
            (Field::Attributes, Context::Resource) => self.resource.0.attributes_mut(),
            (Field::Attributes, Context::Scope) => self.scope.as_mut()?.0.attributes_mut(),
            (Field::Attributes, Context::Span) => self.span.as_mut()?.attributes_mut(),
            (Field::Attributes, Context::SpanEvent) => {
                self.span.as_mut()?.events_mut().get_mut(self.event?)?.attributes_mut()
            }
            _ => return None,
        })
    }

    /// Hands the map at a path to `change`.
    pub(super) fn edit_map(
        &mut self,
        path: &'a FieldPath,
        change: impl FnOnce(&mut Attributes<'a>),
    ) -> Result<(), Failure> {
        let keys = self.resolved(&path.keys)?;
        let map = self.map_mut(path).ok_or(OUT_OF_REACH)?;
        let Some((first, rest)) = keys.split_first() else {
            change(map);
            return Ok(());
        };
        let not_a_map = |found: &edit::Value<'_>| Failure::of_type(Types::MAP, &Value::of(found));
        let nothing = || Failure::of_type(Types::MAP, &Value::Nil);
        let mut value = map.get_mut(first.text(Types::MAP)?).ok_or_else(nothing)?;
        for key in rest {
            value = match value {
                edit::Value::Map(map) => map.entries_mut().get_mut(key.text(Types::MAP)?).ok_or_else(nothing)?,
                edit::Value::List(list) => key.item(list.items_mut())?,
                other => return Err(not_a_map(other)),
            };
        }
        match value {
            edit::Value::Map(map) => {
                change(map.entries_mut());
                Ok(())
            }
            other => Err(not_a_map(other)),
        }
    }

    /// Puts a value where a path points to; maps and lists on the way are made if nothing is there.
    pub(super) fn set(&mut self, path: &'a FieldPath, value: Value<'a, 'a>) -> Result<(), Failure> {
        if !matches!(path.field, Field::Attributes | Field::Cache) {
            return self.set_scalar(path, value);
        }
        // The most frequent shapes need no list of keys.
        if let [] | [Key::Text(_)] = path.keys.as_slice() {
            let map = self.map_mut(path).ok_or(OUT_OF_REACH)?;
            match (path.keys.first(), value) {
                (Some(Key::Text(key)), value) => map.upsert(key.as_str(), value.into_attribute()?),
                (_, Value::Nil) => map.clear(),
                (_, Value::Map(new)) => map.replace(new.into_owned()),
                (_, other) => return Err(Failure::Unsettable { wanted: "a map", found: other.types() }),
            }
            return Ok(());
        }
        let mut keys = self.resolved(&path.keys)?.into_iter();
        let value = value.into_attribute()?;
        let map = self.map_mut(path).ok_or(OUT_OF_REACH)?;
        let Some(ResolvedKey::Text(first)) = keys.next() else {
            return Err(Failure::Index { indexed: Types::MAP, key: Types::INT });
        };
        map.insert(first.clone(), edit::Value::Empty);
        let mut place = map.get_mut(&first).ok_or(OUT_OF_REACH)?;
        for key in keys {
            place = step(place, key)?;
        }
        *place = value;
        Ok(())
    }

    fn resolved(&self, keys: &'a [Key]) -> Result<Vec<ResolvedKey<'a>>, Failure> {
        keys.iter()
            .map(|key| match key {
                Key::Text(text) => Ok(ResolvedKey::Text(Cow::Borrowed(text))),
                Key::Index(index) => Ok(ResolvedKey::Index(*index)),
                Key::Expr(expr) => match evaluate::detached(expr, self.view())? {
                    Value::Text(text) => Ok(ResolvedKey::Text(text)),
                    Value::Int(index) => Ok(ResolvedKey::Index(index)),
                    other => Err(Failure::of_type(Types::TEXT.or(Types::INT), &other)),
                },
            })
            .collect()
    }

    fn set_scalar(&mut self, path: &'a FieldPath, value: Value<'a, 'a>) -> Result<(), Failure> {
        let takes = path.field.takes(!path.keys.is_empty());
        if takes.and(value.types()).is_empty() {
            return Err(Failure::of_type(takes, &value));
        }
        let event = self.event;
        match (path.context, value) {
            (Context::Resource, Value::Int(count)) => self.resource.0.set_dropped_attributes_count(count as u32),
            (Context::Resource, Value::Text(url)) => self.resource.1.set(url),
            (Context::Scope, value) => {
                let (scope, url) = self.scope.as_mut().ok_or(OUT_OF_REACH)?;
                match (path.field, value) {
                    (_, Value::Int(count)) => scope.set_dropped_attributes_count(count as u32),
                    (Field::Name, Value::Text(name)) => scope.set_name(name),
                    (Field::Version, Value::Text(version)) => scope.set_version(version),
                    (_, Value::Text(text)) => url.set(text),
                    _ => return Err(OUT_OF_REACH),
                }
            }
            (Context::Span, value) => set_of_span(self.span.as_mut().ok_or(OUT_OF_REACH)?, path, value)?,
            (Context::SpanEvent, value) => {
                let events = self.span.as_mut().ok_or(OUT_OF_REACH)?.events_mut();
                let event = event.and_then(|event| events.get_mut(event)).ok_or(OUT_OF_REACH)?;
                match (path.field, value) {
                    (Field::DroppedAttributesCount, Value::Int(count)) => {
                        event.set_dropped_attributes_count(count as u32)
                    }
                    (Field::Name, Value::Text(name)) => event.set_name(name),
                    (_, Value::Int(time) | Value::Time(time)) => event.set_time(time as u64),
                    _ => return Err(OUT_OF_REACH),
                }
            }
            _ => return Err(OUT_OF_REACH),
        }
        Ok(())
    }
}

fn set_of_span<'a>(span: &mut Span<'a>, path: &'a FieldPath, value: Value<'a, 'a>) -> Result<(), Failure> {
    match (path.field, value) {
        (Field::TraceId, Value::TraceId(id)) => span.set_trace_id(id.0),
        (Field::TraceIdText, Value::Text(text)) => span.set_trace_id(id_of(&text)?),
        (Field::SpanId, Value::SpanId(id)) => span.set_span_id(id.0),
        (Field::SpanIdText, Value::Text(text)) => span.set_span_id(id_of(&text)?),
        (Field::ParentSpanId, Value::SpanId(id)) => span.set_parent_span_id(parent(id.0)),
        (Field::ParentSpanIdText, Value::Text(text)) => span.set_parent_span_id(parent(id_of(&text)?)),
        (Field::TraceState, Value::Text(text)) => match path.keys.first() {
            Some(Key::Text(key)) => {
                if let Some(state) = with_member(&span.trace_state(), key, &text) {
                    span.set_trace_state(Cow::Owned(state));
                }
            }
            _ => span.set_trace_state(text),
        },
        (Field::Name, Value::Text(name)) => span.set_name(name),
        (Field::Kind, Value::Int(kind)) => span.set_kind(kind as i32),
        (Field::KindText, Value::Text(name)) => span.set_kind(kind_of(&KINDS, &name)?),
        (Field::KindDeprecatedText, Value::Text(name)) => span.set_kind(kind_of(&DEPRECATED_KINDS, &name)?),
        (Field::Start | Field::StartUnixNano, Value::Time(time) | Value::Int(time)) => span.set_start(time as u64),
        (Field::End | Field::EndUnixNano, Value::Time(time) | Value::Int(time)) => span.set_end(time as u64),
        (Field::DroppedAttributesCount, Value::Int(count)) => span.set_dropped_attributes_count(count as u32),
        (Field::Events, Value::Nil) => span.events_mut().retain(|_| false),
        (Field::DroppedEventsCount, Value::Int(count)) => span.set_dropped_events_count(count as u32),
        (Field::Links, Value::Nil) => span.links_mut().retain(|_| false),
        (Field::DroppedLinksCount, Value::Int(count)) => span.set_dropped_links_count(count as u32),
        (Field::StatusCode, Value::Int(code)) => span.set_status_code(code as i32),
        (Field::StatusMessage, Value::Text(message)) => span.set_status_message(&message),
        (Field::Flags, Value::Int(flags)) => {
            span.set_flags(u32::try_from(flags).map_err(|_| Failure::because("flags are 32 bits"))?);
        }
        _ => return Err(OUT_OF_REACH),
    }
    Ok(())
}

/// A key whose value is known.
enum ResolvedKey<'a> {
    Text(Cow<'a, str>),
    Index(i64),
}

impl ResolvedKey<'_> {
    fn text(&self, indexed: Types) -> Result<&str, Failure> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Index(_) => Err(Failure::Index { indexed, key: Types::INT }),
        }
    }

    fn item<'i, 'a>(&self, items: &'i mut [edit::Value<'a>]) -> Result<&'i mut edit::Value<'a>, Failure> {
        let Self::Index(index) = *self else { return Err(Failure::Index { indexed: Types::LIST, key: Types::TEXT }) };
        let bounds = Failure::Bounds { index, length: items.len() };
        usize::try_from(index).ok().and_then(|index| items.get_mut(index)).ok_or(bounds)
    }
}

/// One key further; an empty value becomes the map or list that the key wants.
fn step<'p, 'a>(place: &'p mut edit::Value<'a>, key: ResolvedKey<'a>) -> Result<&'p mut edit::Value<'a>, Failure> {
    if *place == edit::Value::Empty {
        *place = match &key {
            ResolvedKey::Text(_) => edit::Value::Map(Attributes::default().into()),
            ResolvedKey::Index(index @ 0..=INDEX_MAX) => {
                edit::Value::List((0..=*index).map(|_| edit::Value::Empty).collect::<Vec<_>>().into())
            }
            ResolvedKey::Index(index) => return Err(Failure::Bounds { index: *index, length: 0 }),
        };
    }
    match place {
        edit::Value::Map(map) => {
            let ResolvedKey::Text(key) = key else {
                return Err(Failure::Index { indexed: Types::MAP, key: Types::INT });
            };
            let entries = map.entries_mut();
            entries.insert(key.clone(), edit::Value::Empty);
            entries.get_mut(&key).ok_or(OUT_OF_REACH)
        }
        edit::Value::List(list) => key.item(list.items_mut()),
        other => Err(Failure::Index { indexed: Value::of(other).types(), key: Types::TEXT.or(Types::INT) }),
    }
}

fn id_of<const LEN: usize>(text: &str) -> Result<[u8; LEN], Failure> {
    let bytes = super::lexer::hex(text).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or(Failure::because("a trace id is 32 hexadecimal digits, a span id 16"))
}

fn parent(id: [u8; 8]) -> Option<[u8; 8]> {
    (id != [0; 8]).then_some(id)
}

fn kind_of(names: &[&str; 6], name: &str) -> Result<i32, Failure> {
    let kind = names.iter().position(|known| *known == name).and_then(|kind| i32::try_from(kind).ok());
    kind.ok_or(Failure::because("there is no such span kind"))
}

/// The trace state with a member in front. None: the state is malformed, and stays.
fn with_member(state: &str, key: &str, value: &str) -> Option<String> {
    let others = members(state)?.into_iter().filter(|(name, _)| *name != key);
    let all = std::iter::once((key, value)).chain(others);
    Some(all.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
}

/// What an attribute at a path holds, borrowing from the request as it came.
pub(super) fn attribute<'a>(view: View<'_, 'a>, path: &FieldPath) -> Option<Value<'a, 'a>> {
    Some(view.attribute(path)?.map_or(Value::Nil, value::attribute))
}
