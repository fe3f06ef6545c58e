//! Settings of the `tail_sampling` processor, with the Collector's names, defaults and checks.

use crate::config::{Declaration, Section, Shape, Stability};
use crate::process::ottl::settings::{ErrorMode, condition};
use crate::process::ottl::{Condition, Context, Prefixes};
use crate::process::pattern::Pattern;
use crate::process::settings::ProcessorSettings;
use std::sync::Arc;
use std::time::Duration;

/// The `tail_sampling` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "tail_sampling",
    Stability::Beta,
    "Forwards those traces that a policy wants; all stay searchable here, and undecided ones wait on disk.",
    |section| ProcessorSettings::TailSampling(TailSamplingSettings::decode(section)),
);

/// Conditions on spans in all policies together: each is a bit of a trace's facts.
pub const CONDITIONS_MAX: usize = 64;

/// `processors::tail_sampling`.
#[derive(Debug, Clone, PartialEq)]
pub struct TailSamplingSettings {
    /// From the arrival of a trace's first span to the decision; default 30 s. Undecided traces wait on disk.
    pub decision_wait: Duration,
    /// Decisions that are remembered for spans that come later; default 50,000.
    pub num_traces: u64,
    /// Later policies are not asked once one has said yes.
    pub sample_on_first_match: bool,
    /// At least one.
    pub policies: Vec<PolicySettings>,
}

/// One entry of `policies`, or of a policy that consists of others.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicySettings {
    pub name: String,
    pub rule: Rule,
}

/// Conditions in OTTL, of which one must hold for a span or one of its events.
#[derive(Debug, Clone, PartialEq)]
pub struct OttlCondition {
    pub error_mode: ErrorMode,
    pub span: Arc<[Condition]>,
    pub span_event: Arc<[Condition]>,
}

/// What a policy asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    AlwaysSample,
    /// Milliseconds from the first start to the last end: more than the one and, if it is not 0, not more than the other.
    Latency {
        threshold_ms: i64,
        upper_threshold_ms: i64,
    },
    NumericAttribute {
        key: String,
        min: i64,
        max: i64,
        invert: bool,
    },
    StringAttribute {
        key: String,
        values: Vec<String>,
        /// Values are regular expressions, not anchored.
        regex: bool,
        invert: bool,
    },
    BooleanAttribute {
        key: String,
        value: bool,
        invert: bool,
    },
    /// Any span with one of these status codes (OTLP numbers).
    StatusCode {
        codes: Vec<u64>,
    },
    TraceState {
        key: String,
        values: Vec<String>,
    },
    /// Any span with the sampled flag.
    TraceFlags,
    OttlCondition(OttlCondition),
    /// `max` 0: no upper bound.
    SpanCount {
        min: u64,
        max: u64,
    },
    Probabilistic {
        salt: String,
        percentage: f64,
    },
    RateLimiting {
        spans_per_second: u64,
        burst_capacity: u64,
    },
    BytesLimiting {
        bytes_per_second: u64,
        burst_capacity: u64,
    },
    And(Vec<PolicySettings>),
    Not(Box<PolicySettings>),
    Drop(Vec<PolicySettings>),
    /// In the order in which they are asked, each with the spans a second that it may keep.
    Composite {
        spans_per_second: u64,
        policies: Vec<(PolicySettings, u64)>,
    },
}

/// The word of `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    AlwaysSample,
    Latency,
    NumericAttribute,
    Probabilistic,
    StatusCode,
    StringAttribute,
    RateLimiting,
    BytesLimiting,
    SpanCount,
    TraceState,
    TraceFlags,
    BooleanAttribute,
    OttlCondition,
    And,
    Not,
    Drop,
    Composite,
}

const TYPES: [(&str, Type); 17] = [
    ("always_sample", Type::AlwaysSample),
    ("latency", Type::Latency),
    ("numeric_attribute", Type::NumericAttribute),
    ("probabilistic", Type::Probabilistic),
    ("status_code", Type::StatusCode),
    ("string_attribute", Type::StringAttribute),
    ("rate_limiting", Type::RateLimiting),
    ("bytes_limiting", Type::BytesLimiting),
    ("span_count", Type::SpanCount),
    ("trace_state", Type::TraceState),
    ("trace_flags", Type::TraceFlags),
    ("boolean_attribute", Type::BooleanAttribute),
    ("ottl_condition", Type::OttlCondition),
    ("and", Type::And),
    ("not", Type::Not),
    ("drop", Type::Drop),
    ("composite", Type::Composite),
];

