use super::*;
use crate::otlp::edit::{Attributes, Value};
use crate::otlp::scan::{NESTING_MAX, scan};
use crate::otlp::wire::{put_bytes, put_uint};
use crate::process::{Editor, ResourceEditor};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::net::{IpAddr, Ipv4Addr};

/// Puts the peer's address on every span.
struct Mark;

impl Processor for Mark {
    fn editor(&self) -> Option<&dyn Editor> {
        Some(self)
    }
}

impl Editor for Mark {
    fn edit<'a>(&'a self, traces: &mut Traces<'a>, client: &'a Client) -> Result<Removed, Failed> {
        for resource in traces.resources.iter_mut() {
            for scope in resource.scopes.iter_mut() {
                for span in scope.spans.iter_mut() {
                    span.attributes_mut().upsert("peer", Value::from(client.peer.to_string()));
                }
            }
        }
        Ok(Removed::default())
    }
}

/// Puts an attribute on every resource.
struct Stamp;

impl Processor for Stamp {
    fn resource_editor(&self) -> Option<&dyn ResourceEditor> {
        Some(self)
    }
}

impl ResourceEditor for Stamp {
    fn edit_resource<'a>(&'a self, attributes: &mut Attributes<'a>, client: &'a Client) {
        attributes.upsert("peer", Value::from(client.peer.to_string()));
    }
}

/// Keeps spans whose name is here.
struct Keep(&'static [&'static str]);

impl Processor for Keep {
    fn editor(&self) -> Option<&dyn Editor> {
        Some(self)
    }
}

impl Editor for Keep {
    fn edit<'a>(&'a self, traces: &mut Traces<'a>, _: &'a Client) -> Result<Removed, Failed> {
        Ok(Removed::filtered(traces.retain_spans(|_, _, span| self.0.contains(&span.name().as_ref()))))
    }
}

/// Spoils the id of every span.
struct Spoil;

impl Processor for Spoil {
    fn editor(&self) -> Option<&dyn Editor> {
        Some(self)
    }
}

impl Editor for Spoil {
    fn edit<'a>(&'a self, traces: &mut Traces<'a>, _: &'a Client) -> Result<Removed, Failed> {
        for resource in traces.resources.iter_mut() {
            for scope in resource.scopes.iter_mut() {
                scope.spans.iter_mut().for_each(|span| span.set_trace_id([0; 16]));
            }
        }
        Ok(Removed::default())
    }
}

fn chain(processors: Vec<Arc<dyn Processor>>) -> Chain {
    let mut chain = Chain::default();
    processors.into_iter().for_each(|processor| chain.push(processor));
    chain
}

fn client() -> Client {
    Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn span(name: &str, attributes: usize) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: name.to_owned(),
        attributes: vec![KeyValue::default(); attributes],
        ..Default::default()
    }
}

