//! Sidecar collectors are not injected; whoever asks for one is told so, and what to do instead.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::events::{Note, NoteKind};
use super::workloads::Workload;
use crate::inject::{self, OwnerMap, PodRequest};

pub(super) const REASON: &str = "SidecarNotSupported";

/// What the status of a collector in mode sidecar says.
pub(super) fn remedy(object: &DynamicObject) -> String {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    format!(
        "mode sidecar is not supported: Spanreel injects no sidecars. Set spec.mode to deployment, and let pods send to the \
         Service, http://{name}-collector.{namespace}:4318, instead of localhost"
    )
}

/// For the author of a collector in mode sidecar.
pub(super) fn mode_refused(object: &DynamicObject) -> Note {
    let regarding = ObjectReference {
        api_version: Some("opentelemetry.io/v1beta1".to_owned()),
        kind: Some("OpenTelemetryCollector".to_owned()),
        namespace: object.namespace(),
        name: Some(object.name_any()),
        uid: object.uid(),
        ..ObjectReference::default()
    };
    note(regarding, remedy(object))
}

/// For the owner of a pod that asks for a sidecar, if it does.
pub(super) fn annotation_refused(request: &PodRequest<'_>, owners: &OwnerMap) -> Option<Note> {
    let message = inject::sidecar_note(request)?;
    Some(note(Workload::of_pod(request.pod, request.namespace, owners).reference(), message))
}

fn note(regarding: ObjectReference, message: String) -> Note {
    Note { regarding, kind: NoteKind::Warning, reason: REASON, action: "SidecarInjection", message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn who_asks_for_a_sidecar_is_told_what_to_do_instead() {
        let asking =
            json!({"metadata": {"name": "web-5d-x", "annotations": {"sidecar.opentelemetry.io/inject": "true"}}});
        let pod = serde_json::from_value(asking).unwrap();
        let nothing = BTreeMap::new();
        let request = PodRequest { pod: &pod, namespace: "shop", namespace_annotations: &nothing };
        let note = annotation_refused(&request, &OwnerMap::new()).unwrap();
        assert_eq!((note.reason, note.kind), (REASON, NoteKind::Warning));
        assert_eq!((note.regarding.kind.as_deref(), note.regarding.name.as_deref()), (Some("Pod"), Some("web-5d-x")));
        assert!(
            note.message.contains("collector") && note.message.contains("instead of localhost"),
            "{}",
            note.message
        );

        let plain = serde_json::from_value(json!({"metadata": {"name": "p"}})).unwrap();
        assert_eq!(annotation_refused(&PodRequest { pod: &plain, ..request }, &OwnerMap::new()), None);
        let by_namespace = BTreeMap::from([("sidecar.opentelemetry.io/inject".to_owned(), "x".to_owned())]);
        let request = PodRequest { pod: &plain, namespace: "shop", namespace_annotations: &by_namespace };
        assert!(annotation_refused(&request, &OwnerMap::new()).is_some());
    }

    #[test]
    fn a_collector_in_mode_sidecar_is_named_with_its_service() {
        let object = json!({"metadata": {"namespace": "shop", "name": "side", "uid": "u"}});
        let note = mode_refused(&serde_json::from_value(object).unwrap());
        assert_eq!(note.regarding.uid.as_deref(), Some("u"));
        assert!(note.message.contains("http://side-collector.shop:4318"), "{}", note.message);
    }
}
