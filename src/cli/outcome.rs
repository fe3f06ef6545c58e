//! What a subcommand that only reads and prints comes to.

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

    /// Failure with one line per reason.
    pub fn failed(lines: &[String]) -> Self {
        let stderr = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        Self { stderr, code: 1, ..Self::default() }
    }
}
