//! What opentelemetry-operator's webhook writes into a collector's configuration, done in memory.
//!
//! Only components that pipelines or the service use are completed. A host that is given stays, even localhost.

use serde_json::{Map, Value, json};

const ANY_HOST: &str = "0.0.0.0";
const HEALTH_CHECK_PORT: u16 = 13_133;
/// Where the Collector's own metrics are scraped.
pub(super) const METRICS_PORT: u16 = 8888;

/// Protocols of receivers that listen per protocol, with the operator's default ports.
pub(super) const PROTOCOL_PORTS: [(&str, &[(&str, u16)]); 2] = [
    ("otlp", &[("grpc", 4317), ("http", 4318)]),
    ("jaeger", &[("grpc", 14_250), ("thrift_http", 14_268), ("thrift_compact", 6831), ("thrift_binary", 6832)]),
];
/// Receivers with one endpoint.
const ENDPOINT_PORTS: [(&str, u16); 1] = [("zipkin", 9411)];

/// What is to be merged into `spec.config` to complete it; `None`: it is complete.
pub(super) fn missing(config: &Value) -> Option<Value> {
    let mut complete = config.clone();
    apply(&mut complete);
    added(config, complete)
}

/// The part of `after` that `before` does not have.
fn added(before: &Value, after: Value) -> Option<Value> {
    match (before, after) {
        (before, after) if *before == after => None,
        (Value::Object(before), Value::Object(after)) => {
            let added = after.into_iter().filter_map(|(key, value)| {
                let value = match before.get(&key) {
                    None => Some(value),
                    Some(before) => added(before, value),
                };
                Some((key, value?))
            });
            Some(Value::Object(added.collect()))
        }
        (_, after) => Some(after),
    }
}

/// Completes `spec.config` in place.
pub(super) fn apply(config: &mut Value) {
    let used_receivers = used(config, "receivers");
    if let Some(receivers) = section(config, "receivers") {
        for (id, receiver) in receivers.iter_mut().filter(|(id, _)| used_receivers.contains(id)) {
            complete_receiver(kind(id), receiver);
        }
    }
    let used_extensions: Vec<String> = strings(config.pointer("/service/extensions"));
    if let Some(extensions) = section(config, "extensions") {
        for (id, extension) in extensions.iter_mut().filter(|(id, _)| used_extensions.contains(id)) {
            if kind(id) == "health_check"
                && let Some(fields) = as_fields(extension)
            {
                complete_endpoint(fields, HEALTH_CHECK_PORT);
                fields.entry("path").or_insert_with(|| json!("/"));
            }
        }
    }
    add_metrics_reader(config);
}

fn complete_receiver(kind: &str, receiver: &mut Value) {
    if let Some((_, ports)) = PROTOCOL_PORTS.iter().find(|(known, _)| *known == kind) {
        // Only protocols that are listed; a listed one may be null.
        let Some(protocols) = receiver.get_mut("protocols").and_then(Value::as_object_mut) else { return };
        for (protocol, port) in *ports {
            if let Some(fields) = protocols.get_mut(*protocol).and_then(as_fields) {
                complete_endpoint(fields, *port);
            }
        }
    } else if let Some((_, port)) = ENDPOINT_PORTS.iter().find(|(known, _)| *known == kind)
        && let Some(fields) = as_fields(receiver)
    {
        complete_endpoint(fields, *port);
    }
}

/// Missing: any host and the default port. `:port` or a bare port: any host.
fn complete_endpoint(fields: &mut Map<String, Value>, port: u16) {
    let given = fields.get("endpoint");
    let completed = match given {
        None | Some(Value::Null) => format!("{ANY_HOST}:{port}"),
        Some(Value::Number(port)) => format!("{ANY_HOST}:{port}"),
        Some(Value::String(text)) if text.is_empty() => format!("{ANY_HOST}:{port}"),
        Some(Value::String(text)) => match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
            Ok(port) => format!("{ANY_HOST}:{port}"),
            Err(_) => return,
        },
        // Of another type: the configuration's own check names it.
        Some(_) => return,
    };
    fields.insert("endpoint".to_owned(), Value::String(completed));
}

fn add_metrics_reader(config: &mut Value) {
    let Some(service) = section(config, "service") else { return };
    let Some(telemetry) = service.entry("telemetry").or_insert(Value::Null).as_fields_mut() else { return };
    let Some(metrics) = telemetry.entry("metrics").or_insert(Value::Null).as_fields_mut() else { return };
    let chosen = ["address", "readers"].iter().any(|key| metrics.get(*key).is_some_and(|value| !value.is_null()));
    if !chosen {
        let reader = json!({"pull": {"exporter": {"prometheus": {"host": ANY_HOST, "port": METRICS_PORT}}}});
        metrics.insert("readers".to_owned(), json!([reader]));
    }
}

