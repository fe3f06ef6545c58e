//! Reviews of the custom resources: defaults are written into them, and what cannot work is refused with its place.

use json_patch::diff;
use serde_json::Value;

use super::super::admission::{Answer, Request};
use super::super::collector;
use crate::inject::{self, Images, Review};

const GROUP: &str = "opentelemetry.io";
const WRITES: [&str; 2] = ["CREATE", "UPDATE"];

/// Which of the two resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Instrumentation,
    Collector,
}

impl Kind {
    fn plural(self) -> &'static str {
        match self {
            Self::Instrumentation => "instrumentations",
            Self::Collector => "opentelemetrycollectors",
        }
    }

    fn is_meant(self, request: &Request) -> bool {
        request.concerns(GROUP, self.plural(), &WRITES)
    }
}

/// The patch that writes the defaults in.
pub(super) fn mutate(kind: Kind, request: &Request, images: &Images) -> Answer {
    if !kind.is_meant(request) {
        return not_meant(kind);
    }
    let mut object = request.object.clone();
    match kind {
        Kind::Instrumentation => inject::default_instrumentation(&mut object, images),
        Kind::Collector => collector::default_collector(&mut object),
    }
    Answer { patch: Some(diff(&request.object, &object)), ..Answer::default() }
}

/// Whether the resource is admitted, and what its author should know.
pub(super) fn validate(kind: Kind, request: &Request, images: &Images) -> Answer {
    if !kind.is_meant(request) {
        return not_meant(kind);
    }
    let old = Some(&request.old_object).filter(|old| **old != Value::Null);
    let Review { warnings, errors } = match kind {
        Kind::Instrumentation => inject::validate_instrumentation(&request.object, images),
        Kind::Collector => collector::validate_collector(old, &request.object),
    };
    let warnings = warnings.iter().map(|warning| format!("spanreel: {warning}")).collect();
    let denial = (!errors.is_empty()).then(|| errors.join("; "));
    Answer { patch: None, warnings, denial }
}

fn not_meant(kind: Kind) -> Answer {
    Answer::warned(format!("only creation and update of {}.{GROUP} are of interest here", kind.plural()))
}
