//! Services and EndpointSlices of a collector resource, named as opentelemetry-operator names them.
//!
//! The pod that serves is ours, usually in another namespace, so no selector can find it: Services have none, and each
//! gets an EndpointSlice with our address. They belong to the resource, so that they go when it goes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::defaults::{METRICS_PORT, metrics_port};
use super::registration::FIELD_MANAGER;
use super::{Applied, ListenerPort};

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const MANAGER: &str = "spanreel";
const NAME_BYTES_MAX: usize = 63;
/// Port names of Services are short.
const PORT_NAME_BYTES_MAX: usize = 15;

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    name: String,
    port: u16,
    /// Of our pod.
    target: u16,
    protocol: String,
    app_protocol: Option<String>,
}

/// What a collector resource's Services need to know of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) object: &'a DynamicObject,
}

/// What could not be had.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// A sentence for each Service whose name is taken, and what else people should know.
    pub(super) notes: Vec<String>,
    /// Some are still those of a deleted resource of the same name, and are about to go with it.
    pub(super) going: bool,
}

/// Why a Service is left alone.
enum Taken {
    BySomebody,
    ByPredecessor,
}

/// Applies all Services with their slices.
///
/// # Errors
/// The API server refuses or cannot be reached.
pub(super) async fn apply(
    client: &Client,
    owner: Owner<'_>,
    applied: &Applied,
    address: Option<IpAddr>,
) -> Result<Missing, Box<kube::Error>> {
    let name = owner.object.name_any();
    let listeners = ports(&applied.ports, owner.object.data.pointer("/spec/ports"));
    let extensions = ports(&applied.extensions, None);
    let monitoring = vec![Port {
        name: "monitoring".to_owned(),
        port: owner.object.data.pointer("/spec/config").and_then(metrics_port).unwrap_or(METRICS_PORT),
        target: METRICS_PORT,
        protocol: "TCP".to_owned(),
        app_protocol: None,
    }];
    let mut missing = Missing::default();
    if address.is_none() {
        missing
            .notes
            .push("Services lead nowhere: set webhook.pod_address or the environment variable POD_IP".to_owned());
    }
    let planned = [
        (service_name(&name, "-collector"), "base", &listeners),
        (service_name(&name, "-collector-headless"), "headless", &listeners),
        (service_name(&name, "-collector-monitoring"), "monitoring", &monitoring),
        (service_name(&name, "-collector-extension"), "extension", &extensions),
        (service_name(&name, ""), "alias", &listeners),
    ];
    for (service, kind, ports) in planned {
        if ports.is_empty() {
            withdraw_one(client, owner, &service).await?;
            continue;
        }
        match apply_one(client, owner, &service, kind, ports, address).await? {
            None => {}
            Some(Taken::BySomebody) => {
                missing.notes.push(format!("Service {service} belongs to somebody else and is left alone"));
            }
            Some(Taken::ByPredecessor) => {
                missing.going = true;
                missing.notes.push(format!(
                    "Service {service} is still that of a deleted resource of this name; it is made anew once that is gone"
                ));
            }
        }
    }
    Ok(missing)
}

/// Services of a resource that does not run lead nowhere; what was never made is not made for that.
///
/// # Errors
/// The API server refuses or cannot be reached.
pub(super) async fn withdraw(client: &Client, owner: Owner<'_>) -> Result<(), Box<kube::Error>> {
    let name = owner.object.name_any();
    for suffix in ["-collector", "-collector-headless", "-collector-monitoring", "-collector-extension", ""] {
        withdraw_one(client, owner, &service_name(&name, suffix)).await?;
    }
    Ok(())
}

async fn withdraw_one(client: &Client, owner: Owner<'_>, name: &str) -> Result<(), Box<kube::Error>> {
    let namespace = owner.object.namespace().unwrap_or_default();
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace);
    let ours = services.get_opt(name).await?.is_some_and(|service| {
        is_owned(service.owner_references(), owner.object)
            && service.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGER)
    });
    if !ours {
        return Ok(());
    }
    match slices.patch(name, &PatchParams::default(), &Patch::Merge(json!({"endpoints": []}))).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

