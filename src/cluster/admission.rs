//! AdmissionReview v1: reading requests and writing answers. Whatever goes wrong, the answer lets the object through.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use serde::Deserialize;
use serde_json::{Value, json};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// What an API server answers to objects that its own validation refuses.
const UNPROCESSABLE: u16 = 422;

/// A request to admit one object.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Request {
    pub(super) uid: String,
    pub(super) namespace: String,
    /// `CREATE`, `UPDATE`, ...
    pub(super) operation: String,
    pub(super) group: String,
    /// The plural, e.g. `pods`.
    pub(super) resource: String,
    /// The object as it came.
    pub(super) object: Value,
    /// For updates: the object as it is stored.
    pub(super) old_object: Value,
    /// Nothing will be stored, so nothing may be left behind either.
    pub(super) dry_run: bool,
}

/// A body that is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// No answer can be addressed: the request's uid is not there.
    #[error("the body is no AdmissionReview: {0}")]
    NoReview(String),
    /// The answer can be addressed; the object goes through unchanged.
    #[error("{why}")]
    Unknown { uid: String, why: String },
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
#[serde(rename_all = "camelCase")]
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
    #[serde(default)]
    old_object: Value,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Default, Deserialize)]
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
        if review.api_version != API_VERSION || review.kind != KIND {
            let why = format!("{} {} is not understood, only {API_VERSION} {KIND}", review.api_version, review.kind);
            return Err(Unreadable::Unknown { uid: request.uid, why });
        }
        let named = || request.object.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
        let namespace = request.namespace.clone().filter(|n| !n.is_empty()).or_else(named).unwrap_or_default();
        let Resource { group, resource } = request.resource.unwrap_or_default();
        Ok(Self {
            uid: request.uid,
            namespace,
            operation: request.operation.unwrap_or_default(),
            group,
            resource,
            object: request.object,
            old_object: request.old_object,
            dry_run: request.dry_run.unwrap_or_default(),
        })
    }

    /// Whether it is about this resource, in one of these operations.
    pub(super) fn concerns(&self, group: &str, resource: &str, operations: &[&str]) -> bool {
        self.group == group && self.resource == resource && operations.contains(&self.operation.as_str())
    }
}

/// What is answered. Pods are always allowed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Answer {
    pub(super) patch: Option<Patch>,
    pub(super) warnings: Vec<String>,
    /// Why the object is not admitted.
    pub(super) denial: Option<String>,
}

impl Answer {
    /// The pod goes through as it is, and its author is told why.
    pub(super) fn unchanged(why: &str) -> Self {
        Self::warned(format!("{why}; the pod is created unchanged"))
    }

    /// The object goes through as it is, and its author is told something.
    pub(super) fn warned(warning: String) -> Self {
        Self { warnings: vec![format!("spanreel: {warning}")], ..Self::default() }
    }

    pub(super) fn into_review(self, uid: &str) -> Value {
        let mut response = json!({"uid": uid, "allowed": self.denial.is_none()});
        if let Some(fields) = response.as_object_mut() {
            let patch = self.patch.filter(|patch| !patch.is_empty());
            if let Some(text) = patch.and_then(|patch| serde_json::to_vec(&patch).ok()) {
                fields.insert("patchType".to_owned(), json!("JSONPatch"));
                fields.insert("patch".to_owned(), json!(STANDARD.encode(text)));
            }
            if let Some(why) = self.denial {
                fields.insert("status".to_owned(), json!({"code": UNPROCESSABLE, "message": why}));
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
    fn other_versions_can_still_be_answered() {
        let Err(Unreadable::Unknown { uid, .. }) = Request::read(&review("admission.k8s.io/v2", "pods")) else {
            panic!()
        };
        assert_eq!(uid, "u");
    }

    #[test]
    fn what_a_request_is_about_is_known() {
        let request = Request::read(&review(API_VERSION, "secrets")).unwrap();
        assert!(request.concerns("", "secrets", &["UPDATE", "CREATE"]));
        assert!(!request.concerns("", "pods", &["CREATE"]) && !request.concerns("", "secrets", &["UPDATE"]));
    }

    #[test]
    fn a_denial_says_why() {
        let answer = Answer { denial: Some("no".to_owned()), ..Answer::default() }.into_review("u");
        assert_eq!(answer["response"], json!({"uid": "u", "allowed": false, "status": {"code": 422, "message": "no"}}));
    }

    #[test]
    fn an_answer_carries_its_patch_in_base64() {
        let patch = json_patch::diff(&json!({}), &json!({"a": 1}));
        let review = Answer { patch: Some(patch), ..Answer::default() }.into_review("u");
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
