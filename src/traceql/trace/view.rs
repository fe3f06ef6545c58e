//! One whole trace, from all its pieces.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::tree::{Link, Tree};
use crate::otlp::{SpanId, TraceId};
use crate::traceql::ast::{Attribute, Field, Intrinsic, Scope};
use crate::traceql::control::Booked;
use crate::traceql::datum::Datum;
use crate::traceql::reader::{Reader, Scan};
use crate::traceql::segment::{Ids, Parent, Piece, SegmentError};
use crate::traceql::value::{Kind, Value};

/// Pieces of a trace that stand in neighbouring segments, whose readers are kept anyhow. Of a trace in more each piece is
/// read through a reader of its own, which forgets what only putting together needed: it would hold columns of a whole
/// segment for a few spans.
const NEIGHBOURS_MAX: usize = 3;

/// What a span takes of memory while the trace is put together, and afterwards with its ids, its place in the tree and its
/// numbers by row and id.
const MERGED_SPAN_BYTES: usize = 2 * size_of::<(Ids, Place)>();
const SPAN_BYTES: usize = size_of::<Place>() + size_of::<Ids>() + TREE_SPAN_BYTES;
const TREE_SPAN_BYTES: usize = 40;

/// A trace with its spans numbered by start time, then id. A span that came twice is there once.
pub struct View {
    id: TraceId,
    pieces: Vec<PieceRows>,
    spans: Vec<Place>,
    /// By span; known from the start only for traces in several pieces.
    ids: OnceCell<Vec<Ids>>,
    tree: OnceCell<Tree>,
    /// Of a trace in several pieces, by piece and row: the number of the span, or [`REPEATED`].
    by_row: OnceCell<Vec<Vec<u32>>>,
    /// Numbers of spans, sorted by id.
    by_id: OnceCell<Vec<u32>>,
    _booked: Booked,
}

/// In place of the number of a span: the row repeats one.
const REPEATED: u32 = u32::MAX;

pub struct PieceRows {
    pub reader: Rc<Reader>,
    pub rows: Range<usize>,
}

/// Where a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the piece in its trace.
    pub piece: u32,
    /// Row in the segment.
    pub row: u32,
    pub start: u64,
}

impl View {
    /// The trace whose piece is at index `trace` of the reader's segment.
    ///
    /// # Errors
    /// The segment cannot be read. Of other pieces, those that cannot be read are left out.
    pub fn open(scan: &Scan<'_>, reader: &Rc<Reader>, trace: usize) -> Result<Self, SegmentError> {
        let traces = reader.traces()?;
        let id = traces.ids.get(trace).copied().unwrap_or(TraceId([0; 16]));
        let own = PieceRows { reader: reader.clone(), rows: traces.rows(trace) };
        if !reader.may_be_split(scan, trace) {
            return Self::whole(scan, id, own);
        }
        Self::merged(scan, id, own, pieces_of(scan, id)?)
    }

    fn whole(scan: &Scan<'_>, id: TraceId, piece: PieceRows) -> Result<Self, SegmentError> {
        let booked = scan.control().book(piece.rows.len() * SPAN_BYTES)?;
        let place = |row| Ok(Place { piece: 0, row: row as u32, start: piece.reader.start(row)? });
        let spans = piece.rows.clone().map(place).collect::<Result<_, SegmentError>>()?;
        Ok(Self::of(id, vec![piece], spans, OnceCell::new(), booked))
    }

