//! The processors of one pipeline, and how a request goes through them.
//!
//! ```text
//! request ─▶ read once ─▶ editor ─▶ editor ─▶ .. ─▶ written once ─▶ described anew, as far as editors changed it
//! ```
//!
//! Without an editor nobody looks inside, and where all editors change resources nobody looks at a span. Small requests are
//! edited where they are; large ones on a thread for blocking work, few at a time, because a network thread that edits for
//! milliseconds holds up every other client.

#[cfg(test)]
mod tests;

use super::batch::settings::BatchSettings;
use super::client::Client;
use super::tail_sampling::settings::TailSamplingSettings;
use super::{Editor, Failed, Processor, Refused, Removed};
use crate::otlp::Signal;
use crate::otlp::edit::{Effect, TooManyObjects, Traces, edit_items, edit_resources, objects, whole, whole_resources};
use crate::otlp::scan::{ScanError, Scanned, describe, is_valid, scan, scan_resources};
use crate::otlp::split::{count_items, split};
use crate::otlp::view::retain_spans;
use bytes::Bytes;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::Semaphore;

/// Up to this size a request takes about a millisecond to edit and is not worth another thread.
const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Large requests of one pipeline that are edited at the same time.
const LARGE_EDITS_MAX: usize = 2;
/// What is edited as a whole: about 13 MiB of objects. Requests with more are cut between spans first.
const OBJECTS_MAX: usize = 128 * 1024;
/// The smallest object on the wire, an empty attribute: tag and length.
const OBJECT_WIRE_BYTES_MIN: usize = 2;

/// Whether a request holds more than is held in objects at once.
pub(super) fn is_too_large(request: &[u8]) -> bool {
    request.len() > OBJECTS_MAX * OBJECT_WIRE_BYTES_MIN && objects(request) > OBJECTS_MAX
}

/// The processors of one pipeline. Clones share them.
#[derive(Clone)]
pub struct Chain {
    processors: Vec<Arc<dyn Processor>>,
    edits: Edits,
    pub(super) batch: Option<BatchSettings>,
    pub(super) tail_sampling: Option<TailSamplingSettings>,
    large_edits: Arc<Semaphore>,
}

/// What the processors of a chain look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edits {
    Nothing,
    Resources,
    Everything,
}

/// A request that went through.
#[derive(Debug)]
pub struct Processed {
    pub request: Bytes,
    /// Describes `request` as it is now. Its `invalid` spans (of the request that came, or made by a processor) are out.
    pub scanned: Scanned,
    pub removed: Removed,
}

/// Why a request could not be processed. Sending it again would not help.
#[derive(Debug, Error)]
pub enum ProcessError {
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error(
        "a span, data point, log record or resource with more than {OBJECTS_MAX} attributes, events, links and values cannot \
         be processed"
    )]
    TooManyObjects,
    #[error("the processors made a request that is not fit to be stored: {0}")]
    Unfit(ScanError),
    #[error("the processors panicked")]
    Panicked,
}

impl From<TooManyObjects> for ProcessError {
    fn from(_: TooManyObjects) -> Self {
        Self::TooManyObjects
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            processors: Vec::new(),
            edits: Edits::Nothing,
            batch: None,
            tail_sampling: None,
            large_edits: Arc::new(Semaphore::new(LARGE_EDITS_MAX)),
        }
    }
}

impl Chain {
    pub(super) fn push(&mut self, processor: Arc<dyn Processor>) {
        let edits = match (processor.editor(), processor.resource_editor()) {
            (Some(_), _) => Edits::Everything,
            (None, Some(_)) => Edits::Resources,
            (None, None) => Edits::Nothing,
        };
        self.edits = self.edits.max(edits);
        self.processors.push(processor);
    }

    /// What passes `self` and then `next`: the way through a `forward` connector.
    pub fn then(&self, next: &Chain) -> Chain {
        let mut both = Chain { batch: next.batch.clone(), ..Chain::default() };
        self.processors.iter().chain(&next.processors).for_each(|processor| both.push(Arc::clone(processor)));
        both
    }

    /// Asked before a request is read into memory.
    pub fn admit(&self) -> Result<(), Refused> {
        self.processors.iter().try_for_each(|processor| processor.admit())
    }

    /// How destinations group what they send.
    pub fn batch(&self) -> Option<&BatchSettings> {
        self.batch.as_ref()
    }

    /// Which of its traces destinations get.
    pub fn tail_sampling(&self) -> Option<&TailSamplingSettings> {
        self.tail_sampling.as_ref()
    }

    /// Sends a request through the editors. `scanned` describes it, invalid spans taken out.
    pub async fn process(&self, request: Bytes, scanned: Scanned, client: &Client) -> Result<Processed, ProcessError> {
        if self.edits == Edits::Nothing {
            return Ok(Processed { request, scanned, removed: Removed::default() });
        }
        if request.len() <= INLINE_BYTES_MAX {
            return self.edit(request, scanned, client);
        }
        let Ok(_permit) = self.large_edits.acquire().await else { return Err(ProcessError::Panicked) };
        let (chain, client) = (self.clone(), client.clone());
        tokio::task::spawn_blocking(move || chain.edit(request, scanned, &client))
            .await
            .map_err(|_| ProcessError::Panicked)?
    }

    /// Sends a request of metrics or logs through the editors.
    pub async fn process_items(&self, signal: Signal, request: Bytes, client: &Client) -> Result<Bytes, ProcessError> {
        if self.edits == Edits::Nothing {
            return Ok(request);
        }
        if request.len() <= INLINE_BYTES_MAX {
            return self.edit_items(signal, request, client);
        }
        let Ok(_permit) = self.large_edits.acquire().await else { return Err(ProcessError::Panicked) };
        let (chain, client) = (self.clone(), client.clone());
        tokio::task::spawn_blocking(move || chain.edit_items(signal, request, &client))
            .await
            .map_err(|_| ProcessError::Panicked)?
    }

