//! The OpenTelemetryCollector as its webhooks see it: any JSON that the API server lets through, changed or judged in
//! place.
//!
//! Fields that are not known stay as they are; fields of a type that is not expected are left to the schema, which
//! refuses them.

mod conversion;
mod defaults;
mod validation;

use serde_json::Value;

use crate::inject::{fields, set_if_absent, text};

pub(super) use conversion::{convert_collector, unreadable_config};
pub(super) use defaults::default_collector;
pub(super) use validation::validate_collector;

/// The mode that counts: an empty one is the default.
fn mode(object: &Value) -> &str {
    match text(object, "/spec/mode") {
        "" => "deployment",
        mode => mode,
    }
}