    fn merged(scan: &Scan<'_>, id: TraceId, own: PieceRows, known: Vec<Piece>) -> Result<Self, SegmentError> {
        let scattered = known.len() > NEIGHBOURS_MAX;
        let mut booked = scan.control().book(known.len() * size_of::<Piece>())?;
        let mut pieces: Vec<PieceRows> = Vec::with_capacity(known.len());
        let mut found: Vec<(Ids, Place)> = Vec::new();
        for piece in known {
            scan.check()?;
            let reader = scan.reader(&piece.segment);
            let read = || {
                let rows = reader.traces()?.rows(piece.trace);
                let starts = rows.clone().map(|row| reader.start(row)).collect::<Result<Vec<_>, _>>()?;
                Ok((starts, reader.span_ids(rows.clone())?, rows))
            };
            let (starts, ids, rows) = match read() {
                Ok(read) => read,
                Err(SegmentError::Stopped(stopped)) => return Err(stopped.into()),
                Err(SegmentError::Gone | SegmentError::Read(_)) => continue,
            };
            booked.grow(rows.len() * MERGED_SPAN_BYTES)?;
            let index = pieces.len() as u32;
            let place = |(row, start): (usize, u64)| Place { piece: index, row: row as u32, start };
            found.extend(ids.into_iter().zip(rows.clone().zip(starts).map(place)));
            let reader = if scattered { scan.passing_reader(&piece.segment) } else { reader };
            pieces.push(PieceRows { reader, rows });
        }
        if pieces.len() <= 1 {
            return Self::whole(scan, id, pieces.pop().unwrap_or(own));
        }
        found.sort_by_key(|(ids, place)| (ids.span, place.piece, place.row));
        let mut kinds: Vec<Kind> = Vec::new();
        let mut unique: Vec<(Ids, Place)> = Vec::with_capacity(found.len());
        let mut same = found.as_slice();
        while let Some((first, _)) = same.first() {
            let count = same.partition_point(|(ids, _)| ids.span <= first.span);
            let (twins, rest) = same.split_at(count);
            same = rest;
            if let [only] = twins {
                unique.push(*only);
                continue;
            }
            kinds.clear();
            for (ids, place) in twins {
                let kind = kind(&pieces, *place)?;
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                    unique.push((*ids, *place));
                }
            }
        }
        unique.sort_by_key(|(ids, place)| (place.start, ids.span));
        drop(found);
        let (ids, spans): (Vec<Ids>, Vec<Place>) = unique.into_iter().unzip();
        booked.shrink_to(pieces.len() * size_of::<PieceRows>() + spans.len() * SPAN_BYTES);
        Ok(Self::of(id, pieces, spans, OnceCell::from(ids), booked))
    }

    fn of(id: TraceId, pieces: Vec<PieceRows>, spans: Vec<Place>, ids: OnceCell<Vec<Ids>>, booked: Booked) -> Self {
        let (tree, by_row, by_id) = Default::default();
        Self { id, pieces, spans, ids, tree, by_row, by_id, _booked: booked }
    }

    #[must_use]
    pub fn id(&self) -> TraceId {
        self.id
    }

    /// How many spans.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    #[must_use]
    pub fn pieces(&self) -> &[PieceRows] {
        &self.pieces
    }

    /// Where each span is.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.spans
    }

    /// The number of the span in a row of a segment; of a row that repeats a span, that of the span. The segment may be one
    /// that the view is not made of.
    ///
    /// # Errors
    /// A piece cannot be read.
    pub fn span_at(&self, reader: &Reader, row: usize) -> Result<Option<usize>, SegmentError> {
        let segment = reader.segment().id();
        let of_piece = |piece: &PieceRows| piece.reader.segment().id() == segment && piece.rows.contains(&row);
        if let Some(number) = self.pieces.iter().position(of_piece) {
            if let [piece] = &self.pieces[..] {
                return Ok(Some(row - piece.rows.start));
            }
            if let Some(span) = self.span_in(number, row) {
                return Ok(Some(span));
            }
        }
        let own = reader.span_ids(row..row + 1)?;
        let Some(own) = own.first() else { return Ok(None) };
        let own_kind = kind_at(reader, row)?;
        let (ids, by_id) = (self.ids()?, self.by_id()?);
        let id_of = |span: &u32| ids.get(*span as usize).map(|ids| ids.span);
        let first = by_id.partition_point(|span| id_of(span) < Some(own.span));
        for span in by_id.iter().skip(first).take_while(|span| id_of(span) == Some(own.span)) {
            if let Some(place) = self.spans.get(*span as usize)
                && kind(&self.pieces, *place)? == own_kind
            {
                return Ok(Some(*span as usize));
            }
        }
        Ok(None)
    }

    /// The number of the span in a row of a piece; `None` if the row repeats one.
    fn span_in(&self, piece: usize, row: usize) -> Option<usize> {
        let by_row = self.by_row.get_or_init(|| {
            let mut by_row: Vec<_> = self.pieces.iter().map(|piece| vec![REPEATED; piece.rows.len()]).collect();
            for (span, place) in (0u32..).zip(&self.spans) {
                let piece = place.piece as usize;
                if let (Some(rows), Some(own)) = (self.pieces.get(piece), by_row.get_mut(piece))
                    && let Some(slot) =
                        (place.row as usize).checked_sub(rows.rows.start).and_then(|row| own.get_mut(row))
                {
                    *slot = span;
                }
            }
            by_row
        });
        let row = row.checked_sub(self.pieces.get(piece)?.rows.start)?;
        by_row.get(piece)?.get(row).filter(|span| **span != REPEATED).map(|span| *span as usize)
    }

    fn by_id(&self) -> Result<&[u32], SegmentError> {
        let ids = self.ids()?;
        Ok(self.by_id.get_or_init(|| {
            let mut numbers: Vec<u32> = (0..ids.len() as u32).collect();
            // Of equal ids the first in time comes first.
            numbers.sort_by_key(|span| ids.get(*span as usize).map(|ids| ids.span));
            numbers
        }))
    }

    /// The earliest start, Unix nanoseconds.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.spans.first().map_or(0, |place| place.start)
    }

    /// From the earliest start to the latest end, nanoseconds.
    ///
    /// # Errors
    /// A piece cannot be read.
    pub fn duration(&self) -> Result<u64, SegmentError> {
        let mut end = 0;
        for piece in &self.pieces {
            if self.pieces.len() > NEIGHBOURS_MAX {
                // Not remembered.
                let (starts, durations) = (piece.reader.segment().starts()?, piece.reader.segment().durations()?);
                for row in piece.rows.clone() {
                    end = end.max(at(&starts, row).saturating_add(at(&durations, row)));
                }
            } else {
                for row in piece.rows.clone() {
                    end = end.max(piece.reader.start(row)?.saturating_add(piece.reader.duration(row)?));
                }
            }
        }
        Ok(end.saturating_sub(self.start()))
    }

    /// How long a span lasted, nanoseconds.
    ///
    /// # Errors
    /// A piece cannot be read.
    pub fn duration_at(&self, place: Place) -> Result<u64, SegmentError> {
        let Some(piece) = self.pieces.get(place.piece as usize) else { return Ok(0) };
        piece.reader.duration(place.row as usize)
    }

    /// # Errors
    /// A piece cannot be read.
    pub fn ids(&self) -> Result<&[Ids], SegmentError> {
        if let Some(ids) = self.ids.get() {
            return Ok(ids);
        }
        let mut ids = Vec::with_capacity(self.len());
        for piece in &self.pieces {
            ids.extend(piece.reader.span_ids(piece.rows.clone())?);
        }
        Ok(self.ids.get_or_init(|| ids))
    }

    /// The first span without parent.
    ///
    /// # Errors
    /// A piece cannot be read.
    pub fn root(&self) -> Result<Option<Place>, SegmentError> {
        for place in &self.spans {
            if let Some(piece) = self.pieces.get(place.piece as usize)
                && piece.reader.parent(place.row as usize)? == Some(Parent::Root)
            {
                return Ok(Some(*place));
            }
        }
        Ok(None)
    }

    fn root_texts(&self) -> Result<(Arc<str>, Arc<str>), SegmentError> {
        let Some(root) = self.root()? else { return Ok((Arc::from(""), Arc::from(""))) };
        Ok((self.text(root, &Field::Intrinsic(Intrinsic::Name))?, self.text(root, &service_name())?))
    }

    /// The value that a span has for a field with a column.
    ///
    /// # Errors
    /// A piece cannot be read.
    pub fn value(&self, place: Place, field: &Field) -> Result<Option<Value>, SegmentError> {
        let Some(piece) = self.pieces.get(place.piece as usize) else { return Ok(None) };
        let values = piece.reader.values(field)?;
        Ok(values.get(&piece.reader, place.row as usize)?.and_then(Datum::into_value))
    }

    /// A string that a span has for a field, empty if it has none.
    ///
    /// # Errors
    /// A piece cannot be read.
    pub fn text(&self, place: Place, field: &Field) -> Result<Arc<str>, SegmentError> {
        Ok(match self.value(place, field)? {
            Some(Value::String(text)) => text,
            _ => Arc::from(""),
        })
    }

    /// # Errors
    /// A piece cannot be read.
    pub fn tree(&self) -> Result<&Tree, SegmentError> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree);
        }
        let tree = match &self.pieces[..] {
            [piece] => Tree::new(&links_in(piece)?),
            pieces => self.tree_by_ids(pieces)?,
        };
        Ok(self.tree.get_or_init(|| tree))
    }

    fn tree_by_ids(&self, pieces: &[PieceRows]) -> Result<Tree, SegmentError> {
        let ids = self.ids()?;
        let mut by_id: HashMap<SpanId, Vec<u32>, foldhash::fast::RandomState> = HashMap::default();
        for (span, own) in ids.iter().enumerate() {
            by_id.entry(own.span).or_default().push(span as u32);
        }
        let kind_of = |span: u32| match self.spans.get(span as usize) {
            Some(place) => kind(pieces, *place),
            None => Ok(Kind::Unspecified),
        };
        let mut links = Vec::with_capacity(ids.len());
        for (span, own) in (0_u32..).zip(ids) {
            let Some(parent) = own.parent else {
                links.push(Link::Root);
                continue;
            };
            links.push(match by_id.get(&parent).map(Vec::as_slice) {
                Some([only]) => Link::Span(*only),
                // Zipkin's halves of one call: a server is the child of the client, anything else of the server.
                Some([one, other]) => {
                    let wanted = if kind_of(span)? == Kind::Server { Kind::Client } else { Kind::Server };
                    if kind_of(*one)? == wanted {
                        Link::Span(*one)
                    } else if kind_of(*other)? == wanted {
                        Link::Span(*other)
                    } else {
                        Link::Away
                    }
                }
                // Of three spans with one id nobody can tell which is whose parent.
                _ => Link::Away,
            });
        }
        Ok(Tree::new(&links))
    }
}