    /// Editors of resources that follow one another share a walk over the request; each editor of items has its own.
    fn edit_items(&self, signal: Signal, request: Bytes, client: &Client) -> Result<Bytes, ProcessError> {
        let joined = whole(&request);
        let read = joined.as_deref().unwrap_or(&request);
        let mut edited: Option<Vec<u8>> = None;
        let share = |one: &Arc<dyn Processor>, next: &Arc<dyn Processor>| {
            one.item_editor().is_none() && next.item_editor().is_none()
        };
        for processors in self.processors.chunk_by(share) {
            let read = edited.as_deref().unwrap_or(read);
            let changed = match processors {
                [processor] if processor.item_editor().is_some() => {
                    let Some(editor) = processor.item_editor() else { continue };
                    edit_items(signal, read, OBJECTS_MAX, |place, item| editor.edit_item(place, item, client))?
                }
                processors => run_on_resources(processors, read, client)?,
            };
            edited = changed.or(edited);
        }
        Ok(edited.map_or(request, Bytes::from))
    }

    fn edit(&self, request: Bytes, scanned: Scanned, client: &Client) -> Result<Processed, ProcessError> {
        if self.edits == Edits::Resources {
            return self.edit_resources(request, scanned, client);
        }
        let mut removed = Removed::default();
        let joined = whole(&request);
        let (edited, effect) = self.edit_bounded(joined.as_deref().unwrap_or(&request), client, &mut removed)?;
        let Some(edited) = edited else { return Ok(Processed { request, scanned, removed }) };
        let mut after = match effect {
            Effect::Described => Scanned { invalid: 0, ..scanned.clone() },
            Effect::Removed => describe(&edited),
            Effect::Unknown => scan(&edited).map_err(ProcessError::Unfit)?,
        };
        debug_assert_eq!(scan(&edited), Ok(Scanned { legacy_scopes: false, ..after.clone() }));
        let edited = if after.invalid > 0 { retain_spans(&edited, is_valid) } else { edited };
        // What was not sampled out and is not there was filtered: so the ledger balances whatever a processor counts.
        let left = u64::from(after.spans) + u64::from(after.invalid);
        let gone = u64::from(scanned.spans).saturating_sub(left);
        let sampled_out = removed.sampled_out.min(gone);
        debug_assert_eq!(removed, Removed { sampled_out, filtered: gone - sampled_out }, "a processor miscounted");
        after.invalid += scanned.invalid;
        Ok(Processed {
            request: edited.into(),
            scanned: after,
            removed: Removed { sampled_out, filtered: gone - sampled_out },
        })
    }

    /// Spans are neither read nor described anew: they are copied with everything around them.
    fn edit_resources(&self, request: Bytes, scanned: Scanned, client: &Client) -> Result<Processed, ProcessError> {
        let removed = Removed::default();
        let joined = whole_resources(&request);
        let edited = run_on_resources(&self.processors, joined.as_deref().unwrap_or(&request), client)?;
        let Some(edited) = edited else { return Ok(Processed { request, scanned, removed }) };
        scan_resources(&edited).map_err(ProcessError::Unfit)?;
        debug_assert_eq!(scan(&edited), Ok(Scanned { invalid: 0, legacy_scopes: false, ..scanned.clone() }));
        Ok(Processed { request: edited.into(), scanned, removed })
    }

    /// The request as the editors leave it (`None`: as it was), and what that means for its description. Cut in two as long
    /// as it is too large to be held in objects.
    fn edit_bounded(
        &self,
        request: &[u8],
        client: &Client,
        removed: &mut Removed,
    ) -> Result<(Option<Vec<u8>>, Effect), ProcessError> {
        if is_too_large(request) {
            let spans = count_items(Signal::Traces, request).unwrap_or(0);
            let (left, right) = match spans {
                0 | 1 => return Err(ProcessError::TooManyObjects),
                _ => split(Signal::Traces, request, spans / 2).map_err(|_| ProcessError::TooManyObjects)?,
            };
            let (left_edited, left_effect) = self.edit_bounded(&left, client, removed)?;
            let (right_edited, right_effect) = self.edit_bounded(&right, client, removed)?;
            let mut edited = left_edited.unwrap_or(left);
            edited.extend(right_edited.unwrap_or(right));
            return Ok((Some(edited), left_effect.max(right_effect)));
        }
        let mut traces = Traces::parse(request);
        for processor in &self.processors {
            if let Some(editor) = processor.editor() {
                *removed += editor.edit(&mut traces, client)?;
            } else if let Some(editor) = processor.resource_editor() {
                *removed += editor.edit(&mut traces, client)?;
            }
            if traces.span_count() == 0 {
                break;
            }
        }
        Ok((traces.is_changed().then(|| traces.encode()), traces.effect()))
    }
}

/// One walk over the resources of a request of any signal; `None`: nothing was changed.
fn run_on_resources(
    processors: &[Arc<dyn Processor>],
    request: &[u8],
    client: &Client,
) -> Result<Option<Vec<u8>>, TooManyObjects> {
    let editors = || processors.iter().filter_map(|processor| processor.resource_editor());
    if editors().next().is_none() {
        return Ok(None);
    }
    edit_resources(request, OBJECTS_MAX, |attributes| {
        editors().for_each(|editor| editor.edit_resource(attributes, client));
    })
}