async fn apply_one(
    client: &Client,
    owner: Owner<'_>,
    name: &str,
    kind: &str,
    ports: &[Port],
    address: Option<IpAddr>,
) -> Result<Option<Taken>, Box<kube::Error>> {
    let namespace = owner.object.namespace().unwrap_or_default();
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    if let Some(present) = services.get_opt(name).await? {
        if !is_owned(present.owner_references(), owner.object) {
            let by_predecessor = is_predecessors(present.owner_references(), owner.object);
            return Ok(Some(if by_predecessor { Taken::ByPredecessor } else { Taken::BySomebody }));
        }
        let selects = present.spec.as_ref().and_then(|spec| spec.selector.as_ref()).is_some_and(|s| !s.is_empty());
        if selects {
            // From the operator, whose collector pod this Service used to find.
            let none = json!({"spec": {"selector": null}});
            services.patch(name, &PatchParams::default(), &Patch::Merge(&none)).await?;
        }
    }
    services.patch(name, &params, &Patch::Apply(&service(owner, name, kind, ports))).await?;
    if let Some(address) = address {
        slices.patch(name, &params, &Patch::Apply(&slice(owner, name, kind, ports, address))).await?;
    }
    Ok(None)
}

fn is_owned(
    references: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
    object: &DynamicObject,
) -> bool {
    object.metadata.uid.as_ref().is_some_and(|uid| references.iter().any(|reference| reference.uid == *uid))
}

/// Who deletes a resource and applies it again is faster than the garbage collector.
fn is_predecessors(
    references: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
    object: &DynamicObject,
) -> bool {
    let name = object.name_any();
    references.iter().any(|reference| reference.kind == "OpenTelemetryCollector" && reference.name == name)
}

fn metadata(owner: Owner<'_>, name: &str, kind: &str) -> Value {
    let namespace = owner.object.namespace().unwrap_or_default();
    json!({
        "name": name,
        "namespace": namespace,
        "labels": {
            MANAGED_BY: MANAGER,
            "app.kubernetes.io/part-of": "opentelemetry",
            "app.kubernetes.io/component": "opentelemetry-collector",
            "app.kubernetes.io/instance": label(&format!("{namespace}.{}", owner.object.name_any())),
            "app.kubernetes.io/name": label(name),
            "operator.opentelemetry.io/collector-service-type": kind,
        },
        "ownerReferences": [{
            "apiVersion": "opentelemetry.io/v1beta1",
            "kind": "OpenTelemetryCollector",
            "name": owner.object.name_any(),
            "uid": owner.object.uid().unwrap_or_default(),
            "controller": true,
        }],
    })
}

fn service(owner: Owner<'_>, name: &str, kind: &str, ports: &[Port]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| {
            let mut value =
                json!({"name": port.name, "port": port.port, "targetPort": port.target, "protocol": port.protocol});
            set_app_protocol(&mut value, port);
            value
        })
        .collect();
    let mut spec = json!({"ports": ports, "type": "ClusterIP"});
    if kind == "headless"
        && let Some(fields) = spec.as_object_mut()
    {
        fields.insert("clusterIP".to_owned(), json!("None"));
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata(owner, name, kind), "spec": spec})
}

fn slice(owner: Owner<'_>, name: &str, kind: &str, ports: &[Port], address: IpAddr) -> Value {
    let mut metadata = metadata(owner, name, kind);
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.insert("kubernetes.io/service-name".to_owned(), json!(name));
        labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), json!(MANAGER));
        if kind == "headless" {
            labels.insert("service.kubernetes.io/headless".to_owned(), json!(""));
        }
    }
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| {
            let mut value = json!({"name": port.name, "port": port.target, "protocol": port.protocol});
            set_app_protocol(&mut value, port);
            value
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": ports,
    })
}

fn set_app_protocol(value: &mut Value, port: &Port) {
    if let (Some(fields), Some(protocol)) = (value.as_object_mut(), &port.app_protocol) {
        fields.insert("appProtocol".to_owned(), json!(protocol));
    }
}

/// The user's `spec.ports` first, then the listeners' by name: same number and protocol is replaced by the user's, same
/// name is renamed `port-<n>`.
fn ports(listeners: &[ListenerPort], given: Option<&Value>) -> Vec<Port> {
    let given = given.and_then(Value::as_array).into_iter().flatten();
    let mut ports: Vec<Port> = Vec::new();
    for port in given.filter_map(user_port) {
        if !ports.iter().any(|p| p.name == port.name || (p.port == port.port && p.protocol == port.protocol)) {
            ports.push(port);
        }
    }
    let mut listeners: Vec<&ListenerPort> = listeners.iter().collect();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    for listener in listeners {
        let protocol = if listener.udp { "UDP" } else { "TCP" };
        if ports.iter().any(|port| port.port == listener.port && port.protocol == protocol) {
            continue;
        }
        let mut name = port_name(&listener.name, listener.port);
        if ports.iter().any(|port| port.name == name) {
            name = format!("port-{}", listener.port);
        }
        let app_protocol = listener.app_protocol.clone();
        let (port, target) = (listener.port, listener.port);
        ports.push(Port { name, port, target, protocol: protocol.to_owned(), app_protocol });
    }
    // Two that still share a name would make the Service invalid.
    let mut seen = BTreeSet::new();
    ports.retain(|port| seen.insert(port.name.clone()));
    ports
}

