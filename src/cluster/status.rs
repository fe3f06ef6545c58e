//! The Ready condition of a collector resource: what runs, or what is wrong and where.

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// Conditions may be 32 KiB; people read far less.
const MESSAGE_BYTES_MAX: usize = 4096;

/// What a collector resource's status says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) ready: bool,
    /// One CamelCase word.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Writes the condition if it says something new, and says whether it did.
///
/// # Errors
/// The API server refuses or cannot be reached.
pub(super) async fn write(
    client: &Client,
    resource: &ApiResource,
    object: &DynamicObject,
    ready: &Ready,
) -> Result<bool, Box<kube::Error>> {
    let Some(status) = changed(object, ready, jiff::Timestamp::now()) else { return Ok(false) };
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, resource);
    let patch = json!({"status": status});
    match api.patch_status(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(true),
        // Deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The status to merge; `None` if the object has it already. Conditions of others stay.
fn changed(object: &DynamicObject, ready: &Ready, now: jiff::Timestamp) -> Option<Value> {
    let generation = object.metadata.generation.unwrap_or_default();
    let word = if ready.ready { "True" } else { "False" };
    let message = cut(&ready.message);
    let present = object.data.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_ready = |condition: &Value| condition.get("type").and_then(Value::as_str) == Some("Ready");
    let old = present.iter().find(|condition| is_ready(condition));
    let text = |key: &str| old.and_then(|condition| condition.get(key)).and_then(Value::as_str);
    let same_status = text("status") == Some(word);
    let observed = object.data.pointer("/status/observedGeneration").and_then(Value::as_i64);
    if same_status
        && text("reason") == Some(ready.reason)
        && text("message") == Some(message)
        && observed == Some(generation)
    {
        return None;
    }
    // The time is that of the last change between True and False.
    let since = text("lastTransitionTime").filter(|_| same_status).map_or_else(|| format!("{now:.0}"), str::to_owned);
    let mut conditions: Vec<Value> = present.iter().filter(|condition| !is_ready(condition)).cloned().collect();
    conditions.push(json!({
        "type": "Ready", "status": word, "reason": ready.reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": since,
    }));
    Some(json!({"observedGeneration": generation, "conditions": conditions}))
}

fn cut(message: &str) -> &str {
    message.get(..message.floor_char_boundary(MESSAGE_BYTES_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(status: Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"name": "x", "generation": 3}, "status": status})).unwrap()
    }

    #[test]
    fn the_same_again_is_not_written() {
        let ready = Ready { ready: true, reason: "Running", message: "all is well".to_owned() };
        let now: jiff::Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let other = json!({"type": "Other", "status": "True"});
        let first = changed(&object(json!({"conditions": [other]})), &ready, now).unwrap();
        assert_eq!(first["conditions"][0], other);
        assert_eq!(first["conditions"][1]["lastTransitionTime"], "2026-01-02T03:04:05Z");
        assert_eq!(changed(&object(first.clone()), &ready, now), None);

        let later: jiff::Timestamp = "2026-01-02T04:00:00Z".parse().unwrap();
        let new_message = Ready { message: "still".to_owned(), ..ready.clone() };
        let second = changed(&object(first.clone()), &new_message, later).unwrap();
        assert_eq!(second["conditions"][1]["lastTransitionTime"], "2026-01-02T03:04:05Z");
        let third = changed(&object(first), &Ready { ready: false, ..ready }, later).unwrap();
        assert_eq!(third["conditions"][1]["lastTransitionTime"], "2026-01-02T04:00:00Z");
    }
}
