//! What a destination is doing, for `spanreel status` and the UI.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// The last answer or transport error that kept a request from being taken, and when.
    pub last_error: Option<LastError>,
    pub last_success: Option<SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    pub at: SystemTime,
    /// The destination's own words, at most [`super::answer::TEXT_BYTES_MAX`] bytes.
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing is under way.
    Idle,
    Sending,
    /// The destination is away or overloaded; one request probes it at `until`.
    BackingOff {
        until: SystemTime,
        because: String,
    },
    /// Not before `until`: these are not the hours of its settings.
    OutsideHours {
        until: SystemTime,
    },
    /// Someone has to change a configuration; tried again at `until`.
    Held {
        until: SystemTime,
        because: String,
    },
}

impl State {
    /// Every value of the label `state` of `spanreel_forward_state`.
    pub const LABELS: [&'static str; 5] = ["idle", "sending", "backing_off", "held", "outside_hours"];

    pub fn label(&self) -> &'static str {
        match self {
            Self::Idle => Self::LABELS[0],
            Self::Sending => Self::LABELS[1],
            Self::BackingOff { .. } => Self::LABELS[2],
            Self::Held { .. } => Self::LABELS[3],
            Self::OutsideHours { .. } => Self::LABELS[4],
        }
    }
}

/// Where the last error and the last success are written down.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: Mutex<(Option<LastError>, Option<SystemTime>)>,
}

impl Journal {
    pub(super) fn error(&self, text: &str) {
        let error = LastError { at: SystemTime::now(), text: text.to_owned() };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(error);
    }

    pub(super) fn success(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(SystemTime::now());
    }

    pub(super) fn status(&self, state: State) -> Status {
        let (last_error, last_success) = self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Status { state, last_error, last_success }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Idle | Self::Sending => f.write_str(self.label()),
            Self::OutsideHours { until } => {
                let left = until.duration_since(SystemTime::now()).unwrap_or_default();
                write!(f, "outside its hours for another {} min", left.as_secs().div_ceil(60))
            }
            Self::BackingOff { because, .. } => write!(f, "backing off: {because}"),
            Self::Held { because, .. } => write!(f, "held: {because}"),
        }
    }
}
