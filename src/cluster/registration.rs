//! Telling the API server to ask the webhook about new pods.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Of the MutatingWebhookConfiguration. Webhooks run in the order of these names.
const NAME: &str = "spanreel";
const WEBHOOK: &str = "pods.webhook.spanreel.dev";
pub(super) const PATH: &str = "/mutate-v1-pod";
/// The port of the Service in front of the webhook.
const SERVICE_PORT: u16 = 443;
/// Seconds that a pod's creation may wait for us; then it is created unchanged.
const TIMEOUT_S: u16 = 3;
/// Who owns the fields of objects that Spanreel applies.
pub(super) const FIELD_MANAGER: &str = "spanreel";
/// The name of the operator's webhook for pods, whatever its configuration is called.
const OPERATOR_WEBHOOK: &str = "mpod.kb.io";

/// How the API server reaches the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Service {
        namespace: String,
        name: String,
    },
    /// Base URL without path, for API servers that reach no Services.
    Url(String),
}

/// Creates or corrects the registration.
///
/// # Errors
/// The API server refuses or cannot be reached.
pub(super) async fn ensure(
    client: &Client,
    address: &Address,
    own_namespace: &str,
    ca_bundle: &str,
) -> Result<(), Box<kube::Error>> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let wanted = configuration(address, own_namespace, ca_bundle);
    api.patch(NAME, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&wanted)).await?;
    Ok(())
}

/// No `matchConditions`: their CEL sees the pod, but not its namespace, whose annotations can ask for injection just as
/// well. Filtering on the pod's alone would miss those pods, and correctness goes first.
fn configuration(address: &Address, own_namespace: &str, ca_bundle: &str) -> Value {
    let mut client_config = match address {
        Address::Service { namespace, name } => {
            json!({"service": {"namespace": namespace, "name": name, "path": PATH, "port": SERVICE_PORT}})
        }
        Address::Url(base) => json!({"url": format!("{}{PATH}", base.trim_end_matches('/'))}),
    };
    if let Some(fields) = client_config.as_object_mut() {
        let bundle = serde_json::to_value(ByteString(ca_bundle.as_bytes().to_vec())).unwrap_or_default();
        fields.insert("caBundle".to_owned(), bundle);
    }
    // kube-system must come up without us, and so must we.
    let excluded = ["kube-system", own_namespace];
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/managed-by": "spanreel"}},
        "webhooks": [{
            "name": WEBHOOK,
            "clientConfig": client_config,
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"],
                "scope": "Namespaced",
            }],
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded},
            ]},
            "failurePolicy": "Ignore",
            "timeoutSeconds": TIMEOUT_S,
            "sideEffects": "None",
            // Containers that later webhooks add are seen, too.
            "reinvocationPolicy": "IfNeeded",
            "admissionReviewVersions": ["v1"],
        }],
    })
}

/// The name of the opentelemetry-operator's configuration, if it is installed as well. Best effort: without the right
/// to list, nothing is found.
pub(super) async fn operator_configuration(client: &Client) -> Option<String> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let all = api.list(&kube::api::ListParams::default()).await.ok()?;
    all.items.into_iter().find(is_operators).and_then(|configuration| configuration.metadata.name)
}

fn is_operators(configuration: &MutatingWebhookConfiguration) -> bool {
    configuration.metadata.name.as_deref() != Some(NAME)
        && configuration.webhooks.iter().flatten().any(|webhook| {
            let service = webhook.client_config.service.as_ref();
            webhook.name == OPERATOR_WEBHOOK && service.and_then(|service| service.path.as_deref()) == Some(PATH)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_registration_is_known_whatever_its_name() {
        let registration = |webhook: &str| -> MutatingWebhookConfiguration {
            let service = json!({"name": "w", "namespace": "n", "path": PATH});
            let webhooks = json!([{"name": webhook, "clientConfig": {"service": service}, "sideEffects": "None", "admissionReviewVersions": ["v1"]}]);
            serde_json::from_value(json!({"metadata": {"name": "release-mutation"}, "webhooks": webhooks})).unwrap()
        };
        assert!(is_operators(&registration(OPERATOR_WEBHOOK)));
        assert!(!is_operators(&registration("mpod.other.io")));
    }

    #[test]
    fn a_url_gets_the_path_and_a_service_the_port() {
        let by_url = configuration(&Address::Url("https://127.0.0.1:9443/".to_owned()), "own", "pem");
        assert_eq!(by_url["webhooks"][0]["clientConfig"]["url"], "https://127.0.0.1:9443/mutate-v1-pod");
        assert_eq!(by_url["webhooks"][0]["clientConfig"]["caBundle"], "cGVt");
        let address = Address::Service { namespace: "own".to_owned(), name: "spanreel".to_owned() };
        let by_service = configuration(&address, "own", "pem");
        assert_eq!(by_service["webhooks"][0]["clientConfig"]["service"]["port"], 443);
        serde_json::from_value::<MutatingWebhookConfiguration>(by_service).unwrap();
    }
}
