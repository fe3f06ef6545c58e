//! What a search has found since it last told.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::MESSAGE_BYTES_MAX;
use super::body::Sender;
use crate::otlp::TraceId;
use crate::query::call::Origin;
use crate::query::encode::protobuf;
use crate::traceql::answer::SearchAnswer;

/// As often as Tempo.
const INTERVAL: Duration = Duration::from_millis(500);

/// Tells new and changed traces, each with all that is known of it, and the metrics as they are by then.
#[derive(Debug)]
pub struct Progress {
    sender: Sender,
    origin: Origin,
    last: Instant,
    /// What was told of a trace, as a hash of its message.
    told: HashMap<TraceId, u64>,
    hasher: RandomState,
}

impl Progress {
    pub fn new(sender: Sender, origin: Origin) -> Self {
        Self { sender, origin, last: Instant::now(), told: HashMap::new(), hasher: RandomState::default() }
    }

    /// Called often; tells now and then, and not while the client is still reading.
    pub fn tell(&mut self, found: &SearchAnswer) {
        if self.last.elapsed() < INTERVAL || !self.sender.is_free() {
            return;
        }
        self.last = Instant::now();
        let traces = self.untold(found);
        let mut parts = protobuf::search_parts(
            traces.iter().map(|(_, _, message)| message.clone()),
            &found.inspected,
            MESSAGE_BYTES_MAX,
        );
        // One message at a time; what is beyond it is told later.
        if parts.len() == 1
            && let Some(message) = parts.pop()
            && self.sender.try_send(&message)
        {
            self.told.extend(traces.into_iter().map(|(id, hash, _)| (id, hash)));
        }
    }

    /// The messages that end the answer: everything that was not told, with the final metrics.
    pub fn rest(&mut self, found: &SearchAnswer) -> Vec<Vec<u8>> {
        let traces = self.untold(found).into_iter().map(|(_, _, message)| message);
        protobuf::search_parts(traces, &found.inspected, MESSAGE_BYTES_MAX)
    }

    fn untold(&self, found: &SearchAnswer) -> Vec<(TraceId, u64, Vec<u8>)> {
        let messages = found.traces.iter().map(|trace| {
            let message = protobuf::trace(trace, self.origin, MESSAGE_BYTES_MAX);
            (trace.id, self.hasher.hash_one(&message), message)
        });
        messages.filter(|(id, hash, _)| self.told.get(id) != Some(hash)).collect()
    }
}
