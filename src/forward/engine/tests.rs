use super::*;
use crate::forward::answer::Answer;
use crate::forward::body::Body;
use crate::forward::body::Dialect;
use crate::forward::budget::Budget;
use crate::forward::link::Reply;
use crate::forward::metrics::Metrics;
use crate::forward::request::Piece;
use crate::forward::settings::{Compression, RetrySettings};
use crate::forward::status::State;
use crate::forward::testing::{Model, Scripted, batch_of, decoded, padded_batch_of, span_name, span_names};
use crate::spool::{Batch, LossReason};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

mod backlog;

type Answering = Box<dyn Fn(&[String]) -> Answer + Send + Sync>;

fn delivered() -> Answer {
    Answer::Delivered { rejected_spans: 0, message: String::new() }
}

fn engine(model: &Model, answer: Answering, batch: Option<&BatchSettings>) -> Engine<Model, Scripted<Answering>> {
    engine_retrying(model, answer, batch, true)
}

fn engine_retrying(
    model: &Model,
    answer: Answering,
    batch: Option<&BatchSettings>,
    enabled: bool,
) -> Engine<Model, Scripted<Answering>> {
    engine_with(model, Scripted::new(answer), batch, enabled)
}

fn engine_with<T: Transport>(
    model: &Model,
    transport: T,
    batch: Option<&BatchSettings>,
    enabled: bool,
) -> Engine<Model, T> {
    let retry = RetrySettings {
        enabled,
        initial_interval: Duration::from_millis(10),
        max_interval: Duration::from_millis(10),
        ..Default::default()
    };
    let metrics = Metrics::default().of("test");
    let mut link = Link::new("test", transport, Dialect::Grpc, Compression::Auto, retry, metrics, &Budget::default());
    link.hold = Duration::from_millis(10);
    Engine::new(model.clone(), link, batch, 10)
}

/// Runs until everything is accounted for.
async fn drain<T: Transport>(engine: &Engine<Model, T>, model: &Model) {
    let shutdown = CancellationToken::new();
    let watching = async {
        tokio::time::timeout(Duration::from_secs(10), model.drained()).await.expect("drained in time");
        shutdown.cancel();
    };
    tokio::join!(engine.run(shutdown.clone()), watching);
}

fn names(batches: &[Batch]) -> BTreeSet<String> {
    let spans = batches.iter().flat_map(|batch| (0..batch.header.spans).map(|index| span_name(batch.seq.0, index)));
    spans.collect()
}

fn taken(engine: &Engine<Model, Scripted<Answering>>) -> Vec<String> {
    engine.link.transport().taken.lock().unwrap().clone()
}

#[tokio::test]
async fn everything_arrives_once_in_order_of_the_spool() {
    let batches: Vec<Batch> = (1..=20).map(|seq| batch_of(seq, 7)).collect();
    let model = Model::new(batches.clone());
    let engine = engine(&model, Box::new(|_| delivered()), None);
    drain(&engine, &model).await;
    assert_eq!(model.sent(), 140);
    assert_eq!(taken(&engine).len(), 140);
    assert_eq!(taken(&engine).into_iter().collect::<BTreeSet<_>>(), names(&batches));
    assert_eq!(engine.link.status().state, State::Idle);
    assert!(engine.link.status().last_success.is_some());
}

#[tokio::test]
async fn a_destination_that_is_away_gets_single_probes_and_then_everything() {
    let batches: Vec<Batch> = (1..=600).map(|seq| batch_of(seq, 1)).collect();
    let model = Model::new(batches.clone());
    let (is_up, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let answer = {
        let (is_up, requests) = (Arc::clone(&is_up), Arc::clone(&requests));
        move |_: &[String]| {
            requests.fetch_add(1, Ordering::Relaxed);
            if is_up.load(Ordering::Relaxed) {
                delivered()
            } else {
                Answer::Retry { after: None, why: "away".to_owned() }
            }
        }
    };
    let engine = engine(&model, Box::new(answer), None);
    let up = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(matches!(engine.link.status().state, State::BackingOff { .. }));
        // The first window, then one at a time about every 10 ms.
        assert!(requests.load(Ordering::Relaxed) < 40, "{requests:?}");
        is_up.store(true, Ordering::Relaxed);
    };
    tokio::join!(drain(&engine, &model), up);
    assert_eq!(model.sent(), 600);
    assert_eq!(taken(&engine).into_iter().collect::<BTreeSet<_>>(), names(&batches));
}

