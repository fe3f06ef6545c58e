//! The spans of one trace in one segment, without what columns have.
//!
//! ```text
//! trace varint   its number in the segment
//! row varint     the first of its rows
//! spans varint   span bytes varint (all together, as they came)
//! resources      varint each: the resource's number in the segment
//! scopes         varint each
//! bodies         see `span`
//! ```

use super::span;
use super::words::Words;
use super::{FormatError, Reader};
use super::{Known, Writer};
use crate::otlp::wire::put_varint;
use crate::traceql::column::ROWS_MAX;

/// Numbers of a span's resource and scope in the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    pub resource: u16,
    pub scope: u16,
}

/// A span on its way into a piece.
#[derive(Debug, Clone, Copy)]
pub struct PieceSpan<'a> {
    pub group: Group,
    pub bytes: &'a [u8],
    pub known: Known,
}

/// Appends the piece of the `trace`th trace, whose rows begin at `first_row`. The writer must have counted these spans.
pub fn put<'a>(
    out: &mut Vec<u8>,
    writer: &mut Writer<'a>,
    trace: u32,
    first_row: u32,
    spans: impl Iterator<Item = PieceSpan<'a>> + Clone,
) {
    put_varint(out, u64::from(trace));
    put_varint(out, u64::from(first_row));
    put_varint(out, spans.clone().count() as u64);
    put_varint(out, spans.clone().map(|span| span.bytes.len() as u64).sum());
    spans.clone().for_each(|span| put_varint(out, u64::from(span.group.resource)));
    spans.clone().for_each(|span| put_varint(out, u64::from(span.group.scope)));
    for span in spans {
        writer.put(out, span.bytes, &span.known);
    }
}

/// A piece as read back.
#[derive(Debug, Clone)]
pub struct Piece<'a> {
    pub trace: u32,
    pub first_row: u32,
    /// Of each span.
    pub groups: Vec<Group>,
    span_bytes: usize,
    bodies: Reader<'a>,
}

