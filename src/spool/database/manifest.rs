//! RocksDB's list of its table files, as far as is needed to take one file out of it.
//!
//! RocksDB itself takes files out only of an open database, and does not open one while a file cannot be opened; opened
//! leniently it would also pass over damage in its log, and so over acknowledged data. Its `repair` puts all files on one
//! level and turns the log into files. Here one record is added to the list, and nothing else changes.
//!
//! ```text
//! CURRENT         the list's name
//! MANIFEST-nnn    blocks of 32 KiB: records, or fragments of them
//! record          masked crc32c u32, length u16, kind u8 (whole, first, middle, last), payload; numbers little-endian
//! payload         an edit: tags and values, numbers as varints
//! ```

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

const BLOCK_LEN: usize = 32 * 1024;
const HEADER_LEN: usize = 7;

const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

const TAG_COMPARATOR: u8 = 1;
const TAG_DELETED_FILE: u64 = 6;
const TAG_FAMILY: u64 = 200;
const TAG_FAMILY_ADDED: u64 = 201;
/// Of every family here; an edit that adds one begins with it, and one that adds files has none.
const COMPARATOR: &[u8] = b"leveldb.BytewiseComparator";

/// A table file, as the list names it.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'f> {
    pub family: &'f str,
    pub level: u32,
    pub number: u64,
}

/// Takes a file out of the list. The list is replaced as a whole: after a crash it is the old one or the new one.
///
/// # Errors
/// The list cannot be read or written, or does not know the family.
pub fn forget(directory: &Path, file: Listed<'_>) -> io::Result<()> {
    let current = std::fs::read_to_string(directory.join("CURRENT"))?;
    let name = current.trim_end();
    if !name.starts_with("MANIFEST-") || name.contains('/') {
        return Err(io::Error::other(format!("CURRENT names {name:?}, which is no list of files")));
    }
    let path = directory.join(name);
    let mut list = std::fs::read(&path)?;
    let mut records = Records::new(&list);
    let id = records.by_ref().filter_map(|edit| added_family(&edit, file.family)).last();
    let id = id.ok_or_else(|| io::Error::other(format!("{name} does not know the family {:?}", file.family)))?;
    // What is behind the last whole record was being written at a crash: RocksDB passes over it, too.
    let end = records.whole_end;
    list.truncate(end);
    let mut edit = Vec::new();
    for number in [TAG_DELETED_FILE, u64::from(file.level), file.number, TAG_FAMILY, id] {
        put_varint(&mut edit, number);
    }
    append(&mut list, &edit);
    let replacement = directory.join("manifest.mended");
    let mut written = File::create(&replacement)?;
    written.write_all(&list)?;
    written.sync_all()?;
    std::fs::rename(&replacement, &path)?;
    File::open(directory)?.sync_all()
}

/// The number of the family that an edit adds, if it has this name.
fn added_family(edit: &[u8], name: &str) -> Option<u64> {
    let mut start = vec![TAG_COMPARATOR, COMPARATOR.len() as u8];
    start.extend_from_slice(COMPARATOR);
    if !edit.starts_with(&start) {
        return None;
    }
    let mut added = Vec::new();
    put_varint(&mut added, TAG_FAMILY_ADDED);
    put_varint(&mut added, name.len() as u64);
    added.extend_from_slice(name.as_bytes());
    let mut family = Vec::new();
    put_varint(&mut family, TAG_FAMILY);
    (0..edit.len()).find_map(|at| {
        let (id, rest) = take_varint(edit.get(at..)?.strip_prefix(&*family)?)?;
        rest.starts_with(&added).then_some(id)
    })
}

/// Reads the records up to the first that is not whole.
struct Records<'l> {
    list: &'l [u8],
    at: usize,
    /// Behind the last record that was handed out.
    whole_end: usize,
}

impl<'l> Records<'l> {
    fn new(list: &'l [u8]) -> Self {
        Self { list, at: 0, whole_end: 0 }
    }

