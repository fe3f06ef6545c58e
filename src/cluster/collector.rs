//! The OpenTelemetryCollector as its webhooks see it: any JSON that the API server lets through. Fields that are not
//! known stay as they are.

mod conversion;
mod defaults;
mod validation;

pub(super) use conversion::convert_collector;
pub(super) use defaults::default_collector;
pub(super) use validation::validate_collector;
