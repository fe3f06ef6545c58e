//! The same Event again and again is one Event with a count.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Note;

/// Series that are remembered. When full the quietest goes, and begins anew should it come again.
const SERIES_MAX: usize = 1024;
/// After this long without the same again a series is over.
const QUIET_MAX: Duration = Duration::from_secs(600);
/// A running series is written this often at most.
const REPEAT_INTERVAL: Duration = Duration::from_secs(30);

/// What makes two notes the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: String,
    namespace: String,
    name: String,
    /// An object that was deleted and made anew has none of the old one's Events.
    uid: Option<String>,
    reason: &'static str,
    action: &'static str,
    message: String,
}

impl Key {
    fn of(note: &Note) -> Self {
        Self {
            kind: note.regarding.kind.clone().unwrap_or_default(),
            namespace: note.regarding.namespace.clone().unwrap_or_default(),
            name: note.regarding.name.clone().unwrap_or_default(),
            uid: note.regarding.uid.clone(),
            reason: note.reason,
            action: note.action,
            message: note.message.clone(),
        }
    }
}

#[derive(Debug)]
struct Running {
    /// Of the Event that holds the series.
    event: String,
    count: i32,
    last: Instant,
    written: Instant,
}

/// What is to be done about a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The first of its kind: a new Event of this name.
    Create { event: String },
    /// One of many: the Event of this name counts so far.
    Count { event: String, count: i32 },
    /// Counted; the next one that is written says so.
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Series {
    running: HashMap<Key, Running>,
}

impl Series {
    /// `event` makes the name of a new Event.
    pub(super) fn take(&mut self, note: &Note, now: Instant, event: impl FnOnce() -> String) -> Step {
        let key = Key::of(note);
        if let Some(running) = self.running.get_mut(&key).filter(|it| now.duration_since(it.last) < QUIET_MAX) {
            running.count = running.count.saturating_add(1);
            running.last = now;
            if now.duration_since(running.written) < REPEAT_INTERVAL {
                return Step::Nothing;
            }
            running.written = now;
            return Step::Count { event: running.event.clone(), count: running.count };
        }
        self.make_room(now);
        let event = event();
        self.running.insert(key, Running { event: event.clone(), count: 1, last: now, written: now });
        Step::Create { event }
    }

    /// The Event of this note is not there: the next one like it is a new Event.
    pub(super) fn forget(&mut self, note: &Note) {
        self.running.remove(&Key::of(note));
    }

    fn make_room(&mut self, now: Instant) {
        if self.running.len() < SERIES_MAX {
            return;
        }
        self.running.retain(|_, running| now.duration_since(running.last) < QUIET_MAX);
        if self.running.len() >= SERIES_MAX
            && let Some(quietest) = self.running.iter().min_by_key(|(_, it)| it.last).map(|(key, _)| key.clone())
        {
            self.running.remove(&quietest);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::super::NoteKind;
    use super::*;

    fn note(name: &str) -> Note {
        let regarding = ObjectReference { name: Some(name.to_owned()), ..ObjectReference::default() };
        let message = "m".to_owned();
        Note { regarding, kind: NoteKind::Warning, reason: "R", action: "A", message }
    }

    #[test]
    fn the_same_again_is_counted_and_written_now_and_then() {
        let (mut series, start) = (Series::default(), Instant::now());
        let mut take = |after: u64| series.take(&note("a"), start + Duration::from_secs(after), || format!("e{after}"));
        assert_eq!(take(0), Step::Create { event: "e0".to_owned() });
        assert_eq!(take(1), Step::Nothing);
        assert_eq!(take(40), Step::Count { event: "e0".to_owned(), count: 3 });
        assert_eq!(take(41), Step::Nothing);
        assert_eq!(take(80), Step::Count { event: "e0".to_owned(), count: 5 });
        assert_eq!(take(80 + 601), Step::Create { event: "e681".to_owned() });
    }

    #[test]
    fn what_was_not_written_is_no_series() {
        let (mut series, now) = (Series::default(), Instant::now());
        let mut failed = || {
            let step = series.take(&note("a"), now, || "e".to_owned());
            series.forget(&note("a"));
            step
        };
        assert_eq!([failed(), failed()], [(); 2].map(|()| Step::Create { event: "e".to_owned() }));
    }

    #[test]
    fn an_object_made_anew_begins_a_series() {
        let (mut series, now) = (Series::default(), Instant::now());
        let with_uid = |uid: &str| {
            let note = note("a");
            Note { regarding: ObjectReference { uid: Some(uid.to_owned()), ..note.regarding }, ..note }
        };
        let mut take = |uid: &str| series.take(&with_uid(uid), now, || format!("of-{uid}"));
        assert_eq!(take("old"), Step::Create { event: "of-old".to_owned() });
        assert_eq!(take("old"), Step::Nothing);
        assert_eq!(take("new"), Step::Create { event: "of-new".to_owned() });
    }

    #[test]
    fn series_are_bounded() {
        let (mut series, start) = (Series::default(), Instant::now());
        for number in 0..SERIES_MAX * 2 {
            let now = start + Duration::from_millis(number as u64);
            let step = series.take(&note(&number.to_string()), now, || "e".to_owned());
            assert_eq!(step, Step::Create { event: "e".to_owned() });
        }
        assert_eq!(series.running.len(), SERIES_MAX);
        let kept = series.take(&note(&(SERIES_MAX * 2 - 1).to_string()), start, || "e".to_owned());
        assert_eq!(kept, Step::Nothing, "the latest are kept");
    }
}
