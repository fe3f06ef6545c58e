//! The body of an answer while it is written: in pieces, compressed on the way, booked as it grows, and at most so long.
//!
//! ```text
//! encoder ─▶ buffer ─(64 KiB)─▶ [gzip] ─▶ pieces ─▶ client, each with the room that it takes until it has left
//! ```

use std::io::Write as _;
use std::ops::{Deref, DerefMut};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::error::QueryError;
use super::negotiation::Coding;
use crate::otlp::json::Output;
use crate::traceql::control::{Booked, Control};

/// What is handed on at once.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Below this, gzip costs more than it saves; Tempo's middleware draws the line there too.
const GZIP_BYTES_MIN: usize = 1024;

/// An answer that is compressed may be so many times as large as one that is not: what it takes is its own size, but whoever
/// reads it has to hold it, too.
const GZIP_LARGER: usize = 16;

/// What may be written of an answer, and what it takes in memory, which is its query's.
#[derive(Debug)]
pub(super) struct Allowance {
    booked: Booked,
    bytes_max: usize,
    /// Why no more may be written.
    refused: Option<QueryError>,
}

impl Allowance {
    pub fn new(control: &Control, bytes_max: usize) -> Self {
        Self { booked: control.nothing_booked(), bytes_max, refused: None }
    }

    /// Whether to go on after an answer grew to so many bytes, and so many are held.
    pub fn allows(&mut self, written: usize, held: usize) -> bool {
        if self.refused.is_none() && written > self.bytes_max {
            self.refused = Some(QueryError::AnswerTooLarge { bytes_max: self.bytes_max });
        }
        if self.refused.is_none()
            && let Some(more) = held.checked_sub(self.booked.bytes())
        {
            self.refused = self.booked.grow(more).err().map(QueryError::from);
        }
        self.refused.is_none()
    }

    pub fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// What is booked for what was written.
    pub fn finish(self) -> Result<Booked, QueryError> {
        match self.refused {
            Some(refused) => Err(refused),
            None => Ok(self.booked),
        }
    }
}

/// Written into as a `Vec`; whoever writes much asks [`Body::goes_on`] between elements.
#[derive(Debug)]
pub(super) struct Body {
    buffer: Vec<u8>,
    pieces: Vec<Vec<u8>>,
    piece_bytes: usize,
    /// Once something went into it.
    encoder: Option<GzEncoder<Vec<u8>>>,
    coding: Coding,
    /// Bytes that left the buffer.
    passed: usize,
    allowance: Allowance,
}

impl Deref for Body {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.buffer
    }
}

impl DerefMut for Body {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }
}

impl Body {
    pub fn new(coding: Coding, allowance: Allowance) -> Self {
        Self { buffer: Vec::new(), pieces: Vec::new(), piece_bytes: 0, encoder: None, coding, passed: 0, allowance }
    }

    /// Appends bytes of any length, piece by piece.
    pub fn put(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.buffer.extend_from_slice(piece);
            if !self.goes_on() {
                return;
            }
        }
    }

    pub fn put_all(&mut self, parts: Vec<Vec<u8>>) {
        parts.into_iter().for_each(|part| self.put(&part));
    }

    /// Whether more may be written. What is refused is said at the end.
    pub fn goes_on(&mut self) -> bool {
        if self.buffer.len() >= PIECE_BYTES {
            self.pass_on();
        }
        let compressed = self.encoder.as_ref().map_or(0, |encoder| encoder.get_ref().capacity());
        let held = self.buffer.capacity() + self.piece_bytes + compressed;
        let written = self.passed + self.buffer.len();
        let counted = match self.coding {
            Coding::Identity => written,
            Coding::Gzip => held.max(written / GZIP_LARGER),
        };
        self.allowance.allows(counted, held)
    }

    fn pass_on(&mut self) {
        self.passed += self.buffer.len();
        match self.coding {
            Coding::Identity => {
                let buffer = std::mem::take(&mut self.buffer);
                self.put_pieces(buffer);
            }
            Coding::Gzip => {
                let encoder = self.encoder.get_or_insert_with(|| GzEncoder::new(Vec::new(), Compression::fast()));
                // Into memory: it cannot fail.
                let _ = encoder.write_all(&self.buffer);
                self.buffer.clear();
                if encoder.get_ref().len() >= PIECE_BYTES {
                    let compressed = std::mem::take(encoder.get_mut());
                    self.put_pieces(compressed);
                }
            }
        }
    }

    /// In pieces, so that what was sent is not held with what was not.
    fn put_pieces(&mut self, mut bytes: Vec<u8>) {
        // What grew as it was written may be twice as large as what is in it, and only that is booked.
        bytes.shrink_to_fit();
        self.piece_bytes += bytes.len();
        if bytes.len() <= 2 * PIECE_BYTES {
            self.pieces.push(bytes);
        } else {
            self.pieces.extend(bytes.chunks(PIECE_BYTES).map(<[u8]>::to_vec));
        }
    }

    /// The pieces, and how they are coded.
    pub fn finish(mut self) -> Result<(Vec<Vec<u8>>, Coding), QueryError> {
        self.goes_on();
        if self.allowance.is_refused() {
            return Err(self.allowance.finish().err().unwrap_or(QueryError::Crashed));
        }
        let compresses = self.coding == Coding::Gzip && self.passed + self.buffer.len() >= GZIP_BYTES_MIN;
        if compresses {
            self.pass_on();
            if let Some(encoder) = self.encoder.take() {
                let compressed = encoder.finish().map_err(|_| QueryError::Crashed)?;
                self.put_pieces(compressed);
            }
        } else if !self.buffer.is_empty() {
            let buffer = std::mem::take(&mut self.buffer);
            self.put_pieces(buffer);
        }
        // Until its query is settled.
        self.allowance.finish()?.leave();
        Ok((self.pieces, if compresses { Coding::Gzip } else { Coding::Identity }))
    }
}

