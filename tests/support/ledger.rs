//! The two equations of "everything is accounted for", read from `/metrics`.
//!
//! ```text
//! received = stored + sampled_out + dropped{reason}                 per pipeline
//! stored   = sent + queued + expired{reason}                        per destination of the pipeline
//! ```

use super::metrics::Metrics;
use std::collections::{BTreeMap, BTreeSet};

/// Spans of one pipeline since the data directory was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Intake {
    pub received: u64,
    pub stored: u64,
    pub sampled_out: u64,
    pub dropped: u64,
}

/// What one destination has made of the spans of one pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivery {
    pub sent: u64,
    pub queued: u64,
    pub expired: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    pub pipelines: BTreeMap<String, Intake>,
    /// By destination and pipeline.
    pub destinations: BTreeMap<(String, String), Delivery>,
}

const RECEIVED: &str = "spanreel_spans_received_total";
const STORED: &str = "spanreel_spans_stored_total";
const SAMPLED_OUT: &str = "spanreel_spans_sampled_out_total";
const DROPPED: &str = "spanreel_spans_dropped_total";
const SENT: &str = "spanreel_spans_sent_total";
const QUEUED: &str = "spanreel_spans_queued";
const EXPIRED: &str = "spanreel_spans_expired_total";

impl Ledger {
    pub fn of(metrics: &Metrics) -> Self {
        let spans = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels).unwrap_or(0.0) as u64;
        let values = |name: &'static str, labels: &'static [&'static str]| -> BTreeSet<Vec<String>> {
            let series = metrics.matching(name, &[]);
            series
                .map(|series| {
                    let value = |label: &&str| series.labels.get(*label).cloned();
                    labels.iter().map(value).collect::<Option<Vec<_>>>().unwrap_or_else(|| {
                        panic!("{name} lacks one of the labels {labels:?}: {series:?}");
                    })
                })
                .collect()
        };
        let mut ledger = Self::default();
        for key in [RECEIVED, STORED, DROPPED].into_iter().flat_map(|name| values(name, &["pipeline"])) {
            let labels = [("pipeline", key[0].as_str())];
            let intake = Intake {
                received: spans(RECEIVED, &labels),
                stored: spans(STORED, &labels),
                sampled_out: spans(SAMPLED_OUT, &labels),
                dropped: spans(DROPPED, &labels),
            };
            ledger.pipelines.insert(key[0].clone(), intake);
        }
        for key in [SENT, QUEUED, EXPIRED].into_iter().flat_map(|name| values(name, &["destination", "pipeline"])) {
            let labels = [("destination", key[0].as_str()), ("pipeline", key[1].as_str())];
            let delivery = Delivery {
                sent: spans(SENT, &labels),
                queued: spans(QUEUED, &labels),
                expired: spans(EXPIRED, &labels),
            };
            ledger.destinations.insert((key[0].clone(), key[1].clone()), delivery);
        }
        ledger
    }

    /// The account of a pipeline; all zero if it has none yet.
    pub fn pipeline(&self, name: &str) -> Intake {
        self.pipelines.get(name).copied().unwrap_or_default()
    }

    /// The account of a destination over all pipelines.
    pub fn destination(&self, name: &str) -> Delivery {
        let of_name = self.destinations.iter().filter(|((destination, _), _)| destination == name);
        of_name.fold(Delivery::default(), |sum, (_, delivery)| Delivery {
            sent: sum.sent + delivery.sent,
            queued: sum.queued + delivery.queued,
            expired: sum.expired + delivery.expired,
        })
    }

    /// Panics unless both equations hold exactly.
    pub fn assert_balanced(&self) {
        assert!(!self.pipelines.is_empty(), "the metrics hold no ledger");
        for (name, intake) in &self.pipelines {
            assert_eq!(
                intake.received,
                intake.stored + intake.sampled_out + intake.dropped,
                "received = stored + sampled_out + dropped, pipeline {name}: {self:#?}"
            );
        }
        for ((destination, pipeline), delivery) in &self.destinations {
            assert_eq!(
                self.pipeline(pipeline).stored,
                delivery.sent + delivery.queued + delivery.expired,
                "stored = sent + queued + expired, destination {destination}, pipeline {pipeline}: {self:#?}"
            );
        }
    }
}
