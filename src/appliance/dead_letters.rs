//! Dead letters of the running process: the spool keeps them, and the destinations at work try them again.

use super::host::Host;
use crate::forward::dead_letter::{DeadFrame, inflate};
use crate::query::{DeadLetters, NoLetter};
use crate::spool::{DeadLetter, Settled, Spool};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;

pub(super) struct Letters {
    pub spool: Spool,
    pub host: Arc<Host>,
}

impl DeadLetters for Letters {
    fn list(&self, count_max: usize) -> Result<Vec<DeadLetter>, String> {
        self.spool.dead_letters(count_max).map_err(|error| error.to_string())
    }

    fn show(&self, id: &str) -> Result<(DeadLetter, Bytes), NoLetter> {
        let failed = |error: String| NoLetter::Failed(error);
        let (letter, frames) =
            self.spool.dead_letter(id).map_err(|error| failed(error.to_string()))?.ok_or(NoLetter::Unknown)?;
        let request = inflate(&frames).map_err(|error| failed(format!("it cannot be inflated: {error}")))?;
        Ok((letter, request))
    }

    fn discard(&self, id: &str) -> Result<(), NoLetter> {
        settle(&self.spool, id, Settled::Dropped)
    }

    fn retry<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(u64, u64), NoLetter>> {
        Box::pin(async move {
            let (letter, request) = self.blocking(id, |letters, id| letters.show(id)).await?;
            let view = self.host.view();
            let running = view
                .destinations
                .iter()
                .find(|running| running.exporter == letter.destination && running.pipeline == letter.pipeline);
            let Some(running) = running else {
                return Err(NoLetter::Failed(format!(
                    "no exporter {} is at work in pipeline {}; configure it again, or drop the dead letter",
                    letter.destination, letter.pipeline
                )));
            };
            let frame = DeadFrame { signal: letter.signal, seq: letter.seq, spans: letter.spans, request };
            let rejected = running.destination.retry(frame).await.map_err(NoLetter::Failed)?.min(letter.spans);
            self.blocking(id, move |letters, id| settle(&letters.spool, id, Settled::Delivered { rejected })).await?;
            Ok((letter.spans - rejected, rejected))
        })
    }
}

impl Letters {
    /// Disk work, off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        id: &str,
        work: impl FnOnce(&Letters, &str) -> Result<T, NoLetter> + Send + 'static,
    ) -> Result<T, NoLetter> {
        let (letters, id) = (Self { spool: self.spool.clone(), host: Arc::clone(&self.host) }, id.to_owned());
        let done = tokio::task::spawn_blocking(move || work(&letters, &id)).await;
        done.map_err(|error| NoLetter::Failed(error.to_string()))?
    }
}

fn settle(spool: &Spool, id: &str, settled: Settled) -> Result<(), NoLetter> {
    match spool.settle_dead_letter(id, settled) {
        Ok(true) => Ok(()),
        Ok(false) => Err(NoLetter::Unknown),
        Err(error) => Err(NoLetter::Failed(error.to_string())),
    }
}
