//! How many queries run at once, for how long, and with how much memory.
//!
//! ```text
//! request ─▶ a place (else 429) ─▶ its turn in its lane (else 504) ─▶ blocking thread, under Control ─▶ room for the answer
//!                                  └──────────────── held until here ─────────────────┘
//! ```
//!
//! What queries hold in memory while they run is booked against one pool that all share, and so is what they answer; of that
//! finished answers may hold a part (a room) until their clients have read them, or did not in time ([`super::paced`]). Look-ups of one trace have a lane of
//! their own: they are over in a millisecond and must not stand behind a scan of a week. Scans that were long last time, and
//! metrics that are new, leave one of the turns to others ([`super::lengths`]). A client that leaves while it
//! waits leaves the queue; if it leaves while its query runs, the query is cancelled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::QueryError;
use super::lengths::{Length, Lengths, Question};
use super::paced::Outstanding;
use super::router::QueryLimits;
use crate::traceql::control::{Control, Pool, Stopped};

/// Reading a trace is disk and CPU by turns; more at once only adds memory.
const TRACES_RUNNING_MAX: usize = 4;

/// A scan keeps a core or two busy; a third lets short ones pass a long one.
const SCANS_RUNNING_MAX: usize = 3;

/// Scans that were long last time leave a turn to others. So do metrics that were not asked before: they look at every span
/// of their range, a search mostly at the newest.
const LONG_RUNNING_MAX: usize = SCANS_RUNNING_MAX - 1;

/// Running and waiting; Tempo's queue for one tenant is of this order too.
const ADMITTED_MAX: usize = 2000;

/// What a scan may answer with, uncompressed; larger answers are refused.
pub(super) const SCAN_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// In which portions room for answers is given: semaphores count in 32 bits.
const ROOM_UNIT_BYTES: usize = 1024;

/// Grafana gives up after 30 s by default.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);

/// A query that was told to end has this long to notice; then the client gets its answer, though the thread may still
/// be held by the disk.
const NOTICE_MAX: Duration = Duration::from_secs(2);

/// What waits in which queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// One trace by its id.
    Trace,
    /// Search, tags.
    Scan(Question),
    /// Metrics: a scan, after its turn among its like.
    Metrics(Question),
}

/// What a query leaves in memory until its client has read it.
pub(super) trait Answer: Send + 'static {
    fn bytes(&self) -> usize;

    /// The room goes with the bytes.
    fn hold(&mut self, room: Room);
}

/// Room for an answer, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    permit: OwnedSemaphorePermit,
    /// The query that it is the answer of: it is booked as long as any of it is held.
    query: Option<Arc<Control>>,
    unread: Counter,
    outstanding: Outstanding,
    wait_max: Duration,
}

