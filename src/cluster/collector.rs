//! The OpenTelemetryCollector as its webhooks see it: any JSON that the API server lets through, changed or judged in
//! place.
//!
//! Fields that are not known stay as they are; fields of a type that is not expected are left to the schema, which
//! refuses them.

mod conversion;
mod defaults;
mod validation;

use serde_json::{Map, Value, json};

pub(super) use conversion::{convert_collector, unreadable_config};
pub(super) use defaults::default_collector;
pub(super) use validation::validate_collector;

/// The text at a JSON pointer; empty if there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The mode that counts: an empty one is the default.
fn mode(object: &Value) -> &str {
    match text(object, "/spec/mode") {
        "" => "deployment",
        mode => mode,
    }
}

/// The object at `key`, made if there is none; `None` if something else is there.
fn fields<'a>(parent: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    set_if_absent(parent, key, json!({}));
    parent.get_mut(key)?.as_object_mut()
}

fn set_if_absent(parent: &mut Map<String, Value>, key: &str, value: Value) {
    if parent.get(key).is_none_or(Value::is_null) {
        parent.insert(key.to_owned(), value);
    }
}
