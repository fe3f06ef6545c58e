//! What is new beside what is old.

use super::*;

/// A batch that became durable so long before now.
fn received(ago: Duration, batch: Batch) -> Batch {
    let received = unix_nanos() - u64::try_from(ago.as_nanos()).unwrap();
    Batch { header: crate::spool::Header { received, ..batch.header }, ..batch }
}

/// An hour of backlog, a batch a second, and requests of one batch each.
fn hour() -> (Vec<Batch>, BatchSettings) {
    const SECONDS: u64 = 600;
    let at = |seq: u64| received(Duration::from_secs(3600 - 6 * (seq - 1)), batch_of(seq, 2));
    let settings = BatchSettings { send_batch_size: 2, timeout: Duration::from_millis(1), send_batch_max_size: 2 };
    ((1..=SECONDS).map(at).collect(), settings)
}

#[tokio::test]
async fn fresh_spans_arrive_while_an_hour_of_backlog_is_still_queued() {
    for num_consumers in [1, 10] {
        let (batches, settings) = hour();
        let model = Model::new(batches);
        // Each request that is taken brings a fresh batch, until there are enough.
        let (fresh, fed) = (Arc::new(Mutex::new(Vec::new())), model.clone());
        let (seen, requests) = (Arc::clone(&fresh), AtomicU64::new(0));
        let answer = move |names: &[String]| {
            let request = requests.fetch_add(1, Ordering::Relaxed);
            if request % 4 == 0 && request < 200 {
                fed.append(received(Duration::ZERO, batch_of(601 + request / 4, 2)));
            }
            let is_fresh = |name: &&String| name.split('/').next().unwrap().parse::<u64>().unwrap() > 600;
            seen.lock().unwrap().extend(names.iter().filter(is_fresh).map(|name| (name.clone(), fed.queued())));
            delivered()
        };
        let mut engine = engine(&model, Box::new(answer), Some(&settings));
        engine.requests_max = num_consumers.min(REQUESTS_IN_FLIGHT_MAX);
        drain(&engine, &model).await;
        assert_eq!((model.sent(), model.queued()), (1300, 0));
        let (fresh, taken) = (fresh.lock().unwrap().clone(), taken(&engine));
        assert_eq!(taken.len(), 1300, "nothing was sent twice");
        assert_eq!(fresh.len(), 100);
        // Of the 200 requests in which fresh batches came, a part was theirs; the backlog was far from done.
        let while_queued = fresh.iter().filter(|(_, queued)| *queued > 600).count();
        assert!(while_queued > 50, "{while_queued} of 100 came while the backlog was there");
        let old: Vec<&String> = taken.iter().filter(|name| !fresh.iter().any(|(it, _)| it == *name)).collect();
        let seq = |name: &&String| name.split('/').next().unwrap().parse::<u64>().unwrap();
        if num_consumers == 1 {
            assert!(old.iter().map(seq).is_sorted(), "the backlog goes oldest first");
        }
    }
}

#[tokio::test]
async fn what_was_sent_ahead_is_not_sent_again_after_a_restart() {
    let (batches, settings) = hour();
    let model = Model::new(batches);
    let stop = CancellationToken::new();
    let (fed, requests, told) = (model.clone(), AtomicU64::new(0), stop.clone());
    let answer = move |_: &[String]| {
        let request = requests.fetch_add(1, Ordering::Relaxed);
        if request < 50 {
            fed.append(received(Duration::ZERO, batch_of(601 + request, 2)));
        } else if fed.ahead().is_some() && fed.position() > Seq(1) {
            told.cancel();
        }
        // Bookings are some time apart, and the backlog is to last longer than that.
        std::thread::sleep(Duration::from_millis(2));
        delivered()
    };
    let first = engine(&model, Box::new(answer), Some(&settings));
    tokio::time::timeout(Duration::from_secs(60), first.run(stop)).await.expect("something is booked ahead");
    let ahead = model.ahead().expect("fresh batches were booked ahead of the cursor");
    assert!(model.position() < ahead.0, "the backlog is not done");
    let second = engine(&model, Box::new(|_| delivered()), Some(&settings));
    drain(&second, &model).await;
    let all: Vec<String> = [taken(&first), taken(&second)].concat();
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!((model.sent(), model.queued(), distinct.len(), all.len()), (1300, 0, 1300, 1300));
}

fn seq_of(name: &str) -> u64 {
    name.split('/').next().unwrap().parse().unwrap()
}

