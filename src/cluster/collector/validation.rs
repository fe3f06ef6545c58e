//! What the schema of an OpenTelemetryCollector cannot say (reference section 6.3), and what of it has no effect here.
//!
//! Whether the configuration's components exist and are set up rightly is not checked at admission, as with
//! opentelemetry-operator: the resource's status says it, with line and column.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value};

use super::{mode, text, unreadable_config};
use crate::cluster::defaults::{PROTOCOL_PORTS, kind, strings, used};
use crate::cluster::ignored;
use crate::inject::{Review, quantity_value};

const CONFIG_SECTIONS: [&str; 5] = ["receivers", "exporters", "processors", "extensions", "connectors"];
/// Fields that concern pods of a collector's own, which a sidecar does not have.
const NOT_FOR_SIDECARS: [&str; 4] = ["tolerations", "priorityClassName", "affinity", "additionalContainers"];
const STATEFUL_SET_ONLY: [&str; 2] = ["volumeClaimTemplates", "persistentVolumeClaimRetentionPolicy"];
const PORT_NAME_BYTES_MAX: usize = 15;
const STABILIZATION_SECONDS_MAX: i64 = 3600;
/// Admission warnings share 4 KiB; a list of null objects need not be whole to be understood.
const NULLS_NAMED_MAX: usize = 20;

/// Checks a v1beta1 resource with its defaults; `old` is what it replaces. All errors are found, not only the first.
pub(in crate::cluster) fn validate_collector(old: Option<&Value>, object: &Value) -> Review {
    let mut review = Review::default();
    warn(object, &mut review.warnings);
    let errors = &mut review.errors;
    let mode = mode(object);
    if let Some(old) = old.map(super::mode).filter(|old| *old != mode) {
        errors.push(format!("spec.mode: {mode:?} cannot replace {old:?}; delete the resource and create it anew"));
    }
    check_mode(object, mode, errors);
    check_ports(object, errors);
    check_config(object, errors);
    check_autoscaler(object, errors);
    check_ingress(object, mode, errors);
    check_target_allocator(object, mode, errors);
    review
}

fn warn(object: &Value, warnings: &mut Vec<String>) {
    if let Some(reason) = unreadable_config(object).and_then(super::conversion::reason_unreadable) {
        warnings.push(format!("nothing runs: {reason}"));
    }
    let mut nulls = Vec::new();
    for section in CONFIG_SECTIONS {
        if let Some(components) = object.pointer(&format!("/spec/config/{section}")).and_then(Value::as_object) {
            collect_nulls(section, components, &mut nulls);
        }
    }
    if !nulls.is_empty() {
        let more = if nulls.len() > NULLS_NAMED_MAX { ", ..." } else { "" };
        nulls.truncate(NULLS_NAMED_MAX);
        warnings.push(format!(
            "spec.config has keys without a value: {}{more}; write {{}} behind them, since kustomize, kubectl edit and others drop null",
            nulls.join(", ")
        ));
    }
    if text(object, "/spec/managementState") == "unmanaged" {
        return;
    }
    if mode(object) == "sidecar" {
        warnings.push(
            "spec.mode: Spanreel does not run sidecars; use mode deployment and send to its Service instead of localhost"
                .to_owned(),
        );
    } else if let Ok(object) = serde_json::from_value(object.clone()) {
        warnings.extend(ignored::notes(&object));
    }
}

/// Only through maps, as `kustomize` does.
fn collect_nulls(path: &str, fields: &Map<String, Value>, nulls: &mut Vec<String>) {
    for (key, value) in fields {
        match value {
            Value::Null => nulls.push(format!("{path}.{key}:")),
            Value::Object(inner) => collect_nulls(&format!("{path}.{key}"), inner, nulls),
            _ => {}
        }
    }
}

