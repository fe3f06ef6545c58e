//! What the room measures of itself.

use super::Red;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::sync::Arc;

/// The census at `/metrics`.
pub struct RedCollector(pub Arc<Red>);

impl std::fmt::Debug for RedCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedCollector")
    }
}

impl Collector for RedCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let census = self.0.census();
        let gauges: [(_, _, &[(&str, usize)]); 2] = [
            (
                "spanreel_red_series",
                "Label sets of metrics from spans",
                &[
                    ("span_metrics", census.span_series),
                    ("service_graph", census.edge_series),
                    ("target_info", census.target_series),
                ],
            ),
            (
                "spanreel_red_waiting_edges",
                "Spans that wait for the other side of their call",
                &[("service_graph", census.waiting_edges)],
            ),
        ];
        for (name, help, rows) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (of, value) in rows {
                ConstGauge::new(*value as i64).encode(family.encode_family(&[("of", *of)])?)?;
            }
        }
        let counters: [(_, _, &[(&str, u64)]); 4] = [
            (
                "spanreel_red_overflowed",
                "Additions to the overflow series, because there were too many other label sets",
                &[
                    ("span_metrics", census.overflowed_spans),
                    ("service_graph", census.overflowed_edges),
                    ("target_info", census.overflowed_targets),
                ],
            ),
            ("spanreel_red_edges", "Calls between services that were begun", &[("service_graph", census.edges)]),
            (
                "spanreel_red_expired_edges",
                "Spans that waited in vain for the other side of their call",
                &[("service_graph", census.expired_edges)],
            ),
            (
                "spanreel_red_unpaired_spans",
                "Spans that could not wait for the other side of their call, because too many others did",
                &[("service_graph", census.unpaired_spans)],
            ),
        ];
        for (name, help, rows) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (of, value) in rows {
                ConstCounter::new(*value).encode(family.encode_family(&[("of", *of)])?)?;
            }
        }
        Ok(())
    }
}