fn request(spans: Vec<Span>) -> Bytes {
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

fn names(request: &[u8]) -> Vec<String> {
    let request = ExportTraceServiceRequest::decode(request).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect()
}

async fn process(chain: &Chain, request: Bytes) -> Result<Processed, ProcessError> {
    let scanned = scan(&request).unwrap();
    chain.process(request, scanned, &client()).await
}

#[tokio::test]
async fn without_an_editor_the_bytes_are_the_same() {
    let request = request(vec![span("a", 1)]);
    let processed = process(&chain(Vec::new()), request.clone()).await.unwrap();
    assert_eq!((processed.request.as_ptr(), processed.removed), (request.as_ptr(), Removed::default()));
}

#[tokio::test]
async fn what_no_editor_changes_is_the_same() {
    let request = request(vec![span("a", 1)]);
    let processed = process(&chain(vec![Arc::new(Keep(&["a"]))]), request.clone()).await.unwrap();
    assert_eq!(processed.request.as_ptr(), request.as_ptr());
}

#[tokio::test]
async fn editors_run_in_order_and_what_is_left_is_described_anew() {
    let chain = chain(vec![Arc::new(Keep(&["a", "b"])), Arc::new(Mark), Arc::new(Keep(&["b"]))]);
    let processed = process(&chain, request(vec![span("a", 0), span("b", 0), span("c", 0)])).await.unwrap();
    assert_eq!(names(&processed.request), ["b"]);
    assert_eq!((processed.scanned.spans, processed.removed), (1, Removed::filtered(2)));
    let decoded = ExportTraceServiceRequest::decode(processed.request).unwrap();
    assert_eq!(decoded.resource_spans[0].scope_spans[0].spans[0].attributes[0].key, "peer");
}

#[tokio::test]
async fn nothing_left_is_an_empty_request() {
    let processed = process(&chain(vec![Arc::new(Keep(&[]))]), request(vec![span("a", 0)])).await.unwrap();
    assert_eq!((processed.request.len(), processed.scanned.spans, processed.removed), (0, 0, Removed::filtered(1)));
}

#[tokio::test]
async fn spans_that_a_processor_spoils_are_taken_out_and_counted() {
    let processed = process(&chain(vec![Arc::new(Spoil)]), request(vec![span("a", 0), span("b", 0)])).await.unwrap();
    assert_eq!((processed.scanned.spans, processed.scanned.invalid, processed.removed), (0, 2, Removed::default()));
    assert!(names(&processed.request).is_empty());
}

/// Nests an attribute of every resource deeper than anything may nest.
struct Nest;

impl Processor for Nest {
    fn resource_editor(&self) -> Option<&dyn ResourceEditor> {
        Some(self)
    }
}

impl ResourceEditor for Nest {
    fn edit_resource<'a>(&'a self, attributes: &mut Attributes<'a>, _: &'a Client) {
        let nested = (0..=NESTING_MAX).fold(Value::Int(1), |inner, _| Value::List(vec![inner].into()));
        attributes.upsert("deep", nested);
    }
}

#[tokio::test]
async fn resources_alone_change_as_they_do_among_editors_of_spans() {
    let two = [request(vec![span("a", 2), span("b", 0)]), request(vec![span("c", 1)])].concat();
    let alone = process(&chain(vec![Arc::new(Stamp)]), two.clone().into()).await.unwrap();
    let among = process(&chain(vec![Arc::new(Stamp), Arc::new(Keep(&["a", "b", "c"]))]), two.into()).await.unwrap();
    assert_eq!((&alone.request, &alone.scanned), (&among.request, &among.scanned));
    let decoded = ExportTraceServiceRequest::decode(alone.request).unwrap();
    let keys: Vec<_> =
        decoded.resource_spans.iter().map(|it| it.resource.as_ref().unwrap().attributes[0].key.as_str()).collect();
    assert_eq!((keys.as_slice(), alone.scanned.spans), (&["peer", "peer"][..], 3));
}

