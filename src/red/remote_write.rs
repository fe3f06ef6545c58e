//! The series as bodies of Prometheus' remote-write protocol, version 1.0: protobuf in a block of snappy.
//!
//! ```text
//! WriteRequest { 1: TimeSeries { 1: Label { 1: name, 2: value }, 2: Sample { 1: value, 2: Unix ms }, 3: Exemplar } }
//! ```

use super::histogram::Exemplar;
use super::labels::Labels;
use super::{Family, Reading, Red};
use crate::otlp::wire::{put_bytes, put_double_field, put_uint};
use std::borrow::Cow;
use std::sync::Arc;

/// A body is closed when it is as large as this before compression; receivers take a few megabytes.
const BODY_BYTES_MAX: usize = 512 * 1024;
/// Slots that are read while nobody can count.
const SLOTS_PER_LOOK: usize = 64;

/// One body, and the samples in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub body: Vec<u8>,
    pub samples: u64,
}

/// What is said about every series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manner {
    /// Labels that every series gets which has none of that name.
    pub external_labels: Vec<(String, String)>,
    pub exemplars: bool,
}

/// The bodies of one moment, made one by one.
pub struct Batches {
    red: Arc<Red>,
    manner: Manner,
    unix_millis: u64,
    /// Exemplars of before were sent with an earlier moment.
    exemplars_since: u64,
    family: usize,
    slot: usize,
}

impl Batches {
    pub fn of(red: Arc<Red>, manner: Manner, unix_millis: u64, exemplars_since: u64) -> Self {
        Self { red, manner, unix_millis, exemplars_since, family: 0, slot: 0 }
    }

    /// Adds the series of a few slots; `false`: there are no more.
    fn look(&mut self, writer: &mut Writer<'_>) -> bool {
        let Self { red, family, slot, .. } = self;
        red.with_engine(|engine| {
            let Some(about) = engine.families().nth(*family) else { return false };
            let end = *slot + SLOTS_PER_LOOK;
            for at in *slot..end {
                if let Some((labels, reading)) = engine.read(*family, at) {
                    writer.put(about, labels, reading);
                }
            }
            (*family, *slot) = if end < engine.slots(*family) { (*family, end) } else { (*family + 1, 0) };
            true
        })
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let manner = self.manner.clone();
        let mut writer = Writer::new(&manner, self.unix_millis, self.exemplars_since);
        while writer.raw.len() < BODY_BYTES_MAX && self.look(&mut writer) {}
        writer.finish()
    }
}

struct Writer<'a> {
    manner: &'a Manner,
    unix_millis: u64,
    exemplars_since: u64,
    raw: Vec<u8>,
    samples: u64,
}

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

impl<'a> Writer<'a> {
    fn new(manner: &'a Manner, unix_millis: u64, exemplars_since: u64) -> Self {
        Self { manner, unix_millis, exemplars_since, raw: Vec::new(), samples: 0 }
    }

    /// `None` if there is nothing.
    fn finish(self) -> Option<Batch> {
        if self.samples == 0 {
            return None;
        }
        // It fails only for inputs of 4 GiB.
        let body = snap::raw::Encoder::new().compress_vec(&self.raw).ok()?;
        Some(Batch { body, samples: self.samples })
    }

    fn put(&mut self, family: &Family, labels: Labels<'_>, reading: Reading<'_>) {
        let mut pairs: Vec<Pair<'_>> = labels.iter().collect();
        for (name, value) in &self.manner.external_labels {
            if !pairs.iter().any(|(known, _)| known == name) {
                pairs.push((Cow::Borrowed(name), Cow::Borrowed(value)));
            }
        }
        let name = &family.name;
        match reading {
            Reading::Counter(value) => self.sample(&format!("{name}_total"), None, &pairs, value as f64, None),
            Reading::Gauge(value) => self.sample(name, None, &pairs, value as f64, None),
            // Only connectors make these, and they report as OTLP.
            Reading::Exponential(_) => {}
            Reading::Histogram(histogram, bounds) => {
                let buckets = format!("{name}_bucket");
                let texts = bounds.texts.iter().map(String::as_str).chain(["+Inf"]);
                let mut total = 0;
                for (bucket, (count, bound)) in histogram.cumulative().zip(texts).enumerate() {
                    total = count;
                    let exemplar = histogram.exemplar_of(bucket);
                    self.sample(&buckets, Some(bound), &pairs, count as f64, exemplar);
                }
                self.sample(&format!("{name}_sum"), None, &pairs, histogram.sum, None);
                self.sample(&format!("{name}_count"), None, &pairs, total as f64, None);
            }
        }
    }

