//! Zipkin v2 as JSON: a list of spans, read one by one.

use super::ConvertError;
use super::span::{Endpoint, Span};
use crate::otlp::draft::{Attributes, PartCount, SpanKind, Text, TooLong, Value};
use crate::otlp::ids;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Any other kind is none.
const KINDS: &[(&str, SpanKind)] = &[
    ("CLIENT", SpanKind::Client),
    ("SERVER", SpanKind::Server),
    ("PRODUCER", SpanKind::Producer),
    ("CONSUMER", SpanKind::Consumer),
];

/// Reads the spans in turn.
pub fn read<'a>(body: &'a [u8], mut take: impl FnMut(Span<'a>) -> Result<(), TooLong>) -> Result<(), ConvertError> {
    each(body, |at, span: JsonSpan<'a>| {
        let span = span.into_span().map_err(|(field, problem)| ConvertError::Field { span: at, field, problem })?;
        PartCount::default().add(span.annotations.len() + span.tags.len())?;
        take(span).map_err(ConvertError::TooLong)
    })
}

/// Reads a list element by element, so that only one is held at a time. `null` in the list is nothing.
pub fn each<'a, T: Deserialize<'a>>(
    body: &'a [u8],
    take: impl FnMut(usize, T) -> Result<(), ConvertError>,
) -> Result<(), ConvertError> {
    let (mut failed, mut at) = (None, None);
    let mut json = serde_json::Deserializer::from_slice(body);
    let list = List { take, failed: &mut failed, at: &mut at, element: PhantomData };
    let read = list.deserialize(&mut json).and_then(|()| json.end());
    match (failed, read) {
        (Some(failed), _) => Err(failed),
        (None, Err(error)) => Err(ConvertError::Json { span: at, error }),
        (None, Ok(())) => Ok(()),
    }
}

struct List<'f, F, T> {
    take: F,
    failed: &'f mut Option<ConvertError>,
    /// The element in hand.
    at: &'f mut Option<usize>,
    element: PhantomData<T>,
}

impl<'de, F: FnMut(usize, T) -> Result<(), ConvertError>, T: Deserialize<'de>> DeserializeSeed<'de> for List<'_, F, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(usize, T) -> Result<(), ConvertError>, T: Deserialize<'de>> Visitor<'de> for List<'_, F, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of spans")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        *self.at = Some(0);
        let mut at = 0;
        while let Some(element) = list.next_element::<Option<T>>()? {
            if let Some(element) = element
                && let Err(error) = (self.take)(at, element)
            {
                *self.failed = Some(error);
                return Err(A::Error::custom("given up"));
            }
            at += 1;
            *self.at = Some(at);
        }
        *self.at = None;
        Ok(())
    }
}

/// As it stands in the document; `null` is absence.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonSpan<'a> {
    #[serde(borrow, default)]
    trace_id: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    id: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    parent_id: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    name: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    kind: Option<JsonText<'a>>,
    #[serde(default)]
    timestamp: Option<Micros>,
    #[serde(default)]
    duration: Option<Micros>,
    #[serde(borrow, default)]
    local_endpoint: Option<JsonEndpoint<'a>>,
    #[serde(borrow, default)]
    remote_endpoint: Option<JsonEndpoint<'a>>,
    #[serde(borrow, default)]
    annotations: Option<Parts<Option<JsonAnnotation<'a>>>>,
    #[serde(borrow, default)]
    tags: Option<Tags<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JsonEndpoint<'a> {
    #[serde(borrow, default)]
    service_name: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    ipv4: Option<JsonText<'a>>,
    #[serde(borrow, default)]
    ipv6: Option<JsonText<'a>>,
    #[serde(default)]
    port: Option<u16>,
}

#[derive(Deserialize)]
struct JsonAnnotation<'a> {
    #[serde(default)]
    timestamp: Option<Micros>,
    #[serde(borrow, default)]
    value: Option<JsonText<'a>>,
}

/// A text, or a number or boolean that a client did not put in quotes.
pub struct JsonText<'a>(pub Cow<'a, str>);

/// Microseconds since 1970, or a length of time; some clients write whole numbers as floats.
#[derive(Clone, Copy)]
pub struct Micros(pub u64);

/// A list of which no more is read than a span may have. Lists of one span are counted together once it is read.
pub struct Parts<T>(pub Vec<T>);

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// A map of texts.
struct Tags<'a>(Attributes<'a>);

