//! Batches, a model of the spool, and a transport that answers as told: what the room's tests share.

use super::answer::Answer;
use super::body::{self, Body};
use super::engine::Source;
use super::link::{Reply, Transport};
use crate::otlp::wire::{Fields, put_bytes};
use crate::spool::{
    Ahead, Batch, Chunk, Header, LossReason, Newest, Outcome, Parked, PipelineId, ReadError, ReadLimits, Seq, TimeRange,
};
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// The name of span `index` of batch `seq`.
pub(super) fn span_name(seq: u64, index: u32) -> String {
    format!("{seq}/{index}")
}

/// A batch of spans that have nothing but a name.
pub(super) fn batch_of(seq: u64, spans: u32) -> Batch {
    padded_batch_of(seq, &vec![0; spans as usize])
}

/// A batch of spans that have a name, and so many bytes of something else.
pub(super) fn padded_batch_of(seq: u64, span_bytes: &[usize]) -> Batch {
    let spans = u32::try_from(span_bytes.len()).unwrap();
    let mut scope_spans = Vec::new();
    for (index, bytes) in (0..).zip(span_bytes) {
        let mut span = Vec::new();
        put_bytes(&mut span, 5, span_name(seq, index).as_bytes());
        if *bytes > 0 {
            put_bytes(&mut span, 3, &vec![b'x'; *bytes]);
        }
        put_bytes(&mut scope_spans, 2, &span);
    }
    let (mut resource_spans, mut request) = (Vec::new(), Vec::new());
    put_bytes(&mut resource_spans, 2, &scope_spans);
    put_bytes(&mut request, 1, &resource_spans);
    let header = Header {
        raw_bytes: u32::try_from(request.len()).unwrap(),
        signal: crate::otlp::Signal::Traces,
        spans,
        pipeline: PipelineId(0),
        spans_before: 0,
        received: 1_700_000_000_000_000_000,
        time: TimeRange::EMPTY,
    };
    Batch { seq: Seq(seq), header, frame: body::zstd_frame(&request).unwrap() }
}

/// The names of the spans of a request.
pub(super) fn span_names(request: &[u8]) -> Vec<String> {
    let messages = |message, number| {
        Fields::new(message).map(Result::unwrap).filter_map(move |field| field.bytes(number)).collect::<Vec<_>>()
    };
    let mut names = Vec::new();
    for resource_spans in messages(request, 1) {
        for scope_spans in messages(resource_spans, 2) {
            for span in messages(scope_spans, 2) {
                names.push(String::from_utf8(messages(span, 5)[0].to_vec()).unwrap());
            }
        }
    }
    names
}

/// The protobuf of a body.
pub(super) fn decoded(body: &Body) -> Vec<u8> {
    let bytes = body.segments.concat();
    let mut raw = Vec::new();
    let read = match body.codec {
        body::Codec::Zstd => return zstd::decode_all(&*bytes).unwrap(),
        body::Codec::Identity => return bytes,
        body::Codec::Snappy => return snap::raw::Decoder::new().decompress_vec(&bytes).unwrap(),
        body::Codec::Gzip => flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut raw),
        body::Codec::Zlib | body::Codec::Deflate => flate2::read::ZlibDecoder::new(&*bytes).read_to_end(&mut raw),
        body::Codec::SnappyFramed => snap::read::FrameDecoder::new(&*bytes).read_to_end(&mut raw),
        body::Codec::Lz4 => lz4_flex::frame::FrameDecoder::new(&*bytes).read_to_end(&mut raw),
    };
    read.unwrap();
    raw
}

/// Answers by a function of the span names; remembers what it took, in order.
pub(super) struct Scripted<F> {
    pub(super) answer: F,
    pub(super) taken: Mutex<Vec<String>>,
    /// The protobuf of the longest request.
    pub(super) raw_bytes_seen: AtomicUsize,
}

impl<F: Fn(&[String]) -> Answer> Scripted<F> {
    pub(super) fn new(answer: F) -> Self {
        Self { answer, taken: Mutex::default(), raw_bytes_seen: AtomicUsize::new(0) }
    }
}

impl<F: Fn(&[String]) -> Answer + Send + Sync + 'static> Transport for Scripted<F> {
    async fn send(&self, body: Body) -> Reply {
        let raw = decoded(&body);
        self.raw_bytes_seen.fetch_max(raw.len(), Ordering::Relaxed);
        let names = span_names(&raw);
        assert_eq!(names.len() as u64, body.spans);
        let answer = (self.answer)(&names);
        if matches!(answer, Answer::Delivered { .. }) {
            self.taken.lock().unwrap().extend(names);
        }
        Reply { name: "scripted".into(), answer }
    }
}

/// A spool in memory.
#[derive(Clone)]
pub(super) struct Model {
    inner: Arc<Mutex<Inner>>,
    end: watch::Sender<u64>,
}

struct Inner {
    batches: Vec<Batch>,
    position: Seq,
    ahead: Option<Ahead>,
    sent: u64,
    lost: Vec<(LossReason, u64)>,
    parked: Vec<Parked>,
    /// So many calls of `advance` fail.
    advances_to_fail: u32,
}

