//! Resources and scopes of a segment, without their lists, in pages of 16.
//!
//! ```text
//! page     as a page of words; each entry: where the list belongs varint, the other fields
//! ```

use super::words::{Page, encode_page};
use super::{FormatError, Reader};
use crate::otlp::wire::put_varint;
use crate::store::envelope::Envelope;

/// A resource takes half a kilobyte or more; a trace needs a few of them.
pub const PAGE_ENVELOPES: usize = 16;

pub fn encode(envelopes: &[Envelope]) -> impl Iterator<Item = Vec<u8>> {
    envelopes.chunks(PAGE_ENVELOPES).map(|page| {
        let entries: Vec<Vec<u8>> = page.iter().map(encode_entry).collect();
        encode_page(&entries)
    })
}

fn encode_entry(envelope: &Envelope) -> Vec<u8> {
    let mut entry = Vec::with_capacity(envelope.fields.len() + 2);
    put_varint(&mut entry, envelope.list_at as u64);
    entry.extend_from_slice(&envelope.fields);
    entry
}

/// The page that holds an envelope.
pub fn page_of(number: u16) -> u16 {
    number / PAGE_ENVELOPES as u16
}

/// # Errors
/// The page is damaged or not the one of this envelope.
pub fn decode(page: &Page, number: u16) -> Result<Envelope, FormatError> {
    let read = || {
        let mut reader = Reader::new(page.get(usize::from(number) % PAGE_ENVELOPES)?);
        let list_at = reader.length().filter(|at| *at <= reader.left())?;
        Some(Envelope { fields: reader.rest().to_vec(), list_at })
    };
    read().ok_or(FormatError::Damaged("resource or scope"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_envelopes_come_back(envelopes in proptest::collection::vec((any::<Vec<u8>>(), any::<usize>()), 0..60)) {
            let envelopes: Vec<Envelope> = envelopes.into_iter().map(|(fields, at)| {
                let list_at = at % (fields.len() + 1);
                Envelope { fields, list_at }
            }).collect();
            let pages: Vec<Page> = encode(&envelopes).map(|page| Page::decode(&page).unwrap()).collect();
            for (number, envelope) in (0..).zip(&envelopes) {
                prop_assert_eq!(&decode(&pages[usize::from(page_of(number))], number).unwrap(), envelope);
            }
        }
    }
}