#[tokio::test]
async fn poison_is_isolated_to_the_span() {
    let model = Model::new((1..=10).map(|seq| batch_of(seq, 50)).collect());
    let is_poison = |name: &String| name == "3/17" || name == "8/0";
    let answer = move |names: &[String]| match names.iter().any(is_poison) {
        true => Answer::Refused { why: "span ids must be 64 bit".to_owned() },
        false => delivered(),
    };
    let engine = engine(&model, Box::new(answer), None);
    drain(&engine, &model).await;
    assert_eq!((model.sent(), model.lost(LossReason::Poison)), (498, 2));
    let mut parked: Vec<String> = model.parked_names();
    parked.sort();
    assert_eq!(parked, ["3/17", "8/0"]);
}

#[tokio::test]
async fn what_fails_over_one_span_with_internal_is_isolated_once_others_were_taken() {
    let model = Model::new(vec![batch_of(1, 8)]);
    let answer = |names: &[String]| match names.iter().any(|name| name == "1/5") {
        true => Answer::Internal { why: "permanent".to_owned() },
        false => delivered(),
    };
    let engine = engine(&model, Box::new(answer), None);
    drain(&engine, &model).await;
    assert_eq!((model.sent(), model.lost(LossReason::Poison)), (7, 1));
    assert_eq!(model.parked_names(), ["1/5"]);
}

#[tokio::test]
async fn a_destination_that_refuses_everything_loses_nothing() {
    for refusal in [
        Answer::Refused { why: "no".to_owned() },
        Answer::Internal { why: "no".to_owned() },
        Answer::TooLarge { why: "no".to_owned() },
        Answer::Misconfigured { why: "no".to_owned() },
    ] {
        let model = Model::new(vec![batch_of(1, 6)]);
        let is_sane = Arc::new(AtomicBool::new(false));
        let answer = {
            let is_sane = Arc::clone(&is_sane);
            move |_: &[String]| if is_sane.load(Ordering::Relaxed) { delivered() } else { refusal.clone() }
        };
        let engine = engine(&model, Box::new(answer), None);
        let cure = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(model.position(), Seq(1));
            is_sane.store(true, Ordering::Relaxed);
        };
        tokio::join!(drain(&engine, &model), cure);
        assert_eq!(model.sent(), 6);
    }
}

#[tokio::test]
async fn without_retries_a_failed_request_is_booked_as_that() {
    let model = Model::new(vec![batch_of(1, 6)]);
    let answer = Box::new(|_: &[String]| Answer::Retry { after: None, why: "away".to_owned() });
    let engine = engine_retrying(&model, answer, None, false);
    drain(&engine, &model).await;
    assert_eq!((model.sent(), model.lost(LossReason::RetryDisabled)), (0, 6));
}

#[tokio::test]
async fn too_large_requests_are_split_and_later_ones_are_smaller() {
    let model = Model::new((1..=40).map(|seq| batch_of(seq, 10)).collect());
    let largest = Arc::new(AtomicUsize::new(0));
    let answer = {
        let largest = Arc::clone(&largest);
        move |names: &[String]| {
            if names.len() > 3 {
                return Answer::TooLarge { why: "larger than max".to_owned() };
            }
            largest.fetch_max(names.len(), Ordering::Relaxed);
            delivered()
        }
    };
    let engine = engine(&model, Box::new(answer), None);
    drain(&engine, &model).await;
    assert_eq!((model.sent(), largest.load(Ordering::Relaxed)), (400, 3));
    assert!(engine.link.request_raw_bytes_max() < crate::forward::link::REQUEST_RAW_BYTES_MAX);
}