fn check_mode(object: &Value, mode: &str, errors: &mut Vec<String>) {
    let given =
        |key: &str| object.pointer(&format!("/spec/{}", key.replace('.', "/"))).is_some_and(|value| !is_unset(value));
    let mut only = |keys: &[&str], wanted: &str| {
        for key in keys.iter().filter(|key| given(key)) {
            errors.push(format!("spec.{key} goes with mode {wanted} only; spec.mode is {mode:?}"));
        }
    };
    if mode != "statefulset" {
        only(&STATEFUL_SET_ONLY, "statefulset");
    }
    if mode != "daemonset" {
        only(&["daemonSetUpdateStrategy.type"], "daemonset");
    }
    if mode != "deployment" {
        only(&["deploymentUpdateStrategy.type"], "deployment");
    }
    if mode == "sidecar" {
        for key in NOT_FOR_SIDECARS.iter().filter(|key| given(key)) {
            errors.push(format!("spec.{key} does not go with mode sidecar, which has no pods of its own"));
        }
    }
}

/// As when nothing had been written. An empty object is something.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn check_ports(object: &Value, errors: &mut Vec<String>) {
    let ports = object.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    for (at, port) in ports.enumerate() {
        let name = text(port, "/name");
        if let Err(wrong) = check_port_name(name) {
            errors.push(format!("spec.ports[{at}].name: {name:?} {wrong}"));
        }
        let number = port.get("port").cloned().unwrap_or_default();
        if !number.as_i64().is_some_and(is_port) {
            errors.push(format!("spec.ports[{at}].port: {number} is not between 1 and 65535"));
        }
    }
}

/// As Services want it.
fn check_port_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("is missing: every port needs a name");
    }
    if name.len() > PORT_NAME_BYTES_MAX {
        return Err("is longer than 15 characters");
    }
    if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Err("may have only lower-case letters, digits and -");
    }
    if !name.contains(|c: char| c.is_ascii_lowercase()) {
        return Err("needs a letter");
    }
    if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        return Err("may have - only between letters and digits");
    }
    Ok(())
}

fn is_port(number: i64) -> bool {
    (1..=i64::from(u16::MAX)).contains(&number)
}

/// What Services would be made of: ports that components listen on, if they are used.
fn check_config(object: &Value, errors: &mut Vec<String>) {
    let Some(config) = object.pointer("/spec/config") else { return };
    let extensions = strings(config.pointer("/service/extensions"));
    for (section, used) in [("receivers", used(config, "receivers")), ("extensions", extensions)] {
        let components = config.get(section).and_then(Value::as_object).into_iter().flatten();
        for (id, component) in components.filter(|(id, _)| used.contains(id)) {
            let path = format!("spec.config.{section}.{id}");
            check_endpoint(&path, component, errors);
            let Some(protocols) = component.get("protocols").and_then(Value::as_object) else { continue };
            let known = PROTOCOL_PORTS.iter().find(|(with, _)| section == "receivers" && *with == kind(id));
            for (protocol, settings) in protocols {
                check_endpoint(&format!("{path}.protocols.{protocol}"), settings, errors);
                if let Some((_, known)) = known
                    && !known.iter().any(|(known, _)| known == protocol)
                {
                    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                    errors.push(format!(
                        "{path}.protocols: {protocol:?} is no protocol of it; there are {}",
                        names.join(", ")
                    ));
                }
            }
        }
    }
}

fn check_endpoint(path: &str, component: &Value, errors: &mut Vec<String>) {
    for key in ["endpoint", "listen_address"] {
        let endpoint = text(component, &format!("/{key}"));
        if port_in(endpoint).is_some_and(|port| port.parse().map_or(true, |port: i64| port > i64::from(u16::MAX))) {
            errors.push(format!("{path}.{key}: the port of {endpoint:?} is not between 1 and 65535"));
        }
    }
}