/// Goes away once, when nothing but the two last requests of the backlog is left: those it does not take at first.
struct Faltering {
    model: Model,
    /// The batches of the two requests.
    last: std::ops::RangeInclusive<u64>,
    /// Where the spool's budget moves the cursor just then.
    expire_to: Option<Seq>,
    requests: AtomicU64,
    /// Of the last ones.
    open: AtomicUsize,
    is_over: AtomicBool,
    taken: Mutex<Vec<String>>,
}

/// What comes while the backlog drains.
const FRESH: std::ops::RangeInclusive<u64> = 603..=652;

impl Transport for Faltering {
    async fn send(&self, body: Body) -> Reply {
        let names = span_names(&decoded(&body));
        let seq = seq_of(&names[0]);
        // By then the lane of what is new is open.
        if self.requests.fetch_add(1, Ordering::Relaxed) == 20 {
            FRESH.for_each(|seq| self.model.append(received(Duration::ZERO, batch_of(seq, 2))));
        }
        if self.last.contains(&seq) && !self.is_over.load(Ordering::Relaxed) {
            self.open.fetch_add(1, Ordering::Relaxed);
            let all_else_is_booked = || {
                self.model.position() == Seq(*self.last.start())
                    && self.model.ahead() == Some((Seq(*FRESH.start()), Seq(FRESH.end() + 1)))
            };
            while !self.is_over.load(Ordering::Relaxed) {
                if self.open.load(Ordering::Relaxed) == 2 && all_else_is_booked() {
                    self.expire_to.into_iter().for_each(|position| self.model.expire_to(position));
                    self.is_over.store(true, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            return Reply::no_answer("away");
        }
        self.taken.lock().unwrap().extend(names);
        Reply { name: "scripted".into(), answer: delivered() }
    }
}

#[tokio::test]
async fn what_was_booked_ahead_is_not_sent_again_when_the_end_of_the_backlog_is() {
    for (spans, last, expire_to, expired) in [(2, 601..=602, None, 0), (4, 599..=602, Some(Seq(602)), 6)] {
        let (mut batches, settings) = hour();
        // What is behind is seen by what came last.
        batches.extend([601, 602].map(|seq| received(Duration::ZERO, batch_of(seq, 2))));
        let settings = BatchSettings { send_batch_max_size: spans, ..settings };
        let model = Model::new(batches);
        let transport = Faltering {
            model: model.clone(),
            last,
            expire_to,
            requests: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
            taken: Mutex::default(),
        };
        let engine = engine_with(&model, transport, Some(&settings), true);
        drain(&engine, &model).await;
        assert!(engine.link.transport().is_over.load(Ordering::Relaxed), "it was away");
        assert_eq!((model.sent(), model.lost(LossReason::Budget)), (1304 - expired, expired));
        // A request that the moved cursor cut through may go again; what was booked ahead may not.
        let taken = engine.link.transport().taken.lock().unwrap().clone();
        let ahead: Vec<&String> = taken.iter().filter(|name| FRESH.contains(&seq_of(name))).collect();
        let distinct: BTreeSet<&&String> = ahead.iter().collect();
        assert_eq!((ahead.len(), distinct.len()), (100, 100));
    }
}

/// Takes everything, but keeps whoever waits for an answer about one batch until it is told.
struct Slow {
    scripted: Scripted<Answering>,
    is_slow: fn(&String) -> bool,
    told: tokio::sync::Notify,
}

impl Transport for Slow {
    async fn send(&self, body: Body) -> Reply {
        if span_names(&decoded(&body)).iter().any(self.is_slow) {
            self.told.notified().await;
        }
        self.scripted.send(body).await
    }
}

#[tokio::test]
async fn what_is_done_behind_a_request_that_takes_long_is_booked_and_nothing_goes_twice() {
    const BATCHES: u64 = 300;
    let model = Model::new((1..=BATCHES).map(|seq| batch_of(seq, 2)).collect());
    let settings = BatchSettings { send_batch_size: 2, timeout: Duration::from_millis(1), send_batch_max_size: 2 };
    let scripted = Scripted::new(Box::new(|_: &[String]| delivered()) as Answering);
    let slow = Slow { scripted, is_slow: |name| name.starts_with("5/"), told: tokio::sync::Notify::new() };
    let mut engine = engine_with(&model, slow, Some(&settings), true);
    engine.takes_long = Duration::from_millis(1);
    let told = async {
        while model.sent() < 2 * (BATCHES - 1) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(model.position(), Seq(5), "the cursor waits for the oldest");
        engine.link.transport().told.notify_one();
    };
    tokio::join!(drain(&engine, &model), told);
    assert_eq!((model.sent(), model.queued()), (2 * BATCHES, 0));
    assert_eq!(engine.link.transport().scripted.taken.lock().unwrap().len() as u64, 2 * BATCHES);
}
