//! What a search has found since it last told.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::MESSAGE_BYTES_MAX;
use super::body::Sender;
use crate::otlp::TraceId;
use crate::query::body::Allowance;
use crate::query::call::Origin;
use crate::query::encode::protobuf;
use crate::query::error::QueryError;
use crate::traceql::answer::SearchAnswer;
use crate::traceql::control::Control;
use crate::traceql::search::Listener;

/// As often as Tempo.
const INTERVAL: Duration = Duration::from_millis(500);

/// Tells new and changed traces, each with all that is known of it, and the metrics as they are by then.
#[derive(Debug)]
pub struct Progress<'a> {
    sender: Sender,
    control: &'a Control,
    origin: Origin,
    last: Instant,
    /// What was told of a trace, as a hash of its message.
    told: HashMap<TraceId, u64>,
    hasher: RandomState,
}

impl<'a> Progress<'a> {
    pub fn new(sender: Sender, control: &'a Control, origin: Origin) -> Self {
        Self { sender, control, origin, last: Instant::now(), told: HashMap::new(), hasher: RandomState::default() }
    }

    /// The messages that end the answer: everything that was not told, with the final metrics.
    pub fn rest(&self, found: &SearchAnswer, allowance: Allowance) -> Result<Vec<Vec<u8>>, QueryError> {
        let traces = self.untold(found).map(|(_, _, message)| message);
        let (parts, booked) = protobuf::search_parts(traces, &found.inspected, MESSAGE_BYTES_MAX, allowance)?;
        booked.leave();
        Ok(parts)
    }

    fn untold<'s>(&'s self, found: &'s SearchAnswer) -> impl Iterator<Item = (TraceId, u64, Vec<u8>)> + 's {
        let messages = found.traces.iter().map(|trace| {
            let message = protobuf::trace(trace, self.origin, MESSAGE_BYTES_MAX);
            (trace.id, self.hasher.hash_one(&message), message)
        });
        messages.filter(|(id, hash, _)| self.told.get(id) != Some(hash))
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
        let allowance = Allowance::new(self.control, MESSAGE_BYTES_MAX);
        let traces = self.untold(found).map(|(id, hash, message)| {
            ids.push((id, hash));
            message
        });
        // What is booked for it goes with it: it is one message, and the next waits until it was taken.
        if let Ok((parts, _booked)) = protobuf::search_parts(traces, &found.inspected, usize::MAX, allowance)
            && parts.first().is_some_and(|message| self.sender.try_send(message))
        {
            self.told.extend(ids);
        }
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
    use crate::traceql::answer::{FoundTrace, Inspected};

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
            let mut progress = Progress::new(sender, &control, Origin::TraceQl);
            progress.hear(&found);
            done.send((progress.told.len(), control.used_bytes())).unwrap();
            Ok(Messages::new(Vec::new()))
        });
        assert_eq!(ended.await.unwrap(), (1, 0));
    }
}
