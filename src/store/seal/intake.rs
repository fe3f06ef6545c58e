//! What goes into the run that is being made, and what should have and cannot.

use crate::spool::{Batch, SealedAccount};

/// Batches on their way into a run.
pub(super) struct Intake {
    pub sealed: SealedAccount,
    pub lost: u64,
    pub raw_bytes: u64,
    pub spans: u64,
    pub oldest_received: u64,
    pub newest_received: u64,
}

impl Intake {
    pub fn new(sealed: SealedAccount) -> Self {
        Self { sealed, lost: 0, raw_bytes: 0, spans: 0, oldest_received: u64::MAX, newest_received: 0 }
    }

    pub fn take(&mut self, batch: &Batch) {
        let header = &batch.header;
        self.lost += self.sealed.book_gap(header);
        self.sealed.book_sealed(header);
        self.raw_bytes += u64::from(header.raw_bytes);
        self.spans += u64::from(header.spans);
        self.oldest_received = self.oldest_received.min(header.received);
        self.newest_received = self.newest_received.max(header.received);
    }
}
