//! The life line in figures, counted when somebody scrapes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{LifeLine, LifeState};

/// Namespaces told apart, in order of their names; the rest is `other`.
const NAMESPACES_MAX: usize = 100;

#[derive(Debug)]
pub(super) struct LifeCollector(pub(super) Arc<LifeLine>);

type Labels = Vec<(&'static str, String)>;

impl Collector for LifeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let census = self.0.census(Timestamp::now());
        let mut gauges = |name, help, mut rows: &mut dyn Iterator<Item = (Labels, u64)>| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            Iterator::try_for_each(&mut rows, |(labels, value)| {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(&labels)?)
            })
        };
        gauges(
            "spanreel_workloads",
            "Workloads whose pods ask for instrumentation or have it, by the state that matters most of their pods'",
            &mut LifeState::ALL.into_iter().map(|state| {
                let count = census.workloads.get(&state).copied().unwrap_or_default();
                (vec![("state", state.as_str().to_owned())], count)
            }),
        )?;
        let mut pods: BTreeMap<(String, LifeState), u64> = BTreeMap::new();
        let (mut namespaces, mut last) = (0, None);
        for ((namespace, state), count) in &census.pods {
            if last != Some(namespace) {
                (namespaces, last) = (namespaces + 1, Some(namespace));
            }
            let namespace = if namespaces <= NAMESPACES_MAX { namespace } else { "other" };
            *pods.entry((namespace.to_owned(), *state)).or_default() += count;
        }
        gauges(
            "spanreel_pods",
            "Pods that ask for instrumentation or have it, by namespace and state",
            &mut pods.into_iter().map(|((namespace, state), count)| {
                (vec![("namespace", namespace), ("state", state.as_str().to_owned())], count)
            }),
        )?;
        let heard = [("never", census.never_spoke), ("before", census.fell_silent)];
        gauges(
            "spanreel_silent_pods",
            "Pods that run, or were injected and cannot, and of which no span came for extensions::spanreel::injection::silent_after, by whether one came before",
            &mut heard.into_iter().map(|(heard, count)| (vec![("heard", heard.to_owned())], count)),
        )?;
        let left_out = encoder.encode_descriptor(
            "spanreel_pods_left_out",
            "Changes of pods that could not be followed because too many are",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(census.left_out).encode(left_out)
    }
}
