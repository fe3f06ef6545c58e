//! `spanreel validate`: 0 for a configuration that loads, with its warnings if it has any; every error otherwise.

use super::outcome::Outcome;
use crate::appliance::components::Components;
use crate::config::{self, Input, Severity};

/// Loads the configuration and starts nothing. Each error begins with `file:line:column:`, where editors find it.
pub fn validate(input: &Input<'_>) -> Outcome {
    match config::load::<Components>(input) {
        Ok(loaded) => {
            let warnings = loaded.notes.iter().filter(|note| note.severity == Severity::Warning);
            Outcome { stderr: warnings.map(|warning| format!("warning: {warning}\n")).collect(), ..Outcome::default() }
        }
        Err(diagnostics) => Outcome::failed(&diagnostics.lines()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Files, Source};

    fn validated(text: &str) -> Outcome {
        let sources = [Source::Text { name: "my.yaml".to_owned(), text: text.to_owned() }];
        validate(&Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Refused })
    }

    const MINIMAL: &str = "
receivers: {otlp: {protocols: {grpc: }}}
exporters: {debug: }
service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}
";

    #[test]
    fn what_loads_is_fine_and_its_warnings_are_told() {
        assert_eq!(validated(MINIMAL), Outcome::default());
        let warned = validated(&format!("{MINIMAL}processors: {{batch: {{timeout: 5}}}}\n"));
        assert_eq!(warned.code, 0);
        assert!(warned.stderr.starts_with("warning: my.yaml:5:"), "{warned:?}");
        let refused = validated("exporters: {tempo: }");
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("my.yaml:1:"), "{refused:?}");
    }
}
