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
    if is_going(request) {
        return Answer::default();
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
    if is_going(request) {
        return Answer::default();
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

/// Whoever takes the last finalizer off a resource must not fail on what else is in it.
fn is_going(request: &Request) -> bool {
    request.object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

fn not_meant(kind: Kind) -> Answer {
    Answer::warned(format!("only creation and update of {}.{GROUP} are of interest here", kind.plural()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(kind: Kind, object: Value, old: Value) -> Request {
        Request {
            operation: "UPDATE".to_owned(),
            group: GROUP.to_owned(),
            resource: kind.plural().to_owned(),
            object,
            old_object: old,
            ..Request::default()
        }
    }

    fn completed(kind: Kind, object: &Value) -> Value {
        let answer = mutate(kind, &request(kind, object.clone(), Value::Null), &Images::default());
        let mut completed = object.clone();
        json_patch::patch(&mut completed, &answer.patch.unwrap()).unwrap();
        completed
    }

    #[test]
    fn defaults_are_written_once_and_keep_what_is_there() {
        let object = json!({"metadata": {"name": "i"}, "spec": {"java": {"image": "mine"}, "unknown": 1}});
        let first = completed(Kind::Instrumentation, &object);
        assert_eq!((&first["spec"]["java"]["image"], &first["spec"]["unknown"]), (&json!("mine"), &json!(1)));
        assert!(first["spec"]["python"]["image"].as_str().unwrap().contains("autoinstrumentation-python"));
        assert_eq!(completed(Kind::Instrumentation, &first), first);
        let object = json!({"metadata": {"name": "c"}, "spec": {"config": {"receivers": {}, "service": {}}}});
        let first = completed(Kind::Collector, &object);
        assert_eq!(first["spec"]["mode"], "deployment");
        assert_eq!(completed(Kind::Collector, &first), first);
    }

    #[test]
    fn what_cannot_work_is_refused_unless_it_is_going() {
        let mut bad = json!({"metadata": {}, "spec": {"sampler": {"type": "traceidratio", "argument": "7"}}});
        let validate =
            |kind, object: &Value, old| super::validate(kind, &request(kind, object.clone(), old), &Images::default());
        let refused = validate(Kind::Instrumentation, &bad, Value::Null);
        assert!(refused.denial.unwrap().contains('7'));
        bad["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(validate(Kind::Instrumentation, &bad, Value::Null), Answer::default());

        let deployment = json!({"spec": {"mode": "deployment"}});
        let sidecar = json!({"spec": {"mode": "sidecar"}});
        assert!(validate(Kind::Collector, &sidecar, deployment).denial.is_some(), "the mode stays");
        assert_eq!(validate(Kind::Collector, &sidecar, Value::Null).denial, None);
    }

    #[test]
    fn what_is_no_resource_harms_nothing() {
        for object in [Value::Null, json!([1]), json!({"spec": 7}), json!({"metadata": "x", "spec": {"java": []}})] {
            for kind in [Kind::Instrumentation, Kind::Collector] {
                let request = request(kind, object.clone(), json!("old"));
                assert_eq!(mutate(kind, &request, &Images::default()).denial, None);
                let _ = validate(kind, &request, &Images::default());
            }
        }
        let pods = Request { resource: "pods".to_owned(), ..request(Kind::Collector, Value::Null, Value::Null) };
        let answer = validate(Kind::Collector, &pods, &Images::default());
        assert!(answer.denial.is_none() && answer.warnings[0].contains("opentelemetrycollectors"));
    }
}
