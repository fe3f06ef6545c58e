//! The open connections of a port: how long each has been silent, and which go when there is no room for another.

use super::socket::{Address, Stream};
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::either::Either;

/// What a client must send to have said anything: the preface of HTTP/2. A request of HTTP/1.1 is longer.
const FIRST_WORDS_BYTES: u64 = 24;
/// A full port makes room for so many at once, as a share of all: looking for them takes time.
const ROOM_SHARE: usize = 128;
/// How soon a full port looks again for someone who may go.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Between two lines in the log about a full port.
const FULL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How much silence is borne.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Who has not said anything for so long goes, full or not. As long as the head of a request may take.
    pub first_words: Duration,
    /// Who has not said anything may go after this long when the port is full: a client that comes begins at once.
    pub unspoken: Duration,
    /// Who has said something may go after so long in silence: longer than a body may pause, or a busy disk lets wait.
    pub spoken: Duration,
    /// How often it is looked for those that have not said anything in their time.
    pub look_interval: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_words: Duration::from_secs(75),
            unspoken: Duration::from_secs(1),
            spoken: Duration::from_secs(30),
            look_interval: Duration::from_secs(5),
        }
    }
}

/// The connections of one port.
pub struct Connections {
    address: Address,
    max: usize,
    patience: Patience,
    room: Arc<Semaphore>,
    present: Mutex<Present>,
}

#[derive(Default)]
struct Present {
    next: u64,
    by_number: HashMap<u64, Arc<Presence>>,
    /// Told to go, and still there.
    leaving: usize,
    full_logged: Option<Instant>,
}

/// What is known of a connection while it lasts.
struct Presence {
    began: Instant,
    /// Bytes that came.
    heard_bytes: AtomicU64,
    /// When bytes last came or were taken, milliseconds after `began`.
    active_ms: AtomicU64,
    leave: Notify,
}

/// A place among the connections; given back when it is dropped.
pub struct Place {
    connections: Arc<Connections>,
    number: u64,
    presence: Arc<Presence>,
    _permit: OwnedSemaphorePermit,
}

/// A connection whose silence is measured.
pub struct Connection {
    stream: Stream,
    presence: Arc<Presence>,
}

impl Connections {
    pub fn new(address: Address, max: usize, patience: Patience) -> Arc<Self> {
        let (room, present) = (Arc::new(Semaphore::new(max)), Mutex::default());
        Arc::new(Self { address, max, patience, room, present })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place. Where all are taken, the longest silent connections are told to go.
    pub async fn place(self: &Arc<Self>) -> Place {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
                break permit;
            }
            self.make_room();
            // The semaphore is never closed.
            if let Ok(Ok(permit)) = tokio::time::timeout(LOOK_INTERVAL, Arc::clone(&self.room).acquire_owned()).await {
                break permit;
            }
        };
        let presence = Arc::new(Presence {
            began: Instant::now(),
            heard_bytes: AtomicU64::new(0),
            active_ms: AtomicU64::new(0),
            leave: Notify::new(),
        });
        let mut present = self.present();
        let number = present.next;
        present.next += 1;
        present.by_number.insert(number, Arc::clone(&presence));
        Place { connections: Arc::clone(self), number, presence, _permit: permit }
    }

    /// Tells the longest silent connections to go: first those that never said anything.
    pub fn make_room(&self) {
        let mut present = self.present();
        let wanted = (self.max / ROOM_SHARE).max(1).saturating_sub(present.leaving);
        let silent = present.by_number.iter().filter_map(|(number, presence)| {
            let (has_spoken, silence) = (presence.has_spoken(), presence.silence());
            let borne = if has_spoken { self.patience.spoken } else { self.patience.unspoken };
            (silence >= borne).then_some((has_spoken, std::cmp::Reverse(silence), *number))
        });
        let mut silent: Vec<_> = silent.collect();
        if silent.len() > wanted {
            silent.select_nth_unstable(wanted);
            silent.truncate(wanted);
        }
        for (_, _, number) in &silent {
            present.dismiss(*number);
        }
        if present.full_logged.is_none_or(|logged| logged.elapsed() >= FULL_LOG_INTERVAL) {
            present.full_logged = Some(Instant::now());
            let (address, connections) = (&self.address, present.by_number.len());
            tracing::warn!(%address, connections, "no more connections can be held; the longest silent ones are closed");
        }
    }

    /// Tells those to go that have not said anything in their time.
    pub fn dismiss_speechless(&self) {
        let mut present = self.present();
        let is_late = |presence: &Presence| !presence.has_spoken() && presence.silence() >= self.patience.first_words;
        let late: Vec<u64> =
            present.by_number.iter().filter(|(_, it)| is_late(it)).map(|(number, _)| *number).collect();
        for number in late {
            present.dismiss(number);
        }
    }
}

impl Present {
    fn dismiss(&mut self, number: u64) {
        if let Some(presence) = self.by_number.remove(&number) {
            self.leaving += 1;
            presence.leave.notify_one();
        }
    }
}

impl Presence {
    fn active(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active_ms.store(ms, Ordering::Relaxed);
    }

    fn heard(&self, bytes: usize) {
        self.heard_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.active();
    }

    fn has_spoken(&self) -> bool {
        self.heard_bytes.load(Ordering::Relaxed) >= FIRST_WORDS_BYTES
    }

    fn silence(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.active_ms.load(Ordering::Relaxed)))
    }
}

impl Place {
    pub fn connection(&self, stream: Stream) -> Connection {
        Connection { stream, presence: Arc::clone(&self.presence) }
    }

    /// Drives `served` to its end, or until the connection is told to go. Whether it ended by itself.
    pub async fn hold(self, served: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            () = served => true,
            () = self.presence.leave.notified() => false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut present = self.connections.present();
        if present.by_number.remove(&self.number).is_none() {
            present.leaving -= 1;
        }
    }
}

impl Connection {
    /// Waits until there is something to read, or the end.
    pub async fn first_byte(&self) -> io::Result<()> {
        match &self.stream {
            Either::Left(stream) => stream.readable().await,
            Either::Right(stream) => stream.readable().await,
        }
    }

    /// What came so far was the handshake of another layer, and says nothing but the `said_bytes` that came with its end.
    pub fn begin_again(&self, said_bytes: usize) {
        self.presence.heard_bytes.store(said_bytes as u64, Ordering::Relaxed);
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        let bytes = into.filled().len() - before;
        if bytes > 0 {
            self.presence.heard(bytes);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.presence.active();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.presence.active();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
