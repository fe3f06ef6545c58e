//! Any text: it is refused, or its tree survives being printed. What can be compiled runs without falling over, and leaves a
//! request that is one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::otlp::edit::{Attributes, ResourceSpans, ScopeSpans, Traces};
use spanreel_fuzz::otlp::scan::scan;
use spanreel_fuzz::otlp::wire::{put_bytes, put_fixed64, put_uint};
use spanreel_fuzz::process::ottl::{CONTEXTS, Condition, Context, Frame, Prefixes, Statement, infer, parser};

fuzz_target!(|text: &str| {
    if let Ok(tree) = parser::statement(text) {
        let printed = tree.to_string();
        assert_eq!(parser::statement(&printed), Ok(tree), "{printed}");
    }
    if let Ok(tree) = parser::condition(text) {
        let printed = tree.to_string();
        assert_eq!(parser::condition(&printed), Ok(tree), "{printed}");
    }
    let _ = (infer(&[text], &[]), infer(&[], &[text]));
    let sample = sample();
    for context in CONTEXTS {
        for prefixes in [Prefixes::Optional, Prefixes::Required] {
            if let Ok(loaded) = Condition::parse(text, context, prefixes) {
                let mut traces = Traces::parse(&sample);
                let _ = loaded.value.holds(frame(&mut traces, context).view());
                assert!(!traces.is_changed());
            }
            if let Ok(loaded) = Statement::parse(text, context, prefixes) {
                let mut traces = Traces::parse(&sample);
                let _ = loaded.value.run(&mut frame(&mut traces, context));
                assert!(scan(&traces.encode()).is_ok(), "{text}");
            }
        }
    }
});

fn frame<'f, 'a>(traces: &'f mut Traces<'a>, context: Context) -> Frame<'f, 'a> {
    let ResourceSpans { resource, scopes, schema_url: resource_url } = &mut traces.resources[0];
    let ScopeSpans { scope, spans, schema_url } = &mut scopes[0];
    Frame {
        resource: (resource, resource_url),
        scope: (context >= Context::Scope).then_some((scope, schema_url)),
        span: (context >= Context::Span).then(|| &mut spans[0]),
        event: (context >= Context::SpanEvent).then_some(0),
        cache: Attributes::default(),
    }
}

/// A span with an event; attributes of every type.
fn sample() -> Vec<u8> {
    let message = |fields: &[(u32, &[u8])]| {
        let mut out = Vec::new();
        fields.iter().for_each(|(number, payload)| put_bytes(&mut out, *number, payload));
        out
    };
    let mut int = Vec::new();
    put_uint(&mut int, 3, 7);
    let mut double = Vec::new();
    put_fixed64(&mut double, 4, 1.5_f64.to_bits());
    let list = message(&[(5, &message(&[(1, &message(&[(1, b"a")])), (1, &int)]))]);
    let map = message(&[(6, &message(&[(1, &message(&[(1, b"x"), (2, &list)]))]))]);
    let values: [(&[u8], &[u8]); 6] = [
        (b"a", &message(&[(1, b"text")])),
        (b"b", &int),
        (b"c", &double),
        (b"d", &list),
        (b"e", &map),
        (b"f", &message(&[(7, &[1, 2])])),
    ];
    let mut span = message(&[(1, &[1; 16]), (2, &[2; 8]), (3, b"k=v"), (5, b"GET /users/7")]);
    put_uint(&mut span, 6, 2);
    put_fixed64(&mut span, 7, 1_700_000_000_000_000_000);
    put_fixed64(&mut span, 8, 1_700_000_000_001_000_000);
    for (key, value) in values {
        put_bytes(&mut span, 9, &message(&[(1, key), (2, value)]));
    }
    put_bytes(&mut span, 11, &message(&[(2, b"event")]));
    let scope_spans = message(&[(1, &message(&[(1, b"scope")])), (2, &span), (3, b"url")]);
    let attribute = message(&[(1, b"service.name"), (2, &message(&[(1, b"shop")]))]);
    message(&[(1, &message(&[(1, &message(&[(1, &attribute)])), (2, &scope_spans)]))])
}
