//! Metrics of the room. Spans sent and lost are not here: the spool's ledger counts them, exactly.

use super::file::Files;
use super::prometheus::Pages;
use super::status::State;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

/// The metrics of all destinations. Cloning gives another handle to the same ones.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    requests: Family<AnswerLabels, Counter>,
    bytes: Family<DestinationLabels, Counter>,
    in_flight: Family<DestinationLabels, Gauge>,
    retries: Family<DestinationLabels, Counter>,
    left_out_of_resend: Family<DestinationLabels, Counter>,
    last_success: Family<DestinationLabels, Gauge>,
    state: Family<StateLabels, Gauge>,
    /// What is shown to whoever scrapes.
    pub(super) pages: Pages,
    /// What `file` exporters write into.
    pub(super) files: Files,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DestinationLabels {
    destination: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    destination: String,
    /// A gRPC status name, an HTTP status, or `transport`: bounded by what the protocols know.
    answer: Cow<'static, str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    destination: String,
    state: &'static str,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("spanreel_forward_requests", "Requests by the destination's answer", self.requests.clone());
        registry.register("spanreel_forward_bytes", "Bytes of request bodies sent, as encoded", self.bytes.clone());
        registry.register("spanreel_forward_requests_in_flight", "Requests under way", self.in_flight.clone());
        registry.register("spanreel_forward_retries", "Requests sent again", self.retries.clone());
        registry.register(
            "spanreel_forward_resend_left_out_spans",
            "Spans that were sent before, were to go again, and were not taken or not read; accounts have them as sent",
            self.left_out_of_resend.clone(),
        );
        registry.register(
            "spanreel_forward_last_success_timestamp_seconds",
            "When the destination last took a request, Unix time; 0 if never since the start",
            self.last_success.clone(),
        );
        registry.register(
            "spanreel_prometheus_left_out_points",
            "Data points that a prometheus exporter does not show, by reason",
            self.pages.left_out.clone(),
        );
        registry.register("spanreel_forward_state", "1 for the state the destination is in", self.state.clone());
    }

    pub(super) fn of(&self, destination: &str) -> DestinationMetrics {
        let labels = DestinationLabels { destination: destination.to_owned() };
        DestinationMetrics {
            requests: self.requests.clone(),
            state: self.state.clone(),
            bytes: self.bytes.get_or_create_owned(&labels),
            in_flight: self.in_flight.get_or_create_owned(&labels),
            retries: self.retries.get_or_create_owned(&labels),
            left_out_of_resend: self.left_out_of_resend.get_or_create_owned(&labels),
            last_success: self.last_success.get_or_create_owned(&labels),
            destination: labels.destination,
        }
    }
}

/// The metrics of one destination.
#[derive(Debug)]
pub(super) struct DestinationMetrics {
    destination: String,
    requests: Family<AnswerLabels, Counter>,
    state: Family<StateLabels, Gauge>,
    bytes: Counter,
    in_flight: Gauge,
    retries: Counter,
    left_out_of_resend: Counter,
    last_success: Gauge,
}

impl DestinationMetrics {
    pub(super) fn sending(&self, encoded_bytes: usize) -> InFlight {
        self.bytes.inc_by(encoded_bytes as u64);
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    pub(super) fn answered(&self, answer: Cow<'static, str>) {
        self.requests.get_or_create(&AnswerLabels { destination: self.destination.clone(), answer }).inc();
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    pub(super) fn left_out_of_resend(&self, spans: u64) {
        self.left_out_of_resend.inc_by(spans);
    }

    #[cfg(test)]
    pub(super) fn left_out_of_resend_for_test(&self) -> u64 {
        self.left_out_of_resend.get()
    }

    pub(super) fn succeeded(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_success.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    pub(super) fn state(&self, current: &State) {
        for state in State::LABELS {
            let labels = StateLabels { destination: self.destination.clone(), state };
            self.state.get_or_create(&labels).set(i64::from(state == current.label()));
        }
    }
}

/// Counts a request as under way until dropped.
#[derive(Debug)]
pub(super) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
