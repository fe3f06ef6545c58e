//! Telling the API server to ask the webhook: about pods that may want injection, about the custom resources, and for
//! conversions between their versions.
//!
//! Pods that ask for nothing never reach us. Match conditions see a pod's annotations, but not its namespace's, which can
//! ask just as well; so there are two webhooks for pods, and each pod is meant by one of them at most:
//!
//! ```text
//! namespace asks by annotation (listed by name)   -> every pod
//! any other but kube-system and our own           -> pods with an annotation that asks
//! ```

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Of both configurations. Webhooks run in the order of these names.
const NAME: &str = "spanreel";
/// The port of the Service in front of the webhook.
const SERVICE_PORT: u16 = 443;
/// Seconds that a creation may wait for us; then it goes on unchanged.
const TIMEOUT_S: u16 = 3;
/// Who owns the fields of objects that Spanreel applies.
pub(super) const FIELD_MANAGER: &str = "spanreel";
/// The name of the operator's webhook for pods, whatever its configuration is called.
const OPERATOR_WEBHOOK: &str = "mpod.kb.io";
/// Namespaces that are listed by name. With more, every pod is asked about: the list is part of each evaluation.
const LISTED_NAMESPACES_MAX: usize = 1000;
/// Servers before 1.27 refuse to apply what they do not know, by this name.
const MATCH_CONDITIONS: &str = "matchConditions";
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// True for pods with an annotation that may ask for something, whatever its value.
const POD_ASKS: &str = "has(object.metadata.annotations) && object.metadata.annotations.exists(key, \
    key.startsWith('instrumentation.opentelemetry.io/inject-') || key == 'sidecar.opentelemetry.io/inject')";

/// What is served, with opentelemetry-operator's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    Pods,
    MutateInstrumentation,
    ValidateInstrumentation,
    MutateCollector,
    ValidateCollector,
    Conversion,
}

impl Path {
    pub(super) const ALL: [Self; 6] = [
        Self::Pods,
        Self::MutateInstrumentation,
        Self::ValidateInstrumentation,
        Self::MutateCollector,
        Self::ValidateCollector,
        Self::Conversion,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "/mutate-v1-pod",
            Self::MutateInstrumentation => "/mutate-opentelemetry-io-v1alpha1-instrumentation",
            Self::ValidateInstrumentation => "/validate-opentelemetry-io-v1alpha1-instrumentation",
            Self::MutateCollector => "/mutate-opentelemetry-io-v1beta1-opentelemetrycollector",
            Self::ValidateCollector => "/validate-opentelemetry-io-v1beta1-opentelemetrycollector",
            Self::Conversion => "/convert",
        }
    }

    pub(super) fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == path)
    }
}

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

impl Address {
    /// `clientConfig` of a webhook at `path`.
    pub(super) fn client_config(&self, path: Path, ca_bundle: &str) -> Value {
        let bundle = serde_json::to_value(ByteString(ca_bundle.as_bytes().to_vec())).unwrap_or_default();
        let path = path.as_str();
        match self {
            Self::Service { namespace, name } => json!({
                "service": {"namespace": namespace, "name": name, "path": path, "port": SERVICE_PORT},
                "caBundle": bundle,
            }),
            Self::Url(base) => json!({"url": format!("{}{path}", base.trim_end_matches('/')), "caBundle": bundle}),
        }
    }
}

/// What the API server is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registration<'a> {
    pub(super) address: &'a Address,
    pub(super) own_namespace: &'a str,
    /// PEM; during a change of authorities both.
    pub(super) ca_bundle: &'a str,
    /// Namespaces whose annotations ask for their pods.
    pub(super) asking: &'a BTreeSet<String>,
    /// Whether custom resources are completed and checked here. Not beside opentelemetry-operator, which does so itself:
    /// both would write their own default images' names into each Instrumentation, in turn.
    pub(super) resources: bool,
}