/// The digits behind the first colon that has any: hosts may be `${env:POD_IP}`.
fn port_in(endpoint: &str) -> Option<&str> {
    let digits = |part: &str| part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
    // An IPv6 address has its port behind the bracket.
    let from = endpoint.rfind(']').unwrap_or(0);
    let after = |(at, _): (usize, &str)| endpoint.get(at + 1..);
    let parts = endpoint.match_indices(':').filter(|(at, _)| *at >= from).filter_map(after);
    parts.filter_map(|part| part.get(..digits(part))).find(|port| !port.is_empty())
}

fn check_autoscaler(object: &Value, errors: &mut Vec<String>) {
    let Some(autoscaler) = object.pointer("/spec/autoscaler").filter(|autoscaler| autoscaler.is_object()) else {
        return;
    };
    let number = |pointer: &str| autoscaler.pointer(pointer).and_then(Value::as_i64);
    let (min, max) = (number("/minReplicas"), number("/maxReplicas"));
    let replicas = object.pointer("/spec/replicas").and_then(Value::as_i64);
    const PATH: &str = "spec.autoscaler";
    match (min, max) {
        (Some(min), None) => errors.push(format!("{PATH}.minReplicas: {min} needs {PATH}.maxReplicas, too")),
        (min, Some(max)) => {
            if let Some(min) = min.filter(|min| *min > max) {
                errors.push(format!("{PATH}.minReplicas: {min} is more than {PATH}.maxReplicas: {max}"));
            }
            if let Some(replicas) = replicas.filter(|replicas| *replicas > max) {
                errors.push(format!("spec.replicas: {replicas} is more than {PATH}.maxReplicas: {max}"));
            }
        }
        (None, None) => {}
    }
    // Without an upper bound nothing scales, whatever else is there.
    if max.is_none() {
        return;
    }
    for direction in ["scaleDown", "scaleUp"] {
        let seconds = number(&format!("/behavior/{direction}/stabilizationWindowSeconds"));
        if let Some(seconds) = seconds.filter(|seconds| !(0..=STABILIZATION_SECONDS_MAX).contains(seconds)) {
            errors.push(format!(
                "{PATH}.behavior.{direction}.stabilizationWindowSeconds: {seconds} is not between 0 and {STABILIZATION_SECONDS_MAX}"
            ));
        }
    }
    let metrics = autoscaler.get("metrics").and_then(Value::as_array).into_iter().flatten();
    for (at, metric) in metrics.enumerate() {
        check_metric(&format!("{PATH}.metrics[{at}]"), metric, errors);
    }
}

fn check_metric(path: &str, metric: &Value, errors: &mut Vec<String>) {
    let kind = text(metric, "/type");
    if kind != "Pods" {
        errors.push(format!("{path}.type: {kind:?} is not supported; there is Pods"));
        return;
    }
    let target = text(metric, "/pods/target/type");
    let key = match target {
        "AverageValue" => "averageValue",
        "Value" => "value",
        _ => {
            errors.push(format!(
                "{path}.pods.target.type: {target:?} is not supported; there are AverageValue and Value"
            ));
            return;
        }
    };
    let value = metric.pointer(&format!("/pods/target/{key}")).cloned().unwrap_or_default();
    if !is_whole_and_positive(&value) {
        errors.push(format!("{path}.pods.target.{key}: {value} is no whole number above 0"));
    }
}

/// A quantity such as `5`, `"10"` or `"2k"`.
fn is_whole_and_positive(quantity: &Value) -> bool {
    let text = quantity.as_str().map_or_else(|| quantity.to_string(), str::to_owned);
    quantity_value(&Quantity(text)).is_some_and(|number| number >= 1.0 && number.fract() == 0.0)
}

fn check_ingress(object: &Value, mode: &str, errors: &mut Vec<String>) {
    if mode == "sidecar" && text(object, "/spec/ingress/type") == "ingress" {
        errors.push("spec.ingress.type: \"ingress\" does not go with mode sidecar, which has no Service".to_owned());
    }
    let host = text(object, "/spec/ingress/hostname");
    if text(object, "/spec/ingress/ruleType") == "subdomain" && matches!(host, "" | "*") {
        errors.push(format!(
            "spec.ingress.hostname: {host:?} has no subdomains, which spec.ingress.ruleType \"subdomain\" wants"
        ));
    }
}

