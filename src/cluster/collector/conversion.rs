//! OpenTelemetryCollector v1alpha1 and v1beta1 (reference section 6.1).
//!
//! ```text
//! v1alpha1                                            v1beta1
//! spec.config: text                                   spec.config: object
//! spec.minReplicas, maxReplicas               ──▶     spec.autoscaler.minReplicas, maxReplicas
//! spec.updateStrategy                                 spec.daemonSetUpdateStrategy
//! ...prometheusCR.{pod,service}MonitorSelector: map   the same: {matchLabels: map}
//! ```
//!
//! Every other field has the same name and shape in both, and is not touched; so are fields that are not known. A
//! conversion must not fail, or the resource could not even be read: a configuration whose text is no YAML becomes an
//! empty one beside an annotation that holds the text, until the configuration is written anew in either version.

use serde_json::{Map, Value, json};

use super::fields;
use crate::config;

const ALPHA: &str = "opentelemetry.io/v1alpha1";
const BETA: &str = "opentelemetry.io/v1beta1";

/// On v1beta1: the text of a v1alpha1 configuration that is no YAML.
const UNREADABLE: &str = "spanreel.dev/unreadable-config";
/// An API server takes 256 KiB of annotations altogether, and kubectl may keep a copy of everything there.
const UNREADABLE_BYTES_MAX: usize = 96 * 1024;
/// On v1alpha1: selectors that a map cannot say.
const SELECTORS: &str = "spanreel.dev/v1beta1-monitor-selectors";
const SELECTOR_KEYS: [&str; 2] = ["podMonitorSelector", "serviceMonitorSelector"];

/// The same resource in version `to`, such as `opentelemetry.io/v1beta1`.
///
/// # Errors
/// The object or the version is not one of this resource, or the configuration is no YAML and too long to be kept.
pub(in crate::cluster) fn convert_collector(mut object: Value, to: &str) -> Result<Value, String> {
    let Some(fields) = object.as_object_mut() else {
        return Err("is no object".to_owned());
    };
    let kind = fields.get("kind").and_then(Value::as_str).unwrap_or_default();
    if kind != "OpenTelemetryCollector" {
        return Err(format!("kind {kind:?} is not converted here; only OpenTelemetryCollector is"));
    }
    let from = fields.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    match (from.as_str(), to) {
        (ALPHA, BETA) => to_beta(fields)?,
        (BETA, ALPHA) => to_alpha(fields),
        (ALPHA, ALPHA) | (BETA, BETA) => {}
        _ => {
            return Err(format!("there is no conversion from {from:?} to {to:?}; the versions are {ALPHA} and {BETA}"));
        }
    }
    fields.insert("apiVersion".to_owned(), json!(to));
    Ok(object)
}

/// The text that became no configuration because it is no YAML, while the empty one still stands for it.
pub(in crate::cluster) fn unreadable_config(object: &Value) -> Option<&str> {
    let is_empty = |pointer: &str| {
        let value = object.pointer(pointer);
        value.is_none_or(|value| value.is_null() || value.as_object().is_some_and(Map::is_empty))
    };
    let stands_for_it = ["receivers", "exporters", "processors", "connectors", "service/pipelines"]
        .iter()
        .all(|section| is_empty(&format!("/spec/config/{section}")));
    let text = object.pointer("/metadata/annotations")?.get(UNREADABLE)?.as_str()?;
    stands_for_it.then_some(text)
}

/// Why the text is no configuration; the place is that in `spec.config`.
pub(super) fn reason_unreadable(text: &str) -> Option<String> {
    match config::to_json("spec.config", text) {
        Err(diagnostic) => Some(diagnostic.to_string()),
        Ok(Value::Object(_) | Value::Null) => None,
        Ok(_) => Some("spec.config:1:1: is no map of receivers, exporters and service".to_owned()),
    }
}

fn to_beta(object: &mut Map<String, Value>) -> Result<(), String> {
    take_annotation(object, UNREADABLE);
    let selectors = take_annotation(object, SELECTORS);
    let mut unreadable = None;
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let given = spec.remove("config").unwrap_or_default();
        let config = match &given {
            Value::String(text) => match config::to_json("spec.config", text) {
                Ok(config @ Value::Object(_)) => config,
                Ok(Value::Null) => json!({}),
                Ok(_) | Err(_) if text.len() <= UNREADABLE_BYTES_MAX => {
                    unreadable = Some(text.clone());
                    json!({})
                }
                Ok(_) | Err(_) => {
                    let reason = reason_unreadable(text).unwrap_or_default();
                    return Err(format!("{reason}; at {} KiB it is too long to be kept as it is", text.len() / 1024));
                }
            },
            Value::Null => json!({}),
            _ => given,
        };
        spec.insert("config".to_owned(), with_required_sections(config));
        move_replicas(spec);
        rename(spec, "updateStrategy", "daemonSetUpdateStrategy");
        if let Some(prometheus) = prometheus_cr(spec) {
            widen_selectors(prometheus, selectors.as_deref());
        }
    }
    if let Some(text) = unreadable {
        set_annotation(object, UNREADABLE, text);
    }
    Ok(())
}

