//! What a search has found since it last told.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::MESSAGE_BYTES_MAX;
use super::body::Sender;
use crate::otlp::TraceId;
use crate::query::body::Allowance;
use crate::query::call::Origin;
use crate::query::encode::protobuf::{self, SearchParts};
use crate::query::error::QueryError;
use crate::traceql::answer::{FoundTrace, Inspected, SearchAnswer};
use crate::traceql::control::Control;
use crate::traceql::search::Listener;

/// As often as Tempo.
const INTERVAL: Duration = Duration::from_millis(500);

/// Tells new and changed traces, each with all that is known of it, and the metrics as they are by then.
#[derive(Debug)]
pub struct Progress<'a> {
    sender: Sender,
    /// For the messages that end the answer.
    allowance: Option<Allowance>,
    rest: Option<SearchParts>,
    control: &'a Control,
    origin: Origin,
    last: Instant,
    /// What was told of a trace, as a hash of its message.
    told: HashMap<TraceId, u64>,
    hasher: RandomState,
}

impl<'a> Progress<'a> {
    /// `allowance` is for the messages that end the answer.
    pub fn new(sender: Sender, control: &'a Control, allowance: Allowance, origin: Origin) -> Self {
        let (told, hasher) = (HashMap::new(), RandomState::default());
        Self { sender, allowance: Some(allowance), rest: None, control, origin, last: Instant::now(), told, hasher }
    }

    /// The messages that end the answer: everything that was not told, with the final metrics.
    pub fn finish(mut self, inspected: &Inspected) -> Result<Vec<Vec<u8>>, QueryError> {
        self.begin_rest(inspected);
        let (parts, booked) = self.rest.ok_or(QueryError::Crashed)?.finish()?;
        booked.leave();
        Ok(parts)
    }

    fn begin_rest(&mut self, inspected: &Inspected) {
        if let Some(allowance) = self.allowance.take() {
            self.rest = Some(SearchParts::new(inspected, MESSAGE_BYTES_MAX, allowance));
        }
    }

    /// The message of a trace with its hash, unless it was told.
    fn untold(&self, trace: &FoundTrace) -> Option<(u64, Vec<u8>)> {
        let message = protobuf::trace(trace, self.origin, MESSAGE_BYTES_MAX);
        let hash = self.hasher.hash_one(&message);
        (self.told.get(&trace.id) != Some(&hash)).then_some((hash, message))
    }
}

impl Listener for Progress<'_> {
    /// Now and then, and not while the client is still reading.
    fn listens(&self) -> bool {
        self.last.elapsed() >= INTERVAL && self.sender.is_free()
    }

    fn hear(&mut self, found: &SearchAnswer) {
        self.last = Instant::now();
        let mut ids = Vec::new();
        // One message at a time; what is beyond it is told later.
        let mut parts = SearchParts::new(&found.inspected, usize::MAX, Allowance::new(self.control, MESSAGE_BYTES_MAX));
        for trace in &found.traces {
            if let Some((hash, message)) = self.untold(trace) {
                ids.push((trace.id, hash));
                if !parts.push(&message) {
                    return;
                }
            }
        }
        // What is booked for it goes with it: it is one message, and the next waits until it was taken.
        if let Ok((parts, _booked)) = parts.finish()
            && parts.first().is_some_and(|message| self.sender.try_send(message))
        {
            self.told.extend(ids);
        }
    }

    fn take(&mut self, trace: FoundTrace, inspected: &Inspected) -> ControlFlow<()> {
        self.begin_rest(inspected);
        let goes_on = match (self.untold(&trace), &mut self.rest) {
            (Some((_, message)), Some(rest)) => rest.push(&message),
            _ => true,
        };
        if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::query::admission::Admission;
    use crate::query::router::QueryLimits;
    use crate::query::streaming::body;
    use crate::query::streaming::frame::Messages;

    #[tokio::test]
    async fn what_was_told_is_not_booked_any_more() {
        let admission = Arc::new(Admission::new(&QueryLimits::default()));
        let (done, ended) = tokio::sync::oneshot::channel();
        let _body = body::answer(&admission, |sender| async move {
            let control = Control::new(Duration::from_secs(3600), usize::MAX);
            let found = FoundTrace {
                id: TraceId([7; 16]),
                root: None,
                start: 1,
                duration: 1,
                spansets: Vec::new(),
                services: std::collections::BTreeMap::new(),
            };
            let found = SearchAnswer { traces: vec![found], inspected: Inspected::default() };
            let mut progress = Progress::new(sender, &control, Allowance::unbounded(), Origin::TraceQl);
            progress.hear(&found);
            done.send((progress.told.len(), control.used_bytes())).unwrap();
            Ok(Messages::new(Vec::new()))
        });
        assert_eq!(ended.await.unwrap(), (1, 0));
    }
}
