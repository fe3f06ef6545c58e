//! One request of metrics or logs that a pipeline takes, whatever protocol brought it: check, store, answer.

use super::Receiver;
use super::answer::{Accepted, Refusal};
use super::other_signals::Signal;
use crate::otlp::{self, items};
use crate::process::Client;
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;

/// What receivers hand metrics and logs to.
pub trait ItemSink: Send + Sync + 'static {
    /// Asked before a body is read: refuses while memory is short.
    fn admit(&self) -> Result<(), Refusal>;

    /// Takes a request of the sink's signal with so many data points or log records; `Ok` means durable.
    fn store(
        &self,
        request: Bytes,
        items: u32,
        client: Client,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + '_>>;
}

/// The sinks of one receiver, where pipelines take these signals from it.
#[derive(Clone, Default)]
pub struct ItemSinks {
    pub metrics: Option<Arc<dyn ItemSink>>,
    pub logs: Option<Arc<dyn ItemSink>>,
}

impl ItemSinks {
    pub fn of(&self, signal: Signal) -> Option<&Arc<dyn ItemSink>> {
        match signal {
            Signal::Metrics => self.metrics.as_ref(),
            Signal::Logs => self.logs.as_ref(),
        }
    }
}

/// Takes a request that is protobuf by now. `None`: no pipeline takes this signal, and nothing was looked at.
pub async fn accept(
    receiver: &Receiver,
    client: &Client,
    signal: Signal,
    request: &Bytes,
) -> Result<Option<Accepted>, Refusal> {
    let Some(sink) = receiver.items.of(signal) else { return Ok(None) };
    let name = items::request_of(otlp::Signal::from(signal)).name;
    let items =
        items::count(signal.into(), request).map_err(|error| Refusal::BadData(format!("not an {name}: {error}")))?;
    if items > 0 {
        let stored = sink.store(request.clone(), items, client.clone()).await;
        receiver.metrics.count_items(&receiver.name, signal.into(), stored.is_ok(), items);
        stored?;
    }
    Ok(Some(Accepted::default()))
}