fn to_alpha(object: &mut Map<String, Value>) {
    let whole = Value::Object(std::mem::take(object));
    let unreadable = unreadable_config(&whole).map(str::to_owned);
    if let Value::Object(fields) = whole {
        *object = fields;
    }
    take_annotation(object, UNREADABLE);
    let mut selectors = None;
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let config = spec.get("config").filter(|config| config.is_object());
        if let Some(text) = unreadable.or_else(|| config.map(config_text)) {
            spec.insert("config".to_owned(), Value::String(text));
        }
        rename(spec, "daemonSetUpdateStrategy", "updateStrategy");
        selectors = prometheus_cr(spec).and_then(narrow_selectors);
    }
    if let Some(selectors) = selectors {
        set_annotation(object, SELECTORS, selectors);
    }
}

/// YAML that reads back as the same; JSON is YAML as well.
fn config_text(config: &Value) -> String {
    let same = |text: &String| config::to_json("spec.config", text).is_ok_and(|read| read == *config);
    serde_saphyr::to_string(config).ok().filter(same).unwrap_or_else(|| format!("{config:#}\n"))
}

/// The schema of v1beta1 requires them.
fn with_required_sections(mut config: Value) -> Value {
    if let Some(sections) = config.as_object_mut() {
        fields(sections, "receivers");
        fields(sections, "exporters");
        if let Some(service) = fields(sections, "service") {
            fields(service, "pipelines");
        }
    }
    config
}

/// What the autoscaler says itself wins.
fn move_replicas(spec: &mut Map<String, Value>) {
    for key in ["minReplicas", "maxReplicas"] {
        let Some(value) = spec.remove(key).filter(|value| !value.is_null()) else { continue };
        if let Some(autoscaler) = fields(spec, "autoscaler") {
            super::set_if_absent(autoscaler, key, value);
        }
    }
}

/// Unless there is something under the new name already.
fn rename(spec: &mut Map<String, Value>, from: &str, to: &str) {
    if !spec.contains_key(to)
        && let Some(value) = spec.remove(from)
    {
        spec.insert(to.to_owned(), value);
    }
}

fn prometheus_cr(spec: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    spec.get_mut("targetAllocator")?.get_mut("prometheusCR")?.as_object_mut()
}

/// No map selects everything in v1alpha1; no selector selects nothing in v1beta1.
fn widen_selectors(prometheus: &mut Map<String, Value>, remembered: Option<&str>) {
    let remembered: Value = remembered.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for key in SELECTOR_KEYS {
        let labels = prometheus.remove(key);
        // What was remembered counts while the map still is what was made of it.
        let wide = match remembered.get(key) {
            Some(wide) if narrow(wide) == labels => (!wide.is_null()).then(|| wide.clone()),
            _ => match labels {
                None | Some(Value::Null) => Some(json!({})),
                Some(labels @ Value::Object(_)) => Some(json!({"matchLabels": labels})),
                other => other,
            },
        };
        if let Some(wide) = wide {
            prometheus.insert(key.to_owned(), wide);
        }
    }
}

/// Returns what to remember of the selectors that a map cannot say, as JSON; null is no selector.
fn narrow_selectors(prometheus: &mut Map<String, Value>) -> Option<String> {
    let mut remembered = Map::new();
    for key in SELECTOR_KEYS {
        let wide = prometheus.remove(key).unwrap_or_default();
        let labels = narrow(&wide);
        let says_it_all = match &labels {
            None => wide == json!({}),
            Some(labels) => wide == json!({"matchLabels": labels}),
        };
        if let Some(labels) = labels {
            prometheus.insert(key.to_owned(), labels);
        }
        if !says_it_all {
            remembered.insert(key.to_owned(), wide);
        }
    }
    (!remembered.is_empty()).then(|| Value::Object(remembered).to_string())
}

fn narrow(selector: &Value) -> Option<Value> {
    selector.get("matchLabels").filter(|labels| labels.is_object()).cloned()
}

fn set_annotation(object: &mut Map<String, Value>, key: &str, text: String) {
    if let Some(annotations) = fields(object, "metadata").and_then(|metadata| fields(metadata, "annotations")) {
        annotations.insert(key.to_owned(), Value::String(text));
    }
}