impl Model {
    pub(super) fn new(batches: Vec<Batch>) -> Self {
        let end = batches.last().map_or(1, |batch| batch.seq.0 + 1);
        let inner = Inner {
            batches,
            position: Seq::FIRST,
            ahead: None,
            sent: 0,
            lost: Vec::new(),
            parked: Vec::new(),
            advances_to_fail: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), end: watch::Sender::new(end) }
    }

    /// Stores one more batch.
    pub(super) fn append(&self, batch: Batch) {
        let end = batch.seq.0 + 1;
        self.inner.lock().unwrap().batches.push(batch);
        self.end.send_replace(end);
    }

    /// Spans that are not accounted for.
    pub(super) fn queued(&self) -> u64 {
        let inner = self.inner.lock().unwrap();
        let stored: u64 = inner.batches.iter().map(|batch| u64::from(batch.header.spans)).sum();
        stored - inner.sent - inner.lost.iter().map(|(_, spans)| spans).sum::<u64>()
    }

    /// Moves the cursor as the spool's budget does.
    pub(super) fn expire_to(&self, position: Seq) {
        let mut inner = self.inner.lock().unwrap();
        let from = inner.position;
        let gone = inner.batches.iter().filter(|batch| from <= batch.seq && batch.seq < position);
        let gone: u64 = gone.map(|batch| u64::from(batch.header.spans)).sum();
        inner.position = position;
        inner.lost.push((LossReason::Budget, gone));
    }

    /// The next `count` bookings fail.
    pub(super) fn fail_to_advance(&self, count: u32) {
        self.inner.lock().unwrap().advances_to_fail = count;
    }

    pub(super) fn sent(&self) -> u64 {
        self.inner.lock().unwrap().sent
    }

    pub(super) fn lost(&self, reason: LossReason) -> u64 {
        self.inner.lock().unwrap().lost.iter().filter(|(known, _)| *known == reason).map(|(_, spans)| spans).sum()
    }

    /// The names of the spans that were kept aside.
    pub(super) fn parked_names(&self) -> Vec<String> {
        let inner = self.inner.lock().unwrap();
        inner.parked.iter().flat_map(|parked| span_names(&zstd::decode_all(&*parked.frame).unwrap())).collect()
    }

    /// Returns once the cursor stands behind everything.
    pub(super) async fn drained(&self) {
        while self.position().0 < *self.end.borrow() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

impl Inner {
    fn book(&mut self, outcome: Outcome) {
        self.sent += outcome.sent;
        self.lost.extend(outcome.lost);
        self.parked.extend(outcome.parked);
    }
}

impl Source for Model {
    fn position(&self) -> Seq {
        self.inner.lock().unwrap().position
    }

    fn read(&self, from: Seq, limits: ReadLimits) -> Result<Chunk, ReadError> {
        let inner = self.inner.lock().unwrap();
        let mut chunk = Chunk { batches: Vec::new(), from, next: from };
        let mut raw_bytes = 0;
        for batch in inner.batches.iter().filter(|batch| batch.seq >= from) {
            raw_bytes += batch.header.raw_bytes as usize;
            let is_over = raw_bytes > limits.raw_bytes_max || chunk.batches.len() >= limits.batches_max;
            if is_over && !chunk.batches.is_empty() {
                chunk.next = batch.seq;
                return Ok(chunk);
            }
            chunk.batches.push(batch.clone());
        }
        chunk.next = Seq(*self.end.borrow());
        Ok(chunk)
    }

    async fn wait(&self, from: Seq) {
        let _ = self.end.subscribe().wait_for(|end| *end > from.0).await;
    }

    fn advance(&self, from: Seq, to: Seq, outcome: Outcome) -> Result<bool, ReadError> {
        let mut inner = self.inner.lock().unwrap();
        if inner.advances_to_fail > 0 {
            inner.advances_to_fail -= 1;
            let error = rocksdb::DB::open(&rocksdb::Options::default(), "/dev/null/none").unwrap_err();
            return Err(error.into());
        }
        if inner.position != from {
            return Ok(false);
        }
        inner.position = to;
        if let Some(ahead) = inner.ahead.take_if(|ahead| ahead.from <= to.0) {
            inner.position = Seq(ahead.to.max(to.0));
        }
        inner.book(outcome);
        Ok(true)
    }

    fn advance_ahead(&self, from: Seq, to: Seq, outcome: Outcome) -> Result<bool, ReadError> {
        let mut inner = self.inner.lock().unwrap();
        let ahead = inner.ahead.unwrap_or(Ahead { from: from.0, to: from.0, spans_before: 0, spans: 0 });
        let fits = ahead.to == from.0 && inner.position.0 < ahead.from;
        if fits {
            inner.ahead = Some(Ahead { to: to.0, ..ahead });
            inner.book(outcome);
        }
        Ok(fits)
    }

    fn ahead(&self) -> Option<(Seq, Seq)> {
        self.inner.lock().unwrap().ahead.map(|ahead| (Seq(ahead.from), Seq(ahead.to)))
    }

    fn newest(&self) -> Result<Newest, ReadError> {
        let received = self.inner.lock().unwrap().batches.last().map(|batch| batch.header.received);
        Ok(Newest { end: Seq(*self.end.borrow()), received })
    }
}
