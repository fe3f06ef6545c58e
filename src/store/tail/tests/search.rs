//! Searching the store finds what searching the plain spans finds.

use super::*;
use crate::otlp::TraceId;
use crate::store::build::tests::model::typed;
use crate::store::retention::RetentionSettings;
use crate::store::runs::{self, Runs};
use crate::store::seal::{SealSettings, Sealing};
use crate::traceql::answer::FoundTrace;
use crate::traceql::control::{Control, Pool};
use crate::traceql::parse;
use crate::traceql::request::SearchRequest;
use crate::traceql::search;
use crate::traceql::tests::memory::Memory;
use crate::traceql::tests::spans::{self, Instrumentation, Trace};
use crate::traceql::value::Status;

/// At least one for each kind of column, and for each way that spans of a trace are related.
const QUERIES: [&str; 30] = [
    "{ }",
    "{ span.a = 1 }",
    "{ .a = \"ab\" }",
    "{ span.a != nil }",
    "{ span.\"\" != 1 }",
    "{ span.a = nil && span.b != nil }",
    "{ span.http.status >= 1 }",
    "{ span.b =~ \"a.*\" || span.a < 0.5 }",
    "{ span.a } | select(span.b, resource.a, event.b)",
    "{ resource.b =~ \"a.*\" }",
    "{ resource.a != 1 }",
    "{ event.a = 1 }",
    "{ event:name = \"exception\" }",
    "{ event:timeSinceStart > 1ns }",
    "{ link.b != 2 }",
    "{ link:traceID = \"00000000000000000000000000000001\" }",
    "{ link:spanID = \"0000000000000002\" }",
    "{ instrumentation:name = \"http\" && instrumentation:version != \"1\" }",
    "{ instrumentation.a = true }",
    "{ status = error || statusMessage = \"broken\" }",
    "{ kind = server } >> { }",
    "{ } > { name =~ \"span [1-3]\" }",
    "{ span.a != nil } ~ { kind != client }",
    "{ } !>> { .b != nil }",
    "{ duration > 2ns } | by(resource.a) | count() > 1",
    "{ nestedSetParent < 0 }",
    "{ span:parentID = \"0000000000000001\" }",
    "{ trace:id = \"00000000000000000000000000000002\" && span:childCount > 0 }",
    "{ rootName = \"span 1\" || rootServiceName != \"\" }",
    "{ traceDuration > 3ns } | avg(duration) > 1ns",
];

fn plain(requests: &[ExportTraceServiceRequest]) -> Vec<Trace> {
    let mut traces: BTreeMap<TraceId, Trace> = BTreeMap::new();
    for resource_spans in requests.iter().flat_map(|request| &request.resource_spans) {
        let resource = typed(&resource_spans.resource.clone().unwrap_or_default().attributes);
        for scope_spans in &resource_spans.scope_spans {
            let scope = scope_spans.scope.clone().unwrap_or_default();
            let scope =
                Instrumentation { attributes: typed(&scope.attributes), name: scope.name, version: scope.version };
            for span in &scope_spans.spans {
                let id = TraceId::from_wire(&span.trace_id).unwrap();
                let trace = traces.entry(id).or_insert_with(|| Trace { id, spans: Vec::new() });
                trace.spans.push(spans::Span { resource: resource.clone(), scope: scope.clone(), ..plain_span(span) });
            }
        }
    }
    traces.into_values().collect()
}

fn plain_span(span: &Span) -> spans::Span {
    let status = span.status.clone().unwrap_or_default();
    let start = span.start_time_unix_nano;
    spans::Span {
        parent: SpanId::from_wire(&span.parent_span_id),
        name: span.name.clone(),
        kind: Kind::from_otlp(span.kind as u64),
        status: Status::from_otlp(status.code as u64),
        message: status.message,
        start,
        duration: span.end_time_unix_nano.saturating_sub(start),
        attributes: typed(&span.attributes),
        events: span
            .events
            .iter()
            .map(|event| spans::Event {
                name: event.name.clone(),
                since_start: event.time_unix_nano.wrapping_sub(start) as i64,
                attributes: typed(&event.attributes),
            })
            .collect(),
        links: span
            .links
            .iter()
            .map(|link| spans::Link {
                trace: TraceId::from_wire(&link.trace_id).unwrap(),
                span: SpanId::from_wire(&link.span_id).unwrap(),
                attributes: typed(&link.attributes),
            })
            .collect(),
        ..spans::span(SpanId::from_wire(&span.span_id).map_or(0, |id| u64::from_be_bytes(id.0)))
    }
}

/// Takes out what has no meaning that is sure: spans that repeat others, and links to nowhere.
fn tidy(requests: &mut [ExportTraceServiceRequest]) {
    let mut seen = BTreeSet::new();
    for resource_spans in requests.iter_mut().flat_map(|request| &mut request.resource_spans) {
        for scope_spans in &mut resource_spans.scope_spans {
            scope_spans.spans.retain(|span| seen.insert((span.trace_id.clone(), span.span_id.clone(), span.kind)));
            for span in &mut scope_spans.spans {
                span.links.retain(|link| !link.trace_id.is_empty() && !link.span_id.is_empty());
            }
        }
    }
}

/// Of spans with one id and one start nobody says which comes first.
fn found(query: &str, source: &dyn Source) -> Vec<FoundTrace> {
    let request = SearchRequest { start: 0, end: u64::MAX, limit: 100, spans_per_spanset: 100, overlapping: None };
    let control = Control::new(Duration::from_secs(60), 64 << 20);
    let mut found =
        search::run(&parse(query).unwrap(), &request, source, &control, &mut search::Nobody).unwrap().traces;
    for spanset in found.iter_mut().flat_map(|trace| &mut trace.spansets) {
        spanset.spans.sort_by_key(|span| (span.start, span.id, span.duration, format!("{:?}", span.attributes)));
    }
    found
}

proptest! {
    // Each case opens a database.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn searching_the_store_is_searching_its_spans(
        settings in settings(),
        mut requests in requests(),
        sealed in any::<prop::sample::Index>(),
    ) {
        tidy(&mut requests);
        let memory = Memory::whole(&plain(&requests));
        let rig = Rig::new();
        let runs = Runs::open(rig.spool.database().clone(), runs::Metrics::default(), runs::Memory::default()).unwrap();
        let (settings_of_sealer, retention) = (SealSettings::default(), RetentionSettings::default());
        let memory_of_sealer = Pool::new(64 << 20);
        let sealing =
            Sealing::start(rig.spool.clone(), runs.clone(), settings_of_sealer, retention, memory_of_sealer).unwrap();
        let store = Store::new(rig.spool.clone(), Arc::new(runs), settings);
        let (sealed, in_tail) = requests.split_at(sealed.index(requests.len() + 1));
        sealed.iter().for_each(|request| rig.append(request));
        sealing.seal_all().unwrap();
        in_tail.iter().for_each(|request| rig.append(request));

        let source = store.searchable().unwrap();
        all_keys(&*source);
        for query in QUERIES {
            prop_assert_eq!(found(query, &*source), found(query, &memory), "{}", query);
        }
        let limits = AssembleLimits { trace_bytes_max: usize::MAX };
        for trace in plain(&requests) {
            let fragments = store.trace(trace.id, &limits).unwrap().fragments;
            let whole = assemble(fragments.iter().map(|fragment| &fragment[..]), &limits).unwrap();
            prop_assert_eq!(whole.spans, trace.spans.len());
        }
        sealing.stop();
        drop(store);
        rig.close();
    }
}
