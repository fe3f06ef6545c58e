//! What stands around lists: resources and instrumentation scopes, verbatim.

use crate::otlp::wire::{self, Fields, WireError};

/// The list in both messages: `ResourceSpans.scope_spans`, `ScopeSpans.spans`.
const LIST: u32 = 2;

/// `ResourceSpans` without its scopes, or `ScopeSpans` without its spans: the same bytes are the same resource or scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The other fields verbatim, the resource or scope (field 1) first.
    pub fields: Vec<u8>,
    /// Where in `fields` the list (field 2) belongs.
    pub list_at: usize,
}

impl Envelope {
    /// # Errors
    /// The message is not protobuf.
    pub fn read(message: &[u8]) -> Result<Self, WireError> {
        let mut envelope = Self::default();
        envelope.read_into(message)?;
        Ok(envelope)
    }

    /// As [`Envelope::read`], into an envelope that is there already.
    ///
    /// # Errors
    /// The message is not protobuf; the envelope then holds a part of it.
    pub fn read_into(&mut self, message: &[u8]) -> Result<(), WireError> {
        self.fields.clear();
        let mut others = false;
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => self.fields.extend_from_slice(field.raw),
                _ => others |= field.bytes(LIST).is_none(),
            }
        }
        if self.fields.is_empty() {
            wire::put_bytes(&mut self.fields, 1, &[]);
        }
        self.list_at = self.fields.len();
        if others {
            for field in Fields::new(message) {
                let field = field?;
                if field.number != 1 && field.bytes(LIST).is_none() {
                    self.fields.extend_from_slice(field.raw);
                }
            }
        }
        Ok(())
    }

    /// The bytes of the resource or the scope itself (of the last one, as protobuf has it, if it stands twice).
    #[must_use]
    pub fn content(&self) -> &[u8] {
        let before = self.fields.get(..self.list_at).unwrap_or_default();
        Fields::new(before).map_while(Result::ok).filter_map(|field| field.bytes(1)).last().unwrap_or_default()
    }

    /// Appends the message's content with whatever `list` appends in its place.
    pub fn write(&self, out: &mut Vec<u8>, list: impl FnOnce(&mut Vec<u8>)) {
        let (before, after) = self.fields.split_at(self.list_at.min(self.fields.len()));
        out.extend_from_slice(before);
        list(out);
        out.extend_from_slice(after);
    }
}
