use super::*;
use crate::otlp::scan::scan;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as trace;
use prost::Message;
use std::net::{IpAddr, Ipv4Addr};

fn settings(percentage: f32, mode: Mode) -> ProbabilisticSamplerSettings {
    ProbabilisticSamplerSettings {
        sampling_percentage: percentage,
        mode,
        hash_seed: 0,
        fail_closed: true,
        sampling_precision: 4,
    }
}

fn span(trace_id: u128, state: &str) -> trace::Span {
    trace::Span {
        trace_id: trace_id.to_be_bytes().to_vec(),
        span_id: vec![1; 8],
        trace_state: state.to_owned(),
        ..Default::default()
    }
}

/// The trace states of the spans that are kept, and how many went.
fn sampled(settings: &ProbabilisticSamplerSettings, spans: Vec<trace::Span>) -> (Vec<String>, u64) {
    let scope_spans = vec![trace::ScopeSpans { spans, ..Default::default() }];
    let resource_spans = vec![trace::ResourceSpans { scope_spans, ..Default::default() }];
    let request = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    assert!(scan(&request).is_ok());
    let mut traces = Traces::parse(&request);
    let (sampler, client) = (ProbabilisticSampler::new(settings), Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let removed = sampler.edit(&mut traces, &client).unwrap();
    let decoded = ExportTraceServiceRequest::decode(traces.encode().as_slice()).unwrap();
    let scopes = decoded.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    (scopes.flat_map(|scope| scope.spans).map(|span| span.trace_state).collect(), removed.sampled_out)
}

#[test]
fn the_share_of_traces_that_is_kept_is_about_the_one_asked_for() {
    for mode in [Mode::HashSeed, Mode::Equalizing, Mode::Proportional] {
        // Ids that are spread as random ones are.
        let spans = (1..=10_000u128).map(|n| span(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835), ""));
        let (kept, gone) = sampled(&settings(25.0, mode), spans.collect());
        assert_eq!(kept.len() as u64 + gone, 10_000);
        assert!((2300..2700).contains(&kept.len()), "{mode:?}: {}", kept.len());
    }
}

#[test]
fn all_and_nothing_are_exact() {
    let spans = || (1..=100u128).map(|n| span(n, "")).collect();
    for mode in [Mode::HashSeed, Mode::Equalizing, Mode::Proportional] {
        assert_eq!(sampled(&settings(100.0, mode), spans()).1, 0);
        assert_eq!(sampled(&settings(120.0, mode), spans()).1, 0);
        assert_eq!(sampled(&settings(0.0, mode), spans()).1, 100);
    }
    assert_eq!(sampled(&settings(0.005, Mode::HashSeed), spans()).1, 100, "below one bucket in 16384");
}

#[test]
fn what_is_kept_says_with_which_threshold() {
    let kept = |settings: &ProbabilisticSamplerSettings, state: &str| sampled(settings, vec![span(u128::MAX, state)]).0;
    assert_eq!(kept(&settings(50.0, Mode::Equalizing), "a=1"), ["ot=th:8,a=1"]);
    assert_eq!(kept(&settings(50.0, Mode::Equalizing), "ot=th:c"), ["ot=th:c"]);
    assert_eq!(kept(&settings(50.0, Mode::Proportional), "ot=th:c"), ["ot=th:e"]);
    assert_eq!(kept(&settings(50.0, Mode::Proportional), "ot=rv:80000000000000"), ["ot=rv:80000000000000;th:8"]);
    assert!(kept(&settings(50.0, Mode::Proportional), "ot=rv:7fffffffffffff").is_empty());
}

#[test]
fn what_cannot_be_decided_is_dropped_or_kept_as_configured() {
    let cases = [
        (Mode::HashSeed, "ot=th:c"),
        (Mode::HashSeed, "no state"),
        (Mode::Equalizing, "no state"),
        (Mode::Equalizing, "ot=rv:00000000000000;th:c"),
    ];
    for (mode, state) in cases {
        let closed = settings(100.0, mode);
        assert_eq!(sampled(&closed, vec![span(1, state)]).1, 1, "{mode:?} {state}");
        let open = ProbabilisticSamplerSettings { fail_closed: false, ..settings(0.01, mode) };
        assert_eq!(sampled(&open, vec![span(1, state)]).1, 0, "{mode:?} {state}");
    }
}

#[test]
fn a_priority_overrules_the_share() {
    let with_priority = |value: Any| trace::Span {
        attributes: vec![KeyValue {
            key: "sampling.priority".to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..Default::default()
        }],
        ..span(7, "")
    };
    for value in [Any::IntValue(1), Any::DoubleValue(0.5), Any::StringValue("2".to_owned())] {
        assert_eq!(sampled(&settings(0.0, Mode::HashSeed), vec![with_priority(value)]).1, 0);
    }
    for value in [Any::IntValue(0), Any::DoubleValue(0.0), Any::StringValue("0".to_owned())] {
        assert_eq!(sampled(&settings(100.0, Mode::Equalizing), vec![with_priority(value)]).1, 1);
    }
    for value in [Any::IntValue(-1), Any::StringValue("x".to_owned()), Any::BoolValue(true)] {
        assert_eq!(sampled(&settings(100.0, Mode::HashSeed), vec![with_priority(value)]).1, 0);
    }
}

#[test]
fn the_hash_is_fnv_1a_of_seed_and_id() {
    // FNV-1a of four zero bytes and sixteen: computed by hand of the published algorithm.
    let bytes = [0u8; 20];
    let hash = bytes.iter().fold(2_166_136_261u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619));
    let text = hashed(&[0; 16], 0).text();
    assert_eq!(u64::from_str_radix(&text, 16).unwrap() & 0x3fff, u64::from(hash & 0x3fff));
}