/// Bytes with the room that they take.
struct Held {
    bytes: Vec<u8>,
    outstanding: Outstanding,
    _permit: Option<OwnedSemaphorePermit>,
    _query: Option<Arc<Control>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.outstanding.is_taken();
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Room {
    /// Bytes that take their part of this room with them, until nobody holds them any more: not here, and not in the buffers
    /// of their connection.
    pub(super) fn hold(&mut self, bytes: Vec<u8>) -> Bytes {
        let units = bytes.len().div_ceil(ROOM_UNIT_BYTES).min(self.permit.num_permits());
        self.outstanding.is_handed_on();
        let (_permit, _query) = (self.permit.split(units), self.query.clone());
        Bytes::from_owner(Held { bytes, outstanding: self.outstanding.clone(), _permit, _query })
    }

    /// What no piece holds is free again.
    pub(super) fn release_rest(&mut self) {
        drop(self.permit.split(self.permit.num_permits()));
    }

    /// What was held of it and not taken yet.
    pub(super) fn outstanding(&self) -> &Outstanding {
        &self.outstanding
    }

    /// The same room, whose pieces are counted with others of their answer.
    pub(super) fn counted_with(self, outstanding: &Outstanding) -> Self {
        Self { outstanding: outstanding.clone(), ..self }
    }

    /// How long the client may take nothing.
    pub(super) fn wait_max(&self) -> Duration {
        self.wait_max
    }

    /// The client did not take the answer in time.
    pub(super) fn was_left_unread(&self) {
        self.unread.inc();
        tracing::warn!("a client did not read its answer in time; the answer was dropped, to make room for others");
    }
}

/// What is counted of queries.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    unread: Counter,
    /// Connections that were ended because their clients took nothing for too long.
    pub stalled: Counter,
    /// Streams of the web UI that are open.
    pub(super) live: Gauge,
    /// What queries and sealing may hold together, and the most that they did.
    memory_max: Gauge,
    memory_peak: Gauge,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanreel_query_answers_unread",
            "Answers of queries that were dropped because their clients did not read them in time",
            self.unread.clone(),
        );
        registry.register(
            "spanreel_query_connections_stalled",
            "Connections to the query API that were ended because their clients took nothing for too long",
            self.stalled.clone(),
        );
        registry.register(
            "spanreel_query_live_streams",
            "Streams of new traces that browsers have open",
            self.live.clone(),
        );
        registry.register_with_unit(
            "spanreel_query_memory_max",
            "Memory that queries, and runs in the making, may hold together",
            Unit::Bytes,
            self.memory_max.clone(),
        );
        registry.register_with_unit(
            "spanreel_query_memory_peak",
            "The most memory that queries, and runs in the making, held together since the start",
            Unit::Bytes,
            self.memory_peak.clone(),
        );
    }
}

#[derive(Debug)]
pub(super) struct Admission {
    admitted: Semaphore,
    traces: Arc<Semaphore>,
    scans: Arc<Semaphore>,
    /// Turns of scans that were long last time, and of metrics that nobody knows yet.
    long_scans: Arc<Semaphore>,
    new_metrics: Arc<Semaphore>,
    lengths: Arc<Lengths>,
    room: Arc<Semaphore>,
    room_units: usize,
    metrics: Metrics,
    /// What queries hold while they run.
    scratch: Arc<Pool>,
    query_duration_max: Duration,
    read_wait_max: Duration,
}

