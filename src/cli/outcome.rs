//! What a subcommand that only reads and prints comes to.

use serde_json::Value;

use super::traces::Form;

/// Text for both streams and an exit code; whoever calls it prints and exits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    /// 0 fine, 1 failed.
    pub code: u8,
}

impl Outcome {
    /// Success with something to print, line feed included.
    pub fn printed(stdout: String) -> Self {
        Self { stdout, ..Self::default() }
    }

    /// The answer of a running instance: as it is for machines, described for people, or why there is none.
    pub fn answered(answer: Result<Value, String>, form: Form, describe: impl FnOnce(&Value) -> String) -> Self {
        match answer {
            Ok(answer) if form == Form::Json => Self::printed(format!("{answer:#}\n")),
            Ok(answer) => Self::printed(describe(&answer)),
            Err(line) => Self::failed(&[line]),
        }
    }

    /// Failure with one line per reason.
    pub fn failed(lines: &[String]) -> Self {
        let stderr = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        Self { stderr, code: 1, ..Self::default() }
    }
}
