//! The latest warnings and errors of the log, for people who look at the process and not at its log.

use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Context, Layer};

/// Different ones that are kept; the same again only counts.
const ENTRIES_MAX: usize = 200;
/// Of a message, and of each field.
const TEXT_BYTES_MAX: usize = 1024;
const FIELDS_MAX: usize = 16;

/// Libraries that report the same trouble again at each attempt; Spanreel says it once, with what becomes of it.
pub(super) const QUIET_TARGETS: [&str; 2] = ["kube_client", "kube_runtime"];

/// Keeps the latest warnings and errors. Clones share them. As the log, there is one in a process.
#[derive(Debug, Clone)]
pub struct Recent(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    since: u64,
    /// The latest at the end.
    entries: VecDeque<Entry>,
    /// Entries that had to go.
    dropped: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    level: Level,
    target: &'static str,
    message: String,
    /// Of the latest one.
    fields: Map<String, Value>,
    count: u64,
    first_at: u64,
    at: u64,
}

/// What the log of this process keeps.
pub fn recent() -> Recent {
    static OF_THE_PROCESS: LazyLock<Recent> = LazyLock::new(|| Recent::since(unix_seconds()));
    OF_THE_PROCESS.clone()
}

/// What is kept: warnings and errors, whatever of them the log shows.
pub(super) fn filter() -> FilterFn {
    let wanted = |about: &Metadata<'_>| {
        *about.level() <= Level::WARN && !QUIET_TARGETS.iter().any(|quiet| about.target().starts_with(quiet))
    };
    filter_fn(wanted as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::WARN)
}

impl Recent {
    fn since(since: u64) -> Self {
        Self(Arc::new(Mutex::new(Kept { since, entries: VecDeque::new(), dropped: 0 })))
    }

    /// The latest first; times are Unix seconds.
    pub fn to_json(&self) -> Value {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = |entry: &Entry| {
            json!({
                "at": entry.at,
                "first_at": entry.first_at,
                "level": entry.level.as_str(),
                "count": entry.count,
                "target": entry.target,
                "message": entry.message,
                "fields": entry.fields,
            })
        };
        let entries: Vec<Value> = kept.entries.iter().rev().map(entry).collect();
        json!({ "since": kept.since, "dropped": kept.dropped, "entries": entries })
    }

    fn keep(&self, mut entry: Entry) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            |known: &Entry| (known.level, known.target, &known.message) == (entry.level, entry.target, &entry.message);
        if let Some(known) = kept.entries.iter().position(same).and_then(|place| kept.entries.remove(place)) {
            entry.count += known.count;
            entry.first_at = known.first_at;
        } else if kept.entries.len() == ENTRIES_MAX {
            kept.entries.pop_front();
            kept.dropped += 1;
        }
        kept.entries.push_back(entry);
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut read = Read::default();
        event.record(&mut read);
        let (about, at) = (event.metadata(), unix_seconds());
        self.keep(Entry {
            level: *about.level(),
            target: about.target(),
            message: read.message,
            fields: read.fields,
            count: 1,
            first_at: at,
            at,
        });
    }
}

/// Message and fields of an event.
#[derive(Default)]
struct Read {
    message: String,
    fields: Map<String, Value>,
}

impl Read {
    fn put(&mut self, field: &Field, value: Value) {
        if self.fields.len() < FIELDS_MAX {
            self.fields.insert(field.name().to_owned(), value);
        }
    }

    fn put_text(&mut self, field: &Field, text: &str) {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        match field.name() {
            "message" => text.clone_into(&mut self.message),
            _ => self.put(field, text.into()),
        }
    }
}

impl Visit for Read {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put_text(field, &format!("{value:?}"));
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    /// What is kept of what happens.
    fn kept(happens: impl FnOnce()) -> Value {
        let recent = Recent::since(7);
        let subscriber = tracing_subscriber::registry().with(recent.clone().with_filter(filter()));
        tracing::subscriber::with_default(subscriber, happens);
        recent.to_json()
    }

    #[test]
    fn warnings_and_errors_are_kept_with_their_fields_and_the_same_ones_counted() {
        let kept = kept(|| {
            tracing::info!("nothing to worry about");
            tracing::warn!(destination = "otlp/tempo", spans = 3, "a destination is slow");
            tracing::error!(error = %"no space", "the disk is full");
            tracing::warn!(target: "kube_client::x", "again");
            tracing::warn!(destination = "otlp/other", spans = 4, "a destination is slow");
        });
        let entries = kept["entries"].as_array().unwrap();
        let said: Vec<_> = entries
            .iter()
            .map(|entry| (entry["message"].as_str().unwrap(), entry["count"].as_u64().unwrap()))
            .collect();
        assert_eq!(said, [("a destination is slow", 2), ("the disk is full", 1)]);
        assert_eq!(entries[0]["fields"], json!({"destination": "otlp/other", "spans": 4}));
        assert_eq!((&entries[1]["level"], &entries[1]["fields"]), (&json!("ERROR"), &json!({"error": "no space"})));
        assert_eq!((&kept["since"], &kept["dropped"]), (&json!(7), &json!(0)));
    }

    #[test]
    fn a_flood_drops_the_oldest_and_long_texts_are_cut() {
        let kept = kept(|| {
            for number in 0..ENTRIES_MAX + 5 {
                tracing::warn!("warning {number}");
            }
            tracing::warn!(text = "x".repeat(2 * TEXT_BYTES_MAX), "{}", "ü".repeat(TEXT_BYTES_MAX));
        });
        let entries = kept["entries"].as_array().unwrap();
        assert_eq!((entries.len(), &kept["dropped"]), (ENTRIES_MAX, &json!(6)));
        assert_eq!(entries[0]["message"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        assert_eq!(entries[0]["fields"]["text"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        assert_eq!(entries[1]["message"], format!("warning {}", ENTRIES_MAX + 4));
    }
}