    fn sample(&mut self, name: &str, le: Option<&str>, pairs: &[Pair<'_>], value: f64, exemplar: Option<&Exemplar>) {
        let mut labels: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        labels.push(("__name__", name));
        labels.extend(le.map(|le| ("le", le)));
        // The protocol wants them in order.
        labels.sort_unstable();
        let mut series = Vec::with_capacity(256);
        for (name, value) in labels {
            put_bytes(&mut series, 1, &label(name, value));
        }
        let mut sample = Vec::with_capacity(20);
        put_double_field(&mut sample, 1, value);
        put_uint(&mut sample, 2, self.unix_millis);
        put_bytes(&mut series, 2, &sample);
        let is_new = |exemplar: &&Exemplar| self.manner.exemplars && exemplar.unix_millis >= self.exemplars_since;
        if let Some(exemplar) = exemplar.filter(is_new) {
            let id: String = exemplar.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
            let mut message = Vec::with_capacity(80);
            put_bytes(&mut message, 1, &label("traceID", &id));
            put_double_field(&mut message, 2, exemplar.value);
            put_uint(&mut message, 3, exemplar.unix_millis);
            put_bytes(&mut series, 3, &message);
        }
        put_bytes(&mut self.raw, 1, &series);
        self.samples += 1;
    }
}

fn label(name: &str, value: &str) -> Vec<u8> {
    let mut label = Vec::with_capacity(name.len() + value.len() + 4);
    put_bytes(&mut label, 1, name.as_bytes());
    put_bytes(&mut label, 2, value.as_bytes());
    label
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::red::tests::{at, named, sent_by, span, tempo};
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        series: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        samples: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        exemplars: Vec<WrittenExemplar>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Label {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Sample {
        #[prost(double, tag = "1")]
        value: f64,
        #[prost(int64, tag = "2")]
        time: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct WrittenExemplar {
        #[prost(message, repeated, tag = "1")]
        labels: Vec<Label>,
        #[prost(double, tag = "2")]
        value: f64,
        #[prost(int64, tag = "3")]
        time: i64,
    }

    fn all(engine: crate::red::Engine, manner: &Manner) -> Vec<Batch> {
        Batches::of(Arc::new(Red::new(engine)), manner.clone(), 77, 0).collect()
    }

    fn read(batch: &Batch) -> WriteRequest {
        let raw = snap::raw::Decoder::new().decompress_vec(&batch.body).unwrap();
        WriteRequest::decode(raw.as_slice()).unwrap()
    }

    fn text(series: &TimeSeries) -> String {
        let labels: Vec<String> = series.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        format!("{} {}", labels.join(","), series.samples[0].value)
    }

    #[test]
    fn every_series_is_written_with_its_labels_in_order() {
        let mut engine = tempo();
        engine.observe(&sent_by("shop", vec![named(span(2, 1, 9, 3), "op")]), at(0));
        let external_labels =
            vec![("Cluster".to_owned(), "a".to_owned()), ("service".to_owned(), "ignored".to_owned())];
        let batches = all(engine, &Manner { external_labels, exemplars: true });
        let request = read(&batches[0]);
        assert_eq!((batches.len(), batches[0].samples as usize), (1, request.series.len()));
        let texts: Vec<String> = request.series.iter().map(text).collect();
        let rest = "service=shop,span_kind=SPAN_KIND_SERVER,span_name=op,status_code=STATUS_CODE_UNSET";
        assert_eq!(texts[0], format!("Cluster=a,__name__=traces_spanmetrics_calls_total,{rest} 1"));
        assert_eq!(texts[2], format!("Cluster=a,__name__=traces_spanmetrics_latency_bucket,le=0.004,{rest} 1"));
        assert!(texts.contains(&format!("Cluster=a,__name__=traces_spanmetrics_latency_sum,{rest} 0.003")));
        for series in &request.series {
            assert!(series.labels.is_sorted_by(|a, b| a.name < b.name));
            assert_eq!(series.samples[0].time, 77);
        }
        let exemplars: Vec<&WrittenExemplar> = request.series.iter().flat_map(|series| &series.exemplars).collect();
        assert_eq!((exemplars.len(), exemplars[0].value), (1, 0.003));
        assert_eq!((exemplars[0].labels[0].name.as_str(), exemplars[0].labels[0].value.len()), ("traceID", 32));
    }

    #[test]
    fn much_is_written_in_several_bodies_each_series_once() {
        let mut engine = tempo();
        let spans = (0..1_500).map(|number| named(span(1, 1, 0, 1), &format!("op{number}"))).collect();
        engine.observe(&sent_by("shop", spans), at(0));
        let batches = all(engine, &Manner::default());
        assert!(batches.len() > 3);
        let mut texts: Vec<String> = batches.iter().flat_map(|batch| read(batch).series).map(|it| text(&it)).collect();
        assert_eq!(texts.len(), 1_500 * (1 + 1 + 17));
        assert_eq!(batches.iter().map(|batch| batch.samples as usize).sum::<usize>(), texts.len());
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), 1_500 * 19);
    }
}