#[tokio::test]
async fn requests_that_a_rate_limit_never_lets_pass_are_made_smaller() {
    let model = Model::new((1..=40).map(|seq| batch_of(seq, 10)).collect());
    let answer = |names: &[String]| match names.len() > 7 {
        true => Answer::Limited { after: Some(Duration::from_millis(1)), why: "RATE_LIMITED".to_owned() },
        false => delivered(),
    };
    let engine = engine(&model, Box::new(answer), None);
    drain(&engine, &model).await;
    assert_eq!(model.sent(), 400);
    assert!(engine.link.request_raw_bytes_max() < crate::forward::link::REQUEST_RAW_BYTES_MAX);
}

#[tokio::test]
async fn a_request_that_passes_after_two_limits_was_not_too_large() {
    let (model, tries) = (Model::new(vec![batch_of(1, 10)]), AtomicUsize::new(0));
    let answer = move |_: &[String]| match tries.fetch_add(1, Ordering::Relaxed) < 2 {
        true => Answer::Limited { after: Some(Duration::from_millis(1)), why: "RATE_LIMITED".to_owned() },
        false => delivered(),
    };
    let engine = engine(&model, Box::new(answer), None);
    drain(&engine, &model).await;
    assert_eq!(model.sent(), 10);
    assert_eq!(engine.link.request_raw_bytes_max(), crate::forward::link::REQUEST_RAW_BYTES_MAX);
}

#[tokio::test]
async fn a_batch_larger_than_receivers_accept_is_cut_before_it_is_sent() {
    const LIMIT: usize = crate::forward::link::REQUEST_RAW_BYTES_MAX;
    let model = Model::new(vec![batch_of(1, 3), padded_batch_of(2, &[50_000; 110]), batch_of(3, 3)]);
    let large = engine(&model, Box::new(|_| delivered()), None);
    drain(&large, &model).await;
    assert_eq!((model.sent(), taken(&large).len()), (116, 116));
    assert!(large.link.transport().raw_bytes_seen.load(Ordering::Relaxed) <= LIMIT);
    // Nothing is smaller than a span: it goes as it is, alone, and its neighbours in requests of their own.
    let model = Model::new(vec![padded_batch_of(1, &[100, LIMIT + 1, 100])]);
    let huge = engine(
        &model,
        Box::new(|names| {
            assert!(names.len() == 1 || !names.contains(&span_name(1, 1)));
            delivered()
        }),
        None,
    );
    drain(&huge, &model).await;
    assert_eq!(model.sent(), 3);
}

#[tokio::test]
async fn the_batch_processors_cap_holds() {
    let model = Model::new((1..=5).map(|seq| batch_of(seq, 37)).collect());
    let answer = |names: &[String]| {
        assert!(names.len() <= 10);
        delivered()
    };
    let settings = BatchSettings { send_batch_size: 10, timeout: Duration::from_millis(50), send_batch_max_size: 10 };
    let engine = engine(&model, Box::new(answer), Some(&settings));
    drain(&engine, &model).await;
    assert_eq!(model.sent(), 185);
}

#[tokio::test]
async fn a_broken_frame_costs_its_own_batch_only() {
    let mut batches: Vec<Batch> = (1..=4).map(|seq| batch_of(seq, 3)).collect();
    batches[2].frame = bytes::Bytes::from_static(b"not zstd");
    let model = Model::new(batches);
    // Refused zstd makes the link inflate.
    let engine = engine(&model, Box::new(|_| delivered()), None);
    engine.link.use_codec_for_test(crate::forward::body::Codec::Identity);
    drain(&engine, &model).await;
    assert_eq!((model.sent(), model.lost(LossReason::Damaged)), (9, 3));
}

#[tokio::test]
async fn the_budget_moving_the_cursor_is_followed() {
    let model = Model::new((1..=2000).map(|seq| batch_of(seq, 1)).collect());
    let is_up = Arc::new(AtomicBool::new(false));
    let answer = {
        let is_up = Arc::clone(&is_up);
        move |_: &[String]| match is_up.load(Ordering::Relaxed) {
            true => delivered(),
            false => Answer::Retry { after: None, why: "away".to_owned() },
        }
    };
    let engine = engine(&model, Box::new(answer), None);
    let expire = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        model.expire_to(Seq(700));
        is_up.store(true, Ordering::Relaxed);
    };
    tokio::join!(drain(&engine, &model), expire);
    assert_eq!(model.sent() + model.lost(LossReason::Budget), 2000);
    assert_eq!(model.lost(LossReason::Budget), 699);
    // At least once: everything that did not expire arrived.
    let taken: BTreeSet<String> = taken(&engine).into_iter().collect();
    assert!((700..=2000).all(|seq| taken.contains(&span_name(seq, 0))));
}

