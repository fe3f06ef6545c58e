//! Requests of metrics and logs: checked like traces at the door, and counted.
//!
//! The schema's tables say what a message holds; every field they know must have its wire type, down to attribute
//! values, so that no destination refuses a whole stored request over bytes that could have been refused at the door.

use super::scan::{NESTING_MAX, ScanError};
use super::schema::{self, Kind, Message, logs, metrics};
use super::signal::Signal;
use super::wire::{Fields, Payload};

/// The request message of a signal.
pub fn request_of(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &schema::EXPORT_TRACE_SERVICE_REQUEST,
        Signal::Metrics => &metrics::EXPORT_METRICS_SERVICE_REQUEST,
        Signal::Logs => &logs::EXPORT_LOGS_SERVICE_REQUEST,
    }
}

/// Checks a request and counts its items (spans, data points, log records). Linear in its length.
///
/// # Errors
/// As [`super::scan::scan`]; an id of a wrong length refuses the request, as in a Collector.
pub fn count(signal: Signal, request: &[u8]) -> Result<u32, ScanError> {
    let mut walk = Walk { item: items_of(signal), items: 0 };
    walk.message(request_of(signal), request, 0)?;
    Ok(walk.items)
}

/// Whether a message is what is counted.
fn items_of(signal: Signal) -> fn(&'static Message) -> bool {
    match signal {
        Signal::Traces => |message| std::ptr::eq(message, &schema::SPAN),
        Signal::Metrics => |message| {
            [
                &metrics::NUMBER_DATA_POINT,
                &metrics::HISTOGRAM_DATA_POINT,
                &metrics::EXPONENTIAL_HISTOGRAM_DATA_POINT,
                &metrics::SUMMARY_DATA_POINT,
            ]
            .into_iter()
            .any(|point| std::ptr::eq(message, point))
        },
        Signal::Logs => |message| std::ptr::eq(message, &logs::LOG_RECORD),
    }
}

struct Walk {
    item: fn(&'static Message) -> bool,
    items: u32,
}

impl Walk {
    /// `depth` counts attribute values; everything else nests as deep as the schema does.
    fn message(&mut self, message: &'static Message, bytes: &[u8], depth: usize) -> Result<(), ScanError> {
        if (self.item)(message) {
            self.items = self.items.checked_add(1).ok_or(ScanError::TooManySpans)?;
        }
        let depth = depth + usize::from(std::ptr::eq(message, &schema::ANY_VALUE));
        if depth > NESTING_MAX {
            return Err(ScanError::TooDeep);
        }
        for field in Fields::new(bytes) {
            let field = field.map_err(|error| ScanError::Wire { message: message.name, error })?;
            let Some(known) = message.fields.iter().find(|known| known.number == field.number) else { continue };
            match (known.kind, field.payload) {
                (Kind::Message(inner), Payload::Bytes(bytes)) => self.message(inner, bytes, depth)?,
                (Kind::Id(len), Payload::Bytes(id)) if !id.is_empty() && id.len() != len => {
                    return Err(ScanError::IdLength { message: message.name, field: field.number });
                }
                (Kind::String | Kind::Bytes | Kind::Id(_), Payload::Bytes(_))
                | (
                    Kind::Bool | Kind::Int32 | Kind::Sint32 | Kind::Uint32 | Kind::Int64 | Kind::Uint64 | Kind::Enum(_),
                    Payload::Varint(_),
                )
                | (Kind::Fixed32, Payload::Fixed32(_))
                | (Kind::Fixed64 | Kind::Sfixed64 | Kind::Double, Payload::Fixed64(_)) => {}
                (_, Payload::Bytes(packed)) if known.is_packed() && fits_packed(known.kind, packed) => {}
                _ => return Err(ScanError::WireType { message: message.name, field: field.number }),
            }
        }
        Ok(())
    }
}

/// Whether the bytes are whole numbers of this kind, end to end.
fn fits_packed(kind: Kind, packed: &[u8]) -> bool {
    match kind {
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => packed.len().is_multiple_of(8),
        Kind::Fixed32 => packed.len().is_multiple_of(4),
        // Varints: the last byte ends one. Overlong ones are left to whoever reads them.
        _ => packed.last().is_none_or(|byte| *byte < 0x80),
    }
}

#[cfg(test)]
mod tests;
