//! The command line: arguments, subcommands, human and JSON output, exit codes.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