/// Where a policy stands: some consist of others, but not at any depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Top,
    /// Part of `composite`, which may hold `and`.
    Composite,
    /// Part of `and` or `drop`, which may hold `not`.
    And,
    /// Part of `not`.
    Not,
}

impl TailSamplingSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = Self {
            decision_wait: section.duration("decision_wait", Duration::from_secs(30)),
            num_traces: section.u64("num_traces", 50_000),
            sample_on_first_match: section.bool("sample_on_first_match", false),
            policies: section.sections("policies", |policy| PolicySettings::decode(policy, Level::Top)),
        };
        let on_disk = "undecided traces wait on disk, not in memory";
        section.inert("expected_new_traces_per_sec", Shape::Int, on_disk);
        section.inert("block_on_overflow", Shape::Bool, on_disk);
        section.inert("num_shards", Shape::Int, "one task decides, with conditions answered once per request");
        section.inert("decision_cache", Shape::Map, "num_traces says how many decisions are remembered, of both kinds");
        let kept = "undecided traces outlive a restart";
        let whole = "a trace is judged as a whole";
        section.only("sampling_strategy", &["trace-complete"], whole, "remove it");
        section.unsupported("tail_storage", on_disk, "remove it");
        section.only("drop_pending_traces_on_shutdown", &["false"], kept, "remove it");
        let early = "a trace is decided once, decision_wait after its first span";
        section.only("decision_wait_after_root_received", &["0", "0s"], early, "remove it, or shorten decision_wait");
        let large = "a trace costs no memory here, however large";
        section.only("maximum_trace_size_bytes", &["0"], large, "remove it, or use a policy of type drop");
        if section.is_sound() {
            settings.check(section);
        }
        settings
    }

    fn check(&self, section: &Section<'_>) {
        if self.policies.is_empty() {
            let remedy = "e.g. {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}";
            section.error("policies", "at least one policy is needed", remedy);
        }
        for (index, policy) in self.policies.iter().enumerate() {
            if self.policies[..index].iter().any(|earlier| earlier.name == policy.name) {
                let reason = format!("two policies are named {:?}", policy.name);
                section.error("policies", reason, "give each its own name: metrics tell them apart by it");
            }
        }
        let conditions: usize = self.policies.iter().map(|policy| policy.rule.conditions()).sum();
        if conditions > CONDITIONS_MAX {
            let reason = format!("{conditions} conditions on spans, more than {CONDITIONS_MAX}");
            section.error("policies", reason, "join values of one attribute in one policy");
        }
        if self.num_traces == 0 {
            section.error("num_traces", "must be greater than zero", "50000 is the default");
        }
    }
}

impl PolicySettings {
    fn decode(section: &mut Section<'_>, level: Level) -> Self {
        let name = section.required_text("name", "e.g. name: errors");
        let kind = section.word("type", &TYPES, Type::AlwaysSample);
        if !section.has("type") {
            section.error("type", "a policy needs a type", "e.g. type: status_code, or always_sample");
        }
        let rule = match kind {
            Type::AlwaysSample => Rule::AlwaysSample,
            Type::TraceFlags => Rule::TraceFlags,
            Type::Latency => section.section("latency", latency),
            Type::NumericAttribute => section.section("numeric_attribute", numeric_attribute),
            Type::Probabilistic => section.section("probabilistic", probabilistic),
            Type::StatusCode => section.section("status_code", status_code),
            Type::StringAttribute => section.section("string_attribute", string_attribute),
            Type::RateLimiting => section.section("rate_limiting", |limit| {
                let spans_per_second = limit.u64("spans_per_second", 0);
                Rule::RateLimiting { spans_per_second, burst_capacity: burst_capacity(limit, spans_per_second) }
            }),
            Type::BytesLimiting => section.section("bytes_limiting", bytes_limiting),
            Type::SpanCount => section.section("span_count", span_count),
            Type::TraceState => section.section("trace_state", |state| Rule::TraceState {
                key: state.required_text("key", "the key of a tracestate entry"),
                values: state.list("values"),
            }),
            Type::BooleanAttribute => section.section("boolean_attribute", |attribute| Rule::BooleanAttribute {
                key: attribute.required_text("key", "the key of an attribute"),
                value: attribute.bool("value", false),
                invert: invert(attribute),
            }),
            Type::OttlCondition => section.section("ottl_condition", ottl_condition),
            Type::And | Type::Not | Type::Drop | Type::Composite => compound(section, kind, level),
        };
        accept_unused(section, kind);
        Self { name, rule }
    }
}

