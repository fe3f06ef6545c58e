//! ConversionReview v1: collector resources between their two versions.
//!
//! All objects are converted or none: the API server takes no half answer.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::collector;

const API_VERSION: &str = "apiextensions.k8s.io/v1";
const KIND: &str = "ConversionReview";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    #[serde(rename = "desiredAPIVersion", default)]
    desired: String,
    #[serde(default)]
    objects: Vec<Value>,
}

/// The answer to a review; `Err`: the body is none.
pub(super) fn answer(body: &[u8]) -> Result<Value, String> {
    let review: Review = serde_json::from_slice(body).map_err(|e| format!("the body is no {KIND}: {e}"))?;
    let request = review.request;
    let converted: Result<Vec<Value>, String> = if review.api_version == API_VERSION {
        request.objects.into_iter().map(|object| convert(object, &request.desired)).collect()
    } else {
        Err(format!("{} is not understood, only {API_VERSION}", review.api_version))
    };
    let response = match converted {
        Ok(objects) => json!({"uid": request.uid, "convertedObjects": objects, "result": {"status": "Success"}}),
        Err(why) => json!({"uid": request.uid, "result": {"status": "Failure", "message": why}}),
    };
    Ok(json!({"apiVersion": API_VERSION, "kind": KIND, "response": response}))
}

fn convert(object: Value, to: &str) -> Result<Value, String> {
    if object.get("apiVersion").and_then(Value::as_str) == Some(to) {
        return Ok(object);
    }
    collector::convert_collector(object, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(version: &str, desired: &str, objects: &[Value]) -> Vec<u8> {
        let request = json!({"uid": "u", "desiredAPIVersion": desired, "objects": objects});
        json!({"apiVersion": version, "kind": KIND, "request": request}).to_string().into_bytes()
    }

    #[test]
    fn all_objects_are_converted_or_none() {
        let object = |version: &str, config: Value| {
            json!({
                "apiVersion": format!("opentelemetry.io/{version}"), "kind": "OpenTelemetryCollector",
                "metadata": {"name": "x", "namespace": "n"}, "spec": {"config": config},
            })
        };
        let old = object("v1alpha1", json!("receivers: {otlp: }\nexporters: {}\nservice: {}\n"));
        let new = object("v1beta1", json!({"receivers": {}}));
        let both = [old.clone(), new.clone()];
        let answer = answer(&review(API_VERSION, "opentelemetry.io/v1beta1", &both)).unwrap();
        let converted = answer["response"]["convertedObjects"].as_array().unwrap();
        assert_eq!(answer["response"]["result"]["status"], "Success");
        assert!(converted[0]["spec"]["config"]["receivers"].is_object(), "{answer:#}");
        assert_eq!(converted[1], new);

        let answer = super::answer(&review(API_VERSION, "opentelemetry.io/v7", &both)).unwrap();
        assert_eq!(answer["response"]["result"]["status"], "Failure");
        assert_eq!(answer["response"]["uid"], "u");
    }

    #[test]
    fn other_versions_and_garbage_are_told_apart() {
        let answer = answer(&review("apiextensions.k8s.io/v7", "opentelemetry.io/v1beta1", &[])).unwrap();
        assert_eq!(answer["response"]["result"]["status"], "Failure");
        assert!(super::answer(b"{").is_err());
        assert!(super::answer(b"{}").is_err());
    }
}
