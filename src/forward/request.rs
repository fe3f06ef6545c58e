//! A request and the pieces it falls into when a destination does not take it whole.

use super::body::{self, Body, BodyError, Codec, Dialect};
use crate::otlp::{Signal, split};
use crate::spool::{Batch, Seq};
use bytes::Bytes;

/// Consecutive batches that go out together.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) batches: Vec<Batch>,
    /// The cursor moves over `[from, to)` when every span is accounted for.
    pub(super) from: Seq,
    pub(super) to: Seq,
}

impl Request {
    pub(super) fn spans(&self) -> u64 {
        self.batches.iter().map(|batch| u64::from(batch.header.spans)).sum()
    }

    pub(super) fn raw_bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.header.raw_bytes as usize).sum()
    }
}

/// What is sent at once: whole batches as stored, or a part of one batch, inflated.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// At least one.
    Batches(Vec<Batch>),
    Part(Part),
}

#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) signal: Signal,
    pub(super) seq: Seq,
    pub(super) raw: Bytes,
    /// The parts of a batch add up to what its header says, whatever its bytes hold.
    pub(super) spans: u64,
}

/// What cutting a piece gives.
#[derive(Debug)]
pub(super) enum Halves {
    Two(Piece, Piece),
    /// One span, or none: nothing smaller can be sent.
    Indivisible(Piece),
}

impl Piece {
    pub(super) fn spans(&self) -> u64 {
        match self {
            Self::Batches(batches) => batches.iter().map(|batch| u64::from(batch.header.spans)).sum(),
            Self::Part(part) => part.spans,
        }
    }

    pub(super) fn raw_bytes(&self) -> usize {
        match self {
            Self::Batches(batches) => batches.iter().map(|batch| batch.header.raw_bytes as usize).sum(),
            Self::Part(part) => part.raw.len(),
        }
    }

    /// What a body takes in memory, nearly.
    pub(super) fn body_bytes(&self, dialect: Dialect, codec: Codec) -> usize {
        match self {
            Self::Batches(batches) if dialect.passes_frames(codec) => {
                batches.iter().map(|batch| batch.frame.len()).sum()
            }
            _ => self.raw_bytes().saturating_mul(dialect.body_factor()),
        }
    }

    /// The body for a codec. Frames that can go as they are do so without a copy; anything else is blocking work.
    pub(super) async fn body(self, dialect: Dialect, codec: Codec) -> Result<Body, String> {
        let (spans, signal) = (self.spans(), self.signal());
        if dialect.passes_frames(codec)
            && let Self::Batches(batches) = &self
        {
            let segments = batches.iter().map(|batch| batch.frame.clone()).collect();
            return Ok(Body { codec, segments, spans });
        }
        blocking(move || body::encode(self.inflated()?, signal, spans, dialect, codec)).await
    }

    fn inflated(self) -> Result<Bytes, BodyError> {
        match self {
            Self::Part(part) => Ok(part.raw),
            Self::Batches(batches) => {
                let mut raw = Vec::new();
                for batch in &batches {
                    let inflated = body::inflate(&batch.frame, batch.header.raw_bytes as usize)?;
                    if raw.is_empty() { raw = inflated } else { raw.extend_from_slice(&inflated) }
                }
                Ok(raw.into())
            }
        }
    }

    /// Cuts the piece in two: between batches, then between the spans of one. `Err`: the stored bytes cannot be read.
    pub(super) async fn halves(self) -> Result<Halves, String> {
        let part = match self {
            Self::Batches(mut batches) if batches.len() > 1 => {
                let right = batches.split_off(batches.len() / 2);
                return Ok(Halves::Two(Self::Batches(batches), Self::Batches(right)));
            }
            Self::Batches(_) if self.spans() <= 1 => return Ok(Halves::Indivisible(self)),
            Self::Batches(batches) => match part_of(batches).await? {
                Some(part) => part,
                None => return Ok(Halves::Indivisible(Self::Batches(Vec::new()))),
            },
            Self::Part(part) => part,
        };
        if part.spans <= 1 {
            return Ok(Halves::Indivisible(Self::Part(part)));
        }
        let (left, right) = blocking(move || part.cut(part.spans / 2)).await?;
        Ok(Halves::Two(Self::Part(left), Self::Part(right)))
    }