/// Policies that consist of others.
fn compound(section: &mut Section<'_>, kind: Type, level: Level) -> Rule {
    let allowed = match level {
        Level::Top => true,
        Level::Composite => kind == Type::And,
        Level::And => kind == Type::Not,
        Level::Not => false,
    };
    if !allowed {
        let reason = "a policy that consists of others cannot be part of this one";
        section.error("type", reason, "put it at the top level of policies");
        ["and", "not", "drop", "composite"].into_iter().for_each(|key| section.accept(key, Shape::Map));
    }
    // Deeper ones are read no further: they are an error already.
    let sub = |list: &mut Section<'_>, key: &'static str| {
        let policies = list.sections(key, |policy| PolicySettings::decode(policy, Level::And));
        if policies.is_empty() {
            list.error(key, "at least one policy is needed", "");
        }
        policies
    };
    match kind {
        _ if !allowed => Rule::AlwaysSample,
        Type::And => section.section("and", |and| Rule::And(sub(and, "and_sub_policy"))),
        Type::Drop => section.section("drop", |drop| Rule::Drop(sub(drop, "drop_sub_policy"))),
        Type::Not => section.section("not", |not| {
            Rule::Not(Box::new(not.section("not_sub_policy", |policy| PolicySettings::decode(policy, Level::Not))))
        }),
        _ => section.section("composite", composite),
    }
}

fn latency(section: &mut Section<'_>) -> Rule {
    let threshold_ms = section.i64("threshold_ms", 0);
    let upper_threshold_ms = section.i64("upper_threshold_ms", 0);
    if upper_threshold_ms != 0 && upper_threshold_ms <= threshold_ms {
        section.error("upper_threshold_ms", "must be greater than threshold_ms", "or remove it: no upper bound");
    }
    Rule::Latency { threshold_ms, upper_threshold_ms }
}

fn numeric_attribute(section: &mut Section<'_>) -> Rule {
    let key = section.required_text("key", "the key of an attribute");
    // Zero is no bound, as in the Collector.
    let mut bound = |key, absent| Some(section.i64(key, 0)).filter(|bound| *bound != 0).unwrap_or(absent);
    let (min, max) = (bound("min_value", i64::MIN), bound("max_value", i64::MAX));
    if (min, max) == (i64::MIN, i64::MAX) {
        section.error(
            "",
            "min_value or max_value must be given, and not be 0, which is no bound",
            "e.g. min_value: 500",
        );
    }
    if min > max {
        section.error("max_value", "must not be below min_value", "");
    }
    Rule::NumericAttribute { key, min, max, invert: invert(section) }
}

fn probabilistic(section: &mut Section<'_>) -> Rule {
    let percentage = section.f64("sampling_percentage", 0.0);
    if !(percentage.is_finite() && percentage >= 0.0) {
        section.error("sampling_percentage", "must not be negative", "a number from 0 to 100");
    }
    Rule::Probabilistic { salt: section.text("hash_salt", ""), percentage }
}

fn status_code(section: &mut Section<'_>) -> Rule {
    let words = section.list("status_codes");
    if words.is_empty() {
        section.error("status_codes", "expected at least one status code to filter on", "OK, ERROR or UNSET");
    }
    let codes = words.iter().filter_map(|word| match word.as_str() {
        "UNSET" => Some(0),
        "OK" => Some(1),
        "ERROR" => Some(2),
        other => {
            section.error("status_codes", format!("unknown status code {other:?}"), "supported: OK, ERROR, UNSET");
            None
        }
    });
    Rule::StatusCode { codes: codes.collect() }
}

fn ottl_condition(section: &mut Section<'_>) -> Rule {
    let error_mode = ErrorMode::decode(section, ErrorMode::Ignore);
    let mut conditions = |context: Context| -> Arc<[Condition]> {
        let texts = section.texts(context.word());
        texts.iter().filter_map(|text| condition(section, text, context, Prefixes::Optional)).collect()
    };
    let (span, span_event) = (conditions(Context::Span), conditions(Context::SpanEvent));
    if section.is_sound() && span.is_empty() && span_event.is_empty() {
        section.error("", "expected at least one condition", "e.g. span: ['attributes[\"http.route\"] == \"/pay\"']");
    }
    Rule::OttlCondition(OttlCondition { error_mode, span, span_event })
}

fn string_attribute(section: &mut Section<'_>) -> Rule {
    let key = section.required_text("key", "the key of an attribute");
    let values = section.list("values");
    let regex = section.bool("enabled_regex_matching", false);
    section.accept("cache_max_size", Shape::Int);
    for value in values.iter().filter(|_| regex) {
        if let Err(problem) = Pattern::compile(value) {
            let reason = format!("{value:?} is no regular expression: {problem}");
            section.error("values", reason, "the syntax is RE2's");
        }
    }
    Rule::StringAttribute { key, values, regex, invert: invert(section) }
}

