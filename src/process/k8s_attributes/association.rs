//! Which pod a resource belongs to: rules, each of sources that must all be there.

use super::settings::Source;
use super::table::Facts;
use crate::otlp::edit::{Attributes, Value};
use crate::process::client::Client;
use std::net::IpAddr;

/// What names a pod: the sources of one rule with their values. Equal for the pod and for a resource that comes from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identifier(Vec<(Source, String)>);

impl Identifier {
    fn one(source: Source, value: &str) -> Self {
        Self(vec![(source, value.to_owned())])
    }

    /// The address, if it is one of the sources.
    pub fn address(&self) -> Option<&str> {
        self.0.iter().find(|(source, _)| *source == Source::Connection).map(|(_, value)| value.as_str())
    }
}

/// The first rule of which the resource has all sources. Without rules: the address, as the resource or the connection
/// has it.
pub fn identify(rules: &[Vec<Source>], attributes: &Attributes<'_>, client: &Client) -> Option<Identifier> {
    let text = |key: &str| attributes.get(key).and_then(Value::as_text).filter(|text| !text.is_empty());
    // A host name counts where it is an address, which it is in some clusters.
    let host_address = || text("host.name").filter(|name| name.parse::<IpAddr>().is_ok());
    let peer = client.peer.to_canonical().to_string();
    if rules.is_empty() {
        let said = text("k8s.pod.ip").or_else(|| text("ip"));
        return Some(Identifier::one(Source::Connection, said.unwrap_or(&peer)));
    }
    rules.iter().find_map(|sources| {
        let values = sources.iter().map(|source| {
            let value = match source {
                Source::Connection => Some(peer.as_str()),
                Source::Attribute(name) if name == "host.name" => host_address(),
                Source::Attribute(name) => text(name),
            };
            Some((source.clone(), value?.to_owned()))
        });
        values.collect::<Option<Vec<_>>>().map(Identifier)
    })
}

/// Everything that names this pod, by these rules and by those that always hold.
pub fn identifiers(rules: &[Vec<Source>], pod: &Facts) -> Vec<Identifier> {
    let mut identifiers: Vec<Identifier> = rules.iter().flat_map(|sources| of_rule(sources, pod)).collect();
    if !pod.uid.is_empty() {
        identifiers.push(Identifier::one(Source::Attribute("k8s.pod.uid".to_owned()), &pod.uid));
    }
    // Pods on the host's network share its address.
    if !pod.address.is_empty() && !pod.host_network {
        identifiers.push(Identifier::one(Source::Connection, &pod.address));
        identifiers.push(Identifier::one(Source::Attribute("k8s.pod.ip".to_owned()), &pod.address));
    }
    identifiers.sort_unstable();
    identifiers.dedup();
    identifiers
}

/// One, or one per container where the rule asks for a container's id; none if the pod lacks something.
fn of_rule(sources: &[Source], pod: &Facts) -> Vec<Identifier> {
    let mut identifiers = vec![Vec::new()];
    for source in sources {
        let values: Vec<&str> = match source {
            Source::Connection if pod.host_network => Vec::new(),
            Source::Connection => vec![pod.address.as_str()],
            Source::Attribute(name) => match name.as_str() {
                "k8s.namespace.name" => vec![pod.namespace.as_str()],
                "k8s.pod.name" => vec![pod.name.as_str()],
                "k8s.pod.uid" => vec![pod.uid.as_str()],
                "host.name" | "k8s.pod.ip" => vec![pod.address.as_str()],
                "container.id" => {
                    pod.containers.iter().flat_map(|container| &container.runs).map(|run| run.id.as_str()).collect()
                }
                name => pod.attributes.iter().filter(|(key, _)| key == name).map(|(_, it)| it.as_str()).collect(),
            },
        };
        let mut longer = Vec::new();
        for identifier in &identifiers {
            for value in values.iter().filter(|value| !value.is_empty()) {
                let mut with: Vec<(Source, String)> = identifier.clone();
                with.push((source.clone(), (*value).to_owned()));
                longer.push(with);
            }
        }
        identifiers = longer;
    }
    identifiers.into_iter().filter(|identifier| !identifier.is_empty()).map(Identifier).collect()
}