    /// Cuts the piece into ones of at most `spans_max` spans and `raw_bytes_max` bytes, oldest first. What cannot be
    /// cut to that size, such as a single span, stays as it is. `Err`: the stored bytes cannot be read.
    pub(super) async fn capped(self, spans_max: u64, raw_bytes_max: usize) -> Result<Vec<Piece>, String> {
        let part = match self {
            piece if piece.spans() <= spans_max && piece.raw_bytes() <= raw_bytes_max => return Ok(vec![piece]),
            piece if piece.spans() <= 1 => return Ok(vec![piece]),
            // The cutter puts several batches together only where they fit.
            Self::Batches(batches) => match part_of(batches).await? {
                Some(part) => part,
                None => return Ok(Vec::new()),
            },
            Self::Part(part) => part,
        };
        blocking(move || {
            let mut done = Vec::new();
            let mut rest = vec![part];
            while let Some(part) = rest.pop() {
                let has_too_many = part.spans > spans_max;
                let is_too_long = part.raw.len() > raw_bytes_max && part.spans > 1;
                if !has_too_many && !is_too_long {
                    done.push(Self::Part(part));
                    continue;
                }
                let at = match has_too_many {
                    // The multiple of the cap that is nearest to the middle: every piece but the last is full.
                    true => (part.spans / 2).div_ceil(spans_max) * spans_max,
                    false => part.spans / 2,
                };
                let (left, right) = part.cut(at)?;
                // A resource that is larger than its spans is repeated by each cut: that would multiply it, not
                // make requests smaller.
                let repeated_bytes = (left.raw.len() + right.raw.len()).saturating_sub(part.raw.len());
                if !has_too_many && repeated_bytes > part.raw.len() / 2 {
                    done.push(Self::Part(part));
                    continue;
                }
                rest.push(right);
                rest.push(left);
            }
            Ok::<_, crate::otlp::wire::WireError>(done)
        })
        .await
    }

    /// What it holds: that of its pipeline.
    fn signal(&self) -> Signal {
        match self {
            Self::Batches(batches) => batches.first().map(|batch| batch.header.signal).unwrap_or_default(),
            Self::Part(part) => part.signal,
        }
    }

    /// The first batch of the piece; `None` for a piece of nothing.
    pub(super) fn seq(&self) -> Option<Seq> {
        match self {
            Self::Batches(batches) => batches.first().map(|batch| batch.seq),
            Self::Part(part) => Some(part.seq),
        }
    }

    /// The piece as one zstd frame (or several, end to end).
    pub(super) async fn frame(self) -> Result<Bytes, String> {
        match self {
            Self::Batches(mut batches) if batches.len() == 1 => Ok(batches.swap_remove(0).frame),
            Self::Batches(batches) => {
                Ok(batches.iter().flat_map(|batch| batch.frame.iter().copied()).collect::<Vec<_>>().into())
            }
            Self::Part(part) => blocking(move || body::zstd_frame(&part.raw)).await,
        }
    }
}

impl Part {
    fn cut(&self, at_spans: u64) -> Result<(Part, Part), crate::otlp::wire::WireError> {
        let (left, right) = split::split(self.signal, &self.raw, usize::try_from(at_spans).unwrap_or(usize::MAX))?;
        Ok((
            Part { signal: self.signal, seq: self.seq, raw: left.into(), spans: at_spans },
            Part { signal: self.signal, seq: self.seq, raw: right.into(), spans: self.spans - at_spans },
        ))
    }
}

/// The first of the batches, inflated; callers hand over one.
async fn part_of(batches: Vec<Batch>) -> Result<Option<Part>, String> {
    let Some(batch) = batches.into_iter().next() else { return Ok(None) };
    let (signal, spans) = (batch.header.signal, u64::from(batch.header.spans));
    let raw =
        blocking(move || body::inflate(&batch.frame, batch.header.raw_bytes as usize).map(|raw| (batch.seq, raw)));
    let (seq, raw) = raw.await?;
    Ok(Some(Part { signal, seq, raw: raw.into(), spans }))
}

/// Runs work that takes CPU time off the async workers.
async fn blocking<V: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<V, E> + Send + 'static,
) -> Result<V, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(format!("the work was not done: {error}")),
    }
}
