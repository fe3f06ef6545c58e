use proptest::prelude::*;

use super::*;
use crate::otlp::SpanId;
use crate::traceql::answer::ServiceStats;
use crate::traceql::control::Stopped;
use crate::traceql::segment::Piece;
use crate::traceql::tests::memory::Memory;
use crate::traceql::tests::spans::{Span, Trace, event, span, trace, trace_id};
use crate::traceql::value::{Kind, Status, Value};

const ALL: SearchRequest =
    SearchRequest { start: 0, end: u64::MAX, limit: 100, spans_per_spanset: 100, overlapping: None };

fn control() -> Control {
    Control::new(Duration::from_secs(60), usize::MAX)
}

fn attempt(source: &dyn Source, text: &str, request: &SearchRequest) -> Result<SearchAnswer, QueryError> {
    run(&crate::traceql::read(text)?, request, source, &control(), &mut Nobody)
}

fn run_at(search: &Search<'_>, pace: Pace, listener: &mut dyn Listener) -> SearchAnswer {
    let mut collector = Collector { listener, control: search.control, traces: Vec::new(), stopped: Ok(()) };
    let inspected = search.run(pace, &mut collector).unwrap();
    SearchAnswer { traces: collector.traces, inspected }
}

fn search(source: &dyn Source, text: &str) -> Vec<FoundTrace> {
    attempt(source, text, &ALL).unwrap().traces
}

fn number(id: SpanId) -> u64 {
    u64::from_be_bytes(id.0)
}

/// Ids of the spans of the spansets of the only trace found.
fn spans_of(traces: &[FoundTrace]) -> Vec<Vec<u64>> {
    assert!(traces.len() <= 1, "{traces:#?}");
    let spansets = traces.iter().flat_map(|trace| &trace.spansets);
    spansets.map(|spanset| spanset.spans.iter().map(|span| number(span.id)).collect()).collect()
}

fn ids(traces: &[FoundTrace]) -> Vec<u128> {
    traces.iter().map(|trace| u128::from_be_bytes(trace.id.0)).collect()
}

#[test]
fn the_newest_traces_come_first_and_ids_decide_between_equals() {
    let traces: Vec<Trace> =
        [(1, 10), (2, 30), (3, 20), (4, 30)].map(|(id, start)| trace(id, [span(1).lasting(start, 0)])).into();
    let memory = Memory::spread(&traces, 2, |trace, _| vec![trace % 2]);
    assert_eq!(ids(&search(&memory, "{}")), [2, 4, 3, 1]);
    let three = SearchRequest { limit: 3, ..ALL };
    assert_eq!(ids(&attempt(&memory, "{}", &three).unwrap().traces), [2, 4, 3]);
    let one = SearchRequest { limit: 1, ..ALL };
    assert_eq!(ids(&attempt(&memory, "{}", &one).unwrap().traces), [2]);
}

#[test]
fn a_trace_counts_from_its_start_even_if_that_is_before_the_range() {
    let traces =
        [trace(1, [span(1).lasting(5, 100), span(2).child_of(1).lasting(60, 1)]), trace(2, [span(1).lasting(20, 1)])];
    let request = SearchRequest { start: 20, end: 60, ..ALL };
    let answer = attempt(&Memory::whole(&traces), "{}", &request).unwrap();
    assert_eq!(ids(&answer.traces), [2, 1]);
    assert_eq!((answer.traces[1].start, answer.traces[1].duration), (5, 100));
    assert_eq!(spans_of(&answer.traces[1..]), [[2]]);
}