fn take_annotation(object: &mut Map<String, Value>, key: &str) -> Option<String> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let taken = annotations.remove(key)?;
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    taken.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(version: &str, metadata: Value, spec: Value) -> Value {
        json!({"apiVersion": version, "kind": "OpenTelemetryCollector", "metadata": metadata, "spec": spec})
    }

    fn beta_of(spec: Value) -> Value {
        convert_collector(object(ALPHA, json!({"name": "x"}), spec), BETA).unwrap()
    }

    #[test]
    fn fields_that_moved_are_moved() {
        let beta = beta_of(json!({
            "config": "receivers:\n  otlp: {protocols: {grpc: }}\nexporters: {debug: }\nservice: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\nconnectors: {}\n",
            "minReplicas": 2, "maxReplicas": 9, "autoscaler": {"maxReplicas": 5},
            "updateStrategy": {"type": "OnDelete"}, "future": {"x": [1]}, "managementState": "managed",
            "targetAllocator": {"enabled": true, "prometheusCR": {"podMonitorSelector": {"a": "b"}}},
        }));
        assert_eq!(
            beta,
            object(
                BETA,
                json!({"name": "x"}),
                json!({
                    "config": {
                        "receivers": {"otlp": {"protocols": {"grpc": null}}}, "exporters": {"debug": null},
                        "connectors": {},
                        "service": {"pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}}},
                    },
                    "autoscaler": {"minReplicas": 2, "maxReplicas": 5},
                    "daemonSetUpdateStrategy": {"type": "OnDelete"}, "future": {"x": [1]}, "managementState": "managed",
                    "targetAllocator": {"enabled": true, "prometheusCR": {
                        "podMonitorSelector": {"matchLabels": {"a": "b"}}, "serviceMonitorSelector": {},
                    }},
                })
            )
        );
        let alpha = convert_collector(beta.clone(), ALPHA).unwrap();
        assert_eq!(alpha["apiVersion"], ALPHA);
        assert_eq!(alpha["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
        assert_eq!(alpha["spec"]["targetAllocator"]["prometheusCR"], json!({"podMonitorSelector": {"a": "b"}}));
        assert!(alpha["spec"]["config"].as_str().unwrap().contains("receivers:\n"), "{alpha}");
        assert_eq!(convert_collector(alpha, BETA).unwrap(), beta);
    }

    #[test]
    fn a_configuration_that_is_no_yaml_stays_visible() {
        for text in ["receivers:\n\totlp: x", "- a\n- b", "just words", "a: 1\na: 2", "receivers: [\n"] {
            let alpha = object(ALPHA, json!({"name": "x", "annotations": {"mine": "1"}}), json!({"config": text}));
            let beta = convert_collector(alpha.clone(), BETA).unwrap();
            let empty = json!({"receivers": {}, "exporters": {}, "service": {"pipelines": {}}});
            assert_eq!(beta["spec"]["config"], empty, "{text}");
            assert_eq!(unreadable_config(&beta), Some(text));
            let reason = reason_unreadable(text).unwrap();
            assert!(reason.starts_with("spec.config:"), "{reason}");
            assert_eq!(convert_collector(beta.clone(), ALPHA).unwrap(), alpha, "{text}");

            // As the defaults leave it.
            let mut defaulted = beta.clone();
            super::super::default_collector(&mut defaulted);
            assert_eq!(unreadable_config(&defaulted), Some(text));

            // Written anew in either version, it is gone.
            let mut anew = beta;
            anew["spec"]["config"]["receivers"] = json!({"otlp": {}});
            assert_eq!(unreadable_config(&anew), None);
            let alpha = convert_collector(anew, ALPHA).unwrap();
            assert_eq!(alpha["metadata"]["annotations"], json!({"mine": "1"}));
            assert!(alpha["spec"]["config"].as_str().unwrap().contains("otlp"));
        }
    }

    #[test]
    fn missing_configurations_become_empty_ones() {
        for spec in [json!({}), json!({"config": ""}), json!({"config": "# nothing"}), json!({"config": "service:"})] {
            let beta = beta_of(spec);
            assert_eq!(beta["spec"]["config"], json!({"receivers": {}, "exporters": {}, "service": {"pipelines": {}}}));
            assert_eq!(unreadable_config(&beta), None);
        }
    }

    #[test]
    fn what_is_not_converted_says_so() {
        let too_long = format!("- {}", "x".repeat(UNREADABLE_BYTES_MAX));
        for (object, to, expected) in [
            (json!([]), BETA, "is no object"),
            (json!({"kind": "Instrumentation", "apiVersion": ALPHA}), BETA, "\"Instrumentation\""),
            (object(ALPHA, json!({}), json!({})), "opentelemetry.io/v1", "to \"opentelemetry.io/v1\""),
            (object("v1", json!({}), json!({})), BETA, "from \"v1\""),
            (object(ALPHA, json!({}), json!({"config": too_long})), BETA, "too long to be kept"),
        ] {
            let error = convert_collector(object, to).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let same = object(BETA, json!({}), json!({"config": 5}));
        assert_eq!(convert_collector(same.clone(), BETA).unwrap(), same);
    }

    fn value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has no other", |number| number.is_finite()).prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "[yYnNoO~0x1e_:.#<-]{1,4}".prop_map(Value::from),
            Just(json!("${env:HOST}:4317\n  two\n")),
        ];
        scalar.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z/:. 0-9<-]{1,8}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    fn selector() -> impl Strategy<Value = Option<Value>> {
        proptest::sample::select(vec![
            None,
            Some(json!({})),
            Some(json!({"matchLabels": {}})),
            Some(json!({"matchLabels": {"a": "b"}})),
            Some(json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]})),
            Some(json!({"matchLabels": {"a": "b"}, "matchExpressions": []})),
        ])
    }

    fn with(mut spec: Value, key: &str, value: Option<Value>) -> Value {
        if let (Some(fields), Some(value)) = (spec.as_object_mut(), value) {
            fields.insert(key.to_owned(), value);
        }
        spec
    }

    proptest! {
        #[test]
        fn there_and_back_from_v1beta1_nothing_is_lost(
            receivers in value(), service in value(), unknown in value(), status in value(),
            strategy in proptest::option::of(value()), autoscaler in proptest::option::of(value()),
            pods in selector(), services in selector(),
            annotations in proptest::option::of(proptest::collection::btree_map("[a-z]{1,3}", "[a-z]{0,3}", 0..2)),
        ) {
            let receivers = json!({"otlp": receivers});
            let config = json!({"receivers": receivers, "exporters": {}, "service": {"pipelines": {"traces": service}}});
            let prometheus = with(with(json!({"x": unknown}), SELECTOR_KEYS[0], pods), SELECTOR_KEYS[1], services);
            let spec = json!({"config": config, "unknown": unknown, "targetAllocator": {"prometheusCR": prometheus}});
            let spec = with(with(spec, "daemonSetUpdateStrategy", strategy), "autoscaler", autoscaler);
            let metadata = with(json!({"name": "x"}), "annotations", annotations.map(|a| json!(a)));
            let mut beta = object(BETA, metadata, spec);
            beta["status"] = status;
            let alpha = convert_collector(beta.clone(), ALPHA).unwrap();
            prop_assert!(alpha["spec"]["config"].is_string());
            let back = convert_collector(alpha.clone(), BETA).unwrap();
            // An annotation of ours is taken out with the map that held nothing else.
            if back["metadata"]["annotations"].is_null() && beta["metadata"]["annotations"] == json!({}) {
                beta["metadata"].as_object_mut().unwrap().remove("annotations");
            }
            prop_assert_eq!(back, beta, "{}", alpha);
        }

        #[test]
        fn there_and_back_from_v1alpha1_nothing_changes_its_meaning(
            text in "[ \\n\\ta-c:{}\\[\\],&*<'\"#|>!?%-]{0,60}", min in proptest::option::of(1..9u8), unknown in value(),
            strategy in proptest::option::of(value()), labels in proptest::option::of(Just(json!({"a": "b"}))),
        ) {
            let prometheus = with(json!({"x": unknown}), SELECTOR_KEYS[0], labels);
            let spec = json!({"config": text, "unknown": unknown, "targetAllocator": {"prometheusCR": prometheus}});
            let spec = with(with(spec, "updateStrategy", strategy), "minReplicas", min.map(Value::from));
            let alpha = object(ALPHA, json!({"name": "x"}), spec);
            let beta = convert_collector(alpha.clone(), BETA).unwrap();
            prop_assert!(beta["spec"]["config"].is_object());
            let back = convert_collector(beta.clone(), ALPHA).unwrap();
            prop_assert_eq!(convert_collector(back.clone(), BETA).unwrap(), beta);
            for key in ["unknown", "updateStrategy", "targetAllocator"] {
                prop_assert_eq!(&back["spec"][key], &alpha["spec"][key]);
            }
        }

        #[test]
        fn any_object_is_converted_or_refused(spec in value(), metadata in value()) {
            for (from, to) in [(ALPHA, BETA), (BETA, ALPHA)] {
                if let Ok(converted) = convert_collector(object(from, metadata.clone(), spec.clone()), to) {
                    prop_assert_eq!(&converted["apiVersion"], to);
                }
            }
        }
    }
}