impl Output for Body {
    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn goes_on(&mut self) -> bool {
        Self::goes_on(self)
    }
}

#[cfg(test)]
impl Body {
    /// Of which there may be any amount.
    pub fn unbounded() -> Self {
        Self::new(Coding::Identity, Allowance::unbounded())
    }

    pub fn whole(self) -> Vec<u8> {
        self.finish().unwrap().0.concat()
    }
}

#[cfg(test)]
impl Allowance {
    pub fn unbounded() -> Self {
        Self::new(&Control::new(std::time::Duration::from_secs(3600), usize::MAX), usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::traceql::control::Stopped;

    const MIB: usize = 1024 * 1024;

    fn control(bytes_max: usize) -> Control {
        Control::new(Duration::from_secs(3600), bytes_max)
    }

    fn written(body: &mut Body, element: &[u8], count: usize) -> usize {
        (0..count)
            .take_while(|_| {
                body.extend_from_slice(element);
                body.goes_on()
            })
            .count()
    }

    proptest! {
        // Each writes some hundred kilobytes.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn whatever_is_written_arrives(
            elements in proptest::collection::vec((any::<u8>(), 0..3 * PIECE_BYTES), 0..4),
            gzip: bool,
        ) {
            let control = control(usize::MAX);
            let coding = if gzip { Coding::Gzip } else { Coding::Identity };
            let mut body = Body::new(coding, Allowance::new(&control, usize::MAX));
            let mut expected = Vec::new();
            for (byte, len) in elements {
                let element: Vec<u8> = (0..len).map(|at| byte.wrapping_mul(at as u8)).collect();
                expected.extend_from_slice(&element);
                body.extend_from_slice(&element);
                prop_assert!(body.goes_on());
            }
            let (pieces, coding) = body.finish().unwrap();
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= 2 * PIECE_BYTES));
            let mut bytes = pieces.concat();
            if coding == Coding::Gzip {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
                bytes = plain;
            } else {
                prop_assert!(!gzip || bytes.len() < GZIP_BYTES_MIN);
            }
            prop_assert!(bytes == expected);
        }
    }

    #[test]
    fn an_answer_that_is_too_large_is_not_written_to_its_end() {
        let control = control(64 * MIB);
        for (coding, times) in [(Coding::Identity, 1), (Coding::Gzip, GZIP_LARGER)] {
            let mut body = Body::new(coding, Allowance::new(&control, MIB));
            let elements = written(&mut body, &[7; 1000], 1_000_000);
            assert!((MIB / 2000 * times..=MIB * times / 1000 + 1).contains(&elements), "{elements}");
            assert!(matches!(body.finish(), Err(QueryError::AnswerTooLarge { bytes_max: MIB })));
        }
    }

    #[test]
    fn what_is_written_is_memory_of_its_query() {
        let control = control(2 * MIB);
        let mut body = Body::new(Coding::Identity, Allowance::new(&control, usize::MAX));
        written(&mut body, &[7; 1000], 1_000_000);
        assert!(control.used_bytes() >= MIB);
        assert!(matches!(body.finish(), Err(QueryError::Stopped(Stopped::MemoryOver(_)))));
        assert_eq!(control.used_bytes(), 0);
        // Compressed, the same takes next to nothing.
        let mut body = Body::new(Coding::Gzip, Allowance::new(&control, usize::MAX));
        assert_eq!(written(&mut body, &[7; 1000], 10_000), 10_000);
        assert!(body.finish().is_ok());
    }
}
