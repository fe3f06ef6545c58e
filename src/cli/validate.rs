//! `spanreel validate`: silent and 0 for a configuration that loads, every error otherwise.

use super::outcome::Outcome;
use crate::appliance::components::Components;
use crate::config::{self, Input};

/// Loads the configuration and starts nothing. Each error begins with `file:line:column:`, where editors find it.
pub fn validate(input: &Input<'_>) -> Outcome {
    match config::load::<Components>(input) {
        Ok(_) => Outcome::default(),
        Err(diagnostics) => Outcome::failed(&diagnostics.lines()),
    }
}
