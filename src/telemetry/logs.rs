//! Log lines on stderr: text for people on a terminal, JSON otherwise.

use super::recent;
use std::io::IsTerminal;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Format {
    /// Text on a terminal, JSON elsewhere.
    pub fn of_stderr() -> Self {
        if std::io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// `--log-level` or `RUST_LOG` is not a filter.
#[derive(Debug, Error)]
#[error("the log level {filter:?} is not understood: {problem}; try error, warn, info, debug, trace or spanreel=debug")]
pub struct LevelError {
    filter: String,
    problem: LevelProblem,
}

#[derive(Debug, Error)]
enum LevelProblem {
    #[error(transparent)]
    Filter(ParseError),
    /// `EnvFilter` would take the word for a target, and silence all others.
    #[error("{0:?} is no level")]
    NoLevel(String),
}

/// Starts logging. `level` wins over `RUST_LOG`; without both, `default`. Warnings and errors are kept besides
/// ([`recent::recent`]).
pub fn init(level: Option<&str>, default: &str, format: Format) -> Result<(), LevelError> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|value| !value.is_empty());
    let filter = level.map(str::to_owned).or(from_environment).unwrap_or_else(|| default.to_owned());
    let env_filter = parse(&filter).map_err(|problem| LevelError { filter, problem })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    let kept = recent::recent().with_filter(recent::filter());
    // An error here means that a subscriber is set already, as in tests; that one stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(env_filter)).with(kept).try_init();
    Ok(())
}

fn parse(filter: &str) -> Result<EnvFilter, LevelProblem> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let directives = filter.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    for directive in directives {
        if !directive.contains('=') && !is_level(directive) {
            return Err(LevelProblem::NoLevel(directive.to_owned()));
        }
    }
    // A filter that names them is obeyed.
    let quiet: String = recent::QUIET_TARGETS.iter().map(|target| format!("{target}=off,")).collect();
    EnvFilter::try_new(quiet + filter).map_err(LevelProblem::Filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for filter in ["verbose", "info,verbose", "spanreel", "spanreel=loud"] {
            assert!(parse(filter).is_err(), "{filter}");
        }
        for filter in
            ["off", "error", "warn", "info", "debug", "TRACE", "spanreel=debug", "warn,spanreel::spool=trace,"]
        {
            assert!(parse(filter).is_ok(), "{filter}");
        }
        let named = parse("warn,kube_client=debug").map(|filter| filter.to_string());
        assert!(named.is_ok_and(|filter| filter.contains("kube_client=debug") && !filter.contains("kube_client=off")));
        let error = init(Some("verbose"), "info", Format::Text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the log level \"verbose\" is not understood: \"verbose\" is no level; \
             try error, warn, info, debug, trace or spanreel=debug"
        );
    }
}
