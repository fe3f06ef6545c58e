//! The sealer's thread, as others see it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::{RetentionSettings, Runs, SealError, SealSettings, Sealer};
use crate::spool::Spool;
use crate::traceql::control::Pool;

/// A run that is under way is cut short in less.
const DROP_WAIT_MAX: Duration = Duration::from_secs(3);
const DROP_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// A third of the share that others have when processors are short: less, and sealing would fall behind for as long as
/// senders keep them busy.
const NICE: i32 = 5;

/// What the thread is told.
pub(super) enum Command {
    /// Seal all that waits, whatever its size.
    SealAll(mpsc::Sender<Result<(), SealError>>),
    Stop,
}

/// The running sealer.
pub struct Sealing {
    commands: mpsc::Sender<Command>,
    stopping: Arc<AtomicBool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Sealing {
    /// Starts the thread. What it needs to make a run it borrows from `memory`.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(
        spool: Spool,
        runs: Runs,
        settings: SealSettings,
        retention: RetentionSettings,
        memory: Arc<Pool>,
    ) -> std::io::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let mut sealer = Sealer::new(spool, runs, settings, retention, memory);
        // From here on the spool keeps what is not sealed, whenever the thread gets to run.
        sealer.begin();
        let stopping = Arc::clone(&sealer.stopping);
        let thread = std::thread::Builder::new().name("store-sealer".to_owned()).spawn(move || {
            // On Linux this is a thread's own. Where it is refused, pauses alone must do.
            let _ = rustix::process::setpriority_process(None, NICE);
            sealer.run(&receiver);
        })?;
        Ok(Self { commands, stopping, thread: Mutex::new(Some(thread)) })
    }

    /// Seals all that waits now, whatever its size. Blocking.
    ///
    /// # Errors
    /// What the sealer met. [`None`] in its place: it has stopped.
    pub fn seal_all(&self) -> Result<(), Option<SealError>> {
        let (reply, answer) = mpsc::channel();
        self.commands.send(Command::SealAll(reply)).map_err(|_| None)?;
        answer.recv().map_err(|_| None)?.map_err(Some)
    }

    /// Ends the thread. A run that it is making is cut short: its batches stay in the spool and are sealed after the next
    /// start. Blocking.
    pub fn stop(&self) {
        self.tell_to_stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the sealer ended by a panic; spans stay in the spool until the next start");
        }
    }

    fn tell_to_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = self.commands.send(Command::Stop);
    }
}

/// Where a start fails half-way nobody calls [`Sealing::stop`]; a process must not end while its thread is in the database.
impl Drop for Sealing {
    fn drop(&mut self) {
        self.tell_to_stop();
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let deadline = Instant::now() + DROP_WAIT_MAX;
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(DROP_LOOK_INTERVAL);
        }
    }
}
