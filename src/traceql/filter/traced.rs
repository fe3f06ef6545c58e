//! Fields of a span that depend on its whole trace.

use std::ops::Range;
use std::sync::Arc;

use super::{CodeSet, Rows, Test};
use crate::traceql::ast::{Field, Intrinsic};
use crate::traceql::column::{Codes, NIL};
use crate::traceql::datum::{Datum, Text, nanos};
use crate::traceql::mask::Mask;
use crate::traceql::reader::{Reader, Values};
use crate::traceql::segment::{Column, Parent, SegmentError};
use crate::traceql::trace::view::{View, root_texts, service_name};

/// Those of the rows `alive` whose trace, or whose place in it, passes.
pub(super) fn mask(rows: &Rows<'_, '_>, intrinsic: Intrinsic, test: &Test, alive: &Mask) -> Result<Mask, SegmentError> {
    let mut mask = Mask::none(alive.rows());
    let traces = rows.reader.traces()?;
    let roots = match intrinsic {
        Intrinsic::RootName | Intrinsic::RootServiceName => Some(rows.roots(intrinsic, test)?),
        _ => None,
    };
    for trace in 0..traces.len() {
        let own = traces.rows(trace);
        if !alive.any(own.clone()) {
            continue;
        }
        match intrinsic {
            Intrinsic::TraceDuration | Intrinsic::RootName | Intrinsic::RootServiceName => {
                let split = rows.reader.may_be_split(rows.scan, trace);
                let passes = if split {
                    rows.scan.check()?;
                    match intrinsic {
                        Intrinsic::TraceDuration => {
                            let view = View::open(rows.scan, rows.reader, trace)?;
                            test.passes(&Datum::Duration(nanos(view.duration()?)))
                        }
                        _ => {
                            let (name, service) = root_texts(rows.scan, rows.reader, trace)?;
                            let text = if intrinsic == Intrinsic::RootName { name } else { service };
                            test.passes(&Datum::String(Text::Shared(text)))
                        }
                    }
                } else {
                    match &roots {
                        Some(roots) => roots.passes(rows.reader, own.clone())?,
                        None => test.passes(&Datum::Duration(rows.duration_of(own.clone())?)),
                    }
                };
                if passes {
                    mask.set_range(own);
                }
            }
            Intrinsic::ChildCount
            | Intrinsic::NestedSetLeft
            | Intrinsic::NestedSetRight
            | Intrinsic::NestedSetParent => {
                rows.scan.check()?;
                let view = View::open(rows.scan, rows.reader, trace)?;
                let tree = view.tree()?;
                for row in alive.iter_in(own) {
                    let Some(span) = view.span_at(rows.reader, row)? else { continue };
                    if test.passes(&Datum::Int(tree.number(intrinsic, span))) {
                        mask.set(row);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(mask)
}

impl Rows<'_, '_> {
    /// From the earliest start to the latest end of a trace that is wholly here, nanoseconds.
    fn duration_of(&self, rows: Range<usize>) -> Result<i64, SegmentError> {
        let (starts, durations) = (self.reader.starts()?, self.reader.durations()?);
        let (Some(starts), Some(durations)) = (starts.get(rows.clone()), durations.get(rows)) else { return Ok(0) };
        let end = starts.iter().zip(durations.iter()).map(|(start, duration)| start.saturating_add(*duration)).max();
        // Rows of a trace are sorted by start.
        Ok(nanos(end.unwrap_or(0).saturating_sub(starts.first().copied().unwrap_or(0))))
    }

    /// Decides by the root of a trace that is wholly here: by the code of its name or service.
    fn roots<'t>(&self, intrinsic: Intrinsic, test: &'t Test) -> Result<Roots<'t>, SegmentError> {
        let field = if intrinsic == Intrinsic::RootName { Field::Intrinsic(Intrinsic::Name) } else { service_name() };
        let texts = match self.reader.column(&field)? {
            Column::Listed(dictionary) => Texts::Listed {
                // Other values than strings are no names.
                passing: test.codes(&dictionary),
                strings: dictionary.strings.len(),
                codes: self.reader.codes(&field)?,
            },
            _ => Texts::Unlisted(self.reader.values(&field)?),
        };
        Ok(Roots { parents: self.reader.parents()?.clone(), texts, test, without: test.passes(&Datum::text("")) })
    }
}

struct Roots<'t> {
    parents: Arc<[Parent]>,
    texts: Texts,
    test: &'t Test,
    /// Whether a trace without root passes: its texts are empty.
    without: bool,
}

enum Texts {
    Listed { passing: CodeSet, strings: usize, codes: Codes },
    Unlisted(Values),
}

impl Roots<'_> {
    fn passes(&self, reader: &Reader, rows: Range<usize>) -> Result<bool, SegmentError> {
        let parents = self.parents.get(rows.clone()).unwrap_or_default();
        let Some(root) = parents.iter().position(|parent| *parent == Parent::Root) else { return Ok(self.without) };
        let root = rows.start + root;
        Ok(match &self.texts {
            Texts::Listed { passing, strings, codes } => match codes.get(root) {
                code if code != NIL && usize::from(code) <= *strings => passing.contains(code),
                _ => self.without,
            },
            Texts::Unlisted(values) => match values.get(reader, root)? {
                Some(text @ Datum::String(_)) => self.test.passes(&text),
                _ => self.without,
            },
        })
    }
}
