//! From a receiver into its pipelines: the point where receive, process and spool meet, and connectors listen.

use crate::otlp::Signal;
use crate::otlp::resource::speakers;
use crate::otlp::scan::Scanned;
use crate::process::connector::Connector;
use crate::process::{Chain, Client, ProcessError, Processed};
use crate::receive::items::ItemSink;
use crate::receive::{Refusal, TraceSink, Witness};
use crate::red::Red;
use crate::spool::{Append, AppendError, PipelineId, Spool, TimeRange};
use bytes::Bytes;
use futures_util::future::join_all;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// What a client is asked to wait when memory is short: the memory limiter checks about that often.
const RETRY_AFTER_MEMORY: Duration = Duration::from_secs(1);
/// What a client is asked to wait when the disk is the problem: nothing there changes within a second.
const RETRY_AFTER_DISK: Duration = Duration::from_secs(5);

/// One pipeline as its receivers see it.
#[derive(Clone)]
pub(super) struct PipelineIntake {
    pub id: PipelineId,
    pub chain: Chain,
    /// Told of what became durable here.
    pub connectors: Vec<Arc<dyn Connector>>,
}

impl PipelineIntake {
    /// Tells the connectors that the pipeline feeds.
    pub fn tell(&self, request: &Bytes) {
        if request.is_empty() {
            return;
        }
        self.connectors.iter().for_each(|connector| connector.consume(request));
    }
}

fn admit(pipelines: &[PipelineIntake], signal: Signal) -> Result<(), Refusal> {
    if pipelines.is_empty() {
        return Err(Refusal::Unimplemented(format!("no pipeline takes {signal} from this receiver")));
    }
    pipelines
        .iter()
        .try_for_each(|pipeline| pipeline.chain.admit())
        .map_err(|refused| Refusal::Unavailable { message: refused.to_string(), retry_after: RETRY_AFTER_MEMORY })
}

/// Stores a request in every pipeline that the receiver feeds, in one go.
pub(super) struct Intake {
    pub spool: Spool,
    pub pipelines: Vec<PipelineIntake>,
    /// Told which pods spoke, once what they said is durable.
    pub witness: Option<Arc<dyn Witness>>,
    /// Counts what became durable, each request once, whatever pipelines it went into.
    pub red: Option<Arc<Red>>,
}

impl TraceSink for Intake {
    fn admit(&self) -> Result<(), Refusal> {
        admit(&self.pipelines, Signal::Traces)
    }

    fn store(
        &self,
        request: Bytes,
        scanned: Scanned,
        client: Client,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + '_>> {
        Box::pin(async move {
            match self.pipelines.as_slice() {
                [only] => {
                    let append = only.prepare(request.clone(), scanned, &client).await?;
                    let stored = append.request.clone();
                    self.spool.append(append).await.map_err(|error| refusal(&error))?;
                    only.tell(&stored);
                }
                pipelines => {
                    // All are prepared before any is stored: a request that one pipeline cannot process is in none.
                    let mut appends = Vec::with_capacity(pipelines.len());
                    for pipeline in pipelines {
                        appends.push(pipeline.prepare(request.clone(), scanned.clone(), &client).await?);
                    }
                    let requests: Vec<Bytes> = appends.iter().map(|append| append.request.clone()).collect();
                    // All wait for the same sync. If one fails the client sends again: at least once for the others.
                    let stored = join_all(appends.into_iter().map(|append| self.spool.append(append))).await;
                    stored.into_iter().collect::<Result<(), _>>().map_err(|error| refusal(&error))?;
                    pipelines.iter().zip(&requests).for_each(|(pipeline, stored)| pipeline.tell(stored));
                }
            }
            if let Some(witness) = &self.witness {
                speakers(&request).for_each(|speaker| witness.spoke(client.peer, &speaker));
            }
            if let Some(red) = &self.red {
                red.observe(&request);
            }
            Ok(())
        })
    }
}

impl PipelineIntake {
    /// Sends a request through the pipeline's processors.
    async fn prepare(&self, request: Bytes, scanned: Scanned, client: &Client) -> Result<Append, Refusal> {
        let processed = self.chain.process(request, scanned, client).await;
        let Processed { request, scanned, removed } = processed.map_err(|error| Refusal::BadData(error.to_string()))?;
        // A request has at most u32::MAX spans.
        let narrow = |spans: u64| u32::try_from(spans).unwrap_or(u32::MAX);
        Ok(Append {
            pipeline: self.id,
            // Envelopes without spans are not worth a batch; what was taken out is booked all the same.
            request: if scanned.spans > 0 { request } else { Bytes::new() },
            spans: scanned.spans,
            rejected: scanned.invalid,
            filtered: narrow(removed.filtered),
            sampled_out: narrow(removed.sampled_out),
            time: TimeRange { min_start: scanned.min_start, max_end: scanned.max_end },
            keys: scanned.keys,
        })
    }
}

/// Stores a request of metrics or logs in every pipeline that takes them from the receiver.
pub(super) struct ItemIntake {
    pub signal: Signal,
    pub spool: Spool,
    pub pipelines: Vec<PipelineIntake>,
}

impl ItemSink for ItemIntake {
    fn admit(&self) -> Result<(), Refusal> {
        admit(&self.pipelines, self.signal)
    }

    fn store(
        &self,
        request: Bytes,
        items: u32,
        client: Client,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + '_>> {
        Box::pin(async move {
            let stored = store_items(&self.spool, &self.pipelines, (self.signal, &request, items), &client).await;
            stored.map_err(|error| match error {
                ItemsError::Process(error) => Refusal::BadData(error.to_string()),
                ItemsError::Append(error) => refusal(&error),
            })
        })
    }
}

/// Metrics or logs are not stored, or not everywhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum ItemsError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Sends metrics or logs through the processors of each pipeline, and stores them. All are prepared before any is stored.
pub(super) async fn store_items(
    spool: &Spool,
    pipelines: &[PipelineIntake],
    (signal, request, items): (Signal, &Bytes, u32),
    client: &Client,
) -> Result<(), ItemsError> {
    let mut prepared = Vec::with_capacity(pipelines.len());
    for pipeline in pipelines {
        prepared.push(pipeline.chain.process_items(signal, request.clone(), client).await?);
    }
    let appends = pipelines.iter().zip(&prepared);
    let appends = appends.map(|(pipeline, request)| spool.append(items_append(pipeline.id, request, items)));
    let stored: Result<(), _> = join_all(appends).await.into_iter().collect();
    stored?;
    pipelines.iter().zip(&prepared).for_each(|(pipeline, request)| pipeline.tell(request));
    Ok(())
}

/// Metrics and logs as the spool takes them: never looked for by trace, nor by time.
fn items_append(pipeline: PipelineId, request: &Bytes, items: u32) -> Append {
    Append {
        pipeline,
        request: request.clone(),
        spans: items,
        rejected: 0,
        filtered: 0,
        sampled_out: 0,
        time: TimeRange::EMPTY,
        keys: Vec::new(),
    }
}

fn refusal(error: &AppendError) -> Refusal {
    let retry_after = match error {
        AppendError::DiskFull { .. } | AppendError::Disk(_) | AppendError::Slow => RETRY_AFTER_DISK,
        AppendError::Closed => RETRY_AFTER_MEMORY,
    };
    Refusal::Unavailable { message: error.to_string(), retry_after }
}