fn user_port(value: &Value) -> Option<Port> {
    let port = u16::try_from(value.get("port")?.as_u64()?).ok().filter(|port| *port != 0)?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let protocol = text("protocol").unwrap_or_else(|| "TCP".to_owned());
    let name = port_name(&text("name").unwrap_or_default(), port);
    ["TCP", "UDP", "SCTP"].contains(&protocol.as_str()).then_some(Port {
        name,
        port,
        target: port,
        protocol,
        app_protocol: text("appProtocol"),
    })
}

/// A DNS label of at most 15 bytes, or `port-<n>`.
fn port_name(wanted: &str, port: u16) -> String {
    let name = wanted.replace(['/', '_'], "-");
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = name.len() <= PORT_NAME_BYTES_MAX
        && name.starts_with(edge)
        && name.ends_with(edge)
        && name.chars().all(|c| edge(c) || c == '-');
    if valid { name } else { format!("port-{port}") }
}

/// `<name><suffix>`, safe for DNS: 63 bytes, dots become dashes.
fn service_name(name: &str, suffix: &str) -> String {
    let full: String = format!("{name}{suffix}").replace(['.', '_'], "-").chars().take(NAME_BYTES_MAX).collect();
    full.trim_end_matches('-').to_owned()
}

/// A label's value is 63 bytes at most and ends in a letter or digit.
fn label(value: &str) -> String {
    let cut: String = value.chars().take(NAME_BYTES_MAX).collect();
    cut.trim_end_matches(['-', '.', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listener(name: &str, port: u16) -> ListenerPort {
        ListenerPort { name: name.to_owned(), port, udp: false, app_protocol: None }
    }

    #[test]
    fn ports_are_the_users_then_the_listeners_by_name() {
        let listeners = [listener("otlp-http", 4318), listener("otlp-grpc", 4317), listener("a-very-long-name", 9)];
        let given = json!([{"port": 4318, "name": "mine"}, {"port": 1, "name": "otlp-grpc", "protocol": "UDP"}]);
        let ports = ports(&listeners, Some(&given));
        let names: Vec<(&str, u16)> = ports.iter().map(|port| (port.name.as_str(), port.port)).collect();
        assert_eq!(names, [("mine", 4318), ("otlp-grpc", 1), ("port-9", 9), ("port-4317", 4317)]);

        let packets = ListenerPort { udp: true, ..listener("jaeger", 6831) };
        let ports = super::ports(&[packets, listener("zipkin", 6831)], None);
        let protocols: Vec<_> = ports.iter().map(|port| (port.name.as_str(), port.protocol.as_str())).collect();
        assert_eq!(protocols, [("jaeger", "UDP"), ("zipkin", "TCP")], "one number for each transport");
    }

    proptest! {
        #[test]
        fn names_are_valid_and_unique(
            name in "[a-z][a-z0-9.-]{0,90}[a-z0-9]",
            listeners in proptest::collection::vec(("[a-zA-Z0-9/_-]{0,20}", 1..6u16), 0..6),
            given in proptest::collection::vec(("[a-zA-Z0-9/_-]{0,20}", 0..6u16), 0..4),
        ) {
            let service = service_name(&name, "-collector-monitoring");
            prop_assert!(service.len() <= 63 && !service.ends_with('-') && !service.contains('.'));
            let listeners: Vec<ListenerPort> = listeners.iter().map(|(name, port)| listener(name, *port)).collect();
            let given: Vec<Value> = given.iter().map(|(name, port)| json!({"name": name, "port": port})).collect();
            let ports = ports(&listeners, Some(&Value::Array(given)));
            for (at, port) in ports.iter().enumerate() {
                prop_assert!(!port.name.is_empty() && port.name.len() <= 15 && port.port != 0);
                prop_assert!(ports.iter().skip(at + 1).all(|other| other.name != port.name));
                prop_assert!(ports.iter().skip(at + 1).all(|other| (other.port, &other.protocol) != (port.port, &port.protocol)));
            }
        }
    }
}
