//! What policies ask about a trace, collected from the bytes of the requests that hold its spans.

use super::settings::OttlCondition;
use crate::otlp::edit::{ResourceSpans, ScopeSpans, Traces, whole};
use crate::otlp::split::{count_items, split};
use crate::otlp::view::messages;
use crate::otlp::wire::{Fields, Payload};
use crate::otlp::{Signal, TraceId};
use crate::process::chain::is_too_large;
use crate::process::ottl::View;
use crate::process::ottl::settings::{Complaints, Failing, any_holds};
use crate::process::pattern::Pattern;
use std::collections::HashMap;
use std::sync::Arc;

/// The part of a trace that one request holds, or several together: facts of parts join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub spans: u64,
    /// Of the spans' protobuf.
    pub bytes: u64,
    /// Unix nanoseconds.
    pub min_start: u64,
    pub max_end: u64,
    /// Bit `n`: some span, or the resource of one, answers question `n` with yes.
    pub answers: u64,
}

impl Facts {
    /// Of no span.
    pub const NONE: Facts = Facts { spans: 0, bytes: 0, min_start: u64::MAX, max_end: 0, answers: 0 };

    pub fn join(&mut self, other: &Facts) {
        self.spans += other.spans;
        self.bytes += other.bytes;
        self.min_start = self.min_start.min(other.min_start);
        self.max_end = self.max_end.max(other.max_end);
        self.answers |= other.answers;
    }

    pub fn duration_ms(&self) -> i64 {
        i64::try_from(self.max_end.saturating_sub(self.min_start) / 1_000_000).unwrap_or(i64::MAX)
    }
}

/// One condition on spans.
#[derive(Debug, Clone)]
pub(super) enum Question {
    /// On an attribute of the span or of its resource.
    Attribute {
        key: Vec<u8>,
        test: Test,
    },
    StatusCode(Vec<u64>),
    /// An entry of `tracestate` with one of these values.
    TraceState {
        key: Vec<u8>,
        values: Vec<Vec<u8>>,
    },
    /// The sampled flag of `flags`.
    Sampled,
    /// What is written in OTTL, about the span or one of its events.
    Ottl(OttlCondition),
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    Between(i64, i64),
    OneOf(Vec<Vec<u8>>),
    Matches(Vec<Pattern>),
    Is(bool),
}

/// What an attribute belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bearer {
    Resource,
    Span,
}

/// All conditions of all policies; each has a bit of [`Facts::answers`].
#[derive(Debug, Clone, Default)]
pub struct Questions {
    questions: Vec<Question>,
    complaints: Arc<Complaints>,
}

impl Questions {
    /// Adds a question and says which bit is its. Settings bound their number.
    pub(super) fn add(&mut self, question: Question) -> u64 {
        self.questions.push(question);
        1 << (self.questions.len() - 1)
    }

    pub(super) fn string_test(values: &[String], regex: bool) -> Test {
        if regex {
            // Settings were refused if one of them is none.
            Test::Matches(values.iter().filter_map(|value| Pattern::compile(value).ok()).collect())
        } else {
            // An empty one matches nothing.
            Test::OneOf(
                values.iter().filter(|value| !value.is_empty()).map(|value| value.clone().into_bytes()).collect(),
            )
        }
    }

    /// The traces of a request in the order of their first span. Linear in its length.
    pub fn look(&self, request: &[u8]) -> Vec<(TraceId, Facts)> {
        let mut traces: Vec<(TraceId, Facts)> = Vec::new();
        let mut places: HashMap<TraceId, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut last = None;
        for resource_spans in messages(request, 1) {
            let of_resource = messages(resource_spans, 1)
                .flat_map(|resource| messages(resource, 1))
                .fold(0, |answers, attribute| answers | self.of_attribute(attribute, Bearer::Resource));
            for span in messages(resource_spans, 2).flat_map(|scope_spans| messages(scope_spans, 2)) {
                let Some((id, facts)) = self.of_span(span) else { continue };
                let place = match last {
                    // Spans of one trace mostly stand together.
                    Some((last_id, place)) if last_id == id => place,
                    _ => *places.entry(id).or_insert_with(|| {
                        traces.push((id, Facts::NONE));
                        traces.len() - 1
                    }),
                };
                last = Some((id, place));
                if let Some((_, known)) = traces.get_mut(place) {
                    known.join(&Facts { answers: facts.answers | of_resource, ..facts });
                }
            }
        }
        if self.questions.iter().any(|question| matches!(question, Question::Ottl(_))) {
            let joined = whole(request);
            self.ask_in_ottl(joined.as_deref().unwrap_or(request), &mut |id, answers| {
                if let Some((_, facts)) = places.get(&id).and_then(|place| traces.get_mut(*place)) {
                    facts.answers |= answers;
                }
            });
        }
        traces
    }

    /// Asks the questions in OTTL about every span, for which the request is read anew, in halves where it is large. Of a
    /// single span that is too large nothing can be said.
    fn ask_in_ottl(&self, request: &[u8], answered: &mut dyn FnMut(TraceId, u64)) {
        if is_too_large(request) {
            let spans = count_items(Signal::Traces, request).unwrap_or(0);
            if let (2.., Ok((left, right))) = (spans, split(Signal::Traces, request, spans / 2)) {
                self.ask_in_ottl(&left, answered);
                self.ask_in_ottl(&right, answered);
            }
            return;
        }
        let traces = Traces::parse(request);
        for ResourceSpans { resource, scopes, schema_url } in traces.resources.iter() {
            for ScopeSpans { scope, spans, schema_url: scope_url } in scopes.iter() {
                let view = View {
                    resource: (resource, schema_url),
                    scope: Some((scope, scope_url)),
                    span: None,
                    event: None,
                    cache: None,
                };
                for span in spans.iter() {
                    let Some(id) = TraceId::from_wire(span.trace_id()) else { continue };
                    let asked = self.numbered().filter_map(|(bit, question)| match question {
                        Question::Ottl(condition) => Some((bit, condition)),
                        _ => None,
                    });
                    let yes = asked.filter(|(_, condition)| self.holds(condition, View { span: Some(span), ..view }));
                    answered(id, yes.fold(0, |answers, (bit, _)| answers | bit));
                }
            }
        }
    }

