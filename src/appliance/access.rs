//! Who may ask on the query port: its settings with the authenticators that they name.

use super::authenticators::Authenticators;
use super::components::Components;
use super::pipelines::StartError;
use super::spanreel::access::AccessSettings;
use super::spanreel::settings::SpanreelSettings;
use crate::config::Config;
use crate::query::{self, Access, AccessMetrics, AccessRules, Role, TrustedProxy};
use axum::Router;
use http::HeaderName;

/// Where a pod finds the name of its namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The rules of `extensions::spanreel::access` at work.
pub(super) fn access(
    config: &Config<Components>,
    settings: &SpanreelSettings,
    metrics: AccessMetrics,
) -> Result<Access, StartError> {
    let rules = rules(config, &settings.access)?;
    Access::new(rules, own_names(settings), metrics).map_err(|error| StartError::Internal(error.to_string()))
}

/// The machine's name, and that of the Service within the cluster, which could be names in a registry, too.
fn own_names(settings: &SpanreelSettings) -> Vec<String> {
    let read = |path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let webhook = &settings.webhook;
    let namespace = webhook.namespace.clone().or_else(|| read(POD_NAMESPACE));
    let service = namespace.map(|namespace| format!("{}.{namespace}", webhook.service));
    read("/proc/sys/kernel/hostname").into_iter().chain(service).filter(|name| !name.is_empty()).collect()
}

/// The same, with the authenticators as `config` has them now.
pub(super) fn rules(config: &Config<Components>, settings: &AccessSettings) -> Result<AccessRules, StartError> {
    let mut known = Authenticators::default();
    let mut authenticators = Vec::new();
    for (id, role) in settings.authenticators() {
        authenticators.push((known.get(config, id)?, role));
    }
    let trusted_proxy = match &settings.trusted_proxy {
        None => None,
        Some(proxy) => Some(TrustedProxy {
            header: HeaderName::from_bytes(proxy.header.as_bytes())
                .map_err(|error| StartError::Internal(error.to_string()))?,
            sources: proxy.sources.clone(),
            role: proxy.role,
            full_users: proxy.full_users.clone(),
        }),
    };
    if settings.loopback > Role::None && settings.anonymous == Role::None {
        tracing::info!(
            "who asks the query port from this machine or pod needs no credentials; a proxy there passes for it"
        );
    }
    Ok(AccessRules {
        anonymous: settings.anonymous,
        loopback: settings.loopback,
        authenticators,
        trusted_proxy,
        hosts: settings.hosts.clone(),
    })
}

/// Routes that only those reach whom the rules let in.
pub(super) fn guarded(routes: Router, access: &Access) -> Router {
    routes.layer(axum::middleware::from_fn_with_state(access.clone(), query::guard))
}