impl<'a> JsonSpan<'a> {
    fn into_span(self) -> Result<Span<'a>, (&'static str, &'static str)> {
        let mut span = Span {
            trace_id: trace_id(self.trace_id.as_ref()).map_err(|problem| ("traceId", problem))?,
            id: span_id(self.id.as_ref()).map_err(|problem| ("id", problem))?.ok_or(("id", "is missing"))?,
            parent_id: span_id(self.parent_id.as_ref()).map_err(|problem| ("parentId", problem))?,
            name: self.name.map(text).unwrap_or_default(),
            timestamp: self.timestamp.map_or(0, |micros| micros.0),
            duration: self.duration.map_or(0, |micros| micros.0),
            local: self.local_endpoint.map(JsonEndpoint::into_endpoint).unwrap_or_default(),
            remote: self.remote_endpoint.map(JsonEndpoint::into_endpoint).unwrap_or_default(),
            tags: self.tags.map(|tags| tags.0).unwrap_or_default(),
            ..Span::default()
        };
        if let Some(kind) = self.kind {
            let known = KINDS.iter().find(|(name, _)| *name == kind.0);
            span.kind = known.map(|(_, kind)| *kind).unwrap_or_default();
        }
        for annotation in self.annotations.unwrap_or_default().0.into_iter().flatten() {
            let timestamp = annotation.timestamp.map_or(0, |micros| micros.0);
            span.annotations.push((timestamp, annotation.value.map(text).unwrap_or_default()));
        }
        Ok(span)
    }
}

impl<'a> JsonEndpoint<'a> {
    pub fn into_endpoint(self) -> Endpoint<'a> {
        Endpoint {
            service_name: self.service_name.map(text).unwrap_or_default(),
            ipv4: self.ipv4.map(text).unwrap_or_default(),
            ipv6: self.ipv6.map(text).unwrap_or_default(),
            port: self.port.unwrap_or(0),
        }
    }
}

/// Hex of up to 128 bits; without leading zeros in some clients.
pub fn trace_id(id: Option<&JsonText<'_>>) -> Result<[u8; 16], &'static str> {
    let id = id.map(|id| &*id.0).filter(|id| !id.is_empty()).ok_or("is missing")?;
    ids::from_hex_padded(id).ok_or("is not 1 to 32 hexadecimal digits")
}

/// Hex of up to 64 bits.
pub fn span_id(id: Option<&JsonText<'_>>) -> Result<Option<[u8; 8]>, &'static str> {
    let Some(id) = id.map(|id| &*id.0).filter(|id| !id.is_empty()) else { return Ok(None) };
    ids::from_hex_padded(id).map(Some).ok_or("is not 1 to 16 hexadecimal digits")
}

pub fn text(text: JsonText<'_>) -> Text<'_> {
    match text.0 {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = JsonText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(JsonText(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(JsonText(Cow::Owned(text.to_owned())))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
                Ok(JsonText(Cow::Borrowed(if value { "true" } else { "false" })))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                Ok(JsonText(Cow::Owned(value.to_string())))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                Ok(JsonText(Cow::Owned(value.to_string())))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                Ok(JsonText(Cow::Owned(value.to_string())))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MicrosVisitor;
        impl Visitor<'_> for MicrosVisitor {
            type Value = Micros;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of microseconds")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Micros, E> {
                Ok(Micros(value))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Micros, E> {
                // The cast ends at the limits of the type.
                if value >= 0.0 && value.fract() == 0.0 {
                    return Ok(Micros(value as u64));
                }
                Err(E::invalid_value(de::Unexpected::Float(value), &self))
            }
        }
        deserializer.deserialize_any(MicrosVisitor)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Parts<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartsVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for PartsVisitor<T> {
            type Value = Parts<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let (mut parts, mut count) = (Vec::new(), PartCount::default());
                while let Some(part) = list.next_element()? {
                    count.add(1).map_err(A::Error::custom)?;
                    parts.push(part);
                }
                Ok(Parts(parts))
            }
        }
        deserializer.deserialize_seq(PartsVisitor(PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Tags<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TagsVisitor;
        impl<'de> Visitor<'de> for TagsVisitor {
            type Value = Tags<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut tags, mut count) = (Attributes::default(), PartCount::default());
                while let Some((key, value)) = map.next_entry::<JsonText<'de>, Option<JsonText<'de>>>()? {
                    count.add(1).map_err(A::Error::custom)?;
                    tags.put(text(key), Value::Text(value.map(text).unwrap_or_default()));
                }
                Ok(Tags(tags))
            }
        }
        deserializer.deserialize_map(TagsVisitor)
    }
}
