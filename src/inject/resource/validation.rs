use serde_json::Value;

use super::Review;
use crate::inject::Images;

/// Checks what the schema cannot say.
#[must_use]
pub fn validate_instrumentation(_object: &Value, _images: &Images) -> Review {
    Review::default()
}
