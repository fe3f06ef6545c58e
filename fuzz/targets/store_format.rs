//! Any bytes as what a damaged disk may have of a run: they are refused, or read as something, without more memory than
//! their length or the rows that are expected justify. The first byte says as what, the second how many rows there are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::store::format::chunk::Unpacker;
use spanreel_fuzz::store::format::piece::Piece;
use spanreel_fuzz::store::format::words::{Page, WordId, Words};
use spanreel_fuzz::store::format::{FormatError, Known, codes, columns, dictionary, envelopes, placed};

/// One page of words, for pieces.
struct OnePage(Page);

impl Words for OnePage {
    type Error = FormatError;

    fn word(&self, id: WordId) -> Result<&[u8], FormatError> {
        self.0.word(id).ok_or(FormatError::Damaged("word"))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [what, rows, bytes @ ..] = bytes else { return };
    let rows = usize::from(*rows) * 8;
    match what % 10 {
        0 => {
            let _ = Unpacker::default().unpack(bytes).map(|raw| raw.len());
        }
        1 => {
            let _ = codes::decode(bytes, rows);
        }
        2 => {
            let _ = placed::decode(bytes, rows);
        }
        3 => {
            let _ = columns::read_ids(bytes, rows);
        }
        4 => {
            let _ =
                (columns::read_starts(bytes, &mut vec![0; rows]), columns::read_durations(bytes, &mut vec![0; rows]));
        }
        5 => {
            let _ = columns::read_parents(bytes, 0..rows, rows, &mut Vec::new());
        }
        6 => {
            let _ = columns::read_traces(bytes, rows);
        }
        7 => {
            if let Ok(dictionary) = dictionary::decode(bytes) {
                assert_eq!(dictionary.iter().count(), dictionary.len());
            }
            let _ = dictionary::decode_names(bytes);
        }
        8 => {
            if let Ok(page) = Page::decode(bytes) {
                let _ = envelopes::decode(&page, rows as u16);
            }
        }
        // Words in front, a piece behind.
        _ => {
            let (words, piece) = bytes.split_at(rows.min(bytes.len()));
            if let (Ok(page), Ok(piece)) = (Page::decode(words), Piece::decode(piece)) {
                let known = |_| Some(Known { trace: [1; 16], span: [2; 8], parent: None, start: 3, end: 4 });
                let _ = piece.spans(&OnePage(page), known, |_, _| {});
            }
        }
    }
});