/// Name and service of the root of a trace; empty while it has not come, as in Tempo. Of a trace in pieces only the parents
/// of spans are read, and not their ids, as long as one piece alone has a root.
///
/// # Errors
/// A piece cannot be read.
pub fn root_texts(scan: &Scan<'_>, reader: &Rc<Reader>, trace: usize) -> Result<(Arc<str>, Arc<str>), SegmentError> {
    let root_in = |reader: &Reader, trace: usize| -> Result<Option<usize>, SegmentError> {
        for row in reader.traces()?.rows(trace) {
            if reader.parent(row)? == Some(Parent::Root) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    };
    let known = match reader.traces()?.ids.get(trace) {
        Some(id) if reader.may_be_split(scan, trace) => pieces_of(scan, *id)?,
        _ => Vec::new(),
    };
    let mut root = None;
    if known.is_empty() {
        root = root_in(reader, trace)?.map(|row| (Rc::clone(reader), row));
    }
    for piece in known {
        scan.check()?;
        let reader = scan.reader(&piece.segment);
        match root_in(&reader, piece.trace) {
            Ok(None) | Err(SegmentError::Gone | SegmentError::Read(_)) => {}
            Err(stopped) => return Err(stopped),
            Ok(Some(row)) if root.is_none() => root = Some((reader, row)),
            Ok(Some(_)) => {
                // Which is the first, or whether both are one, ids tell.
                root = None;
                break;
            }
        }
    }
    let Some((reader, row)) = root else { return View::open(scan, reader, trace)?.root_texts() };
    let text = |field: &Field| -> Result<Arc<str>, SegmentError> {
        let values = reader.values(field)?;
        Ok(match values.get(&reader, row)?.and_then(Datum::into_value) {
            Some(Value::String(text)) => text,
            _ => Arc::from(""),
        })
    };
    Ok((text(&Field::Intrinsic(Intrinsic::Name))?, text(&service_name())?))
}

/// All that is known of a trace. What can be read is better than nothing.
fn pieces_of(scan: &Scan<'_>, id: TraceId) -> Result<Vec<Piece>, SegmentError> {
    match scan.source().pieces(id) {
        Err(SegmentError::Gone | SegmentError::Read(_)) => Ok(Vec::new()),
        other => other,
    }
}

fn links_in(piece: &PieceRows) -> Result<Vec<Link>, SegmentError> {
    let first = piece.rows.start;
    let link = |row: usize| {
        Ok(match piece.reader.parent(row)? {
            Some(Parent::Root) => Link::Root,
            Some(Parent::Row(parent)) if piece.rows.contains(&(parent as usize)) => {
                Link::Span((parent as usize - first) as u32)
            }
            _ => Link::Away,
        })
    };
    piece.rows.clone().map(link).collect()
}

fn kind(pieces: &[PieceRows], place: Place) -> Result<Kind, SegmentError> {
    let Some(piece) = pieces.get(place.piece as usize) else { return Ok(Kind::Unspecified) };
    kind_at(&piece.reader, place.row as usize)
}

fn kind_at(reader: &Reader, row: usize) -> Result<Kind, SegmentError> {
    Ok(match reader.values(&Field::Intrinsic(Intrinsic::Kind))?.get(reader, row)? {
        Some(Datum::Kind(kind)) => kind,
        _ => Kind::Unspecified,
    })
}

fn at(values: &[u64], row: usize) -> u64 {
    values.get(row).copied().unwrap_or(0)
}

/// `resource.service.name`
#[must_use]
pub fn service_name() -> Field {
    Field::Attribute(Attribute { scope: Some(Scope::Resource), of_parent: false, name: "service.name".into() })
}