impl Registration<'_> {
    /// Creates or corrects what is asked about before an object is stored as it is: pods, and defaults of resources.
    ///
    /// # Errors
    /// The API server refuses or cannot be reached.
    pub(super) async fn ensure_mutating(&self, client: &Client) -> Result<(), Box<kube::Error>> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let mutating: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
        match mutating.patch(NAME, &params, &Patch::Apply(&self.mutating(true))).await {
            Err(kube::Error::Api(status)) if status.message.contains(MATCH_CONDITIONS) => {
                // Before 1.27. Every pod is asked about, as the operator has it.
                mutating.patch(NAME, &params, &Patch::Apply(&self.mutating(false))).await?;
            }
            applied => drop(applied?),
        }
        Ok(())
    }

    /// Creates or corrects who checks custom resources.
    ///
    /// # Errors
    /// The API server refuses or cannot be reached.
    pub(super) async fn ensure_validating(&self, client: &Client) -> Result<(), Box<kube::Error>> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
        validating.patch(NAME, &params, &Patch::Apply(&self.validating())).await?;
        Ok(())
    }

    fn mutating(&self, with_conditions: bool) -> Value {
        let mut webhooks = self.pods(with_conditions);
        webhooks.extend(self.resources(Path::MutateInstrumentation, Path::MutateCollector));
        configuration("MutatingWebhookConfiguration", &webhooks)
    }

    fn validating(&self) -> Value {
        let webhooks = self.resources(Path::ValidateInstrumentation, Path::ValidateCollector);
        configuration("ValidatingWebhookConfiguration", &webhooks)
    }

    fn pods(&self, with_conditions: bool) -> Vec<Value> {
        // kube-system must come up without us, and so must we.
        let excluded = BTreeSet::from(["kube-system".to_owned(), self.own_namespace.to_owned()]);
        if self.asking.len() > LISTED_NAMESPACES_MAX {
            return vec![self.pods_webhook("pods", "NotIn", &excluded, false)];
        }
        let listed: BTreeSet<String> = self.asking - &excluded;
        let others: BTreeSet<String> = &excluded | &listed;
        let mut webhooks = vec![self.pods_webhook("pods", "NotIn", &others, with_conditions)];
        if !listed.is_empty() {
            webhooks.push(self.pods_webhook("namespaces", "In", &listed, false));
        }
        webhooks
    }

    fn pods_webhook(&self, name: &str, operator: &str, namespaces: &BTreeSet<String>, conditional: bool) -> Value {
        let mut webhook = json!({
            "name": format!("{name}.webhook.spanreel.dev"),
            "clientConfig": self.address.client_config(Path::Pods, self.ca_bundle),
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"],
                "scope": "Namespaced",
            }],
            "namespaceSelector": {"matchExpressions": [
                {"key": NAMESPACE_NAME_LABEL, "operator": operator, "values": namespaces},
            ]},
            "failurePolicy": "Ignore",
            "timeoutSeconds": TIMEOUT_S,
            // Events about refusals; a dry run has none.
            "sideEffects": "NoneOnDryRun",
            // Containers that later webhooks add are seen, too.
            "reinvocationPolicy": "IfNeeded",
            "admissionReviewVersions": ["v1"],
        });
        if let Some(fields) = webhook.as_object_mut().filter(|_| conditional) {
            fields.insert(MATCH_CONDITIONS.to_owned(), json!([{"name": "asks", "expression": POD_ASKS}]));
        }
        webhook
    }

    /// Custom resources can be applied without us: defaults hold at injection as well, and statuses say what is wrong.
    fn resources(&self, instrumentations: Path, collectors: Path) -> Vec<Value> {
        if !self.resources {
            return Vec::new();
        }
        vec![
            self.resource_webhook("instrumentations", "v1alpha1", instrumentations),
            self.resource_webhook("opentelemetrycollectors", "v1beta1", collectors),
        ]
    }

    fn resource_webhook(&self, plural: &str, version: &str, path: Path) -> Value {
        json!({
            "name": format!("{plural}.webhook.spanreel.dev"),
            "clientConfig": self.address.client_config(path, self.ca_bundle),
            "rules": [{
                "apiGroups": ["opentelemetry.io"], "apiVersions": [version], "resources": [plural],
                "operations": ["CREATE", "UPDATE"], "scope": "Namespaced",
            }],
            "failurePolicy": "Ignore",
            "timeoutSeconds": TIMEOUT_S,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        })
    }
}

