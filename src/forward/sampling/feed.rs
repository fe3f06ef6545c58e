//! What a destination reads: the spool itself, or what tail sampling lets pass.

use super::verdict::{Verdict, seq_of_key, verdict_key};
use crate::forward::body;
use crate::forward::engine::Source;
use crate::spool::{Batch, Chunk, Consumer, LossReason, Newest, Outcome, ReadError, ReadLimits, Seq};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// One destination's way into the spool.
#[derive(Clone)]
pub struct Feed {
    consumer: Consumer,
    sampled: Option<Sampled>,
}

#[derive(Clone)]
struct Sampled {
    /// The decider's cursor, whose notes are the verdicts.
    decider: Consumer,
    /// Batches before it are decided.
    decided: watch::Receiver<Seq>,
}

impl Feed {
    pub(super) fn sampled(consumer: Consumer, decider: Consumer, decided: watch::Receiver<Seq>) -> Self {
        Self { consumer, sampled: Some(Sampled { decider, decided }) }
    }
}

/// The spool itself.
impl From<Consumer> for Feed {
    fn from(consumer: Consumer) -> Self {
        Self { consumer, sampled: None }
    }
}

impl Sampled {
    fn verdicts(&self, from: Seq, to: Seq) -> Result<BTreeMap<Seq, Verdict>, ReadError> {
        let notes = self.decider.notes(&verdict_key(from), &verdict_key(to))?;
        Ok(notes.iter().filter_map(|(key, value)| Some((seq_of_key(key)?, Verdict::decode(value)?))).collect())
    }

    /// Leaves out what is not decided yet, and of the rest what is not kept.
    fn sift(&self, mut chunk: Chunk) -> Result<Chunk, ReadError> {
        let decided = *self.decided.borrow();
        if chunk.next > decided {
            chunk.batches.retain(|batch| batch.seq < decided);
            chunk.next = decided.max(chunk.from);
        }
        let verdicts = self.verdicts(chunk.from, chunk.next)?;
        let sifted = chunk.batches.into_iter().filter_map(|batch| match verdicts.get(&batch.seq) {
            None => Some(batch),
            Some(verdict) if verdict.sampled_out >= batch.header.spans => None,
            Some(verdict) => Some(kept(batch, verdict)),
        });
        Ok(Chunk { batches: sifted.collect(), ..chunk })
    }
}

/// The batch without what is not kept. One that cannot be read goes on as it is: delivery books it as damaged.
fn kept(batch: Batch, verdict: &Verdict) -> Batch {
    let Ok(raw) = body::inflate(&batch.frame, batch.header.raw_bytes as usize) else { return batch };
    let request = verdict.apply(&raw);
    let mut header = batch.header;
    header.spans -= verdict.sampled_out;
    match (u32::try_from(request.len()), body::zstd_frame(&request)) {
        (Ok(raw_bytes), Ok(frame)) => {
            header.raw_bytes = raw_bytes;
            Batch { seq: batch.seq, header, frame }
        }
        _ => batch,
    }
}

impl Feed {
    fn with_sampled_out(&self, from: Seq, to: Seq, mut outcome: Outcome) -> Result<Outcome, ReadError> {
        if let Some(sampled) = &self.sampled {
            let out = sampled.verdicts(from, to)?.values().map(|verdict| u64::from(verdict.sampled_out)).sum();
            if out > 0 {
                outcome.lost.push((LossReason::SampledOut, out));
            }
        }
        Ok(outcome)
    }
}

impl Source for Feed {
    fn position(&self) -> Seq {
        self.consumer.position()
    }

    fn read(&self, from: Seq, limits: ReadLimits) -> Result<Chunk, ReadError> {
        let chunk = self.consumer.read(from, limits)?;
        match &self.sampled {
            None => Ok(chunk),
            Some(sampled) => sampled.sift(chunk),
        }
    }

    async fn wait(&self, from: Seq) {
        match &self.sampled {
            None => self.consumer.wait(from).await,
            Some(sampled) => {
                let mut decided = sampled.decided.clone();
                if decided.wait_for(|decided| *decided > from).await.is_err() {
                    // The decider is gone, and whoever runs this is about to be stopped.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    fn advance(&self, from: Seq, to: Seq, outcome: Outcome) -> Result<bool, ReadError> {
        self.consumer.advance(from, to, self.with_sampled_out(from, to, outcome)?)
    }

    fn advance_ahead(&self, from: Seq, to: Seq, outcome: Outcome) -> Result<bool, ReadError> {
        self.consumer.advance_ahead(from, to, self.with_sampled_out(from, to, outcome)?)
    }

    fn ahead(&self) -> Option<(Seq, Seq)> {
        self.consumer.ahead()
    }

    fn newest(&self) -> Result<Newest, ReadError> {
        let end = self.sampled.as_ref().map_or(Seq(u64::MAX), |sampled| *sampled.decided.borrow());
        self.consumer.newest(end)
    }
}