    fn fragment(&mut self) -> Option<(u8, &'l [u8])> {
        let left = BLOCK_LEN - self.at % BLOCK_LEN;
        if left < HEADER_LEN {
            self.at += left;
        }
        let header = self.list.get(self.at..self.at + HEADER_LEN)?;
        let (sum, rest) = header.split_first_chunk::<4>()?;
        let (len, kind) = rest.split_first_chunk::<2>()?;
        let start = self.at + HEADER_LEN;
        let payload = self.list.get(start..start + usize::from(u16::from_le_bytes(*len)))?;
        let kind = *kind.first()?;
        if checksum(kind, payload) != u32::from_le_bytes(*sum) {
            return None;
        }
        self.at = start + payload.len();
        Some((kind, payload))
    }
}

impl<'l> Iterator for Records<'l> {
    type Item = Cow<'l, [u8]>;

    fn next(&mut self) -> Option<Cow<'l, [u8]>> {
        let (kind, payload) = self.fragment()?;
        let record = match kind {
            WHOLE => Cow::Borrowed(payload),
            FIRST => {
                let mut record = payload.to_vec();
                loop {
                    let (kind, payload) = self.fragment()?;
                    record.extend_from_slice(payload);
                    match kind {
                        MIDDLE => {}
                        LAST => break,
                        _ => return None,
                    }
                }
                Cow::Owned(record)
            }
            _ => return None,
        };
        self.whole_end = self.at;
        Some(record)
    }
}

/// Adds a record to a list that ends behind a whole one.
fn append(list: &mut Vec<u8>, record: &[u8]) {
    let mut rest = record;
    let mut is_first = true;
    loop {
        let left = BLOCK_LEN - list.len() % BLOCK_LEN;
        if left < HEADER_LEN {
            list.resize(list.len() + left, 0);
            continue;
        }
        let (payload, behind) = rest.split_at(rest.len().min(left - HEADER_LEN));
        let kind = match (is_first, behind.is_empty()) {
            (true, true) => WHOLE,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        list.extend_from_slice(&checksum(kind, payload).to_le_bytes());
        // A fragment is shorter than a block.
        list.extend_from_slice(&(payload.len() as u16).to_le_bytes());
        list.push(kind);
        list.extend_from_slice(payload);
        if behind.is_empty() {
            return;
        }
        (rest, is_first) = (behind, false);
    }
}

/// Masked, so that a checksum over data that holds checksums stays a good one.
fn checksum(kind: u8, payload: &[u8]) -> u32 {
    const MASK: u32 = 0xa282_ead8;
    crc32c([kind].iter().chain(payload)).rotate_right(15).wrapping_add(MASK)
}

fn crc32c<'b>(bytes: impl Iterator<Item = &'b u8>) -> u32 {
    /// Castagnoli's polynomial, reversed.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 })
    })
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_appended_and_a_torn_one_is_left_out(
            lengths in proptest::collection::vec(prop_oneof![0usize..64, 32_000usize..33_000, 60_000usize..70_000], 1..6),
            torn in 1usize..40,
        ) {
            let records: Vec<Vec<u8>> =
                lengths.iter().enumerate().map(|(number, len)| vec![number as u8 + 1; *len]).collect();
            let mut list = Vec::new();
            let mut ends = Vec::new();
            for record in &records {
                append(&mut list, record);
                ends.push(list.len());
            }
            let mut read = Records::new(&list);
            let found: Vec<Vec<u8>> = read.by_ref().map(Cow::into_owned).collect();
            prop_assert_eq!(&found, &records);
            prop_assert_eq!(read.whole_end, list.len());

            list.truncate(list.len() - torn.min(HEADER_LEN));
            let mut read = Records::new(&list);
            prop_assert_eq!(read.by_ref().count(), records.len() - 1);
            prop_assert_eq!(read.whole_end, ends.len().checked_sub(2).map_or(0, |last| ends[last]));
        }
    }
}
