//! The `debug` exporter: prints what passes, as the Collector's does, through the log at level `info`.
//!
//! It is a destination like the others: with a cursor, so that what it did not print before a restart it prints after.

mod print;
pub mod settings;

use super::answer::Answer;
use super::body::Body;
use super::link::{Reply, Transport};
use crate::otlp::Signal;
use crate::otlp::items::request_of;
use crate::otlp::json::message_to_json;
use settings::{DebugSettings, Verbosity};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The Collector's sampling counts within windows of this length.
const SAMPLING_WINDOW: Duration = Duration::from_secs(1);

pub(super) struct Printer {
    name: String,
    signal: Signal,
    settings: DebugSettings,
    sampler: Mutex<Sampler>,
}

/// Counts the requests of the current second.
#[derive(Debug)]
struct Sampler {
    window_began: Instant,
    seen: u64,
}

impl Sampler {
    /// Whether the next request is printed: the first few of a second, then every n-th.
    fn admits(&mut self, now: Instant, settings: &DebugSettings) -> bool {
        if now.duration_since(self.window_began) >= SAMPLING_WINDOW {
            *self = Self { window_began: now, seen: 0 };
        }
        self.seen += 1;
        let after_initial = self.seen.saturating_sub(u64::from(settings.sampling_initial));
        after_initial == 0 || after_initial.checked_rem(u64::from(settings.sampling_thereafter)) == Some(0)
    }
}

impl Printer {
    pub(super) fn new(name: &str, settings: &DebugSettings, signal: Signal) -> Self {
        let sampler = Mutex::new(Sampler { window_began: Instant::now(), seen: 0 });
        Self { name: name.to_owned(), signal, settings: settings.clone(), sampler }
    }
}

impl Transport for Printer {
    async fn send(&self, body: Body) -> Reply {
        let is_printed =
            self.sampler.lock().unwrap_or_else(PoisonError::into_inner).admits(Instant::now(), &self.settings);
        if is_printed {
            let request = body.segments.concat();
            self.print(&request, body.spans);
        }
        Reply { name: "OK".into(), answer: Answer::Delivered { rejected_spans: 0, message: String::new() } }
    }
}

impl Printer {
    fn print(&self, request: &[u8], items: u64) {
        let resources = print::count_resources(request);
        // Of metrics and logs every field goes out as JSON: the schema's tables print that, and nothing is left out.
        let json = |verbosity| match verbosity {
            Verbosity::Basic => String::new(),
            _ => match message_to_json(request_of(self.signal), request) {
                Ok(json) => format!("\n{}", String::from_utf8_lossy(&json)),
                Err(error) => format!("\n({error})"),
            },
        };
        match self.signal {
            Signal::Traces => self.print_traces(request, resources, items),
            Signal::Metrics => {
                let (metrics, text) = (print::count_leaves(request), json(self.settings.verbosity));
                tracing::info!(
                    exporter = self.name,
                    "resource metrics" = resources,
                    metrics,
                    "data points" = items,
                    "Metrics{text}"
                );
            }
            Signal::Logs => {
                let text = json(self.settings.verbosity);
                tracing::info!(exporter = self.name, "resource logs" = resources, "log records" = items, "Logs{text}");
            }
        }
    }

    fn print_traces(&self, request: &[u8], resource_spans: usize, spans: u64) {
        match self.settings.verbosity {
            Verbosity::Basic => {
                tracing::info!(exporter = self.name, "resource spans" = resource_spans, spans, "Traces");
            }
            verbosity => {
                let text = match verbosity {
                    Verbosity::Detailed => print::detailed(request),
                    _ => print::normal(request),
                };
                tracing::info!(exporter = self.name, "resource spans" = resource_spans, spans, "Traces\n{text}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_prints_the_first_and_every_nth_of_a_second() {
        let settings = DebugSettings { verbosity: Verbosity::Basic, sampling_initial: 2, sampling_thereafter: 3 };
        let now = Instant::now();
        let mut sampler = Sampler { window_began: now, seen: 0 };
        let printed: Vec<bool> = (0..9).map(|_| sampler.admits(now, &settings)).collect();
        assert_eq!(printed, [true, true, false, false, true, false, false, true, false]);
        assert!(sampler.admits(now + SAMPLING_WINDOW, &settings));
        let none = DebugSettings { sampling_initial: 0, sampling_thereafter: 0, ..settings };
        assert!(!sampler.admits(now, &none));
    }
}