/// Where a complete configuration says that the Collector's own metrics are to be scraped: its first Prometheus reader, or the
/// address of older configurations.
pub(super) fn metrics_port(config: &Value) -> Option<u16> {
    let metrics = config.pointer("/service/telemetry/metrics")?;
    let readers = metrics.get("readers").and_then(Value::as_array).into_iter().flatten();
    let port = |reader: &Value| reader.pointer("/pull/exporter/prometheus/port")?.as_u64();
    let of_readers = readers.filter_map(port).find_map(|port| u16::try_from(port).ok());
    let address = metrics.get("address").and_then(Value::as_str);
    of_readers.or_else(|| address?.rsplit(':').next()?.parse().ok()).filter(|port| *port != 0)
}

/// An object, or null made one.
trait Fields {
    fn as_fields_mut(&mut self) -> Option<&mut Map<String, Value>>;
}

impl Fields for Value {
    fn as_fields_mut(&mut self) -> Option<&mut Map<String, Value>> {
        if self.is_null() {
            *self = Value::Object(Map::new());
        }
        self.as_object_mut()
    }
}

fn as_fields(value: &mut Value) -> Option<&mut Map<String, Value>> {
    value.as_fields_mut()
}

fn section<'a>(config: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    config.get_mut(name)?.as_object_mut()
}

/// Component ids that any pipeline lists under `role`.
pub(super) fn used(config: &Value, role: &str) -> Vec<String> {
    let pipelines = config.pointer("/service/pipelines").and_then(Value::as_object);
    pipelines.iter().flat_map(|all| all.values()).flat_map(|pipeline| strings(pipeline.get(role))).collect()
}

pub(super) fn strings(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

/// The type in a component id such as `otlp/2`.
pub(super) fn kind(id: &str) -> &str {
    id.split_once('/').map_or(id, |(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_used_receivers_are_completed() {
        let mut config = json!({
            "receivers": {
                "otlp": {"protocols": {"grpc": null, "http": {"endpoint": ":9"}}},
                "otlp/2": {"protocols": {"http": {"endpoint": "localhost:7"}}},
                "zipkin": null,
                "otlp/unused": {"protocols": {"grpc": {}}},
            },
            "extensions": {"health_check": {}},
            "service": {
                "extensions": ["health_check"],
                "pipelines": {"traces": {"receivers": ["otlp", "otlp/2", "zipkin"]}},
            },
        });
        apply(&mut config);
        assert_eq!(
            config["receivers"],
            json!({
                "otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}, "http": {"endpoint": "0.0.0.0:9"}}},
                "otlp/2": {"protocols": {"http": {"endpoint": "localhost:7"}}},
                "zipkin": {"endpoint": "0.0.0.0:9411"},
                "otlp/unused": {"protocols": {"grpc": {}}},
            })
        );
        assert_eq!(config["extensions"]["health_check"], json!({"endpoint": "0.0.0.0:13133", "path": "/"}));
        assert_eq!(
            config.pointer("/service/telemetry/metrics/readers/0/pull/exporter/prometheus/port"),
            Some(&json!(8888))
        );
    }

    #[test]
    fn what_is_missing_is_told_apart_from_what_is_there() {
        let config = json!({
            "receivers": {"otlp": {"protocols": {"grpc": null, "http": {"endpoint": "localhost:1", "tls": {}}}}},
            "service": {"telemetry": {"metrics": {"readers": []}}, "pipelines": {"traces": {"receivers": ["otlp"]}}},
        });
        let expected = json!({"receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}}}}});
        assert_eq!(missing(&config), Some(expected));
        assert_eq!(missing(&json!({"receivers": {"otlp": {}}})), None);
    }

    #[test]
    fn metrics_that_are_configured_stay() {
        for metrics in [json!({"address": "x:1"}), json!({"readers": []})] {
            let mut config = json!({"service": {"telemetry": {"metrics": metrics}}});
            let before = config.clone();
            apply(&mut config);
            assert_eq!(config, before);
        }
    }

    #[test]
    fn odd_shapes_are_left_to_the_configurations_own_check() {
        for config in
            [json!(null), json!([]), json!({"receivers": 5, "service": []}), json!({"service": {"telemetry": 1}})]
        {
            let mut after = config.clone();
            apply(&mut after);
            assert_eq!(after, config);
        }
    }
}
