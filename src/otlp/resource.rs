//! Who speaks: what the resources of a request say about the pod that they come from, read in place.
//!
//! Everything here works on bytes that [`super::scan::scan`] accepted; on others it stops early instead of failing.

use super::view::messages;
use super::wire::Fields;

/// What a resource says about its pod; all of it is the client's word. The last attribute of a name counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Speaker<'a> {
    /// `k8s.pod.uid`.
    pub pod_uid: Option<&'a str>,
    /// `k8s.pod.name`.
    pub pod_name: Option<&'a str>,
    /// `k8s.namespace.name`.
    pub namespace: Option<&'a str>,
    /// `k8s.container.name`.
    pub container: Option<&'a str>,
}

/// The speaker of every ResourceSpans that has a span. Allocates nothing; spans are not looked into.
pub fn speakers(request: &[u8]) -> impl Iterator<Item = Speaker<'_>> {
    messages(request, 1).filter_map(|resource_spans| {
        let (mut speaker, mut speaks) = (Speaker::default(), false);
        for field in Fields::new(resource_spans).map_while(Result::ok) {
            if let Some(resource) = field.bytes(1) {
                // A Resource that comes in pieces is one, as protobuf has it.
                messages(resource, 1).for_each(|attribute| speaker.note(attribute));
            } else if let Some(scope_spans) = field.bytes(2) {
                speaks = speaks || messages(scope_spans, 2).next().is_some();
            }
        }
        speaks.then_some(speaker)
    })
}

impl<'a> Speaker<'a> {
    fn note(&mut self, attribute: &'a [u8]) {
        let Some(key) = messages(attribute, 1).last() else { return };
        // The longest way for most attributes: they begin otherwise.
        let Some(name) = key.strip_prefix(b"k8s.") else { return };
        let place = match name {
            b"pod.uid" => &mut self.pod_uid,
            b"pod.name" => &mut self.pod_name,
            b"namespace.name" => &mut self.namespace,
            b"container.name" => &mut self.container,
            _ => return,
        };
        *place = text(attribute).filter(|text| !text.is_empty());
    }
}

/// The string value of a KeyValue.
fn text(attribute: &[u8]) -> Option<&str> {
    let mut value = None;
    for field in messages(attribute, 2).flat_map(|value| Fields::new(value).map_while(Result::ok)) {
        // Of a oneof (fields 1 to 7) the last counts; fields beyond belong to later versions.
        if field.number <= 7 {
            value = field.bytes(1);
        }
    }
    std::str::from_utf8(value?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::wire::put_bytes;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use proptest::prelude::*;
    use prost::Message;

    fn any_value() -> impl Strategy<Value = Option<AnyValue>> {
        let value = prop_oneof![
            4 => "[a-z0-9ü-]{0,6}".prop_map(Value::StringValue),
            1 => any::<i64>().prop_map(Value::IntValue),
            1 => any::<Vec<u8>>().prop_map(Value::BytesValue),
        ];
        proptest::option::weighted(0.9, value).prop_map(|value| value.map(|value| AnyValue { value: Some(value) }))
    }

    fn attribute() -> impl Strategy<Value = KeyValue> {
        let key = prop_oneof![
            Just("k8s.pod.uid"),
            Just("k8s.pod.name"),
            Just("k8s.namespace.name"),
            Just("k8s.container.name"),
            Just("k8s.node.name"),
            Just("service.name"),
            Just(""),
        ];
        (key, any_value()).prop_map(|(key, value)| KeyValue { key: key.to_owned(), value, ..KeyValue::default() })
    }

    fn resource_spans() -> impl Strategy<Value = ResourceSpans> {
        let scope =
            (0..3usize).prop_map(|spans| ScopeSpans { spans: vec![Span::default(); spans], ..Default::default() });
        let resource = proptest::option::of(proptest::collection::vec(attribute(), 0..8));
        (resource, proptest::collection::vec(scope, 0..3)).prop_map(|(attributes, scope_spans)| ResourceSpans {
            resource: attributes.map(|attributes| Resource { attributes, ..Resource::default() }),
            scope_spans,
            ..ResourceSpans::default()
        })
    }

    fn attribute_of<'a>(spans: &'a ResourceSpans, key: &str) -> Option<&'a str> {
        let attributes = spans.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        match attributes.iter().rfind(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn speakers_are_those_that_decoding_finds(
            resource_spans in proptest::collection::vec(resource_spans(), 0..4),
            more in proptest::collection::vec(attribute(), 0..3),
        ) {
            let mut bytes = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
            // A ResourceSpans whose Resource comes in two pieces.
            let mut pieces = Vec::new();
            for attributes in [more.clone(), more] {
                put_bytes(&mut pieces, 1, &Resource { attributes, ..Resource::default() }.encode_to_vec());
            }
            put_bytes(&mut pieces, 2, &ScopeSpans { spans: vec![Span::default()], ..Default::default() }.encode_to_vec());
            put_bytes(&mut bytes, 1, &pieces);

            let decoded = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
            let with_spans = |it: &&ResourceSpans| it.scope_spans.iter().any(|scope| !scope.spans.is_empty());
            let expected: Vec<Speaker<'_>> = decoded.resource_spans.iter().filter(with_spans).map(|it| Speaker {
                pod_uid: attribute_of(it, "k8s.pod.uid"),
                pod_name: attribute_of(it, "k8s.pod.name"),
                namespace: attribute_of(it, "k8s.namespace.name"),
                container: attribute_of(it, "k8s.container.name"),
            }).collect();
            prop_assert_eq!(speakers(&bytes).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn any_bytes_are_walked_without_panic(bytes: Vec<u8>) {
            let _ = speakers(&bytes).count();
        }
    }
}
