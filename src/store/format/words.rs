//! Byte strings that many spans of a run share: attributes, names, statuses, and shapes of spans. Spans refer to them by
//! number, the most frequent first, so that most numbers take one byte and lie in the first page.
//!
//! ```text
//! page     256 words: length varint each, then their bytes          word 0 is the empty one
//! ```

use std::borrow::Cow;

use foldhash::{HashMap, HashMapExt};

use super::{FormatError, Reader};
use crate::otlp::wire::put_varint;

/// The number of a word.
pub type WordId = u32;

/// Words of one page: about 8 KiB of attributes, inflated at once when a trace is read.
pub const PAGE_WORDS: u32 = 256;

/// Traces that must share a word. What only one trace repeats lies so close together that zstd finds it anyway.
const TRACES_MIN: u32 = 3;
/// Attributes that must share a beginning (their key) for it to become a word.
const HEADS_MIN: u32 = 2;
/// Longer words stay where they are: they would make a page dear for everybody else in it.
const WORD_BYTES_MAX: usize = 4096;

/// Where words are looked up.
pub trait Words {
    type Error: From<FormatError>;

    /// # Errors
    /// There is no such word, or it cannot be read.
    fn word(&self, id: WordId) -> Result<&[u8], Self::Error>;
}

/// A page as read back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    bytes: Box<[u8]>,
    ends: Vec<u32>,
}

impl Page {
    pub fn of(id: WordId) -> u16 {
        u16::try_from(id / PAGE_WORDS).unwrap_or(u16::MAX)
    }

    /// # Errors
    /// The bytes are no page.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::read(bytes).ok_or(FormatError::Damaged("page of words"))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let count = reader.length().filter(|count| *count <= PAGE_WORDS as usize)?;
        let mut ends = Vec::with_capacity(count);
        let mut end = 0u32;
        for _ in 0..count {
            end = end.checked_add(u32::try_from(reader.varint()?).ok()?)?;
            ends.push(end);
        }
        (reader.left() == end as usize).then(|| Self { bytes: reader.rest().into(), ends })
    }

    pub fn word(&self, id: WordId) -> Option<&[u8]> {
        self.get((id % PAGE_WORDS) as usize)
    }

    /// By its place in the page.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize);
        self.bytes.get(start..end)
    }
}

/// How often words occur, while a run is counted.
#[derive(Default)]
pub(super) struct Census<'a> {
    numbers: HashMap<Cow<'a, [u8]>, u32>,
    counted: Vec<Counted>,
}

#[derive(Clone, Copy)]
struct Counted {
    traces: u32,
    last_trace: u32,
}

impl<'a> Census<'a> {
    /// Counts a word of the `trace`th trace and returns its provisional number.
    pub fn count(&mut self, word: &'a [u8], trace: u32) -> u32 {
        match self.numbers.get(word) {
            Some(number) => self.again(*number, trace),
            None => self.new_word(Cow::Borrowed(word), trace),
        }
    }

    /// The same for a word that does not outlive the call.
    pub fn count_owned(&mut self, word: &[u8], trace: u32) -> u32 {
        match self.numbers.get(word) {
            Some(number) => self.again(*number, trace),
            None => self.new_word(Cow::Owned(word.to_vec()), trace),
        }
    }

    fn again(&mut self, number: u32, trace: u32) -> u32 {
        if let Some(counted) = self.counted.get_mut(number as usize)
            && counted.last_trace != trace
        {
            counted.last_trace = trace;
            counted.traces += 1;
        }
        number
    }

    fn new_word(&mut self, word: Cow<'a, [u8]>, trace: u32) -> u32 {
        let number = self.counted.len() as u32;
        self.counted.push(Counted { traces: 1, last_trace: trace });
        self.numbers.insert(word, number);
        number
    }

    /// Chooses the words and numbers them.
    pub fn finish(self) -> Lexicon {
        let Self { numbers, counted } = self;
        let traces_of = |number: u32| counted.get(number as usize).map_or(0, |counted| counted.traces);
        let mut chosen: Vec<(u32, &[u8], Origin)> = Vec::new();
        let mut heads: HashMap<&[u8], (u32, Vec<u32>)> = HashMap::new();
        for (word, number) in &numbers {
            let traces = traces_of(*number);
            if traces >= TRACES_MIN && (1..=WORD_BYTES_MAX).contains(&word.len()) {
                chosen.push((traces, word, Origin::Whole(*number)));
            } else if let Some(head) = head(word) {
                let (shared, numbers) = heads.entry(head).or_default();
                *shared += traces;
                numbers.push(*number);
            }
        }
        for (head, (traces, numbers)) in heads {
            if numbers.len() as u32 >= HEADS_MIN {
                chosen.push((traces, head, Origin::Head(numbers)));
            }
        }
        // The bytes decide among equals, so that the same spans give the same run.
        chosen.sort_unstable_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(other.1)));

        let mut lexicon = Lexicon { places: vec![Place::default(); counted.len()], pages: Vec::new() };
        let mut words: Vec<&[u8]> = vec![&[]];
        for (_, word, origin) in &chosen {
            let id = words.len() as WordId;
            words.push(word);
            match origin {
                Origin::Whole(number) => lexicon.place(*number, Place { id, cut: WHOLE }),
                Origin::Head(numbers) => {
                    let cut = word.len() as u32;
                    numbers.iter().for_each(|number| lexicon.place(*number, Place { id, cut }));
                }
            }
        }
        lexicon.pages = words.chunks(PAGE_WORDS as usize).map(encode_page).collect();
        lexicon
    }
}