#[tokio::test]
async fn what_a_processor_nests_too_deep_is_refused() {
    let spans: [Arc<dyn Processor>; 2] = [Arc::new(Stamp), Arc::new(Keep(&["a"]))];
    for other in spans {
        let refused = process(&chain(vec![Arc::new(Nest), other]), request(vec![span("a", 0)])).await;
        assert!(matches!(refused, Err(ProcessError::Unfit(ScanError::TooDeep))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_request_of_many_small_objects_is_edited_in_pieces() {
    let spans: Vec<Span> = (0..8).map(|_| span("a", OBJECTS_MAX / 3)).chain([span("z", 1)]).collect();
    let processed = process(&chain(vec![Arc::new(Mark), Arc::new(Keep(&["a"]))]), request(spans)).await.unwrap();
    assert_eq!((processed.scanned.spans, processed.removed), (8, Removed::filtered(1)));
    let decoded = ExportTraceServiceRequest::decode(processed.request).unwrap();
    let scopes = decoded.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    let mut spans = scopes.flat_map(|scope| &scope.spans);
    assert!(spans.all(|span| span.attributes.last().unwrap().key == "peer"));
}

#[tokio::test]
async fn a_span_of_too_many_objects_is_refused() {
    let error = process(&chain(vec![Arc::new(Mark)]), request(vec![span("a", OBJECTS_MAX + 1)])).await.unwrap_err();
    assert!(matches!(error, ProcessError::TooManyObjects), "{error}");
}

#[tokio::test]
async fn of_metrics_and_logs_the_resources_are_changed_and_no_other_byte() {
    let mut chain = Chain::default();
    chain.push(Arc::new(Stamp));
    // Envelopes with a resource, with one in pieces, and with none; each with something that only newer versions know.
    let (mut name, mut envelope, mut request) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut name, 1, b"\x0a\x01k\x12\x03\x0a\x01v");
    put_uint(&mut name, 99, 5);
    put_bytes(&mut envelope, 2, b"\x12\x03any");
    put_uint(&mut envelope, 77, 1);
    let with = |pieces: &[&[u8]]| {
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| put_bytes(&mut out, 1, piece));
        [out.as_slice(), &envelope].concat()
    };
    let envelopes = [with(&[&name]), with(&[&name, b"\x10\x07"]), with(&[])];
    envelopes.iter().for_each(|envelope| put_bytes(&mut request, 1, envelope));
    put_uint(&mut request, 55, 3);

    let stamp = b"\x0a\x04peer\x12\x0b\x0a\x09127.0.0.1";
    let stamped = |resource: &[u8]| {
        let mut out = resource.to_vec();
        put_bytes(&mut out, 1, stamp);
        out
    };
    let mut expected = Vec::new();
    let absent = {
        let mut out = envelope.clone();
        put_bytes(&mut out, 1, &stamped(b""));
        out
    };
    for envelope in [with(&[&stamped(&name)]), with(&[&stamped(&[name.as_slice(), b"\x10\x07"].concat())]), absent] {
        put_bytes(&mut expected, 1, &envelope);
    }
    put_uint(&mut expected, 55, 3);
    let client = Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let changed = chain.process_items(Signal::Metrics, request.into(), &client).await.unwrap();
    assert_eq!(parts(&changed), parts(&expected));
    // What is there already is no change.
    let again = chain.process_items(Signal::Metrics, changed.clone(), &client).await.unwrap();
    assert_eq!(parts(&again), parts(&changed));
}

/// The fields of each envelope's resource and of the envelope, in no order: attributes stand where they are put.
fn parts(request: &[u8]) -> Vec<Vec<Vec<u8>>> {
    use crate::otlp::wire::Fields;
    let fields = |message: &[u8]| Fields::new(message).map(|field| field.unwrap().raw.to_vec()).collect::<Vec<_>>();
    let mut all = vec![fields(request).into_iter().filter(|field| field[0] != 0x0a).collect::<Vec<_>>()];
    for envelope in crate::otlp::view::messages(request, 1) {
        let mut parts: Vec<_> = fields(envelope).into_iter().filter(|field| field[0] != 0x0a).collect();
        parts.extend(crate::otlp::view::messages(envelope, 1).flat_map(fields));
        parts.sort_unstable();
        all.push(parts);
    }
    all
}

#[tokio::test]
async fn a_resource_with_too_many_attributes_is_refused_before_it_is_read() {
    let mut chain = Chain::default();
    chain.push(Arc::new(Stamp));
    let (mut resource, mut envelope, mut request) = (Vec::new(), Vec::new(), Vec::new());
    (0..=OBJECTS_MAX).for_each(|_| put_bytes(&mut resource, 1, b""));
    put_bytes(&mut envelope, 1, &resource);
    put_bytes(&mut request, 1, &envelope);
    let client = Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let refused = chain.process_items(Signal::Metrics, request.into(), &client).await;
    assert!(matches!(refused, Err(ProcessError::TooManyObjects)), "{refused:?}");
}