    /// What cannot be said is no, whatever `error_mode` is: a Collector passes over the policy then.
    fn holds(&self, condition: &OttlCondition, view: View<'_, '_>) -> bool {
        let failing = Failing { processor: "tail_sampling", mode: condition.error_mode, complaints: &self.complaints };
        let holds = |conditions, view| any_holds(conditions, view, &failing).unwrap_or(false);
        let events = if condition.span_event.is_empty() { 0 } else { view.span.map_or(0, |span| span.events().len()) };
        holds(&condition.span, view)
            || (0..events).any(|event| holds(&condition.span_event, View { event: Some(event), ..view }))
    }

    fn of_span(&self, span: &[u8]) -> Option<(TraceId, Facts)> {
        let (mut id, mut start, mut end, mut status, mut flags, mut answers) = (None, 0, 0, 0, 0, 0);
        let mut trace_state: &[u8] = b"";
        for field in Fields::new(span).map_while(Result::ok) {
            match (field.number, field.payload) {
                (1, Payload::Bytes(bytes)) => id = TraceId::from_wire(bytes),
                (3, Payload::Bytes(bytes)) => trace_state = bytes,
                (7, Payload::Fixed64(nanos)) => start = nanos,
                (8, Payload::Fixed64(nanos)) => end = nanos,
                (9, Payload::Bytes(attribute)) => answers |= self.of_attribute(attribute, Bearer::Span),
                (15, Payload::Bytes(bytes)) => status = status_code(bytes).unwrap_or(status),
                (16, Payload::Fixed32(bits)) => flags = bits,
                _ => {}
            }
        }
        for (bit, question) in self.numbered() {
            let yes = match question {
                Question::Attribute { .. } | Question::Ottl(_) => false,
                Question::StatusCode(codes) => codes.contains(&status),
                Question::TraceState { key, values } => has_entry(trace_state, key, values),
                Question::Sampled => flags & 1 == 1,
            };
            answers |= if yes { bit } else { 0 };
        }
        let facts = Facts { spans: 1, bytes: span.len() as u64, min_start: start, max_end: end.max(start), answers };
        id.map(|id| (id, facts))
    }

    fn of_attribute(&self, attribute: &[u8], bearer: Bearer) -> u64 {
        if self.questions.is_empty() {
            return 0;
        }
        let (mut key, mut value): (&[u8], &[u8]) = (b"", b"");
        for field in Fields::new(attribute).map_while(Result::ok) {
            key = field.bytes(1).unwrap_or(key);
            value = field.bytes(2).unwrap_or(value);
        }
        let asked = self.numbered().filter_map(|(bit, question)| match question {
            Question::Attribute { key: wanted, test } if wanted.as_slice() == key => Some((bit, test)),
            _ => None,
        });
        asked.filter(|(_, test)| test.passes(value, bearer)).fold(0, |answers, (bit, _)| answers | bit)
    }

    fn numbered(&self) -> impl Iterator<Item = (u64, &Question)> {
        self.questions.iter().enumerate().map(|(number, question)| (1 << number, question))
    }
}

impl Test {
    /// `value` is an AnyValue: string 1, bool 2, int 3. What is of another kind than the one asked for counts as empty, zero
    /// or false, as it does in the Collector.
    fn passes(&self, value: &[u8], bearer: Bearer) -> bool {
        let field = Fields::new(value).map_while(Result::ok).filter(|field| field.number <= 7).last();
        let said = field.map(|field| (field.number, field.payload));
        match self {
            Self::OneOf(values) => match said {
                Some((1, Payload::Bytes(text))) => values.iter().any(|value| value == text),
                _ => false,
            },
            Self::Matches(patterns) => {
                let text = match said {
                    Some((1, Payload::Bytes(text))) => text,
                    _ => b"",
                };
                // The Collector passes over empty texts of spans, and asks patterns about those of resources.
                let text = String::from_utf8_lossy(text);
                (bearer == Bearer::Resource || !text.is_empty())
                    && patterns.iter().any(|pattern| pattern.is_match(&text))
            }
            Self::Is(wanted) => matches!(said, Some((2, Payload::Varint(1..)))) == *wanted,
            Self::Between(min, max) => {
                let number = match said {
                    Some((3, Payload::Varint(bits))) => bits as i64,
                    _ => 0,
                };
                (*min..=*max).contains(&number)
            }
        }
    }
}

/// The code of a Status message; `None` if it holds none.
fn status_code(status: &[u8]) -> Option<u64> {
    let codes = Fields::new(status).map_while(Result::ok).filter_map(|field| match field.payload {
        Payload::Varint(code) if field.number == 3 => Some(code),
        _ => None,
    });
    codes.last()
}

/// Whether a W3C `tracestate` has `key` with one of the values.
fn has_entry(trace_state: &[u8], key: &[u8], values: &[Vec<u8>]) -> bool {
    trace_state.split(|byte| *byte == b',').any(|entry| {
        let entry = entry.trim_ascii();
        let value = entry.strip_prefix(key).and_then(|rest| rest.strip_prefix(b"="));
        value.is_some_and(|value| values.iter().any(|wanted| wanted == value))
    })
}
