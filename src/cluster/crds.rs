//! The custom resource definitions that Spanreel brings along, and their installation.
//!
//! A definition that is there is left alone, whoever made it: it may be the operator's, with a conversion webhook.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::registration::{Address, Path};

/// `kubectl explain`-able YAML of both definitions, as `spanreel install --print` shows them.
pub const YAML: [&str; 2] =
    [include_str!("crds/instrumentations.yaml"), include_str!("crds/opentelemetrycollectors.yaml")];

/// The API server needs a moment until it serves a new definition; usually well below a second.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);
/// Marks definitions that Spanreel installed.
const PART_OF: &str = "app.kubernetes.io/part-of";
const ESTABLISHED_POLL: Duration = Duration::from_millis(200);

/// Definitions could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    #[error("a built-in definition is no CustomResourceDefinition: {0}")]
    BuiltIn(String),
    #[error("CustomResourceDefinition {name}: {source}")]
    Api {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("CustomResourceDefinition {0} is not served after 30 s; see its conditions with kubectl describe crd")]
    NotEstablished(String),
}

/// `instrumentations.opentelemetry.io` as the API server stores it.
#[must_use]
pub(super) fn instrumentations() -> ApiResource {
    resource("v1alpha1", "Instrumentation", "instrumentations")
}

/// `opentelemetrycollectors.opentelemetry.io`.
#[must_use]
pub(super) fn collectors() -> ApiResource {
    resource("v1beta1", "OpenTelemetryCollector", "opentelemetrycollectors")
}

fn resource(version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("opentelemetry.io", version, kind), plural)
}

fn built_in() -> Result<Vec<CustomResourceDefinition>, CrdError> {
    YAML.iter().map(|yaml| serde_saphyr::from_str(yaml).map_err(|e| CrdError::BuiltIn(e.to_string()))).collect()
}

/// Creates what is absent and waits until both are served.
///
/// # Errors
/// The API server refuses, cannot be reached, or does not serve a definition within 30 s.
pub(super) async fn install(client: &Client) -> Result<(), CrdError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in built_in()? {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let failed = |source: kube::Error| CrdError::Api { name: name.clone(), source: Box::new(source) };
        if api.get_opt(&name).await.map_err(failed)?.is_none() {
            match api.create(&PostParams::default(), &definition).await {
                Ok(_) => tracing::info!(%name, "custom resource definition installed"),
                // Another replica was faster.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let served = async {
            loop {
                if api.get_opt(&name).await.map_err(failed)?.is_some_and(|crd| is_established(&crd)) {
                    return Ok(());
                }
                tokio::time::sleep(ESTABLISHED_POLL).await;
            }
        };
        tokio::time::timeout(ESTABLISHED_WITHIN, served)
            .await
            .unwrap_or_else(|_| Err(CrdError::NotEstablished(name.clone())))?;
    }
    Ok(())
}

/// Tells the API server where collector resources are converted between their versions, in the definition that is ours,
/// and has it serve all of them in the same step: without conversion one version's shape would pass as another's.
///
/// # Errors
/// The API server refuses or cannot be reached.
pub(super) async fn ensure_conversion(
    client: &Client,
    address: &Address,
    ca_bundle: &str,
) -> Result<(), Box<kube::Error>> {
    let resource = collectors();
    let name = format!("{}.{}", resource.plural, resource.group);
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let Some(present) = api.get_opt(&name).await? else { return Ok(()) };
    let is_ours = present.labels().get(PART_OF).is_some_and(|part| part == "spanreel");
    if !is_ours || present.spec.versions.len() < 2 {
        return Ok(());
    }
    let conversion = json!({
        "strategy": "Webhook",
        "webhook": {
            "clientConfig": address.client_config(Path::Conversion, ca_bundle),
            "conversionReviewVersions": ["v1"],
        },
    });
    let versions = &present.spec.versions;
    if versions.iter().all(|version| version.served)
        && serde_json::to_value(&present.spec.conversion).is_ok_and(|present| present == conversion)
    {
        return Ok(());
    }
    let mut changes = vec![json!({"op": "add", "path": "/spec/conversion", "value": conversion})];
    for (index, version) in versions.iter().enumerate() {
        let path = format!("/spec/versions/{index}");
        // Somebody else may have changed the list meanwhile: then the next attempt reads it anew.
        changes.push(json!({"op": "test", "path": format!("{path}/name"), "value": version.name}));
        changes.push(json!({"op": "add", "path": format!("{path}/served"), "value": true}));
    }
    let patch: json_patch::Patch = serde_json::from_value(changes.into()).map_err(kube::Error::SerdeError)?;
    api.patch(&name, &PatchParams::default(), &Patch::Json::<()>(patch)).await?;
    Ok(())
}

fn is_established(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_definitions_are_what_the_watches_expect() {
        let definitions = built_in().unwrap();
        for (definition, expected) in definitions.iter().zip([instrumentations(), collectors()]) {
            let spec = &definition.spec;
            assert_eq!(definition.metadata.name.as_deref(), Some(&*format!("{}.{}", expected.plural, expected.group)));
            assert_eq!((&spec.group, &spec.names.kind), (&expected.group, &expected.kind));
            let stored = spec.versions.iter().find(|version| version.storage).unwrap();
            assert_eq!(stored.name, expected.version);
            assert!(stored.served && stored.subresources.as_ref().unwrap().status.is_some());
            // Without a webhook that converts, an API server would hand out one version's shape as another's.
            assert!(spec.versions.iter().all(|version| version.served == version.storage));
        }
    }
}