impl<'a> Piece<'a> {
    /// # Errors
    /// The bytes are no piece.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        Self::read(bytes).ok_or(FormatError::Damaged("piece"))
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let trace = u32::try_from(reader.varint()?).ok()?;
        let first_row = u32::try_from(reader.varint()?).ok()?;
        let spans = reader.length()?;
        let span_bytes = reader.length()?;
        // Each span has a resource, a scope and a body.
        if spans > reader.left() || first_row as usize > ROWS_MAX || first_row as usize + spans > ROWS_MAX {
            return None;
        }
        let mut numbers = || (0..spans).map(|_| u16::try_from(reader.varint()?).ok()).collect::<Option<Vec<u16>>>();
        let (resources, scopes) = (numbers()?, numbers()?);
        let groups = resources.into_iter().zip(scopes).map(|(resource, scope)| Group { resource, scope }).collect();
        Some(Self { trace, first_row, groups, span_bytes, bodies: reader })
    }

    /// Rows of the segment.
    pub fn rows(&self) -> std::ops::Range<usize> {
        let first = self.first_row as usize;
        first..first + self.groups.len()
    }

    /// Hands each span to `each`, with its index in the piece. `known` says what columns have of it.
    ///
    /// # Errors
    /// The piece, or a word in it, is damaged or cannot be read.
    pub fn spans<W: Words>(
        &self,
        words: &W,
        known: impl Fn(usize) -> Option<Known>,
        mut each: impl FnMut(usize, &[u8]),
    ) -> Result<(), W::Error> {
        let mut bodies = self.bodies;
        let mut bytes_left = self.span_bytes;
        let mut span = Vec::new();
        for index in 0..self.groups.len() {
            let known = known(index).ok_or(FormatError::Damaged("rows of a piece"))?;
            span.clear();
            span::read(&mut bodies, words, &known, bytes_left, &mut span)?;
            bytes_left = bytes_left.saturating_sub(span.len());
            each(index, &span);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::wire;
    use crate::store::format::span::Counter;
    use crate::store::format::words::Page;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
    use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event, span::Link};
    use proptest::prelude::*;
    use prost::Message;

    const TRACE: [u8; 16] = [7; 16];

    /// Writes all spans as pieces of `per_trace`, reads them back, and returns the bytes of the pieces.
    fn round_trip(spans: &[(Vec<u8>, Known)], per_trace: usize) -> usize {
        let mut counter = Counter::default();
        for (row, (bytes, known)) in spans.iter().enumerate() {
            counter.count(bytes, (row / per_trace) as u32, known);
        }
        let mut writer = counter.finish();
        let pages: Vec<Page> = writer.pages().iter().map(|page| Page::decode(page).unwrap()).collect();
        let mut total = 0;
        for (trace, chunk) in spans.chunks(per_trace).enumerate() {
            let mut out = Vec::new();
            let first_row = (trace * per_trace) as u32;
            let list = chunk.iter().enumerate().map(|(index, (bytes, known))| PieceSpan {
                group: Group { resource: index as u16 % 3, scope: index as u16 % 2 },
                bytes,
                known: *known,
            });
            put(&mut out, &mut writer, trace as u32, first_row, list);
            total += out.len();
            let piece = Piece::decode(&out).unwrap();
            assert_eq!((piece.trace, piece.first_row), (trace as u32, first_row));
            assert_eq!(piece.rows().len(), chunk.len());
            let mut count = 0;
            piece
                .spans(
                    &pages,
                    |index| Some(chunk[index].1),
                    |index, bytes| {
                        assert_eq!(bytes, chunk[index].0, "span {index} of trace {trace}");
                        assert_eq!(piece.groups[index], Group { resource: index as u16 % 3, scope: index as u16 % 2 });
                        count += 1;
                    },
                )
                .unwrap();
            assert_eq!(count, chunk.len());
        }
        total
    }

    fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
        let value = prop_oneof![
            "[a-c]{0,3}".prop_map(Value::StringValue),
            any::<i64>().prop_map(Value::IntValue),
            any::<bool>().prop_map(Value::BoolValue),
        ];
        let attribute = ("[a-d]{1,2}", value).prop_map(|(key, value)| KeyValue {
            key,
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
        proptest::collection::vec(attribute, 0..5)
    }

    prop_compose! {
        fn span()(
            id in 1u8..40, parent in 0u8..40, names in 0u8..3, kind in 0..6, start in 0u64..5000, end in 0u64..9000,
            attributes in attributes(), events in proptest::collection::vec((0u64..9000, attributes()), 0..3),
            links in 0usize..2, flags in 0u32..2, status in proptest::option::of(0..3),
        ) -> Span {
            Span {
                trace_id: TRACE.to_vec(),
                span_id: [id; 8].to_vec(),
                parent_span_id: if parent == 0 { Vec::new() } else { [parent; 8].to_vec() },
                name: ["", "get", "put"][names as usize].to_owned(),
                kind,
                start_time_unix_nano: start,
                end_time_unix_nano: end,
                attributes,
                events: events.into_iter().map(|(time_unix_nano, attributes)| {
                    Event { time_unix_nano, name: "e".to_owned(), attributes, ..Event::default() }
                }).collect(),
                links: vec![Link { trace_id: TRACE.to_vec(), ..Link::default() }; links],
                flags,
                status: status.map(|code| Status { code, message: String::new() }),
                ..Span::default()
            }
        }
    }

    fn known(span: &Span, parents: bool) -> Known {
        let id = |id: &[u8]| <[u8; 8]>::try_from(id).ok();
        Known {
            trace: TRACE,
            span: id(&span.span_id).unwrap(),
            parent: id(&span.parent_span_id).filter(|_| parents),
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano.max(span.start_time_unix_nano),
        }
    }

    proptest! {
        #[test]
        fn spans_as_sdks_write_them_come_back_byte_for_byte(spans in proptest::collection::vec((span(), any::<bool>()), 1..40), per_trace in 1usize..9) {
            let spans: Vec<_> = spans.iter().map(|(span, parents)| (span.encode_to_vec(), known(span, *parents))).collect();
            round_trip(&spans, per_trace);
        }

        #[test]
        fn spans_with_fields_in_any_order_repeated_and_unknown_come_back_byte_for_byte(
            spans in proptest::collection::vec((span(), any::<u64>(), any::<Vec<u8>>()), 1..20), per_trace in 1usize..9
        ) {
            let spans: Vec<_> = spans.iter().map(|(span, order, extra)| {
                let bytes = span.encode_to_vec();
                let mut fields: Vec<Vec<u8>> = wire::Fields::new(&bytes).map(|field| field.unwrap().raw.to_vec()).collect();
                let mut unknown = Vec::new();
                wire::put_bytes(&mut unknown, 77, extra);
                fields.push(unknown);
                let mut order = *order;
                for _ in 0..order % 5 {
                    order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let (from, to) = ((order >> 33) as usize % fields.len(), (order >> 45) as usize % fields.len());
                    if order >> 60 == 0 { let again = fields[from].clone(); fields.push(again); } else { fields.swap(from, to); }
                }
                (fields.concat(), known(span, order & 1 == 0))
            }).collect();
            round_trip(&spans, per_trace);
        }

        #[test]
        fn any_bytes_come_back_as_a_span(spans in proptest::collection::vec(any::<Vec<u8>>(), 1..9)) {
            let known = Known { trace: TRACE, span: [1; 8], parent: None, start: 5, end: 6 };
            let spans: Vec<_> = spans.into_iter().map(|bytes| (bytes, known)).collect();
            round_trip(&spans, 2);
        }

        #[test]
        fn any_bytes_are_read_as_a_piece_or_refused(bytes: Vec<u8>, shapes in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let mut page = Vec::new();
            put_varint(&mut page, shapes.len() as u64);
            shapes.iter().for_each(|shape| put_varint(&mut page, shape.len() as u64));
            page.extend(shapes.concat());
            let pages = vec![Page::decode(&page).unwrap()];
            if let Ok(piece) = Piece::decode(&bytes) {
                let known = Known { trace: TRACE, span: [1; 8], parent: None, start: 5, end: 6 };
                let mut total = 0;
                let _ = piece.spans(&pages, |_| Some(known), |_, span| total += span.len());
                prop_assert!(total <= piece.span_bytes);
            }
        }
    }

    #[test]
    fn numbers_written_longer_than_need_be_come_back_so() {
        let known = Known { trace: TRACE, span: [1; 8], parent: None, start: 5, end: 6 };
        // kind (field 6) as a varint of two bytes.
        let spans = vec![(vec![0x30, 0x82, 0x00], known); 9];
        round_trip(&spans, 3);
    }

    #[test]
    fn a_usual_span_takes_few_bytes() {
        let attribute = |key: &str, value: String| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
            ..KeyValue::default()
        };
        let spans: Vec<_> = (0..900u64)
            .map(|number| {
                let span = Span {
                    trace_id: TRACE.to_vec(),
                    span_id: number.to_be_bytes().to_vec(),
                    name: format!("GET /{}", number % 7),
                    start_time_unix_nano: number * 1000,
                    end_time_unix_nano: number * 2000,
                    attributes: (0..10)
                        .map(|key| attribute(&format!("http.request.some.key{key}"), format!("value {}", number % 5)))
                        .collect(),
                    ..Span::default()
                };
                (span.encode_to_vec(), known(&span, true))
            })
            .collect();
        let raw: usize = spans.iter().map(|(bytes, _)| bytes.len()).sum();
        let stored = round_trip(&spans, 9);
        assert!(stored * 20 < raw, "{stored} of {raw}");
    }
}
