//! The Secret that keeps the certificates between restarts and across replicas.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::certificates::{CertificateError, Certificates, Condition};

const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const LEAF: &str = "tls.crt";
const LEAF_KEY: &str = "tls.key";

/// Each conflict means that another process wrote; more than a few in a row is not a race but a fault.
const CONFLICTS_MAX: usize = 5;

/// The certificates could not be agreed on.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("Secret {name}: {source}")]
    Api {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("Secret {0} was changed by others again and again")]
    Conflicts(String),
}

/// Where the certificates are kept and for whom they are.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Host names and addresses under which the API server reaches the webhook.
    pub(super) names: Vec<String>,
}

impl Keeper {
    /// What is in the Secret if it is good at `now`; otherwise those that this process serves already (`held`), as far as
    /// they are good, so that nobody has to be told of new ones; otherwise new ones. All but the first are stored there.
    ///
    /// # Errors
    /// The API server refuses or cannot be reached.
    pub(super) async fn ensure(
        &self,
        now: SystemTime,
        held: Option<&Certificates>,
    ) -> Result<Certificates, SecretError> {
        let held = held.filter(|held| held.condition(&self.names, now) == Condition::Good);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        for _ in 0..CONFLICTS_MAX {
            let failed = |source| SecretError::Api { name: self.name.clone(), source: Box::new(source) };
            let found = api.get_opt(&self.name).await.map_err(failed)?;
            let written = match found {
                None => {
                    if held.is_some() {
                        tracing::warn!(secret = %self.name, "the Secret is gone; the webhook's certificates are stored again");
                    }
                    let made = held.cloned().map_or_else(|| Certificates::generate(&self.names, now), Ok)?;
                    let secret = self.secret(&made, None);
                    (api.create(&PostParams::default(), &secret).await, made)
                }
                Some(secret) => {
                    let present = read(&secret);
                    let next = match present.condition(&self.names, now) {
                        Condition::Good => return Ok(present),
                        Condition::Due { authority: false, why } => {
                            tracing::info!(secret = %self.name, %why, "renewing the webhook's certificate");
                            present.with_new_leaf(&self.names, now)?
                        }
                        Condition::Due { authority: true, why } => {
                            tracing::info!(secret = %self.name, %why, "renewing the webhook's certificate authority");
                            present.with_new_authority(&self.names, now)?
                        }
                        Condition::Broken(why) => {
                            tracing::warn!(secret = %self.name, %why, "the webhook's certificates in the Secret are not usable and are replaced");
                            held.cloned().map_or_else(|| present.mended(&self.names, now), Ok)?
                        }
                    };
                    let secret = self.secret(&next, Some(&secret.metadata));
                    (api.replace(&self.name, &PostParams::default(), &secret).await, next)
                }
            };
            match written {
                (Ok(_), certificates) => return Ok(certificates),
                // Somebody else created, changed or deleted it meanwhile: theirs counts.
                (Err(kube::Error::Api(status)), _) if status.code == 409 || status.code == 404 => {}
                (Err(error), _) => return Err(failed(error)),
            }
        }
        Err(SecretError::Conflicts(self.name.clone()))
    }

    fn secret(&self, certificates: &Certificates, replaced: Option<&ObjectMeta>) -> Secret {
        let entry = |key: &str, value: &str| (key.to_owned(), ByteString(value.as_bytes().to_vec()));
        let data = BTreeMap::from([
            entry(CA, &certificates.ca),
            entry(CA_KEY, &certificates.ca_key),
            entry(LEAF, &certificates.leaf),
            entry(LEAF_KEY, &certificates.leaf_key),
        ]);
        let labels = BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), "spanreel".to_owned())]);
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels),
            resource_version: replaced.and_then(|meta| meta.resource_version.clone()),
            ..ObjectMeta::default()
        };
        Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
    }
}

fn read(secret: &Secret) -> Certificates {
    let entry = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
    };
    Certificates { ca: entry(CA), ca_key: entry(CA_KEY), leaf: entry(LEAF), leaf_key: entry(LEAF_KEY) }
}
