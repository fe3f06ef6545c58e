//! Fields of a span that depend on its whole trace.

use super::row::root_of;
use super::{Rows, Test};
use crate::traceql::ast::{Field, Intrinsic};
use crate::traceql::datum::{Datum, Text};
use crate::traceql::mask::Mask;
use crate::traceql::segment::{Parent, SegmentError};
use crate::traceql::trace::view::{View, service_name};

/// Those of the rows `alive` whose trace, or whose place in it, passes.
pub(super) fn mask(rows: &Rows<'_, '_>, intrinsic: Intrinsic, test: &Test, alive: &Mask) -> Result<Mask, SegmentError> {
    let mut mask = Mask::none(alive.rows());
    let traces = rows.reader.traces()?;
    let source = rows.scan.source();
    for trace in 0..traces.len() {
        let own = traces.rows(trace);
        if !alive.any(own.clone()) {
            continue;
        }
        match intrinsic {
            Intrinsic::TraceDuration | Intrinsic::RootName | Intrinsic::RootServiceName => {
                let split = source.may_be_split(&**rows.reader.segment(), trace);
                let passes = if split {
                    rows.scan.check()?;
                    let view = View::open(rows.scan, rows.reader, trace)?;
                    match intrinsic {
                        Intrinsic::TraceDuration => test.passes(&Datum::Duration(view.duration()? as i64)),
                        _ => {
                            let (name, service) = root_of(&view)?;
                            let text = if intrinsic == Intrinsic::RootName { name } else { service };
                            test.passes(&Datum::String(Text::Shared(text)))
                        }
                    }
                } else if intrinsic == Intrinsic::TraceDuration {
                    test.passes(&Datum::Duration(rows.duration_of(own.clone())?))
                } else {
                    rows.root_passes(intrinsic, test, own.clone())?
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
                    let Some(span) = view.span_at(rows.reader.segment().id(), row) else { continue };
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
    fn duration_of(&self, rows: std::ops::Range<usize>) -> Result<i64, SegmentError> {
        let (starts, durations) = (self.reader.starts()?, self.reader.durations()?);
        let (Some(starts), Some(durations)) = (starts.get(rows.clone()), durations.get(rows)) else { return Ok(0) };
        let end = starts.iter().zip(durations.iter()).map(|(start, duration)| start.saturating_add(*duration)).max();
        // Rows of a trace are sorted by start.
        Ok(end.unwrap_or(0).saturating_sub(starts.first().copied().unwrap_or(0)) as i64)
    }

    /// Whether the root of a trace that is wholly here passes. Without root, its texts are empty.
    fn root_passes(
        &self,
        intrinsic: Intrinsic,
        test: &Test,
        rows: std::ops::Range<usize>,
    ) -> Result<bool, SegmentError> {
        let parents = self.reader.parents()?;
        let root = rows.into_iter().find(|row| parents.get(*row) == Some(&Parent::Root));
        let field = if intrinsic == Intrinsic::RootName { Field::Intrinsic(Intrinsic::Name) } else { service_name() };
        let values = self.reader.values(&field)?;
        let text = match root {
            Some(root) => values.get(self.reader, root)?,
            None => None,
        };
        Ok(match text {
            Some(text @ Datum::String(_)) => test.passes(&text),
            _ => test.passes(&Datum::text("")),
        })
    }
}
