//! The budget of bytes that are in flight between socket and disk.
//!
//! Whoever wants to hold bytes reserves them first. A reservation waits for room a little while (that is the
//! backpressure), then the client is asked to come back; nothing is ever allocated first and counted later.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request waits for room before it is refused as retryable.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a request that holds bytes already waits for more room.
const RAISE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Reservations are counted in these units, so that permits fit the semaphore's 32 bits.
const UNIT_BYTES: usize = 1024;

/// The shared budget.
#[derive(Debug, Clone)]
pub struct Admission {
    room: Arc<Semaphore>,
    units: usize,
}

/// Bytes held against the budget; they return on drop.
#[derive(Debug)]
pub struct Reservation {
    admission: Admission,
    permit: OwnedSemaphorePermit,
}

/// There was no room in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl Admission {
    pub fn new(bytes_max: usize) -> Self {
        let units = bytes_max.div_ceil(UNIT_BYTES);
        Self { room: Arc::new(Semaphore::new(units)), units }
    }

    /// Waits for room for `bytes`. One request larger than the whole budget is taken for the whole budget: it runs alone.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation, NoRoom> {
        self.reserve_within(bytes, ROOM_WAIT_MAX).await
    }

    /// Room for `bytes` if there is some now: for what cannot be asked to wait.
    pub fn try_reserve(&self, bytes: usize) -> Result<Reservation, NoRoom> {
        let permit = Arc::clone(&self.room).try_acquire_many_owned(self.units_of(bytes)).map_err(|_| NoRoom)?;
        Ok(Reservation { admission: self.clone(), permit })
    }

    async fn reserve_within(&self, bytes: usize, wait_max: Duration) -> Result<Reservation, NoRoom> {
        let permits = Arc::clone(&self.room).acquire_many_owned(self.units_of(bytes));
        match tokio::time::timeout(wait_max, permits).await {
            Ok(Ok(permit)) => Ok(Reservation { admission: self.clone(), permit }),
            _ => Err(NoRoom),
        }
    }

    pub fn bytes_in_flight(&self) -> usize {
        (self.units - self.room.available_permits().min(self.units)) * UNIT_BYTES
    }

    fn units_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES).min(self.units)).unwrap_or(u32::MAX)
    }
}

impl Reservation {
    /// Raises the reservation to `bytes` in all, waiting for room a little: whoever asks is holding bytes already, so the
    /// wait ends for some by refusal, which frees what they hold for the others.
    pub async fn raise(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.raise_within(bytes, RAISE_WAIT_MAX).await
    }

    /// As [`Reservation::raise`], for one that holds so little that it keeps nobody out while it waits as long as those
    /// who hold nothing.
    pub async fn raise_from_little(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.raise_within(bytes, ROOM_WAIT_MAX).await
    }

    async fn raise_within(&mut self, bytes: usize, wait_max: Duration) -> Result<(), NoRoom> {
        let missing = (self.admission.units_of(bytes) as usize).saturating_sub(self.permit.num_permits());
        let missing = u32::try_from(missing).map_err(|_| NoRoom)?;
        let more = Arc::clone(&self.admission.room).acquire_many_owned(missing);
        match tokio::time::timeout(wait_max, more).await {
            Ok(Ok(more)) => {
                self.permit.merge(more);
                Ok(())
            }
            _ => Err(NoRoom),
        }
    }

    /// Gives back what is above `bytes` in all.
    pub fn lower(&mut self, bytes: usize) {
        let kept = self.admission.units_of(bytes) as usize;
        drop(self.permit.split(self.permit.num_permits().saturating_sub(kept)));
    }

    /// Raises the reservation to `bytes` in all, without waiting.
    pub fn try_raise(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let wanted = self.admission.units_of(bytes) as usize;
        let missing = wanted.saturating_sub(self.permit.num_permits());
        let missing = u32::try_from(missing).map_err(|_| NoRoom)?;
        let more = Arc::clone(&self.admission.room).try_acquire_many_owned(missing).map_err(|_| NoRoom)?;
        self.permit.merge(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_waited_for_then_refused_and_comes_back() {
        let admission = Admission::new(10 * UNIT_BYTES);
        let mut first = admission.reserve(6 * UNIT_BYTES).await.unwrap();
        let refused = admission.reserve_within(5 * UNIT_BYTES, Duration::from_millis(10)).await;
        assert_eq!(refused.err(), Some(NoRoom));
        assert_eq!(first.try_raise(11 * UNIT_BYTES), Ok(()), "more than everything is everything");
        assert_eq!(admission.bytes_in_flight(), 10 * UNIT_BYTES);
        assert_eq!(admission.try_reserve(1).err(), Some(NoRoom));
        first.lower(10 * UNIT_BYTES);
        assert_eq!(admission.bytes_in_flight(), 10 * UNIT_BYTES, "nothing was above");
        let second = admission.reserve(UNIT_BYTES);
        let release = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(second, release);
        let mut second = second.unwrap();
        second.raise(8 * UNIT_BYTES).await.unwrap();
        second.lower(2 * UNIT_BYTES);
        assert_eq!(admission.bytes_in_flight(), 2 * UNIT_BYTES);
        drop(second);
        assert_eq!(admission.bytes_in_flight(), 0);
    }
}