fn configuration(kind: &str, webhooks: &[Value]) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/managed-by": "spanreel"}},
        "webhooks": webhooks,
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
            let path = service.and_then(|service| service.path.as_deref());
            webhook.name == OPERATOR_WEBHOOK && path == Some(Path::Pods.as_str())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration<'a>(address: &'a Address, asking: &'a BTreeSet<String>) -> Registration<'a> {
        Registration { address, own_namespace: "own", ca_bundle: "pem", asking, resources: true }
    }

    fn selector(webhook: &Value) -> &Value {
        &webhook["namespaceSelector"]["matchExpressions"][0]
    }

    #[test]
    fn the_operators_registration_is_known_whatever_its_name() {
        let registration = |webhook: &str| -> MutatingWebhookConfiguration {
            let service = json!({"name": "w", "namespace": "n", "path": Path::Pods.as_str()});
            let webhooks = json!([{"name": webhook, "clientConfig": {"service": service}, "sideEffects": "None", "admissionReviewVersions": ["v1"]}]);
            serde_json::from_value(json!({"metadata": {"name": "release-mutation"}, "webhooks": webhooks})).unwrap()
        };
        assert!(is_operators(&registration(OPERATOR_WEBHOOK)));
        assert!(!is_operators(&registration("mpod.other.io")));
    }

    #[test]
    fn a_url_gets_the_path_and_a_service_the_port() {
        let none = BTreeSet::new();
        let address = Address::Url("https://127.0.0.1:9443/".to_owned());
        let by_url = registration(&address, &none).mutating(true);
        assert_eq!(by_url["webhooks"][0]["clientConfig"]["url"], "https://127.0.0.1:9443/mutate-v1-pod");
        assert_eq!(by_url["webhooks"][0]["clientConfig"]["caBundle"], "cGVt");
        let address = Address::Service { namespace: "own".to_owned(), name: "spanreel".to_owned() };
        let by_service = registration(&address, &none);
        assert_eq!(by_service.mutating(true)["webhooks"][0]["clientConfig"]["service"]["port"], 443);
        serde_json::from_value::<MutatingWebhookConfiguration>(by_service.mutating(true)).unwrap();
        serde_json::from_value::<ValidatingWebhookConfiguration>(by_service.validating()).unwrap();
    }

    #[test]
    fn a_namespace_is_meant_by_one_webhook_for_pods_at_most() {
        let address = Address::Url("https://h".to_owned());
        let none = BTreeSet::new();
        let pods = registration(&address, &none).pods(true);
        assert_eq!(pods.len(), 1);
        assert_eq!(selector(&pods[0])["values"], json!(["kube-system", "own"]));

        let asking = ["a", "own", "kube-system"].map(str::to_owned).into();
        let pods = registration(&address, &asking).pods(true);
        assert_eq!(pods.len(), 2);
        assert_eq!(
            (&selector(&pods[0])["operator"], &selector(&pods[0])["values"]),
            (&json!("NotIn"), &json!(["a", "kube-system", "own"]))
        );
        assert_eq!((&selector(&pods[1])["operator"], &selector(&pods[1])["values"]), (&json!("In"), &json!(["a"])));
        assert_eq!(pods[0]["matchConditions"].as_array().map(Vec::len), Some(1));
        assert_eq!(pods[1]["matchConditions"], Value::Null);

        let many = (0..=LISTED_NAMESPACES_MAX).map(|n| n.to_string()).collect();
        let pods = registration(&address, &many).pods(true);
        assert_eq!(pods.len(), 1);
        assert_eq!(pods[0]["matchConditions"], Value::Null);
    }

    #[test]
    fn older_servers_get_no_conditions_and_the_operator_keeps_its_resources() {
        let (address, asking) = (Address::Url("https://h".to_owned()), BTreeSet::from(["a".to_owned()]));
        let all = registration(&address, &asking);
        assert!(all.mutating(true).to_string().contains(MATCH_CONDITIONS));
        assert!(!all.mutating(false).to_string().contains(MATCH_CONDITIONS));
        let names = |configuration: Value| -> Vec<String> {
            let webhooks = configuration["webhooks"].as_array().unwrap();
            webhooks.iter().map(|webhook| webhook["name"].as_str().unwrap().to_owned()).collect()
        };
        let of_pods = ["pods.webhook.spanreel.dev", "namespaces.webhook.spanreel.dev"];
        let of_resources = ["instrumentations.webhook.spanreel.dev", "opentelemetrycollectors.webhook.spanreel.dev"];
        assert_eq!(names(all.mutating(true)), [of_pods, of_resources].concat());
        assert_eq!(names(all.validating()), of_resources);
        let beside = Registration { resources: false, ..all };
        assert_eq!(names(beside.mutating(true)), of_pods);
        assert!(names(beside.validating()).is_empty());
    }
}
