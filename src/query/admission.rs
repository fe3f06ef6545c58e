//! How many queries run at once, and for how long.
//!
//! A query holds a trace in memory, so the number running bounds the memory. Others wait, a bounded number for a bounded
//! time; a client that leaves while it waits leaves the queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::QueryError;

/// Reading a trace is disk and CPU by turns; more at once only adds memory.
const RUNNING_MAX: usize = 4;

/// Running and waiting; Tempo's queue for one tenant is of this order too.
const ADMITTED_MAX: usize = 2000;

/// Grafana gives up after 30 s by default.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);

/// After this the client gets its answer, though the thread may still be held by the disk.
pub(super) const QUERY_DURATION_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Admission {
    admitted: Semaphore,
    running: Arc<Semaphore>,
}

impl Admission {
    pub(super) fn new() -> Self {
        Self { admitted: Semaphore::new(ADMITTED_MAX), running: Arc::new(Semaphore::new(RUNNING_MAX)) }
    }

    /// Runs `work` on a blocking thread when its turn comes.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let _place = self.admitted.try_acquire().map_err(|_| QueryError::QueueFull)?;
        let turn = timeout(WAIT_MAX, Arc::clone(&self.running).acquire_owned());
        // The semaphore is never closed, so the only way to get nothing is to wait too long.
        let Ok(Ok(permit)) = turn.await else { return Err(QueryError::Waited) };
        let task = tokio::task::spawn_blocking(move || {
            // Held by the work, not by the request: a client that leaves does not free memory that is still in use.
            let _permit = permit;
            work()
        });
        match timeout(QUERY_DURATION_MAX, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(QueryError::Crashed),
            Err(_) => Err(QueryError::TookTooLong),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_bounded_number_runs_at_once_and_all_get_their_turn() {
        let admission = Arc::new(Admission::new());
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (admission, now, most) = (Arc::clone(&admission), Arc::clone(&now), Arc::clone(&most));
                tokio::spawn(async move {
                    let work = move || {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(2));
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    };
                    admission.run(work).await
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= RUNNING_MAX);
    }

    #[tokio::test]
    async fn beyond_the_queue_is_refused_and_a_panic_is_an_error() {
        let admission = Admission { admitted: Semaphore::new(1), running: Arc::new(Semaphore::new(1)) };
        let (release, held) = mpsc::channel::<()>();
        let first = admission.run(move || Ok(held.recv().is_ok()));
        let second = async {
            let refused = admission.run(|| Ok(())).await;
            release.send(()).unwrap();
            refused
        };
        let (first, second) = tokio::join!(first, second);
        assert!(first.unwrap());
        assert!(matches!(second, Err(QueryError::QueueFull)));
        let crashed = admission.run(|| -> Result<(), QueryError> { panic!("on purpose") }).await;
        assert!(matches!(crashed, Err(QueryError::Crashed)));
    }
}