/// Held while a query runs.
struct Turn {
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

/// Cancels a query whose client no longer waits.
struct CancelOnDrop(Arc<Control>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Admission {
    pub(super) fn new(limits: &QueryLimits) -> Self {
        Self::sharing(limits, Metrics::default(), Pool::new(limits.scratch_bytes_max))
    }

    /// With memory that others borrow from.
    pub(super) fn sharing(limits: &QueryLimits, metrics: Metrics, scratch: Arc<Pool>) -> Self {
        let admission = Self::with(ADMITTED_MAX, TRACES_RUNNING_MAX, SCANS_RUNNING_MAX, limits.answers_bytes_max);
        let QueryLimits { query_duration_max, read_wait_max, .. } = *limits;
        metrics.memory_max.set(i64::try_from(scratch.bytes_max()).unwrap_or(i64::MAX));
        Self { metrics, scratch, query_duration_max, read_wait_max, ..admission }
    }

    fn with(admitted: usize, traces: usize, scans: usize, answers_bytes: usize) -> Self {
        let room_units = answers_bytes.div_ceil(ROOM_UNIT_BYTES);
        let QueryLimits { scratch_bytes_max, query_duration_max, read_wait_max, .. } = QueryLimits::default();
        Self {
            admitted: Semaphore::new(admitted),
            traces: Arc::new(Semaphore::new(traces)),
            scans: Arc::new(Semaphore::new(scans)),
            long_scans: Arc::new(Semaphore::new(LONG_RUNNING_MAX.min(scans))),
            new_metrics: Arc::new(Semaphore::new(LONG_RUNNING_MAX.min(scans))),
            lengths: Arc::default(),
            room: Arc::new(Semaphore::new(room_units)),
            room_units,
            metrics: Metrics::default(),
            scratch: Pool::new(scratch_bytes_max),
            query_duration_max,
            read_wait_max,
        }
    }

    /// Runs `work` on a blocking thread when its turn comes. To drop the future is to cancel the query.
    pub(super) async fn run<T: Answer>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Control) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let _place = self.admitted.try_acquire().map_err(|_| QueryError::QueueFull)?;
        // The semaphores are never closed, so the only way to get nothing is to wait too long.
        let turn = timeout(WAIT_MAX, self.turn(lane));
        let Ok(Ok(turn)) = turn.await else { return Err(QueryError::Waited) };
        let lengths = Arc::clone(&self.lengths);
        let control = Arc::new(Control::sharing(self.query_duration_max, Arc::clone(&self.scratch)));
        let _cancel = CancelOnDrop(Arc::clone(&control));
        let query = Arc::clone(&control);
        // The turn is the work's, not the request's: a client that leaves does not free memory that is in use. Once the work
        // is done the next one has its turn, and the answer is memory of its query for as long as it waits for room.
        let (memory_peak, scratch) = (self.metrics.memory_peak.clone(), Arc::clone(&self.scratch));
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let begun = Instant::now();
            let answer = work(&control);
            if let Lane::Scan(question) | Lane::Metrics(question) = lane {
                lengths.learn(question, begun.elapsed());
            }
            memory_peak.set(i64::try_from(scratch.peak_bytes()).unwrap_or(i64::MAX));
            let answer = answer?;
            control.settle(answer.bytes())?;
            Ok::<T, QueryError>(answer)
        });
        let mut answer = match timeout(self.query_duration_max + NOTICE_MAX, task).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(QueryError::Crashed),
            Err(_) => return Err(Stopped::TimeOver(self.query_duration_max).into()),
        };
        let room = self.room_for(answer.bytes()).await?;
        answer.hold(Room { query: Some(query), ..room });
        Ok(answer)
    }

    async fn turn(&self, lane: Lane) -> Result<Turn, AcquireError> {
        let one = |lane: &Arc<Semaphore>| Arc::clone(lane).acquire_owned();
        Ok(match lane {
            Lane::Trace => Turn { _permits: (one(&self.traces).await?, None) },
            Lane::Scan(question) | Lane::Metrics(question) => {
                let among = match (self.lengths.of(question), lane) {
                    (Some(Length::Long), _) => Some(one(&self.long_scans).await?),
                    (None, Lane::Metrics(_)) => Some(one(&self.new_metrics).await?),
                    _ => None,
                };
                Turn { _permits: (one(&self.scans).await?, among) }
            }
        })
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Room for an answer of so many bytes. One that is larger than all of it takes all.
    pub(super) async fn room_for(&self, bytes: usize) -> Result<Room, QueryError> {
        let units = bytes.div_ceil(ROOM_UNIT_BYTES).min(self.room_units);
        let room =
            timeout(WAIT_MAX, Arc::clone(&self.room).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)));
        let Ok(Ok(permit)) = room.await else { return Err(QueryError::AnswersWaiting) };
        Ok(self.room(permit))
    }

    /// As [`Admission::room_for`], if there is any now.
    pub(super) fn room_now(&self, bytes: usize) -> Option<Room> {
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT_BYTES)).ok()?;
        let permit = Arc::clone(&self.room).try_acquire_many_owned(units).ok()?;
        Some(self.room(permit))
    }

    fn room(&self, permit: OwnedSemaphorePermit) -> Room {
        let (unread, wait_max) = (self.metrics.unread.clone(), self.read_wait_max);
        Room { permit, query: None, unread, outstanding: Outstanding::default(), wait_max }
    }

    /// How long a client may take nothing of an answer.
    pub(super) fn read_wait_max(&self) -> Duration {
        self.read_wait_max
    }
}

#[cfg(test)]
impl Admission {
    pub(super) fn room_left(&self) -> usize {
        self.room.available_permits()
    }