#[test]
fn relations_reach_beyond_the_range() {
    let spans = [
        span(1).named("a").lasting(20, 1),
        span(2).child_of(1).lasting(5, 1),
        span(3).child_of(2).named("b").lasting(21, 1),
    ];
    let request = SearchRequest { start: 20, end: 60, ..ALL };
    let answer = attempt(&Memory::whole(&[trace(1, spans)]), r#"{name="a"} >> {name="b"}"#, &request).unwrap();
    assert_eq!(spans_of(&answer.traces), [[3]]);
}

#[test]
fn pieces_are_put_together_and_what_came_twice_counts_once() {
    let spans = [
        span(1).named("GET /").service("shop").lasting(10, 50),
        span(2).child_of(1).service("bank").status(Status::Error).lasting(20, 90),
        span(3).child_of(2).service("bank").lasting(30, 1),
    ];
    let memory = Memory::spread(&[trace(1, spans)], 3, |_, span| vec![span, (span + 1) % 3]);
    let found = search(&memory, "{}");
    assert_eq!(spans_of(&found), [[1, 2, 3]]);
    let found = &found[0];
    assert_eq!((found.start, found.duration, found.spansets[0].matched), (10, 100, 3));
    let root = found.root.as_ref().unwrap();
    assert_eq!((&*root.service, &*root.name), ("shop", "GET /"));
    let services: Vec<(&str, ServiceStats)> = found.services.iter().map(|(name, stats)| (&**name, *stats)).collect();
    assert_eq!(
        services,
        [("bank", ServiceStats { spans: 2, errors: 1 }), ("shop", ServiceStats { spans: 1, errors: 0 })]
    );
    assert_eq!(spans_of(&search(&memory, "{} >> {}")), [[2, 3]]);
    assert_eq!(spans_of(&search(&memory, "{nestedSetParent = 1} | count() = 1")), [[2]]);
}

#[test]
fn halves_of_a_zipkin_call_are_two_spans() {
    let spans = [
        span(1).kind(Kind::Client).lasting(1, 9),
        span(1).kind(Kind::Server).child_of(1).lasting(2, 7),
        span(2).child_of(1).lasting(3, 1),
    ];
    for memory in [
        Memory::whole(&[trace(1, spans.clone())]),
        Memory::spread(&[trace(1, spans.clone())], 2, |_, span| vec![span % 2]),
    ] {
        assert_eq!(search(&memory, "{}")[0].spansets[0].matched, 3);
        assert_eq!(spans_of(&search(&memory, "{kind = server} > {}")), [[2]]);
        assert_eq!(spans_of(&search(&memory, "{kind = client} > {}")), [[1]]);
    }
}

#[test]
fn spans_show_what_the_query_names() {
    let spans = [span(1)
        .named("a")
        .service("shop")
        .attribute("x", 1)
        .attribute("y", "unasked")
        .resource("r", true)
        .event(event("e").attribute("m", "first"))
        .event(event("e").attribute("m", "second"))
        .lasting(3, 4)];
    let memory = Memory::whole(&[trace(1, spans)]);
    let query =
        r#"{ span.x = 1 && status != error && duration > 1ns } | select(.r, event.m, nestedSetLeft, span.none)"#;
    let found = search(&memory, query);
    let shown = &found[0].spansets[0].spans[0];
    assert_eq!((shown.name.as_deref(), shown.start, shown.duration), (None, 3, 4));
    let expected: [(String, Value); 5] = [
        ("x".into(), 1.into()),
        ("status".into(), Value::Status(Status::Unset)),
        ("r".into(), true.into()),
        ("m".into(), "first".into()),
        ("nestedSetLeft".into(), 1.into()),
    ];
    assert_eq!(shown.attributes, expected);
    let named = search(&memory, r#"{ name = "a" }"#);
    let shown = &named[0].spansets[0].spans[0];
    assert_eq!((shown.name.as_deref(), shown.attributes.len()), (Some("a"), 0));
}

#[test]
fn spansets_show_some_spans_and_count_all() {
    let spans = (1..=5).map(|id| span(id).lasting(10 - id, 1));
    let request = SearchRequest { spans_per_spanset: 2, ..ALL };
    let answer = attempt(&Memory::whole(&[trace(1, spans)]), "{}", &request).unwrap();
    assert_eq!(spans_of(&answer.traces), [[5, 4]]);
    assert_eq!(answer.traces[0].spansets[0].matched, 5);
}

#[test]
fn by_makes_a_spanset_of_each_value_and_filters_say_what_they_counted() {
    let spans = [
        span(1).service("shop").lasting(1, 10),
        span(2).service("bank").lasting(2, 20),
        span(3).service("shop").lasting(3, 30),
        span(4).lasting(4, 5),
    ];
    let memory = Memory::whole(&[trace(1, spans)]);
    let found = search(&memory, "{} | by(resource.service.name)");
    assert_eq!(spans_of(&found), [vec![1, 3], vec![2], vec![4]]);
    let label = |value: Option<Value>| ("by(resource.service.name)".to_owned(), value);
    assert_eq!(found[0].spansets[0].attributes, [label(Some("shop".into()))]);
    assert_eq!(found[0].spansets[2].attributes, [label(None)]);

    let found = search(&memory, "{} | by(resource.service.name) | avg(duration) >= 20ns");
    assert_eq!(spans_of(&found), [vec![1, 3], vec![2]]);
    assert_eq!(
        found[0].spansets[0].attributes,
        [label(Some("shop".into())), ("avg(duration)".to_owned(), Some(Value::Duration(20)))]
    );
    let found = search(&memory, "{} | by(resource.service.name) | count() = 1 | coalesce()");
    assert_eq!(spans_of(&found), [[2, 4]]);
    assert_eq!(found[0].spansets[0].attributes, []);
}

#[test]
fn several_spansets_of_a_trace_stand_in_no_relation() {
    let memory = Memory::whole(&[trace(1, [span(1).service("a"), span(2).child_of(1).service("b")])]);
    let error = attempt(&memory, "({} | by(resource.service.name)) > ({})", &ALL).unwrap_err();
    assert!(matches!(error, QueryError::Invalid(Invalid::SeveralSpansets)), "{error}");
}

#[test]
fn structures_as_traces_drilldown_asks_for_them() {
    let spans = [
        span(1).named("GET /").service("shop").kind(Kind::Server).lasting(1, 90),
        span(2).child_of(1).kind(Kind::Client).lasting(2, 80),
        span(3).child_of(2).kind(Kind::Server).service("bank").lasting(3, 70),
        span(4).child_of(3).lasting(4, 60),
    ];
    let query = "({nestedSetParent<0 && true} &>> { kind = server }) || ({nestedSetParent<0 && true}) \
                 | select(status, resource.service.name, name, nestedSetParent, nestedSetLeft, nestedSetRight)";
    for memory in [
        Memory::whole(&[trace(1, spans.clone())]),
        Memory::spread(&[trace(1, spans.clone())], 2, |_, span| vec![span % 2]),
    ] {
        let found = search(&memory, query);
        assert_eq!(spans_of(&found), [[1, 3]]);
        let shown = &found[0].spansets[0].spans[1];
        for (name, number) in [("nestedSetParent", 2), ("nestedSetLeft", 3), ("nestedSetRight", 6)] {
            assert!(shown.attributes.contains(&(name.to_owned(), Value::Int(number))), "{shown:?}");
        }
    }
}

#[test]
fn negated_relations_take_what_has_none() {
    let spans = [span(1).named("a"), span(2).child_of(1).lasting(1, 0), span(3).child_of(9).lasting(2, 0)];
    let memory = Memory::whole(&[trace(1, spans)]);
    assert_eq!(spans_of(&search(&memory, r#"{name = "a"} !> {}"#)), [[1, 3]]);
    assert_eq!(spans_of(&search(&memory, r#"{name = "b"} !> {}"#)), [[1, 2, 3]]);
}

#[test]
fn a_segment_that_is_gone_is_left_out() {
    let memory = Memory::parts(vec![vec![trace(1, [span(1)])], vec![trace(2, [span(2).lasting(9, 0)])]]).gone(1);
    let answer = attempt(&memory, "{}", &ALL).unwrap();
    assert_eq!(ids(&answer.traces), [1]);
    assert_eq!((answer.inspected.segments, answer.inspected.segments_done), (2, 1));
}

#[test]
fn segments_too_old_to_matter_are_not_looked_at() {
    let parts = (1..=5).map(|id| vec![trace(id, [span(1).lasting(id as u64 * 10, 0)])]).collect();
    let request = SearchRequest { limit: 1, ..ALL };
    let answer = attempt(&Memory::parts(parts), "{}", &request).unwrap();
    assert_eq!((ids(&answer.traces), answer.inspected.segments_done), (vec![5], 1));
}

#[test]
fn progress_tells_of_the_newest_so_far() {
    let parts = (1..=4).map(|id| vec![trace(id, [span(1).lasting(id as u64 * 10, 0)])]).collect();
    let memory = Memory::parts(parts);
    let (query, control) = (crate::traceql::read("{}").unwrap(), control());
    struct Told(Vec<Vec<u128>>);
    impl Listener for Told {
        fn listens(&self) -> bool {
            true
        }

        fn hear(&mut self, so_far: &SearchAnswer) {
            self.0.push(ids(&so_far.traces));
        }
    }
    let mut told = Told(Vec::new());
    let pace = Pace { threads: 1, alone_up_to: Duration::MAX, progress_interval: Duration::ZERO };
    let search = Search::new(&query, &ALL, &memory, &control).unwrap();
    let answer = run_at(&search, pace, &mut told);
    assert_eq!(told.0, [vec![4], vec![4, 3, 2]]);
    assert_eq!(ids(&answer.traces), [4, 3, 2, 1]);
}

#[test]
fn details_are_not_computed_for_those_who_do_not_listen() {
    struct Deaf;
    impl Listener for Deaf {
        fn listens(&self) -> bool {
            false
        }

        fn hear(&mut self, so_far: &SearchAnswer) {
            panic!("{} traces were put together for nobody", so_far.traces.len());
        }
    }
    let traces = (1..5).map(|id| vec![trace(id, [span(id as u64).lasting(id as u64, 1)])]);
    let (memory, query, control) = (Memory::parts(traces.collect()), crate::traceql::read("{}").unwrap(), control());
    let pace = Pace { threads: 1, alone_up_to: Duration::MAX, progress_interval: Duration::ZERO };
    let answer = run_at(&Search::new(&query, &ALL, &memory, &control).unwrap(), pace, &mut Deaf);
    assert_eq!(ids(&answer.traces), [4, 3, 2, 1]);
}

#[test]
fn of_an_answer_that_is_handed_on_no_more_than_a_portion_is_held() {
    struct Taken {
        ids: Vec<u128>,
        left: usize,
    }
    impl Listener for Taken {
        fn take(&mut self, trace: FoundTrace, inspected: &Inspected) -> ControlFlow<()> {
            assert_eq!(inspected.segments_done, 2, "all is found by then");
            self.ids.push(u128::from_be_bytes(trace.id.0));
            self.left -= 1;
            if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    const TRACES: u128 = 1200;
    let one = |id: u128| trace(id, [span(1).named("n").service("s").lasting(id as u64, 1)]);
    let parts = (0..2).map(|part| (1..=TRACES).filter(|id| id % 2 == part).map(one).collect());
    let (memory, query) = (Memory::parts(parts.collect()), crate::traceql::read("{}").unwrap());
    let request = SearchRequest { limit: TRACES as usize, ..ALL };
    let control = || Control::new(Duration::from_secs(3600), 700 << 10);
    let whole = run(&query, &request, &memory, &control(), &mut Nobody);
    assert!(matches!(whole, Err(QueryError::Stopped(Stopped::MemoryOver(_)))));
    let newest_first: Vec<u128> = (1..=TRACES).rev().collect();
    for wanted in [TRACES as usize, 500] {
        let mut taken = Taken { ids: Vec::new(), left: wanted };
        each(&query, &request, &memory, &control(), &mut taken).unwrap();
        assert!(taken.ids == newest_first[..wanted]);
    }
}

#[test]
fn places_of_the_newest_are_kept_through_any_merges() {
    let traces: Vec<Trace> = (1..=9).map(|id| trace(id, [span(1).lasting(id as u64 * 10, 0)])).collect();
    for parts in 1..=9 {
        let memory = Memory::spread(&traces, parts, |trace, _| vec![(trace * 5) % parts]);
        for limit in 1..=9 {
            let expected: Vec<u128> = (1..=9).rev().take(limit).collect();
            let found = attempt(&memory, "{}", &SearchRequest { limit, ..ALL }).unwrap();
            assert_eq!(ids(&found.traces), expected, "{parts} parts, {limit} wanted");
        }
    }
}

/// Segments that each hold a span of trace 1 among many others.
fn scattered(segments: u64) -> Memory {
    let others =
        |segment: u64| (0..300_u64).map(move |other| trace(u128::from(1000 + segment * 300 + other), [span(5)]));
    let piece = |segment: u64| trace(1, [span(segment + 1).named("it").lasting(segment, 1)]);
    Memory::parts((0..segments).map(|segment| others(segment).chain([piece(segment)]).collect()).collect())
}

#[test]
fn a_trace_in_many_pieces_is_memory_of_its_query() {
    let (memory, query) = (scattered(200), crate::traceql::read("{ name = `it` }").unwrap());
    let within = |bytes_max| {
        let control = Control::new(Duration::from_secs(60), bytes_max);
        run(&query, &SearchRequest { limit: 1, ..ALL }, &memory, &control, &mut Nobody)
    };
    let error = within(100_000).unwrap_err();
    assert!(matches!(error, QueryError::Stopped(Stopped::MemoryOver(100_000))), "{error}");
    // What its segments have beside it, some 10 KB each, is not held for all of them at once.
    let found = within(1_000_000).unwrap().traces;
    assert_eq!((found.len(), found[0].spansets[0].matched, found[0].duration), (1, 200, 200));
}

#[test]
fn a_search_ends_when_its_client_left() {
    let memory = Memory::whole(&[trace(1, [span(1)])]);
    let control = control();
    control.cancel();
    let error = run(&crate::traceql::read("{}").unwrap(), &ALL, &memory, &control, &mut Nobody).unwrap_err();
    assert!(matches!(error, QueryError::Stopped(Stopped::Cancelled)), "{error}");
}

#[test]
fn an_answer_too_large_for_the_memory_of_a_query_is_refused() {
    let memory = Memory::whole(&[trace(1, (1..200).map(span))]);
    let control = Control::new(Duration::from_secs(60), 4096);
    let error = run(&crate::traceql::read("{}").unwrap(), &ALL, &memory, &control, &mut Nobody).unwrap_err();
    assert!(matches!(error, QueryError::Stopped(Stopped::MemoryOver(4096))), "{error}");
}

const QUERIES: [&str; 22] = [
    "{}",
    "{ name = `a` }",
    "{ duration > 2ns }",
    "{ name = `a` } && { kind = server }",
    "{ name = `a` } || { kind = server }",
    "{ name = `a` } > { }",
    "{ name = `a` } >> { name = `b` }",
    "{ name = `a` } << { name = `b` }",
    "{ } < { name = `b` }",
    "{ name = `a` } ~ { }",
    "{ name = `a` } !>> { name = `b` }",
    "{ name = `a` } !~ { name = `b` }",
    "{ name = `a` } &>> { name = `b` }",
    "{ name = `a` } &~ { kind = server }",
    "({ name = `a` } > { }) >> ({ kind = server } || { name = `c` })",
    "{ } | count() > 2",
    "{ name != `c` } | avg(duration) > 2ns | max(span.x) >= 1",
    "({ } | count() > 1) && ({ name = `a` })",
    "{ } | by(name) | count() > 1",
    "{ name = `a` } | { kind = server }",
    "{ rootName = `a` && nestedSetLeft > 1 }",
    "{ traceDuration > 4ns && span:childCount = 1 }",
];

fn any_traces() -> impl Strategy<Value = Vec<Trace>> {
    let one = (
        (1_u64..5, proptest::option::weighted(0.7, 1_u64..6), 0_usize..3),
        (0_u64..6, 0_u64..5),
        prop_oneof![Just(Kind::Server), Just(Kind::Client), Just(Kind::Internal)],
        proptest::option::of(0_i64..3),
    )
        .prop_map(|((id, parent, name), (start, duration), kind, x)| {
            let mut made: Span = span(id).named(["a", "b", "c"][name]).kind(kind).lasting(start, duration);
            made.parent = parent.map(crate::traceql::tests::spans::span_id);
            match x {
                Some(x) => made.attribute("x", x),
                None => made,
            }
        });
    let spans = proptest::collection::vec(one, 1..7).prop_map(|mut spans| {
        // Not more than two spans with one id, which only whole traces in pieces are looked through for.
        let mut seen = std::collections::BTreeMap::new();
        spans.retain(|span| {
            let kinds: &mut Vec<Kind> = seen.entry(span.id).or_default();
            let new = kinds.len() < 2 && !kinds.contains(&span.kind);
            kinds.push(span.kind);
            new
        });
        // Ids differ where starts are equal, so that the order is one.
        spans.iter_mut().enumerate().for_each(|(at, span)| span.start = span.start * 8 + at as u64);
        spans
    });
    proptest::collection::vec(spans, 1..6)
        .prop_map(|traces| traces.into_iter().zip(1..).map(|(spans, id)| trace(id, spans)).collect())
}

proptest! {
    // Each case runs some 150 searches.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_makes_no_difference_where_spans_lie_nor_who_looks(
        traces in any_traces(),
        places in proptest::collection::vec(proptest::collection::vec(0_usize..3, 1..3), 42),
        (start, end) in (0_u64..20, 20_u64..60),
        limit in 1_usize..4,
    ) {
        let request = SearchRequest { start, end, ..ALL };
        let whole = Memory::whole(&traces);
        let unsure = whole.clone().split_unsure();
        let spread = Memory::spread(&traces, 3, |trace, span| places[(trace * 7 + span) % places.len()].clone());
        let control = control();
        for text in QUERIES {
            let query = crate::traceql::read(text).unwrap();
            let expected = run(&query, &request, &whole, &control, &mut Nobody).unwrap().traces;
            for source in [&unsure, &spread] {
                for threads in [1, 2] {
                    let pace = Pace { threads, alone_up_to: Duration::ZERO, progress_interval: Duration::MAX };
                    let search = Search::new(&query, &request, source, &control).unwrap();
                    let found = run_at(&search, pace, &mut Nobody).traces;
                    prop_assert_eq!(&found, &expected, "{} with {} threads", text, threads);
                }
            }
            let limited = run(&query, &SearchRequest { limit, ..request }, &spread, &control, &mut Nobody).unwrap();
            prop_assert_eq!(&limited.traces, &expected[..expected.len().min(limit)], "{}", text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_rows_of_a_plan_are_the_spans_of_its_spansets(
        traces in any_traces(),
        places in proptest::collection::vec(proptest::collection::vec(0_usize..3, 1..3), 42),
        (start, end) in (0_u64..20, 20_u64..60),
    ) {
        let request = SearchRequest { start, end, ..ALL };
        let spread = Memory::spread(&traces, 3, |trace, span| places[(trace * 7 + span) % places.len()].clone());
        let control = control();
        for text in QUERIES {
            let query = crate::traceql::read(text).unwrap();
            let found = run(&query, &request, &spread, &control, &mut Nobody).unwrap().traces;
            let mut expected: Vec<(TraceId, SpanId, u64)> = Vec::new();
            for trace in &found {
                let spans = trace.spansets.iter().flat_map(|spanset| &spanset.spans);
                expected.extend(spans.map(|span| (trace.id, span.id, span.start)));
            }
            let plan = Plan::compile(query.pipelines()[0], 0).unwrap();
            let scan = Scan::new(&spread, &control);
            let mut rows = Vec::new();
            for segment in spread.segments(0, u64::MAX) {
                let reader = scan.reader(&segment);
                let mask = plan.rows(&scan, &reader, StartedWithin { start, end }).unwrap();
                let (traces, ids) = (reader.traces().unwrap(), reader.span_ids(0..reader.rows()).unwrap());
                let place = |row: usize| (traces.ids[traces.of_row(row)], ids[row].span, reader.starts().unwrap()[row]);
                rows.extend(mask.iter().map(place));
            }
            expected.sort();
            rows.sort();
            // A single filter is decided row by row, wherever a span came twice.
            if plan.single_filter().is_some() {
                rows.dedup();
            }
            prop_assert_eq!(rows, expected, "{}", text);
        }
    }
}

#[test]
fn an_id_finds_its_trace_only() {
    let traces = [trace(0xa, [span(1)]), trace(0xb, [span(1)])];
    let found = search(&Memory::whole(&traces), r#"{ trace:id = "0b" }"#);
    assert_eq!(found.iter().map(|trace| trace.id).collect::<Vec<_>>(), [trace_id(0xb)]);
}

#[test]
fn conditions_and_spansets_may_be_many() {
    let memory = Memory::whole(&[trace(1, [span(1).attribute("a", true)])]);
    for (operator, found) in [(" || ", 1), (" && ", 0)] {
        let conditions = vec![".a"; 200].join(operator) + operator + ".b";
        let spansets = vec!["{.a}"; 200].join(operator) + operator + "{.b}";
        assert_eq!(search(&memory, &format!("{{ {conditions} }}")).len(), found);
        assert_eq!(search(&memory, &spansets).len(), found);
    }
}

/// The newest segment of several, whose traces are looked at with all their pieces.
struct Newest {
    whole: Memory,
    shown: Option<SpanId>,
}

impl Source for Newest {
    fn segments(&self, start: u64, end: u64) -> Vec<Arc<dyn Segment>> {
        let segments = self.whole.segments(start, end);
        segments.into_iter().max_by_key(|segment| segment.id()).into_iter().collect()
    }

    fn pieces(&self, trace: TraceId) -> Result<Vec<Piece>, SegmentError> {
        self.whole.pieces(trace)
    }

    fn may_be_split(&self, segment: &dyn Segment, trace: usize) -> bool {
        self.whole.may_be_split(segment, trace)
    }

    fn is_part(&self) -> bool {
        true
    }

    fn shows(&self, _: TraceId, span: SpanId) -> bool {
        self.shown.is_none_or(|shown| shown == span)
    }

    fn whole_since(&self) -> u64 {
        self.whole.whole_since()
    }
}

#[test]
fn a_trace_is_found_by_any_of_its_pieces_where_only_some_segments_are_looked_at() {
    let spans = [
        span(1).named("a").kind(Kind::Server).lasting(10, 50),
        span(2).named("b").child_of(1).status(Status::Error).lasting(20, 5),
    ];
    let queries = [
        "{name = `a`} && {name = `b`}",
        "{status = error} << {kind = server}",
        "{kind = server} >> {status = error}",
        "{status = error} && {kind = server} | count() = 2",
        "{} | count() = 2",
    ];
    for swap in [0, 1] {
        let whole = Memory::spread(&[trace(1, spans.clone())], 2, |_, span| vec![(span + swap) % 2]);
        for query in queries {
            let part = Newest { whole: whole.clone(), shown: None };
            assert_eq!(search(&part, query), search(&whole, query), "{query}");
            assert_eq!(search(&part, query).len(), 1, "{query}");
            let part = Newest { shown: Some(spans[1].id), ..part };
            assert!(spans_of(&search(&part, query)).concat().iter().all(|id| *id == 2), "{query}");
        }
        let part = Newest { whole, shown: None };
        assert_eq!(search(&part, "{name = `a`} && {name = `c`}"), []);
    }
}

#[test]
fn where_few_spans_are_shown_the_earliest_of_the_others_take_no_place() {
    let spans: Vec<Span> = (1..=5).map(|id| span(id).lasting(id, 1)).collect();
    let part = Newest { whole: Memory::whole(&[trace(1, spans)]), shown: Some(span(5).id) };
    let found = attempt(&part, "{}", &SearchRequest { spans_per_spanset: 1, ..ALL }).unwrap().traces;
    assert_eq!((spans_of(&found), found[0].spansets[0].matched), (vec![vec![5]], 1));
}