enum Origin {
    /// The word itself, by its provisional number.
    Whole(u32),
    /// The beginning of these words.
    Head(Vec<u32>),
}

/// The key of a `KeyValue`, as it stands at its beginning.
fn head(word: &[u8]) -> Option<&[u8]> {
    match word {
        // Keys of 128 bytes and more have a longer length; they are not worth it.
        [0x0a, len, ..] if *len < 0x80 => word.get(..2 + usize::from(*len)),
        _ => None,
    }
}

/// At most [`PAGE_WORDS`] of them.
pub fn encode_page<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut page = Vec::new();
    put_varint(&mut page, words.len() as u64);
    words.iter().for_each(|word| put_varint(&mut page, word.as_ref().len() as u64));
    words.iter().for_each(|word| page.extend_from_slice(word.as_ref()));
    page
}

const WHOLE: u32 = u32::MAX;

/// How a counted word is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    id: WordId,
    /// [`WHOLE`], or how many bytes of it the word `id` stands for.
    cut: u32,
}

/// The chosen words of a run, and how each counted one is written.
pub(super) struct Lexicon {
    places: Vec<Place>,
    pub pages: Vec<Vec<u8>>,
}

impl Lexicon {
    fn place(&mut self, number: u32, place: Place) {
        if let Some(slot) = self.places.get_mut(number as usize) {
            *slot = place;
        }
    }

    /// The number of a word that was chosen as a whole.
    pub fn whole(&self, number: u32) -> Option<WordId> {
        self.places.get(number as usize).filter(|place| place.cut == WHOLE).map(|place| place.id)
    }

    /// Appends a reference to a counted word, or the word itself.
    pub fn put(&self, out: &mut Vec<u8>, number: u32, word: &[u8]) {
        let place = self.places.get(number as usize).copied().unwrap_or_default();
        if place.cut == WHOLE {
            put_varint(out, u64::from(place.id) << 1);
        } else {
            put_varint(out, u64::from(place.id) << 1 | 1);
            super::put_sized(out, word.get(place.cut as usize..).unwrap_or_default());
        }
    }
}

/// Reads what [`Lexicon::put`] wrote and hands its two parts to `take`.
pub(super) fn read<W: Words>(
    reader: &mut Reader<'_>,
    words: &W,
    out: &mut Vec<u8>,
    put: impl FnOnce(&mut Vec<u8>, &[u8], &[u8]),
) -> Result<(), W::Error> {
    let damaged = FormatError::Damaged("word reference");
    let reference = reader.varint().ok_or(damaged)?;
    let id = WordId::try_from(reference >> 1).map_err(|_| damaged)?;
    let tail = if reference & 1 == 1 { reader.bytes().ok_or(damaged)? } else { &[] };
    put(out, words.word(id)?, tail);
    Ok(())
}

/// All pages in memory.
impl Words for Vec<Page> {
    type Error = FormatError;

    fn word(&self, id: WordId) -> Result<&[u8], FormatError> {
        self.get(usize::from(Page::of(id))).and_then(|page| page.word(id)).ok_or(FormatError::Damaged("word number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_words_come_back_by_reference(words in proptest::collection::vec((proptest::collection::vec(0u8..4, 0..6), 0u32..5), 0..900)) {
            let words: Vec<(Vec<u8>, u32)> = words.into_iter().map(|(mut word, trace)| {
                if word.len() > 3 {
                    word.splice(0..0, [0x0a, 2]);
                }
                (word, trace)
            }).collect();
            let mut census = Census::default();
            let numbers: Vec<u32> = words.iter().map(|(word, trace)| census.count(word, *trace)).collect();
            let lexicon = census.finish();
            let pages: Vec<Page> = lexicon.pages.iter().map(|page| Page::decode(page).unwrap()).collect();
            let mut out = Vec::new();
            for ((word, _), number) in words.iter().zip(&numbers) {
                lexicon.put(&mut out, *number, word);
                if let Some(id) = lexicon.whole(*number) {
                    prop_assert_eq!(pages.word(id).unwrap(), &word[..]);
                }
            }
            let mut reader = Reader::new(&out);
            for (word, _) in &words {
                let mut back = Vec::new();
                read(&mut reader, &pages, &mut back, |out, head, tail| {
                    out.extend_from_slice(head);
                    out.extend_from_slice(tail);
                }).unwrap();
                prop_assert_eq!(&back, word);
            }
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_a_page_or_refused(bytes: Vec<u8>, id in 0u32..1000) {
            if let Ok(page) = Page::decode(&bytes) {
                let _ = page.word(id);
            }
        }
    }
}
