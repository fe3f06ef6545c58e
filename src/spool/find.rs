//! Which batches may hold a trace, by the index of extents.

use super::database::{DICT, Verdict};
use super::extent::{self, Extent, TraceKey};
use super::{ReadError, Seq, Spool};
use foldhash::fast::RandomState;
use std::collections::HashSet;

impl Spool {
    /// The batches that may hold a trace with this key, oldest first. Blocking (one small read per closed extent).
    pub fn find(&self, key: TraceKey) -> Result<Vec<Seq>, ReadError> {
        // The pages to read are chosen under the lock and read without it.
        let (pages, open) = {
            let state = self.shared.state();
            let pages: Vec<(u64, u16)> = state
                .extents
                .iter()
                .flat_map(|extent| extent.pages_of(key).map(|page| (extent.first, page as u16)))
                .collect();
            let mut open = Vec::new();
            state.open.search(key, &mut open);
            (pages, open)
        };
        let mut found = Vec::new();
        self.each_page(pages, |first, page| extent::search_page(first, page, key, &mut found))?;
        found.extend(open);
        Ok(found)
    }

    /// The batches of `range` that may hold a trace with one of these keys, in order. Blocking (it passes over the index of
    /// the range once, however many keys are looked for).
    pub fn find_any(
        &self,
        keys: &HashSet<TraceKey, RandomState>,
        range: std::ops::Range<Seq>,
    ) -> Result<Vec<Seq>, ReadError> {
        let (mut found, pages) = {
            let state = self.shared.state();
            let closed = state.extents.iter().filter(|extent| extent.first < range.end.0 && range.start.0 < extent.end);
            let pages: Vec<(u64, u16)> =
                closed.flat_map(|extent| (0..extent.fences.len()).map(|page| (extent.first, page as u16))).collect();
            let mut found = Vec::new();
            state.open.search_any(keys, range.start, &mut found);
            (found, pages)
        };
        self.each_page(pages, |first, page| extent::search_page_any(first, page, keys, &mut found))?;
        found.retain(|seq| range.contains(seq));
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Pages of the index, by extent and number. One that cannot be read must not hide what the others know.
    fn each_page(&self, pages: Vec<(u64, u16)>, mut look: impl FnMut(u64, &[u8])) -> Result<(), ReadError> {
        let dict = self.shared.database.family(DICT);
        for (first, page) in pages {
            match self.shared.database.raw().get_pinned_cf(dict, Extent::page_key(first, page)) {
                Ok(Some(bytes)) => look(first, &bytes),
                Ok(None) => {}
                Err(error) if Verdict::of(&error) != Verdict::Innocent => {
                    tracing::error!(extent = first, %error, "a page of the trace index cannot be read; its traces are not all found by id");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
