//! How the cluster side is set up.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::StartError;
use super::registration::Address;
use crate::appliance::spanreel::catch_up::CatchUpSettings;
use crate::appliance::spanreel::settings::SpanreelSettings;
use crate::inject;

/// A connection to the API server that is not made by then is not going to be.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// OTLP over HTTP, which most agents speak by default.
const OWN_OTLP_PORT: u16 = 4318;

/// Settings of the cluster room.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// `--kubeconfig`; none: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Where the webhook listens.
    pub endpoint: SocketAddr,
    /// How the API server reaches the webhook, when not through the Service.
    pub url: Option<String>,
    /// Where Service and Secret live; none: that of the service account or of the kubeconfig's context.
    pub namespace: Option<String>,
    /// Name of the Service in front of the webhook and of OTLP.
    pub service: String,
    /// The address in EndpointSlices; none: Services of collectors lead nowhere, and their status says so.
    pub pod_address: Option<IpAddr>,
    pub injection: inject::Settings,
    pub catch_up: CatchUpSettings,
    /// How often the certificate's Secret and the registrations are looked at: what somebody deleted comes back.
    pub check_interval: Duration,
    /// OpenTelemetryCollectors that are run at once.
    pub collectors_max: usize,
    /// This machine's clock, which may be wrong.
    pub clock: fn() -> SystemTime,
}

/// A Secret is read and a few objects are applied each time, none of them changed as a rule.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// A setting of `extensions::spanreel::webhook` has no usable value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("webhook.endpoint \"{0}\" is no address with port, such as 0.0.0.0:9443")]
    Endpoint(String),
    #[error("webhook.url \"{0}\" must begin with https:// and name a host, such as https://127.0.0.1:9443")]
    Url(String),
    #[error("webhook.pod_address (or the environment's POD_IP) \"{0}\" is no IP address")]
    PodAddress(String),
}

impl ClusterSettings {
    /// Reads what `spanreel` says of the cluster; `pod_ip` is the environment's `POD_IP`.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn new(
        spanreel: &SpanreelSettings,
        kubeconfig: Option<PathBuf>,
        pod_ip: Option<&str>,
    ) -> Result<Self, SettingsError> {
        let webhook = &spanreel.webhook;
        let endpoint = webhook.endpoint.parse().map_err(|_| SettingsError::Endpoint(webhook.endpoint.clone()))?;
        if let Some(url) = &webhook.url
            && host_of(url).is_none()
        {
            return Err(SettingsError::Url(url.clone()));
        }
        let address = webhook.pod_address.as_deref().or(pod_ip).filter(|address| !address.is_empty());
        let parse = |address: &str| address.parse().map_err(|_| SettingsError::PodAddress(address.to_owned()));
        Ok(Self {
            kubeconfig,
            endpoint,
            url: webhook.url.clone(),
            namespace: webhook.namespace.clone(),
            service: webhook.service.clone(),
            pod_address: address.map(parse).transpose()?,
            injection: spanreel.injection.clone(),
            catch_up: spanreel.catch_up.clone(),
            check_interval: CHECK_INTERVAL,
            collectors_max: super::collectors::COLLECTORS_MAX,
            clock: SystemTime::now,
        })
    }

    /// A client and the namespace that its credentials name. Does not talk to the API server.
    pub(super) async fn client(&self) -> Result<(Client, String), StartError> {
        connect(self.kubeconfig.as_deref()).await
    }

    pub(super) fn address(&self, namespace: &str) -> Address {
        match &self.url {
            Some(url) => Address::Url(url.clone()),
            None => Address::Service { namespace: namespace.to_owned(), name: self.service.clone() },
        }
    }

    /// Names under which the API server may reach the webhook.
    pub(super) fn certificate_names(&self, namespace: &str) -> Vec<String> {
        let service = &self.service;
        let mut names = vec![
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
            format!("{service}.{namespace}"),
            service.clone(),
        ];
        names.extend(self.url.as_deref().and_then(host_of));
        names
    }

    /// Where the built-in Instrumentation sends to.
    pub(super) fn own_endpoint(&self, namespace: &str) -> String {
        format!("http://{}.{namespace}:{OWN_OTLP_PORT}", self.service)
    }
}

/// A client and the namespace that its credentials name. Does not talk to the API server.
pub(super) async fn connect(kubeconfig: Option<&Path>) -> Result<(Client, String), StartError> {
    let failed = |e: &dyn std::fmt::Display| StartError::Client(e.to_string());
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|e| failed(&format!("{}: {e}", path.display())))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|e| failed(&e))?
        }
        None => Config::incluster().map_err(|e| failed(&e))?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config).map_err(|e| failed(&e))?, namespace))
}

/// The host of an https URL, without the brackets of an IPv6 address.
fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty() && uri.scheme_str() == Some("https"))?;
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appliance::spanreel::settings::WebhookSettings;

    #[test]
    fn settings_are_checked() {
        let webhook = WebhookSettings { url: Some("https://[::1]:9443".to_owned()), ..WebhookSettings::default() };
        let spanreel = SpanreelSettings { webhook, ..SpanreelSettings::default() };
        let settings = ClusterSettings::new(&spanreel, None, Some("192.0.2.1")).unwrap();
        assert_eq!(settings.pod_address, Some("192.0.2.1".parse().unwrap()));
        assert!(settings.certificate_names("n").contains(&"::1".to_owned()));
        assert_eq!(settings.own_endpoint("n"), "http://spanreel.n:4318");

        let with = |change: fn(&mut WebhookSettings)| {
            let mut spanreel = SpanreelSettings::default();
            change(&mut spanreel.webhook);
            ClusterSettings::new(&spanreel, None, None)
        };
        assert_eq!(with(|w| w.endpoint = "x".to_owned()).err(), Some(SettingsError::Endpoint("x".to_owned())));
        assert_eq!(
            with(|w| w.url = Some("http://h".to_owned())).err(),
            Some(SettingsError::Url("http://h".to_owned()))
        );
        assert_eq!(
            with(|w| w.pod_address = Some("h".to_owned())).err(),
            Some(SettingsError::PodAddress("h".to_owned()))
        );
    }
}
