//! New default images for Instrumentations whose image nobody chose, once at start. Pods are never touched.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::events::{Events, Note, NoteKind};
use super::{crds, retry};
use crate::inject::{Blocked, Language, Settings, Upgrade, upgrade_instrumentation};

/// Instrumentations read at a time.
const PAGE_MAX: u32 = 250;
/// Together with [`PAGE_MAX`] as many as the index keeps.
const PAGES_MAX: usize = 80;

/// What still has to be tried again.
#[derive(Debug, thiserror::Error)]
enum UpgradeError {
    #[error("Instrumentations cannot be listed: {0}")]
    List(#[source] Box<kube::Error>),
    #[error("Instrumentation {name}: {source}")]
    Write {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
}

/// Brings all Instrumentations up to the current default images; ends when that is done, or at shutdown.
pub(super) async fn run(client: Client, settings: Settings, events: Option<Events>, shutdown: CancellationToken) {
    let step = || pass(&client, &settings, events.as_ref());
    retry::until_done("upgrading Instrumentations", &shutdown, step).await;
}

/// One walk through all of them. What is up to date is not written, so a second walk does only what is left.
///
/// # Errors
/// They cannot be listed, or at least one could not be written; the others are.
async fn pass(client: &Client, settings: &Settings, events: Option<&Events>) -> Result<(), UpgradeError> {
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &crds::instrumentations());
    let mut params = ListParams::default().limit(PAGE_MAX);
    let mut failed = None;
    for _ in 0..PAGES_MAX {
        let page = all.list(&params).await.map_err(|source| UpgradeError::List(Box::new(source)))?;
        for object in &page.items {
            if let Err(source) = bring_up_to_date(client, object, settings, events).await {
                let name = full_name(object);
                if is_final(&source) {
                    tracing::warn!(instrumentation = %name, error = %source, "the new default images were refused; the old ones stay");
                } else {
                    failed = Some(UpgradeError::Write { name, source });
                }
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return failed.map_or(Ok(()), Err),
        }
    }
    tracing::warn!(
        pages = PAGES_MAX,
        per_page = PAGE_MAX,
        "more Instrumentations than are looked at; the rest keep their images"
    );
    failed.map_or(Ok(()), Err)
}

/// Whether trying again would end the same way: the object was judged, and nobody else was faster.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 422))
}

async fn bring_up_to_date(
    client: &Client,
    object: &DynamicObject,
    settings: &Settings,
    events: Option<&Events>,
) -> Result<(), Box<kube::Error>> {
    let whole = serde_json::to_value(object).unwrap_or_default();
    let Upgrade { patch, blocked } = upgrade_instrumentation(&whole, settings);
    let namespace = object.namespace().unwrap_or_default();
    let name = object.name_any();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &crds::instrumentations());
    if let Some(mut patch) = patch {
        // Somebody who chooses an image meanwhile is not overruled.
        if let (Some(version), Some(metadata)) =
            (object.resource_version(), patch.get_mut("metadata").and_then(Value::as_object_mut))
        {
            metadata.insert("resourceVersion".to_owned(), json!(version));
        }
        if found(api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await)? {
            tracing::info!(instrumentation = %full_name(object), images = %patch["spec"], "new default images");
        }
    }
    let Some(status) = status_patch(&whole, &blocked) else { return Ok(()) };
    if found(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await)? {
        for blocked in &blocked {
            tracing::warn!(instrumentation = %full_name(object), language = %blocked.language, "{}", blocked.message);
            if let Some(events) = events {
                events.publish(note(object, blocked));
            }
        }
    }
    Ok(())
}

/// `false`: deleted meanwhile.
fn found(result: kube::Result<DynamicObject>) -> Result<bool, Box<kube::Error>> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(Box::new(error)),
    }
}

/// What makes `status.upgradeBlockedVersions` say what is blocked now; `None` if it does already.
fn status_patch(object: &Value, blocked: &[Blocked]) -> Option<Value> {
    let wanted: Map<String, Value> =
        blocked.iter().map(|blocked| (blocked.language.to_string(), json!(blocked.message))).collect();
    let present = object.pointer("/status/upgradeBlockedVersions").and_then(Value::as_object);
    let present = present.cloned().unwrap_or_default();
    if present == wanted {
        return None;
    }
    let gone = present.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let versions: Map<String, Value> = gone.chain(wanted.clone()).collect();
    Some(json!({"status": {"upgradeBlockedVersions": versions}}))
}

fn note(object: &DynamicObject, blocked: &Blocked) -> Note {
    Note {
        regarding: ObjectReference {
            api_version: Some("opentelemetry.io/v1alpha1".to_owned()),
            kind: Some("Instrumentation".to_owned()),
            namespace: object.namespace(),
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.clone(),
            ..ObjectReference::default()
        },
        kind: NoteKind::Warning,
        reason: "UpgradeBlocked",
        // One Event per language: those that differ in nothing else are counted as one.
        action: match blocked.language {
            Language::Java => "Upgrade-java",
            Language::DotNet => "Upgrade-dotnet",
            _ => "Upgrade",
        },
        message: blocked.message.clone(),
    }
}

fn full_name(object: &DynamicObject) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_written_only_when_it_says_something_new() {
        let blocked = [Blocked { language: Language::Java, message: "because".to_owned() }];
        let object = |versions: Value| json!({"status": {"upgradeBlockedVersions": versions}});
        assert_eq!(status_patch(&json!({}), &[]), None);
        assert_eq!(status_patch(&object(json!({})), &[]), None);
        assert_eq!(status_patch(&object(json!({"java": "because"})), &blocked), None);
        assert_eq!(status_patch(&json!({}), &blocked), Some(object(json!({"java": "because"}))));
        assert_eq!(
            status_patch(&object(json!({"dotnet": "old", "java": "other"})), &blocked),
            Some(object(json!({"dotnet": null, "java": "because"})))
        );
        assert_eq!(status_patch(&object(json!({"java": "old"})), &[]), Some(object(json!({"java": null}))));
    }
}
