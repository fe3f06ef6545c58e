//! From a mutated pod to the JSON patch that makes it of the original.

use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// A pod could not be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("the pod cannot be written as JSON: {0}")]
pub struct PatchError(#[from] serde_json::Error);

/// The patch that turns `original`, the request's object as it came, into `mutated`. Fields that this program's types do
/// not know stay as they are, also inside list elements that move.
///
/// # Errors
/// A pod cannot be written as JSON; does not happen for pods that were read from JSON.
pub fn patch(original: &Value, read: &Pod, mutated: &Pod) -> Result<Patch, PatchError> {
    let before = serde_json::to_value(read)?;
    let mut after = serde_json::to_value(mutated)?;
    keep_unknown(original, &before, &mut after);
    Ok(json_patch::diff(original, &after))
}

/// Brings back what reading `original` into types lost. `before` is what the types kept of it.
fn keep_unknown(original: &Value, before: &Value, after: &mut Value) {
    if before == after {
        after.clone_from(original);
        return;
    }
    match (original, before, after) {
        (Value::Object(original), Value::Object(before), Value::Object(after)) => {
            // Writing adds what reading takes for granted, such as the kind.
            after.retain(|key, value| original.contains_key(key) || before.get(key) != Some(value));
            for (key, value) in original {
                match (before.get(key), after.get_mut(key)) {
                    (Some(before), Some(after)) => keep_unknown(value, before, after),
                    (None, None) => {
                        after.insert(key.clone(), value.clone());
                    }
                    // Written by the mutation over a null, or removed by it.
                    (None, Some(_)) | (Some(_), None) => {}
                }
            }
        }
        (Value::Array(original), Value::Array(before), Value::Array(after)) => {
            // A name may stand twice (environment variables); each element finds the next one that is free.
            let mut taken = vec![false; after.len()];
            // Most keep their order, so the search goes on where the last one was found and ends at once.
            let mut next = 0;
            for (original, before) in original.iter().zip(before) {
                let is_same = |at: &usize| {
                    taken.get(*at) == Some(&false) && after.get(*at).map(identity) == Some(identity(before))
                };
                let same = (next..after.len()).chain(0..next).find(is_same);
                next = same.map_or(next, |at| at + 1);
                if let Some(at) = same
                    && let (Some(element), Some(taken)) = (after.get_mut(at), taken.get_mut(at))
                {
                    *taken = true;
                    keep_unknown(original, before, element);
                }
            }
        }
        _ => {}
    }
}

/// What tells list elements apart: a mount's path, the name of anything else, or the element itself.
fn identity(element: &Value) -> &Value {
    ["mountPath", "name"].iter().find_map(|key| element.get(key)).unwrap_or(element)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_stay_where_they_belong() {
        let original = json!({
            "metadata": {"name": "p", "creationTimestamp": null, "novel": {"a": 1}},
            "spec": {"containers": [{
                "name": "app",
                "env": [{"name": "A", "value": "1", "novel": "of A"}, {"name": "B", "value": ""}],
                "novelList": [null],
            }]},
        });
        let read: Pod = serde_json::from_value(original.clone()).unwrap();
        let mut mutated = read.clone();
        let env = mutated.spec.as_mut().unwrap().containers[0].env.as_mut().unwrap();
        env.insert(0, EnvVar { name: "NEW".to_owned(), value: Some("x".to_owned()), value_from: None });
        let patch = patch(&original, &read, &mutated).unwrap();

        let mut patched = original.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        let mut expected = original;
        let list = expected["spec"]["containers"][0]["env"].as_array_mut().unwrap();
        list.insert(0, json!({"name": "NEW", "value": "x"}));
        assert_eq!(patched, expected);
    }

    #[test]
    fn no_change_is_no_patch() {
        let original = json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"}, "spec": {"containers": []}});
        let read: Pod = serde_json::from_value(original.clone()).unwrap();
        assert!(patch(&original, &read, &read).unwrap().is_empty());
    }
}
