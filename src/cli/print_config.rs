//! `spanreel print-config`: the configuration with its defaults filled in.

use super::outcome::Outcome;
use crate::appliance::components::Components;
use crate::config::{self, Format, Input, Secrets};

/// Sources merged, references expanded, defaults filled in. The output loads back to the same settings, secrets aside.
/// Keys that are accepted without effect are left out.
pub fn print_config(input: &Input<'_>, format: Format, secrets: Secrets) -> Outcome {
    match config::load::<Components>(input) {
        Ok(loaded) => Outcome::printed(loaded.config.effective.print(format, secrets)),
        Err(diagnostics) => Outcome::failed(&diagnostics.lines()),
    }
}