fn check_target_allocator(object: &Value, mode: &str, errors: &mut Vec<String>) {
    if object.pointer("/spec/targetAllocator/enabled") != Some(&Value::Bool(true)) {
        return;
    }
    const PER_NODE: &str = "per-node";
    let strategy = text(object, "/spec/targetAllocator/allocationStrategy");
    match mode {
        "daemonset" if strategy != PER_NODE => errors.push(format!(
            "spec.targetAllocator.allocationStrategy: {strategy:?} does not go with mode daemonset; {PER_NODE} does"
        )),
        "daemonset" => {}
        "statefulset" if strategy == PER_NODE => errors.push(format!(
            "spec.targetAllocator.allocationStrategy: {PER_NODE:?} goes with mode daemonset only; spec.mode is {mode:?}"
        )),
        "statefulset" => {}
        _ => errors.push(format!(
            "spec.targetAllocator.enabled goes with mode statefulset or daemonset only; spec.mode is {mode:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn review(spec: Value) -> Review {
        validate_collector(None, &json!({"metadata": {"name": "x"}, "spec": spec}))
    }

    #[test]
    fn every_rule_is_broken_once() {
        let metric = |kind: &str, target: Value| json!({"autoscaler": {"maxReplicas": 3, "metrics": [{"type": kind, "pods": {"target": target}}]}});
        let used = |receiver: &str, settings: Value| {
            json!({"config": {
                "receivers": {receiver: settings}, "service": {"pipelines": {"traces": {"receivers": [receiver]}}},
            }})
        };
        let window = |direction: &str, seconds: i64| json!({"autoscaler": {"maxReplicas": 3, "behavior": {direction: {"stabilizationWindowSeconds": seconds}}}});
        let allocator = |mode: &str, strategy: &str| json!({"mode": mode, "targetAllocator": {"enabled": true, "allocationStrategy": strategy}});
        for (spec, expected) in [
            (
                json!({"volumeClaimTemplates": [{}]}),
                "spec.volumeClaimTemplates goes with mode statefulset only; spec.mode is \"deployment\"",
            ),
            (
                json!({"mode": "daemonset", "persistentVolumeClaimRetentionPolicy": {}}),
                "spec.persistentVolumeClaimRetentionPolicy goes",
            ),
            (json!({"mode": "sidecar", "tolerations": [{}]}), "spec.tolerations does not go with mode sidecar"),
            (json!({"mode": "sidecar", "priorityClassName": "p"}), "spec.priorityClassName does not"),
            (json!({"mode": "sidecar", "affinity": {}}), "spec.affinity does not"),
            (json!({"mode": "sidecar", "additionalContainers": [{}]}), "spec.additionalContainers does not"),
            (json!({"mode": "sidecar", "ingress": {"type": "ingress"}}), "spec.ingress.type: \"ingress\" does not"),
            (json!({"ingress": {"ruleType": "subdomain"}}), "spec.ingress.hostname: \"\" has no subdomains"),
            (json!({"ingress": {"ruleType": "subdomain", "hostname": "*"}}), "spec.ingress.hostname: \"*\""),
            (
                json!({"daemonSetUpdateStrategy": {"type": "OnDelete"}}),
                "spec.daemonSetUpdateStrategy.type goes with mode daemonset",
            ),
            (
                json!({"mode": "daemonset", "deploymentUpdateStrategy": {"type": "Recreate"}}),
                "spec.deploymentUpdateStrategy.type goes with",
            ),
            (json!({"ports": [{"name": "ok", "port": 1}, {"port": 2}]}), "spec.ports[1].name: \"\" is missing"),
            (json!({"ports": [{"name": "sixteen-bytes-ab", "port": 1}]}), "longer than 15"),
            (json!({"ports": [{"name": "Upper", "port": 1}]}), "\"Upper\" may have only lower-case"),
            (json!({"ports": [{"name": "123", "port": 1}]}), "\"123\" needs a letter"),
            (json!({"ports": [{"name": "a--b", "port": 1}]}), "\"a--b\" may have - only between"),
            (json!({"ports": [{"name": "a", "port": 0}]}), "spec.ports[0].port: 0 is not between"),
            (json!({"ports": [{"name": "a", "port": 65536}]}), "spec.ports[0].port: 65536 is not between"),
            (
                used("otlp/2", json!({"protocols": {"htttp": {}}})),
                "spec.config.receivers.otlp/2.protocols: \"htttp\" is no protocol of it; there are grpc, http",
            ),
            (
                used("otlp", json!({"protocols": {"grpc": {"endpoint": "${env:IP}:70000"}}})),
                "spec.config.receivers.otlp.protocols.grpc.endpoint: the port of",
            ),
            (
                used("zipkin", json!({"endpoint": "[::1]:99999999999999999999"})),
                "spec.config.receivers.zipkin.endpoint",
            ),
            (
                json!({"autoscaler": {"minReplicas": 1}}),
                "spec.autoscaler.minReplicas: 1 needs spec.autoscaler.maxReplicas",
            ),
            (
                json!({"autoscaler": {"minReplicas": 4, "maxReplicas": 3}}),
                "spec.autoscaler.minReplicas: 4 is more than",
            ),
            (
                json!({"replicas": 4, "autoscaler": {"maxReplicas": 3}}),
                "spec.replicas: 4 is more than spec.autoscaler.maxReplicas: 3",
            ),
            (window("scaleDown", -1), "behavior.scaleDown.stabilizationWindowSeconds: -1 is not"),
            (window("scaleUp", 3601), "behavior.scaleUp.stabilizationWindowSeconds: 3601 is not"),
            (metric("Resource", json!({})), "spec.autoscaler.metrics[0].type: \"Resource\" is not supported"),
            (metric("Pods", json!({"type": "Utilization"})), "target.type: \"Utilization\" is not supported"),
            (
                metric("Pods", json!({"type": "AverageValue", "averageValue": "0"})),
                "target.averageValue: \"0\" is no whole",
            ),
            (metric("Pods", json!({"type": "Value", "value": "500m"})), "target.value: \"500m\" is no whole"),
            (metric("Pods", json!({"type": "Value"})), "target.value: null is no whole"),
            (
                allocator("deployment", "consistent-hashing"),
                "spec.targetAllocator.enabled goes with mode statefulset or daemonset",
            ),
            (allocator("daemonset", "least-weighted"), "\"least-weighted\" does not go with mode daemonset"),
            (allocator("statefulset", "per-node"), "\"per-node\" goes with mode daemonset only"),
        ] {
            let found = review(spec.clone());
            assert_eq!(found.errors.len(), 1, "{spec}: {found:?}");
            assert!(found.errors[0].contains(expected), "{spec}: {found:?}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let found = review(json!({
            "mode": "sidecar", "tolerations": [{}], "affinity": {}, "ports": [{"name": "A", "port": 0}],
        }));
        assert_eq!(found.errors.len(), 4, "{found:?}");
    }

    #[test]
    fn what_is_right_passes() {
        for spec in [
            json!({}),
            json!({"mode": "statefulset", "volumeClaimTemplates": [{}], "persistentVolumeClaimRetentionPolicy": {}}),
            json!({"mode": "deployment", "tolerations": [{}], "priorityClassName": "p", "affinity": {}}),
            json!({"mode": "sidecar", "tolerations": [], "priorityClassName": "", "affinity": null}),
            json!({"ports": [{"name": "a-1", "port": 65535}], "ingress": {"ruleType": "subdomain", "hostname": "h"}}),
            json!({"mode": "daemonset", "daemonSetUpdateStrategy": {"type": "OnDelete"}, "deploymentUpdateStrategy": {}}),
            json!({"replicas": 3, "autoscaler": {"minReplicas": 1, "maxReplicas": 3, "metrics": [
                {"type": "Pods", "pods": {"target": {"type": "AverageValue", "averageValue": "2k"}}},
                {"type": "Pods", "pods": {"target": {"type": "Value", "value": 5}}},
            ], "behavior": {"scaleUp": {"stabilizationWindowSeconds": 3600}}}}),
            json!({"autoscaler": {"metrics": [{"type": "Resource"}], "behavior": {"scaleUp": {"stabilizationWindowSeconds": -1}}}}),
            json!({"config": {"exporters": {"x": {"endpoint": "a:70000"}}, "service": {"pipelines": {"traces": {"exporters": ["x"]}}}}}),
            json!({"mode": "daemonset", "targetAllocator": {"enabled": true, "allocationStrategy": "per-node"}}),
            json!({"mode": "statefulset", "targetAllocator": {"enabled": true}}),
            // Not used, hence nobody's business; unknown components are for the status.
            json!({"config": {"receivers": {"otlp": {"protocols": {"x": {"endpoint": ":99999"}}}}, "service": {}}}),
            json!({"config": {"receivers": {"nosuch": {"protocols": {"x": null}, "endpoint": "unix:/a:b"}},
                "service": {"pipelines": {"traces": {"receivers": ["nosuch", "absent"]}}}}}),
        ] {
            let found = review(spec.clone());
            assert!(!found.is_refusal(), "{spec}: {found:?}");
        }
        assert_eq!(review(json!({})), Review::default());
    }

    #[test]
    fn the_mode_stays() {
        let object = |spec: Value| json!({"spec": spec});
        let (unset, deployment, daemonset) =
            (object(json!({})), object(json!({"mode": "deployment"})), object(json!({"mode": "daemonset"})));
        assert_eq!(validate_collector(Some(&unset), &deployment), Review::default());
        let found = validate_collector(Some(&deployment), &daemonset);
        assert_eq!(found.errors.len(), 1, "{found:?}");
        assert!(found.errors[0].starts_with("spec.mode: \"daemonset\" cannot replace \"deployment\""), "{found:?}");
    }

    #[test]
    fn what_has_no_effect_is_a_warning() {
        let config = json!({"processors": {"batch": null, "a": {"b": {"c": null}}}, "exporters": {"x": [null]}});
        for (spec, expected) in [
            (json!({"config": config}), "processors.a.b.c:, processors.batch:;"),
            (json!({"image": "other:1"}), "spec.image has no effect"),
            (json!({"mode": "sidecar"}), "does not run sidecars"),
        ] {
            let found = review(spec);
            assert!(found.errors.is_empty() && found.warnings.len() == 1, "{found:?}");
            assert!(found.warnings[0].contains(expected), "{found:?}");
        }
        assert_eq!(review(json!({"managementState": "unmanaged", "image": "other:1"})), Review::default());
        let alpha = json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector", "spec": {"config": "a: 1\na: 2"},
        });
        let beta = super::super::convert_collector(alpha, "opentelemetry.io/v1beta1").unwrap();
        let found = validate_collector(None, &beta);
        assert!(found.errors.is_empty() && found.warnings[0].contains("spec.config:2:1"), "{found:?}");
    }

    #[test]
    fn what_the_defaults_make_is_valid() {
        let mut object = json!({"spec": {"config": {
            "receivers": {"otlp": {"protocols": {"grpc": null, "http": null}}},
            "service": {"pipelines": {"traces": {"receivers": ["otlp"]}}},
        }, "autoscaler": {"maxReplicas": 3}}});
        super::super::default_collector(&mut object);
        let found = validate_collector(None, &object);
        assert!(found.errors.is_empty(), "{found:?}");
    }
}
