//! What an injected pod says about itself: one annotation, JSON, written with the injection and never changed.
//!
//! ```json
//! {"instrumentations":{"default/java":3},"containers":{"app":{"java":"injected"},"db":{"java":"name_taken"}}}
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use super::outcome::{Decision, Verdict};

/// The annotation's key.
pub const ANNOTATION: &str = "spanreel.dev/injection";
/// The word for an injected container; others have their reason code.
const INJECTED: &str = "injected";

/// The annotation's value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// `namespace/name` (or `built-in`) of every Instrumentation that was used, and its generation then.
    pub instrumentations: BTreeMap<String, i64>,
    /// Container to language to `injected` or the reason code of why not.
    pub containers: BTreeMap<String, BTreeMap<String, String>>,
}

impl Record {
    /// `None`: nothing was injected, the pod stays as it came.
    #[must_use]
    pub fn new(decision: &Decision) -> Option<Self> {
        let mut record = Self::default();
        for outcome in &decision.outcomes {
            let injected = outcome.verdict == Verdict::Injected;
            if let (true, Some(name)) = (injected, &outcome.instrumentation) {
                record.instrumentations.insert(name.clone(), outcome.generation.unwrap_or_default());
            }
            if let Some(container) = &outcome.container {
                let word = if injected { INJECTED } else { outcome.reason.as_str() };
                let languages = record.containers.entry(container.clone()).or_default();
                languages.insert(outcome.language.as_str().to_owned(), word.to_owned());
            }
        }
        (!record.instrumentations.is_empty()).then_some(record)
    }

    /// What the pod says; `None`: not injected by Spanreel, or somebody changed the annotation beyond reading.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        serde_json::from_str(pod.metadata.annotations.as_ref()?.get(ANNOTATION)?).ok()
    }

    pub(super) fn write(&self, pod: &mut Pod) {
        // A map of texts and numbers has no part that JSON could refuse.
        if let Ok(text) = serde_json::to_string(self) {
            pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
        }
    }

    /// (container, language) of what was injected.
    pub fn injected(&self) -> impl Iterator<Item = (&str, &str)> {
        self.containers.iter().flat_map(|(container, languages)| {
            let injected = languages.iter().filter(|(_, word)| word.as_str() == INJECTED);
            injected.map(move |(language, _)| (container.as_str(), language.as_str()))
        })
    }
}