#[tokio::test]
async fn what_could_not_be_booked_is_booked_later_and_not_sent_again() {
    let batches: Vec<Batch> = (1..=3).map(|seq| batch_of(seq, 5)).collect();
    let model = Model::new(batches);
    model.fail_to_advance(2);
    let engine = engine(&model, Box::new(|_| delivered()), None);
    drain(&engine, &model).await;
    assert_eq!((model.sent(), taken(&engine).len()), (15, 15));
}

/// Takes long to give no answer, and knows how many bytes are on their way to all of its kind.
#[derive(Clone, Default)]
struct Hanging {
    bytes: Arc<AtomicUsize>,
    bytes_seen: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Transport for Hanging {
    async fn send(&self, body: Body) -> Reply {
        let bytes = self.bytes.fetch_add(body.encoded_bytes(), Ordering::Relaxed) + body.encoded_bytes();
        self.bytes_seen.fetch_max(bytes, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.bytes.fetch_sub(body.encoded_bytes(), Ordering::Relaxed);
        Reply::no_answer("timeout")
    }
}

#[tokio::test]
async fn many_destinations_that_hang_share_the_memory_and_leave_the_others_alone() {
    const LANE: usize = 8 * 1024 * 1024;
    let batches: Vec<Batch> = (1..=8).map(|seq| padded_batch_of(seq, &[1_900_000])).collect();
    let (budget, hanging, shutdown) = (Budget::default(), Hanging::default(), CancellationToken::new());
    let retry = RetrySettings {
        initial_interval: Duration::from_millis(10),
        max_interval: Duration::from_millis(10),
        ..Default::default()
    };
    let mut running = JoinSet::new();
    for _ in 0..12 {
        let (metrics, transport) = (Metrics::default().of("hanging"), hanging.clone());
        let link =
            Link::new("hanging", transport, Dialect::HttpProtobuf, Compression::None, retry.clone(), metrics, &budget);
        let (engine, shutdown) = (Engine::new(Model::new(batches.clone()), link, None, 10), shutdown.clone());
        running.spawn(async move { engine.run(shutdown).await });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let model = Model::new(batches);
    let answer: Answering = Box::new(|_| delivered());
    let metrics = Metrics::default().of("well");
    let link =
        Link::new("well", Scripted::new(answer), Dialect::HttpProtobuf, Compression::None, retry, metrics, &budget);
    drain(&Engine::new(model.clone(), link, None, 10), &model).await;
    assert_eq!(model.sent(), 8);
    shutdown.cancel();
    running.join_all().await;
    assert!(hanging.requests.load(Ordering::Relaxed) > 4);
    assert!(hanging.bytes_seen.load(Ordering::Relaxed) <= LANE);
}

#[tokio::test]
async fn shutdown_abandons_what_hangs_and_books_what_is_done() {
    let model = Model::new(vec![batch_of(1, 5)]);
    let engine = engine(&model, Box::new(|_| Answer::Retry { after: None, why: "away".to_owned() }), None);
    let shutdown = CancellationToken::new();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        shutdown.cancel();
    };
    let ended =
        tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(engine.run(shutdown.clone()), stop) });
    assert!(ended.await.is_ok());
    assert_eq!((model.position(), model.sent()), (Seq(1), 0));
}

