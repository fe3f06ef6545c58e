//! AdmissionReview v1: reading requests and writing answers. Whatever comes in, the answer lets the pod through.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use serde::Deserialize;
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// A request to admit one object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) uid: String,
    pub(super) namespace: String,
    /// The object as it came.
    pub(super) object: Value,
}

/// A body that is no request for a new pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// No answer can be addressed: the request's uid is not there.
    #[error("the body is no AdmissionReview: {0}")]
    NoReview(String),
    /// The answer can be addressed; the pod goes through unchanged.
    #[error("{why}")]
    NoPod { uid: String, why: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: RawRequest,
}

#[derive(Deserialize)]
struct RawRequest {
    uid: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    resource: Option<Resource>,
    #[serde(default)]
    object: Value,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resource: String,
}

/// The uid of a request without reading the rest of it: what answers need when there is no time for more.
pub(super) fn uid(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope {
        request: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        uid: String,
    }
    serde_json::from_slice::<Envelope>(body).ok().map(|envelope| envelope.request.uid)
}

impl Request {
    pub(super) fn read(body: &[u8]) -> Result<Self, Unreadable> {
        let review: Review = serde_json::from_slice(body).map_err(|e| Unreadable::NoReview(e.to_string()))?;
        let request = review.request;
        let no_pod = |why: String| Unreadable::NoPod { uid: request.uid.clone(), why };
        if review.api_version != API_VERSION || review.kind != KIND {
            let why = format!("{} {} is not understood, only {API_VERSION} {KIND}", review.api_version, review.kind);
            return Err(no_pod(why));
        }
        let is_pod = request.resource.as_ref().is_some_and(|r| r.group.is_empty() && r.resource == "pods");
        if !is_pod || request.operation.as_deref() != Some("CREATE") {
            return Err(no_pod("only the creation of pods is of interest".to_owned()));
        }
        let named = || request.object.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
        let namespace = request.namespace.clone().filter(|n| !n.is_empty()).or_else(named).unwrap_or_default();
        Ok(Self { uid: request.uid, namespace, object: request.object })
    }
}

/// What is answered. The pod is always allowed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Answer {
    pub(super) patch: Option<Patch>,
    pub(super) warnings: Vec<String>,
}

impl Answer {
    /// The pod goes through as it is, and its author is told why.
    pub(super) fn unchanged(why: &str) -> Self {
        Self { patch: None, warnings: vec![format!("spanreel: {why}; the pod is created unchanged")] }
    }

    pub(super) fn into_review(self, uid: &str) -> Value {
        let mut response = json!({"uid": uid, "allowed": true});
        if let Some(fields) = response.as_object_mut() {
            let patch = self.patch.filter(|patch| !patch.is_empty());
            if let Some(text) = patch.and_then(|patch| serde_json::to_vec(&patch).ok()) {
                fields.insert("patchType".to_owned(), json!("JSONPatch"));
                fields.insert("patch".to_owned(), json!(STANDARD.encode(text)));
            }
            if !self.warnings.is_empty() {
                fields.insert("warnings".to_owned(), json!(self.warnings));
            }
        }
        json!({"apiVersion": API_VERSION, "kind": KIND, "response": response})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn review(version: &str, resource: &str) -> Vec<u8> {
        json!({
            "apiVersion": version, "kind": "AdmissionReview",
            "request": {
                "uid": "u", "namespace": "n", "operation": "CREATE",
                "resource": {"group": "", "version": "v1", "resource": resource},
                "object": {"metadata": {}},
            },
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_pod_is_read() {
        let request = Request::read(&review(API_VERSION, "pods")).unwrap();
        assert_eq!((request.uid.as_str(), request.namespace.as_str()), ("u", "n"));
    }

    #[test]
    fn other_versions_and_objects_can_still_be_answered() {
        for body in [review("admission.k8s.io/v2", "pods"), review(API_VERSION, "secrets")] {
            let Err(Unreadable::NoPod { uid, .. }) = Request::read(&body) else { panic!() };
            assert_eq!(uid, "u");
        }
    }

    #[test]
    fn an_answer_carries_its_patch_in_base64() {
        let patch = json_patch::diff(&json!({}), &json!({"a": 1}));
        let review = Answer { patch: Some(patch), warnings: Vec::new() }.into_review("u");
        let text = STANDARD.decode(review["response"]["patch"].as_str().unwrap()).unwrap();
        assert_eq!(text, br#"[{"op":"add","path":"/a","value":1}]"#);
        assert_eq!(review["response"]["allowed"], true);
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_no_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::read(&body);
        }
    }
}
