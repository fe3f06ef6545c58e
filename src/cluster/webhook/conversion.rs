//! ConversionReview v1: collector resources between their two versions.
//!
//! All objects are converted or none: the API server takes no half answer. It asks about whole lists at once, so objects are
//! read one by one, and one alone is in memory as a tree.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::collector;
use super::{VALUES_MAX, values_at_most};

const API_VERSION: &str = "apiextensions.k8s.io/v1";
const KIND: &str = "ConversionReview";
/// A reference is kept of each; far more than an API server lists.
const OBJECTS_MAX: usize = 100_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(default)]
    api_version: String,
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
struct Request<'a> {
    uid: String,
    #[serde(rename = "desiredAPIVersion", default)]
    desired: String,
    #[serde(borrow, default)]
    objects: Objects<'a>,
}

/// As they stand in the body.
#[derive(Default)]
struct Objects<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Objects<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut objects = Vec::new();
                while let Some(object) = list.next_element()? {
                    if objects.len() >= OBJECTS_MAX {
                        return Err(A::Error::custom(format!("more than {OBJECTS_MAX} objects")));
                    }
                    objects.push(object);
                }
                Ok(objects)
            }
        }
        deserializer.deserialize_seq(Bounded).map(Self)
    }
}

/// The answer to a review, as JSON; `Err`: the body is none.
pub(super) fn answer(body: &[u8]) -> Result<Vec<u8>, String> {
    let review: Review<'_> = serde_json::from_slice(body).map_err(|e| format!("the body is no {KIND}: {e}"))?;
    let request = review.request;
    let uid = json!(request.uid);
    let converted = if review.api_version == API_VERSION {
        // The versions of an object differ by little.
        let mut text = Vec::with_capacity(body.len() + body.len() / 8);
        let start = format!(
            r#"{{"apiVersion":"{API_VERSION}","kind":"{KIND}","response":{{"uid":{uid},"result":{{"status":"Success"}},"convertedObjects":["#
        );
        text.extend_from_slice(start.as_bytes());
        convert_all(&request.objects.0, &request.desired, &mut text).map(|()| text)
    } else {
        Err(format!("{} is not understood, only {API_VERSION}", review.api_version))
    };
    Ok(match converted {
        Ok(mut text) => {
            text.extend_from_slice(b"]}}");
            text
        }
        Err(why) => {
            let response = json!({"uid": uid, "result": {"status": "Failure", "message": why}});
            json!({"apiVersion": API_VERSION, "kind": KIND, "response": response}).to_string().into_bytes()
        }
    })
}

/// Appends all objects, as a list without its brackets.
fn convert_all(objects: &[&RawValue], to: &str, list: &mut Vec<u8>) -> Result<(), String> {
    for (at, raw) in objects.iter().enumerate() {
        if at > 0 {
            list.push(b',');
        }
        if values_at_most(raw.get().as_bytes()) > VALUES_MAX {
            return Err(format!("an object has more than {VALUES_MAX} values"));
        }
        let object: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        if object.get("apiVersion").and_then(Value::as_str) == Some(to) {
            list.extend_from_slice(raw.get().as_bytes());
            continue;
        }
        let converted = collector::convert_collector(object, to)?;
        serde_json::to_writer(&mut *list, &converted).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(version: &str, desired: &str, objects: &[Value]) -> Vec<u8> {
        let request = json!({"uid": "u", "desiredAPIVersion": desired, "objects": objects});
        json!({"apiVersion": version, "kind": KIND, "request": request}).to_string().into_bytes()
    }

    fn read(body: &[u8]) -> Value {
        serde_json::from_slice(&answer(body).unwrap()).unwrap()
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
        let answer = read(&review(API_VERSION, "opentelemetry.io/v1beta1", &both));
        let converted = answer["response"]["convertedObjects"].as_array().unwrap();
        assert_eq!(answer["response"]["result"]["status"], "Success");
        assert!(converted[0]["spec"]["config"]["receivers"].is_object(), "{answer:#}");
        assert_eq!(converted[1], new);

        let answer = read(&review(API_VERSION, "opentelemetry.io/v7", &both));
        assert_eq!(answer["response"]["result"]["status"], "Failure");
        assert_eq!(answer["response"]["uid"], "u");
    }

    #[test]
    fn other_versions_and_garbage_are_told_apart() {
        let answer = read(&review("apiextensions.k8s.io/v7", "opentelemetry.io/v1beta1", &[]));
        assert_eq!(answer["response"]["result"]["status"], "Failure");
        assert!(super::answer(b"{").is_err());
        assert!(super::answer(b"{}").is_err());
    }

    #[test]
    fn references_to_objects_are_bounded() {
        let many = format!(r#"{{"request":{{"uid":"u","objects":[0{}]}}}}"#, ",0".repeat(OBJECTS_MAX));
        assert!(answer(many.as_bytes()).unwrap_err().contains("more than 100000 objects"));
    }
}