/// What a fickle destination does next.
fn any_answer() -> impl Strategy<Value = Answer> {
    let why = || "because".to_owned();
    prop_oneof![
        6 => Just(delivered()),
        1 => (1u64..5).prop_map(|rejected_spans| Answer::Delivered { rejected_spans, message: String::new() }),
        1 => Just(Answer::Retry { after: None, why: why() }),
        1 => Just(Answer::TooLarge { why: why() }),
        1 => Just(Answer::Refused { why: why() }),
        1 => Just(Answer::CompressionRefused { why: why() }),
        1 => Just(Answer::Misconfigured { why: why() }),
        1 => Just(Answer::Internal { why: why() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..Default::default() })]
    #[test]
    fn every_span_is_accounted_for_once_whatever_the_answers(
        sizes in proptest::collection::vec(0u32..12, 1..12),
        answers in proptest::collection::vec(any_answer(), 0..30),
        cap in prop_oneof![Just(None), (1u32..6).prop_map(Some)],
    ) {
        let batches: Vec<Batch> = sizes.iter().zip(1..).map(|(spans, seq)| batch_of(seq, *spans)).collect();
        let total: u64 = sizes.iter().map(|spans| u64::from(*spans)).sum();
        let model = Model::new(batches);
        let script = Mutex::new(answers.into_iter());
        // After the script the destination is well.
        let answer: Answering = Box::new(move |_| script.lock().unwrap().next().unwrap_or_else(delivered));
        let settings = cap.map(|cap| BatchSettings { send_batch_size: 1, timeout: Duration::from_millis(1), send_batch_max_size: cap });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let engine = engine(&model, answer, settings.as_ref());
            drain(&engine, &model).await;
        });
        let lost: u64 = LossReason::ALL.iter().map(|reason| model.lost(*reason)).sum();
        prop_assert_eq!(model.sent() + lost, total);
        prop_assert_eq!(model.lost(LossReason::Damaged), 0);
    }
}

#[tokio::test]
async fn good_spans_among_hundreds_of_bad_ones_arrive() {
    let model = Model::new((1..=3).map(|seq| batch_of(seq, 200)).collect());
    // Every second span of the second batch.
    let is_bad = |name: &String| name.strip_prefix("2/").is_some_and(|at| at.parse::<u32>().unwrap() % 2 == 0);
    let answer = move |names: &[String]| match names.iter().find(|name| is_bad(name)) {
        Some(bad) => Answer::Refused { why: format!("{bad} is bad") },
        None => delivered(),
    };
    let engine = engine(&model, Box::new(answer), None);
    drain(&engine, &model).await;
    assert_eq!((model.sent(), model.lost(LossReason::Poison)), (500, 100));
    let mut parked = model.parked_names();
    parked.sort();
    let mut bad: Vec<String> = (0..200).step_by(2).map(|index| span_name(2, index)).collect();
    bad.sort();
    assert_eq!(parked, bad, "only what is bad is kept aside");
}

#[tokio::test]
async fn nothing_is_tried_outside_the_hours_not_even_again() {
    use crate::forward::delivery::{DeliverySettings, Hours, second_of_day};
    let minute = second_of_day() / 60;
    let time = |minute: u32| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let hours = |from: u32, to: u32| Hours::parse(&format!("{}-{}", time(minute + from), time(minute + to)));
    for (hours, is_open) in [(hours(120, 180), false), (hours(24 * 60 - 60, 120), true)] {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let answer: Answering = Box::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            delivered()
        });
        let metrics = Metrics::default().of("test");
        let (retry, budget) = (RetrySettings::default(), Budget::default());
        let link = Link::new("test", Scripted::new(answer), Dialect::Grpc, Compression::Auto, retry, metrics, &budget);
        let link = link.delivering(&DeliverySettings { hours, ..Default::default() });
        // As a request does whose pause after a failure is over.
        let (piece, shutdown) = (Piece::Batches(vec![batch_of(1, 1)]), CancellationToken::new());
        let attempt = link.attempt(Seq(1), &shutdown, &piece);
        let probe = link.takes_empty_request(Seq(1), &shutdown);
        let both = async { tokio::join!(attempt, probe) };
        let done = tokio::time::timeout(Duration::from_millis(if is_open { 60_000 } else { 50 }), both).await;
        assert_eq!((done.is_ok(), requests.load(Ordering::Relaxed)), (is_open, if is_open { 2 } else { 0 }));
        if !is_open {
            assert!(matches!(link.status().state, State::OutsideHours { .. }));
        }
    }
}
