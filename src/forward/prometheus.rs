//! The `prometheus` exporter: what passes is shown to whoever scrapes.
//!
//! It is a destination like the others, with a cursor; what it shows is in memory and begins anew with the process. Exporters
//! of several pipelines that are one in the configuration share one page.

pub mod board;
mod decode;
mod names;
pub mod settings;

use super::answer::Answer;
use super::body::Body;
use super::budget::Budget;
use super::link::{Reply, Transport};
use board::{Board, Format, LeftOut, Place};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use settings::PrometheusSettings;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How often series are looked for that nothing comes for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// Points that are not shown, by page and reason.
pub(super) type LeftOutCounters = Family<LeftOutLabels, Counter>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LeftOutLabels {
    endpoint: String,
    reason: &'static str,
}

/// The pages of the process, by endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages {
    by_endpoint: Arc<Mutex<HashMap<String, Weak<Page>>>>,
    pub left_out: LeftOutCounters,
}

/// What one port shows.
#[derive(Debug)]
pub struct Page {
    settings: PrometheusSettings,
    state: Mutex<State>,
    left_out: LeftOutCounters,
    started: Instant,
    /// Held by the one who serves the port.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct State {
    board: Board,
    expired: Instant,
}

impl Pages {
    /// The page of these settings; one that is there already if they are the same. What it shows is within `budget`.
    pub fn page(&self, settings: &PrometheusSettings, budget: &Budget) -> Arc<Page> {
        let mut pages = self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|_, page| page.strong_count() > 0);
        let known = pages.get(&settings.endpoint).and_then(Weak::upgrade);
        if let Some(known) = known.as_ref().filter(|known| known.settings == *settings) {
            return Arc::clone(known);
        }
        let now = Instant::now();
        let page = Arc::new(Page {
            settings: settings.clone(),
            state: Mutex::new(State { board: Board::new(settings.style.clone(), budget.clone()), expired: now }),
            left_out: self.left_out.clone(),
            started: now,
            // Whoever served the port before must let go of it first.
            turn: known.map_or_else(Arc::default, |known| Arc::clone(&known.turn)),
        });
        pages.insert(settings.endpoint.clone(), Arc::downgrade(&page));
        page
    }
}

impl Page {
    /// Where it is to be served.
    pub fn endpoint(&self) -> &str {
        &self.settings.endpoint
    }

    /// Waits until nobody else serves the port.
    pub async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// The format for a client that accepts this.
    pub fn format(&self, accept: &str) -> Format {
        let is_wanted = self.settings.open_metrics && accept.contains("application/openmetrics-text");
        if is_wanted { Format::OpenMetrics } else { Format::Text }
    }

    /// The text, some series after the other.
    pub fn text(self: Arc<Self>, format: Format) -> impl Iterator<Item = String> + Send {
        self.expire(&mut self.state());
        let mut place = Some(Place::default());
        let parts = std::iter::from_fn(move || {
            let (text, next) = self.state().board.text_from(&place.take()?, format)?;
            place = Some(next);
            Some(text)
        });
        parts.chain((format == Format::OpenMetrics).then(|| "# EOF\n".to_owned()))
    }

    fn take(&self, request: &[u8]) {
        let mut state = self.state();
        if state.expired.elapsed() >= EXPIRY_INTERVAL {
            self.expire(&mut state);
        }
        let before = LeftOut::ALL.map(|reason| state.board.left_out().get(&reason).copied().unwrap_or(0));
        state.board.take(request, self.now_millis());
        for (reason, before) in LeftOut::ALL.into_iter().zip(before) {
            let after = state.board.left_out().get(&reason).copied().unwrap_or(0);
            if after > before {
                let labels = LeftOutLabels { endpoint: self.settings.endpoint.clone(), reason: reason.as_str() };
                self.left_out.get_or_create(&labels).inc_by(after - before);
            }
        }
    }

    fn expire(&self, state: &mut State) {
        state.board.expire(self.now_millis());
        state.expired = Instant::now();
    }

    fn now_millis(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands requests to a page.
pub(super) struct Shower(pub(super) Arc<Page>);

impl Transport for Shower {
    async fn send(&self, body: Body) -> Reply {
        self.0.take(&body.segments.concat());
        Reply { name: "OK".into(), answer: Answer::Delivered { rejected_spans: 0, message: String::new() } }
    }
}