fn bytes_limiting(section: &mut Section<'_>) -> Rule {
    let bytes_per_second = section.u64("bytes_per_second", 0);
    if bytes_per_second == 0 {
        section.error("bytes_per_second", "must be greater than zero", "");
    }
    Rule::BytesLimiting { bytes_per_second, burst_capacity: burst_capacity(section, bytes_per_second) }
}

/// How much passes at once; a trace with more never does. Default: what two seconds let pass.
fn burst_capacity(section: &mut Section<'_>, per_second: u64) -> u64 {
    match section.u64("burst_capacity", 0) {
        0 => per_second.saturating_mul(2),
        burst => burst,
    }
}

fn span_count(section: &mut Section<'_>) -> Rule {
    let (min, max) = (section.u64("min_spans", 0), section.u64("max_spans", 0));
    if max != 0 && max < min {
        section.error("max_spans", "must not be below min_spans", "or 0 for no upper bound");
    }
    Rule::SpanCount { min, max }
}

fn invert(section: &mut Section<'_>) -> bool {
    section.bool("invert_match", false)
}

fn composite(section: &mut Section<'_>) -> Rule {
    let spans_per_second = section.u64("max_total_spans_per_second", 0);
    let order = section.list("policy_order");
    let mut policies =
        section.sections("composite_sub_policy", |policy| PolicySettings::decode(policy, Level::Composite));
    let shares: Vec<(String, u64)> = section.sections("rate_allocation", |share| {
        (share.required_text("policy", "the name of a policy"), share.u64("percent", 0))
    });
    if policies.is_empty() {
        section.error("composite_sub_policy", "at least one policy is needed", "");
    }
    let known = |name: &String| policies.iter().any(|policy| policy.name == *name);
    for name in order.iter().filter(|name| !known(name)) {
        section.error("policy_order", format!("no policy is named {name:?}"), "name one of composite_sub_policy");
    }
    for (name, _) in shares.iter().filter(|(name, _)| !known(name)) {
        section.error("rate_allocation", format!("no policy is named {name:?}"), "name one of composite_sub_policy");
    }
    if !order.is_empty() {
        // Those that it does not name come last, as they were written.
        policies.sort_by_key(|policy| order.iter().position(|name| *name == policy.name).unwrap_or(usize::MAX));
    }
    let equal_share = spans_per_second / (policies.len() as u64).max(1);
    let policies = policies.into_iter().map(|policy| {
        let share = match shares.iter().find(|(name, _)| *name == policy.name) {
            Some((_, 0)) => equal_share,
            Some((_, percent)) => spans_per_second.saturating_mul(*percent) / 100,
            None => {
                let reason = format!("{:?} has no share, so it never keeps a trace", policy.name);
                section.warn("rate_allocation", reason, "give every policy a percentage");
                0
            }
        };
        (policy, share)
    });
    Rule::Composite { spans_per_second, policies: policies.collect() }
}

impl Rule {
    /// How many questions about spans it has.
    fn conditions(&self) -> usize {
        match self {
            Self::NumericAttribute { .. }
            | Self::StringAttribute { .. }
            | Self::BooleanAttribute { .. }
            | Self::StatusCode { .. }
            | Self::TraceState { .. }
            | Self::TraceFlags
            | Self::OttlCondition(_) => 1,
            Self::And(policies) | Self::Drop(policies) => policies.iter().map(|policy| policy.rule.conditions()).sum(),
            Self::Not(policy) => policy.rule.conditions(),
            Self::Composite { policies, .. } => policies.iter().map(|(policy, _)| policy.rule.conditions()).sum(),
            Self::AlwaysSample
            | Self::Latency { .. }
            | Self::SpanCount { .. }
            | Self::Probabilistic { .. }
            | Self::RateLimiting { .. }
            | Self::BytesLimiting { .. } => 0,
        }
    }
}

/// Sections of other types, which the Collector passes over: they earn a warning here.
fn accept_unused(section: &mut Section<'_>, kind: Type) {
    for (key, _) in TYPES.iter().filter(|(_, other)| *other != kind && *other != Type::AlwaysSample) {
        if !section.has(key) {
            continue;
        }
        section.accept(key, Shape::Map);
        if section.is_sound() {
            section.warn(key, "without effect: the policy's type is another", "remove it, or change type");
        }
    }
}