    pub(super) fn left_unread(&self) -> u64 {
        self.metrics.unread.get()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    /// An answer of so many bytes.
    #[derive(Debug)]
    struct Answered(usize, Option<Room>);

    impl Answer for Answered {
        fn bytes(&self) -> usize {
            self.0
        }

        fn hold(&mut self, room: Room) {
            self.1 = Some(room);
        }
    }

    fn nothing() -> Answered {
        Answered(0, None)
    }

    #[tokio::test]
    async fn a_bounded_number_runs_at_once_and_all_get_their_turn() {
        let admission = Arc::new(Admission::new(&QueryLimits::default()));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (admission, now, most) = (Arc::clone(&admission), Arc::clone(&now), Arc::clone(&most));
                tokio::spawn(async move {
                    let work = move |_: &Control| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(2));
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(nothing())
                    };
                    admission.run(Lane::Scan(Question::UNKNOWN), work).await
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= SCANS_RUNNING_MAX);
    }

    #[tokio::test]
    async fn beyond_the_queue_is_refused_and_a_panic_is_an_error() {
        let admission = Admission::with(1, 1, 1, 1024);
        let (release, held) = mpsc::channel::<()>();
        let first = admission.run(Lane::Trace, move |_| Ok(Answered(usize::from(held.recv().is_ok()), None)));
        let second = async {
            let refused = admission.run(Lane::Scan(Question::UNKNOWN), |_| Ok(nothing())).await;
            release.send(()).unwrap();
            refused
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!(first.unwrap().0, 1);
        assert!(matches!(second, Err(QueryError::QueueFull)));
        let crashed = admission
            .run(Lane::Scan(Question::UNKNOWN), |_| -> Result<Answered, QueryError> { panic!("on purpose") })
            .await;
        assert!(matches!(crashed, Err(QueryError::Crashed)));
    }

    #[tokio::test]
    async fn a_trace_does_not_wait_behind_scans() {
        let admission = Arc::new(Admission::with(10, 1, 1, 1024));
        let (release, held) = mpsc::channel::<()>();
        let scan = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move {
                admission
                    .run(Lane::Scan(Question::UNKNOWN), move |_| {
                        held.recv().map(|()| nothing()).map_err(|_| QueryError::Crashed)
                    })
                    .await
            }
        });
        admission.run(Lane::Trace, |_| Ok(nothing())).await.unwrap();
        release.send(()).unwrap();
        scan.await.unwrap().unwrap();
    }

    /// Queries that go on until they are told to end.
    struct Busy {
        release: tokio::sync::watch::Sender<bool>,
        queries: Vec<tokio::task::JoinHandle<Result<Answered, QueryError>>>,
    }

    impl Busy {
        fn with(admission: &Arc<Admission>, count: usize, lane: Lane) -> Self {
            let (release, held) = tokio::sync::watch::channel(false);
            let query = |_| {
                let (admission, held) = (Arc::clone(admission), held.clone());
                tokio::spawn(async move {
                    let work = move |_: &Control| {
                        while !*held.borrow() {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        Ok(nothing())
                    };
                    admission.run(lane, work).await
                })
            };
            Self { release, queries: (0..count).map(query).collect() }
        }

        async fn end(self) {
            self.release.send(true).unwrap();
            for query in self.queries {
                query.await.unwrap().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_search_does_not_wait_behind_metrics() {
        let admission = Arc::new(Admission::new(&QueryLimits::default()));
        let busy = Busy::with(&admission, 20, Lane::Metrics(Question::UNKNOWN));
        while admission.new_metrics.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        admission.run(Lane::Scan(Question::UNKNOWN), |_| Ok(nothing())).await.unwrap();
        busy.end().await;
    }

    #[tokio::test]
    async fn what_was_long_leaves_a_turn_to_what_is_new_or_was_not() {
        let admission = Arc::new(Admission::new(&QueryLimits::default()));
        let (long, short) = (Question::of("long"), Question::of("short"));
        admission.lengths.learn(long, Duration::from_secs(5));
        admission.lengths.learn(short, Duration::from_millis(5));
        let busy = Busy::with(&admission, 10, Lane::Scan(long));
        while admission.long_scans.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        for lane in [
            Lane::Scan(short),
            Lane::Metrics(short),
            Lane::Scan(Question::of("new")),
            Lane::Metrics(Question::of("new")),
        ] {
            admission.run(lane, |_| Ok(nothing())).await.unwrap();
        }
        busy.end().await;
    }

    #[tokio::test]
    async fn a_client_that_leaves_cancels_its_query_and_frees_the_lane_when_that_has_ended() {
        let admission = Arc::new(Admission::with(10, 1, 1, 1024));
        let (began, begun) = tokio::sync::oneshot::channel::<()>();
        let (ended, how) = mpsc::channel();
        let query = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move {
                let work = move |control: &Control| {
                    began.send(()).unwrap();
                    let stopped = loop {
                        match control.check() {
                            Ok(()) => std::thread::yield_now(),
                            Err(stopped) => break stopped,
                        }
                    };
                    ended.send(stopped).unwrap();
                    Err::<Answered, _>(stopped.into())
                };
                admission.run(Lane::Scan(Question::UNKNOWN), work).await
            }
        });
        begun.await.unwrap();
        query.abort();
        admission.run(Lane::Scan(Question::UNKNOWN), |_| Ok(nothing())).await.unwrap();
        assert_eq!(how.recv().unwrap(), Stopped::Cancelled);
    }

    #[tokio::test]
    async fn an_answer_is_booked_until_it_is_read_and_holds_no_turn_while_it_waits_for_room() {
        let admission = Arc::new(Admission::with(10, 1, 1, 4096));
        let all = admission.run(Lane::Scan(Question::UNKNOWN), |_| Ok(Answered(4096, None))).await.unwrap();
        let waits = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.run(Lane::Scan(Question::UNKNOWN), |_| Ok(Answered(4096, None))).await }
        });
        // There is one turn; an answer of nothing needs no room.
        let next = admission.run(Lane::Scan(Question::UNKNOWN), |_| Ok(nothing()));
        tokio::time::timeout(WAIT_MAX / 2, next).await.expect("its turn comes").unwrap();
        while admission.scratch.used_bytes() == 0 {
            tokio::task::yield_now().await;
        }
        drop(all);
        let read = waits.await.unwrap().unwrap();
        assert!(admission.scratch.used_bytes() >= 4096);
        drop(read);
        assert_eq!(admission.scratch.used_bytes(), 0);
    }

    #[tokio::test]
    async fn bytes_keep_their_room_until_nobody_holds_them() {
        let admission = Admission::with(1, 1, 1, 4096);
        let mut room = admission.room_for(3000).await.unwrap();
        let (first, second) = (room.hold(vec![1; 2000]), room.hold(vec![2; 1000]));
        drop(room);
        assert_eq!(admission.room_left(), 1);
        assert!(admission.room_now(2000).is_none());
        let part = first.slice(..10);
        drop(first);
        assert_eq!(admission.room_left(), 1, "a part of it is still to be sent");
        drop((part, second));
        assert_eq!(admission.room_left(), 4);
        assert!(admission.room_now(2000).is_some());
    }

    #[tokio::test]
    async fn answers_wait_for_room_until_others_are_read() {
        let admission = Arc::new(Admission::with(10, 2, 2, 4096));
        let larger_than_all =
            admission.run(Lane::Scan(Question::UNKNOWN), |_| Ok(Answered(1 << 20, None))).await.unwrap();
        let second = tokio::spawn({
            let admission = Arc::clone(&admission);
            async move { admission.run(Lane::Scan(Question::UNKNOWN), |_| Ok(Answered(1, None))).await }
        });
        // It holds the only room there is.
        assert_eq!(admission.room.available_permits(), 0);
        drop(larger_than_all);
        second.await.unwrap().unwrap();
        assert_eq!(admission.room.available_permits(), 4);
    }
}
