//! Log lines on stderr: text for people on a terminal, JSON otherwise.

use std::io::IsTerminal;
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

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
    problem: ParseError,
}

/// Starts logging. `level` wins over `RUST_LOG`; without both, `default`.
pub fn init(level: Option<&str>, default: &str, format: Format) -> Result<(), LevelError> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|value| !value.is_empty());
    let filter = level.map(str::to_owned).or(from_environment).unwrap_or_else(|| default.to_owned());
    let env_filter = EnvFilter::try_new(&filter).map_err(|problem| LevelError { filter, problem })?;
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(env_filter).with_target(false);
    // An error here means that a subscriber is set already, as in tests; that one stays.
    let _ = match format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    Ok(())
}
